"""The ablations of Table 2 and the methods that the paper compares with, in the order in which they are shown."""

from __future__ import annotations

from typing import Any

from skill1.presets import Variant

# RetroAgent (arXiv 2603.08561) finds by task text among all that was judged right.
_RETROAGENT: dict[str, Any] = {
    "method.name": "retroagent",
    "library.top_k": 1,  # released
    "library.evaluation_top_k": 3,  # released
    "library.similarity_weight": 0.7,
    "library.similarity_floor": 0.4,
    "library.inject": "all",
}
_IN_CONTEXT = _RETROAGENT | {
    "method.reflection": "told",
    "method.reference": True,  # pairwise
    "method.lambda_reflect": 0.0,  # reflections are written and used, not trained
}
_TRAINED = _RETROAGENT | {"method.reflection": "judged", "method.reflect_baseline": "batch"}  # released

# Skill1+ (ours): credit that carries information
_PICKED: dict[str, Any] = {"library.utility_of": "selected"}
_PICKING: dict[str, Any] = {"method.rerank_credit": "pick", "method.rerank_baseline": "batch_mean"}
_USED: dict[str, Any] = {"method.lesson_credit": "use"}

VARIANTS: dict[str, Variant] = {
    "full": Variant("Skill1", {}),
    "no_library": Variant("no library (GRPO)", {"method.name": "grpo"}),
    "no_selection": Variant("no selection", {"method.selection": False}),
    "no_distillation": Variant("no distillation", {"method.distillation": False}),
    "lambda1_0": Variant("no rerank loss (λ1 = 0)", {"method.lambda_rerank": 0.0}),
    "lambda2_0": Variant("no distill loss (λ2 = 0)", {"method.lambda_distill": 0.0}),
    "lambdas_0": Variant("neither loss (λ1 = λ2 = 0)", {"method.lambda_rerank": 0.0, "method.lambda_distill": 0.0}),
    "grpo": Variant("GRPO", {"method.name": "grpo"}),  # the baseline's name for no_library: the same run
    "gigpo": Variant("GiGPO", {"method.name": "gigpo"}),
    "skillrl": Variant("SkillRL", {"method.name": "skillrl"}),
    "skillrl_released": Variant(
        "SkillRL (released code)",
        {
            "method.name": "skillrl",
            "method.retrieval": "template",
            "method.general_budget": "shared",
            "method.first_step": False,
            "method.evolve_from": "validation",  # of every validation: its scripts validate every 5 steps
            "method.weak_rollouts": 1,
            "method.evolved_section": "general",
        },
    ),
    "retroagent_in_context": Variant("RetroAgent (in context)", _IN_CONTEXT),
    "retroagent_rl": Variant("RetroAgent (RL-trained)", _TRAINED),
    # the released code gives R_int to no action, and to the reflections where these are trained
    "retroagent_in_context_released": Variant(
        "RetroAgent (in context, released code)", _IN_CONTEXT | {"method.intrinsic_weight": 0.0}
    ),
    "retroagent_rl_released": Variant(
        "RetroAgent (RL-trained, released code)",
        _TRAINED | {"method.intrinsic_weight": 0.0, "method.reflect_reward": "intrinsic"},
    ),
    "plus": Variant("Skill1+ (ours)", _PICKED | _PICKING | _USED),
    "plus_utility": Variant("Skill1+, utility of the pick alone", _PICKED),
    "plus_rerank": Variant("Skill1+, credit of the pick alone", _PICKING),
    "plus_lesson": Variant("Skill1+, credit by use alone", _USED),
}
