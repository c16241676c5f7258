"""The generated games that the nano presets play, in `data/nano-world-<seed>/` and `data/nano-shop-<seed>/`.

They are the demo's and a sweep's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from skill1.config import ConfigError
from skill1.envs.alfworld.generate import generate as generate_games
from skill1.envs.webshop.generate import generate as generate_shop
from skill1.store.run_directory import RunError

SIZES = {"train": 480, "valid_seen": 120, "valid_unseen": 72, "homes": 16, "unseen_homes": 6, "receptacles": 18}
# A tenth of the products is asked for, so that a run meets each several times: some 550 goals about 90 products.
SHOP = {"products": 1000, "asked": 0.1}


@dataclass(frozen=True, slots=True)
class _World:
    folder: str
    generate: Callable[..., Any]
    sizes: Mapping[str, Any]  # fields of the generator's `Parameters` besides the seed


_HOMES = _World("nano-world", generate_games, SIZES)
_SHOP = _World("nano-shop", generate_shop, SHOP)
_WORLDS = {
    "nano": _HOMES,
    "nano-baselines": _HOMES,
    "nano-webshop": _SHOP,
    "nano-baselines-webshop": _SHOP,
}


def has_world(preset: str) -> bool:
    """Whether the preset plays generated games when it is given no others."""
    return preset in _WORLDS


def world_folder(seed: int, preset: str = "nano") -> Path:
    """Where the generated games that a nano preset plays are, or will be. Raises ConfigError for another preset."""
    if preset not in _WORLDS:
        raise ConfigError(f"the preset {preset} has no generated games of its own (only {', '.join(_WORLDS)} have)")
    return Path("data") / f"{_WORLDS[preset].folder}-{seed}"


def nano_world(seed: int, sizes: Mapping[str, Any] | None = None, preset: str = "nano") -> str:
    """Folder of those games; generated once. Raises RunError if other games are there, ConfigError as `world_folder`.

    `sizes`: fields of the generator's `Parameters`; by default those of the preset.
    """
    folder, world = world_folder(seed, preset), _WORLDS[preset]
    sizes = world.sizes if sizes is None else sizes
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as whole:  # a kill leaves no half world
            world.generate(Path(whole) / "games", seed=seed, **sizes)
            os.rename(Path(whole) / "games", folder)
    try:
        return str(world.generate(folder, seed=seed, **sizes).out)
    except FileExistsError as error:
        raise RunError(str(error)) from None
