"""ALFWorld's own options."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from skill1.config import STRICT, EnvironmentConfig, knob


@dataclass(frozen=True, config=STRICT)
class ALFWorldConfig(EnvironmentConfig):
    """Where ALFWorld's games come from, and what plays them."""

    # What computes the games' text: this package's engine, or the reference package.
    engine: Literal["native", "textworld"] = knob("native", "text engine", "ours; textworld is the reference")
