"""WebShop's own options."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from skill1.config import STRICT, EnvironmentConfig, knob


@dataclass(frozen=True, config=STRICT)
class WebShopConfig(EnvironmentConfig):
    """Where WebShop's goals come from, and how its pages are written."""

    # How a page becomes text.
    observation: Literal["quoted", "text", "text_rich"] = knob("quoted", "form of a page", "released")
    # Which of the catalogue's files are read.
    catalogue: Literal["small", "full"] | None = knob(None, "catalogue, None = the one there", "paper (small)")
    # Where instructions come from.
    goals: Literal["synthetic", "human"] = knob("synthetic", "instructions", "released")
    # How many goals make up the split test; the others train.
    held_out_goals: int = knob(500, "goals", "released", gt=0)
    # Whether test has goals of its own, or products of its own.
    split_by: Literal["goal", "product"] = knob("goal", "what test holds out", "released; product is ours")
    # Seed of prices and price bounds.
    shop_seed: int = knob(0, "seed", "ours; unseeded in the original", ge=0)
