"""Files and folders that a run names: made absolute when it is made, known by what they hold when it is resumed."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from skill1.config import Config, flatten, override
from skill1.store.resources import find_adapter, find_model, is_shipped

_WEIGHTS = ("*.safetensors", "*.bin")


def place_names(config: Config) -> set[str]:
    """Name the fields that hold a file or folder: those whose unit says so."""
    return {
        f"{section.name}.{leaf.name}"
        for section in fields(config)
        for leaf in _leaves(getattr(config, section.name))
        if re.search(r"\b(file|folder)\b", leaf.default.json_schema_extra["unit"])
    }


def absolute_places(config: Config) -> Config:
    """Make the paths absolute, so that a run is resumed and read from any folder.

    What is no path here (a hub id), and the policies that the package ships, keep their names.
    """
    values = {name: value for name, value in flatten(config).items() if name in place_names(config) and value}
    return override(config, {name: _absolute(value) for name, value in values.items()})


def weights_hash(model: str, adapter: str | None = None) -> str | None:
    """Hash the weights in the folders of a model and its adapter (SHA-256); None for a hub id alone.

    Raises:
        ConfigError: see `resources.find_model` and `resources.find_adapter`.
    """
    folders = [Path(find_model(model)), *([find_adapter(adapter)] if adapter else [])]
    if not any(folder.is_dir() for folder in folders):
        return None
    digest = hashlib.sha256()
    for path in (path for folder in folders for path in sorted(p for kind in _WEIGHTS for p in folder.glob(kind))):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _leaves(section: Any) -> tuple[Any, ...]:
    return fields(section) if hasattr(section, "__dataclass_fields__") else ()


def _absolute(value: str) -> str:
    path = Path(value).expanduser()
    return value if not path.exists() or is_shipped(value) else os.path.abspath(path)
