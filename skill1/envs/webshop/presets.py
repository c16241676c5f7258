"""WebShop's presets: the paper's second benchmark, "released" where the paper is silent."""

from __future__ import annotations

from typing import Any

from skill1.presets import RELEASED

_SHOP: dict[str, Any] = {
    "environment.name": "webshop",
    "environment.catalogue": "small",
    "environment.validation_split": "test",
    "environment.max_steps": 15,
    "environment.history_limit": 13000,
    "credit.invalid_penalty": 0.05,  # released: 0.5 of a win of 10
    "train.validation_tasks": 500,  # all goals that are held out
    "evaluation.splits": ("test",),
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper-webshop": _SHOP | {"rollout.tasks_per_step": 32},
    "released-webshop": RELEASED
    | _SHOP
    | {"method.skill1.lambda_rerank": 0.1},  # unset: its default, 1, of a win of 10
}
