"""The nano presets: a policy trained from scratch on generated games and shops, on two CPU cores. All ours."""

from __future__ import annotations

from typing import Any

_NANO: dict[str, Any] = {
    "policy.model": "data/nano-policy",
    "policy.prompts": "compact",
    "policy.dtype": "float32",
    "policy.gradient_checkpointing": False,
    "policy.generate_batch": 128,
    "environment.max_steps": 16,
    "library.encoder": "pinned",
    "rollout.tasks_per_step": 8,
    "rollout.group_size": 8,
    "rollout.max_prompt_tokens": 512,
    "rollout.max_act_tokens": 8,
    "method.skill1.max_query_tokens": 16,
    "method.skill1.max_rerank_tokens": 16,
    "method.skill1.max_distill_tokens": 32,
    "method.skill1.rerank_baseline": "batch_mean",  # one seed: NDCG near .9 reinforces any ranking
    "method.skill1.unparsed_distill": "lost",  # 0 is more than a readable lesson of a lost episode earns
    "method.retroagent.max_reflect_tokens": 32,
    "method.skillrl.encoder": "pinned",
    "method.skillrl.teacher": "scripted",
    "method.skillrl.top_k": 2,  # with the evolved ones, at most six principles: the warm start shows up to seven
    "method.skillrl.specific_top_k": 2,
    "method.skillrl.mistakes": 0,  # the warm start shows none
    # principles of four words: "mug in cabinet" and "cup in cabinet" are at .83
    "method.skillrl.duplicate_similarity": 0.97,
    "credit.invalid_penalty": 0.1,
    "credit.max_penalised": 5,
    "credit.penalise_inadmissible": True,
    "train.steps": 60,
    "train.sharding": "none",  # of use on GPUs only
    "train.learning_rate": 5e-4,
    "train.warmup_steps": 3,
    "train.weight_decay": 0.0,
    "train.adam_beta2": 0.95,
    "train.kl": 0.0,  # for speed: saves the reference's forward pass; never compared with 0.01
    "train.rows_per_update": None,
    "train.validate_every": 15,
    "train.save_every": 15,
    "cold_start.learning_rate": 1e-3,  # of a policy this small
}
_SHOP = _NANO | {
    "policy.model": "data/nano-webshop-policy",
    "environment.name": "webshop",
    "environment.validation_split": "test",
    "environment.max_steps": 12,
    "environment.observation": "text_rich",  # says what is chosen and what was opened
    "environment.held_out_goals": 120,
    "train.steps": 180,  # a step costs half of ALFWorld's; validation still climbs at 60, and on some seeds at 120
    "rollout.max_act_tokens": 10,
    "method.skill1.max_distill_tokens": 16,
    "method.retroagent.max_reflect_tokens": 16,
    "evaluation.splits": ("test",),
    "warm_start.games": 10000,
    "warm_start.max_steps": 12,
}

PRESETS: dict[str, dict[str, Any]] = {
    "nano": _NANO,
    "nano-webshop": _SHOP,
}
