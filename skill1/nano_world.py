"""The generated games that the nano preset plays, in `data/nano-world-<seed>/`: the demo's and a sweep's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from skill1.envs.alfworld.generate import generate
from skill1.runs import RunError

SIZES = {"train": 480, "valid_seen": 120, "valid_unseen": 72, "homes": 16, "unseen_homes": 6, "receptacles": 18}


def world_folder(seed: int) -> Path:
    """Where the generated games that the nano preset plays are, or will be."""
    return Path("data") / f"nano-world-{seed}"


def nano_world(seed: int, sizes: Mapping[str, int] = SIZES) -> str:
    """Folder of those games; generated once. Raises RunError if other games are there."""
    folder = world_folder(seed)
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as whole:  # a kill leaves no half world
            generate(Path(whole) / "games", seed=seed, **sizes)
            os.rename(Path(whole) / "games", folder)
    try:
        return str(generate(folder, seed=seed, **sizes).out)
    except FileExistsError as error:
        raise RunError(str(error)) from None
