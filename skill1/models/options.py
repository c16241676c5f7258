"""The options of an expert's demonstrations and of the cold start that learns from them."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from skill1.config import STRICT, knob


@dataclass(frozen=True, config=STRICT)
class ExpertConfig:
    """What an expert demonstrates."""

    # How often another action is played than the one that is to be learnt.
    slips: float = knob(0.1, "share of the actions", "ours", ge=0, lt=1)
    # How often an impossible slip is played once more: what is learnt is to leave a loop.
    stuck: float = knob(0.7, "share of the impossible slips", "ours", ge=0, lt=1)
    # How often an action carries a thought; None: always in the window, never in a conversation.
    thoughts: float | None = knob(None, "share of the actions", "ours", ge=0, le=1)
    # How often an episode has none of the method's own stages: what a policy without a library is asked.
    plain: float = knob(0.5, "share of the episodes", "ours", ge=0, le=1)
    # How often one of the others is shown skills.
    skills: float = knob(0.7, "share of the episodes", "ours", ge=0, le=1)
    # How often one of them is relevant.
    relevant: float = knob(0.75, "share of the episodes with skills", "ours", ge=0, le=1)
    # How often that one is true of the game, whatever it says; else it is another game's and may be.
    true: float = knob(0.75, "share of the relevant skills", "ours", ge=0, le=1)
    # How often one of the others has the object or the kind of task in common with the game.
    near: float = knob(0.5, "share of the other skills", "ours", ge=0, le=1)
    # How often an episode ends before it is won, so that its lesson is that of a failure.
    cut: float = knob(0.15, "share of the episodes", "ours", ge=0, lt=1)


@dataclass(frozen=True, config=STRICT)
class ColdStartConfig:
    """Supervised fine-tuning on demonstrations before reinforcement learning (SkillRL publishes no values)."""

    # How often every demonstration is learnt.
    epochs: float = knob(3.0, "passes over the demonstrations", "ours", gt=0)
    # Fewer, for a bound on the time; the learning rate then falls to zero by then.
    max_steps: int | None = knob(None, "updates, None = all of the epochs", "ours", gt=0)
    # Peak learning rate of AdamW, linear to zero.
    learning_rate: float = knob(1e-5, "per update", "ours", gt=0)
    # How many chats make an update: calls in the context "window", rollouts in a conversation.
    chats_per_step: int = knob(32, "chats, of all processes", "ours", gt=0)
    # The demonstrations of so many games are not learnt but scored.
    held_out: float = knob(0.0, "share of the games", "ours", ge=0, lt=1)
    # What is written: whole weights, or with policy.lora_rank the adapter alone.
    save: Literal["merged", "adapter"] = knob("merged", "kind of model folder", "ours")
