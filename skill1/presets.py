"""Named settings: what each preset, ablation and baseline lays over the defaults of `config`.

The core has the paper's presets; environments, methods and the nano world add theirs through the entry point groups
"skill1.presets" (mappings of name -> changes) and "skill1.variants" (mappings of name -> `Variant`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skill1.registry import closest, gather

DEFAULT_ENVIRONMENT = "alfworld"  # the paper's first benchmark


@dataclass(frozen=True, slots=True)
class Variant:
    """An ablation or a method, as a study compares it with others."""

    label: str  # what figures and tables call it
    changes: Mapping[str, Any]  # dotted field name of `config.Config` -> value, whatever the preset


def presets() -> Mapping[str, Mapping[str, Any]]:
    """Return all presets by name: dotted field name -> value."""
    return gather("presets")


def variants() -> Mapping[str, Variant]:
    """Return all variants by name, in the order in which tables and figures show them."""
    return gather("variants")


def preset_of(preset: str, environment: str) -> str:
    """Return the preset's name in an environment: it is followed by the environment's where that is another one.

    Raises:
        ConfigError: there is none.
    """
    inside = presets().get(preset, {}).get("environment.name", DEFAULT_ENVIRONMENT) == environment
    return closest(preset if inside else f"{preset}-{environment}", presets(), "preset")


_SHORT_ANSWERS = {  # reached by a runaway answer only, and a cache of a quarter
    "rollout.max_act_tokens": 512,
    "method.max_query_tokens": 512,
    "method.max_rerank_tokens": 512,
    "method.max_distill_tokens": 512,
    "method.max_reflect_tokens": 512,
}
_ADAPTERS = {
    "policy.lora_rank": 32,  # with the base model in bfloat16, and as the reference with its adapters off
    "policy.lora_alpha": 64,  # twice the rank
    "policy.generate_batch": 64,  # all episodes of a step at once
    "rollout.tasks_per_step": 8,  # a quarter of the paper's episodes: a GPU writes an eighth of the text
    "rollout.group_size": 8,  # as released
    "train.sharding": "none",  # one GPU
    "train.learning_rate": 1e-5,  # adapters start at zero and want about ten times the rate; not tuned
    "cold_start.learning_rate": 1e-4,  # likewise
} | _SHORT_ANSWERS

# the authors' launch scripts, where they differ
RELEASED: dict[str, Any] = {
    "library.top_k": 3,
    "library.similarity_weight": 1.0,
    "library.similarity_floor": 0.4,
    "library.evaluation_inject": "all",
    "rollout.group_size": 8,
    "method.skill1.distill_reference": True,
    "method.skill1.same_task": "text",
    "method.skill1.rerank_credit": "return",
    "method.skill1.lambda_rerank": 0.03,  # 0.3 of a win of 10
    "method.skill1.lambda_distill": 0.0,  # its loop never adds distill samples to the batch
    "credit.token_mean": "batch",
    "train.dual_clip": 3.0,
    "train.entropy": 0.001,
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "released": RELEASED,
    # one 80 GB GPU; all ours: the paper trains all weights on eight (`skill1 plan --preset paper-lora`)
    "paper-lora": _ADAPTERS,
    # one 24 GB GPU; all ours: a small instruct model with adapters, shorter episodes
    "small": _ADAPTERS
    | {
        "policy.model": "Qwen/Qwen2.5-1.5B-Instruct",
        "environment.max_steps": 30,  # three fifths of the time; tasks that need more are lost
        "rollout.max_prompt_tokens": 4096,  # a distill prompt of 30 steps has about 1,200
        "train.tokens_per_micro_batch": 8192,  # half the activations
    },
}
