"""A tiny generated shop, an untrained nano policy with its words and a configuration for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nano_runs import settings

from skill1.config import Config, load_config
from skill1.envs.webshop.generate import generate
from skill1.nano.model import make_model, nano_tokenizer


def make_shop(folder: Path) -> Path:
    generate(folder, seed=5, products=60)
    return folder


def make_shopper(folder: Path) -> Path:
    tokenizer = nano_tokenizer("webshop")
    make_model(tokenizer, width=32, layers=1, heads=2, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings_of_shop(shop: Path, policy: Path, variant: str = "full", method: str | None = None) -> dict[str, Any]:
    """`nano_runs.settings` (two groups of three, four actions) in a shop with twelve held-out goals."""
    return settings(shop, policy, variant, method) | {"environment.held_out_goals": 12}


def configure_shop(
    shop: Path, policy: Path, variant: str = "full", preset: str = "nano-webshop", **overrides: Any
) -> Config:
    """A configuration of `settings_of_shop`; `a__b` stands for `a.b`."""
    changed = {name.replace("__", "."): value for name, value in overrides.items()}
    given = settings_of_shop(shop, policy, variant, changed.get("method.name"))
    return load_config(preset, variant, given | changed)
