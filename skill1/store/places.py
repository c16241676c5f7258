"""What fields say of themselves: which name files and folders (made absolute when a run is made), which may change."""

from __future__ import annotations

import os
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from skill1.config import Config, flatten, override
from skill1.store.resources import is_shipped


def place_names(config: Config) -> set[str]:
    """Name the fields that hold a file or folder: those whose unit says so."""
    return {name for name, said in _declared(config).items() if re.search(r"\b(file|folder)\b", said["unit"])}


def free_names(config: Config) -> set[str]:
    """Name the fields on which no step's result depends, but for the rounding of floats: those that say so."""
    return {name for name, said in _declared(config).items() if said["free"]}


def absolute_places(config: Config) -> Config:
    """Make the paths absolute, so that a run is resumed and read from any folder.

    What is no path here (a hub id), and the policies that the package ships, keep their names.
    """
    values = {name: value for name, value in flatten(config).items() if name in place_names(config) and value}
    return override(config, {name: _absolute(value) for name, value in values.items()})


def _declared(config: Config) -> dict[str, Any]:
    """Dotted field name -> what its declaration says of it (`config.knob`)."""
    sections: dict[str, Any] = {section.name: getattr(config, section.name) for section in fields(config)}
    return {
        f"{name}.{leaf.name}": leaf.default.json_schema_extra
        for name, section in sections.items()
        if is_dataclass(section)
        for leaf in _leaves(section)
    }


def _leaves(section: Any) -> tuple[Any, ...]:
    return fields(section)


def _absolute(value: str) -> str:
    path = Path(value).expanduser()
    return value if not path.exists() or is_shipped(value) else os.path.abspath(path)
