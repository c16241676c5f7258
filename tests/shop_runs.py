"""A tiny generated shop, an untrained nano policy with its words and a configuration for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nano_runs import settings

from skill1.config import Config, load_config
from skill1.envs.webshop.generate import generate
from skill1.nano import make_model, make_tokenizer
from skill1.prompts.compact_shop import shop_vocabulary

PRODUCTS = 60


def make_shop(folder: Path) -> Path:
    generate(folder, seed=5, products=PRODUCTS)
    return folder


def make_shopper(folder: Path) -> Path:
    tokenizer = make_tokenizer(shop_vocabulary())
    make_model(tokenizer, width=32, layers=1, heads=2, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def configure_shop(shop: Path, policy: Path, variant: str = "full", preset: str = "nano-webshop", **overrides: Any) -> Config:
    """`nano_runs.configure` in a shop: two groups of three, four actions, twelve held-out goals; `a__b` is `a.b`."""
    changed = {name.replace("__", "."): value for name, value in overrides.items()}
    given = settings(shop, policy) | {"environment.held_out_goals": 12}
    return load_config(preset, variant, given | changed)
