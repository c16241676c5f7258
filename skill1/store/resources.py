"""What is shipped beside the package: notebooks, published numbers and the policies that the nano presets start from.

In a checkout these folders lie at its top level; a wheel carries copies of them in `skill1/resources` (setup.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from skill1.errors import UserError
from skill1.registry import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parent
_LOCAL = ("data", "results")  # what starts with these is a path, never a hub id


class ResourceError(UserError):
    """The installation lacks a folder that the package ships."""


def resource(name: str) -> Path:
    """Return the folder `name` as the checkout calls it ("notebooks", "data/paper", "data/nano-policy").

    Raises:
        ResourceError: neither the checkout nor the installed package has it.
    """
    place = _shipped(name)
    if not place.is_dir():
        raise ResourceError(f"{name} is not at {place}: install skill1 again, from a wheel or a whole checkout")
    return place


def checkout() -> Path | None:
    """Return the checkout that this package is imported from; None for an installed one."""
    return _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else None


def find_model(name: str) -> str:
    """Return the folder of a model, or `name` itself where it is a hub id.

    A relative folder is looked for in the working folder, then among those shipped.

    Raises:
        ConfigError: `name` is a path, and there is no such folder; or it is a GGUF file, or a folder with nothing else.
    """
    folder = Path(name).expanduser()
    if file := _gguf(folder):
        raise ConfigError(
            f"policy.model: {name!r} is a GGUF file, which is no model folder yet: make one with "
            f"`skill1 import gguf {file} --out DIR` and name that"
        )
    if folder.is_dir():
        return str(folder)
    if name.startswith("data/") and _shipped(name).is_dir():
        return str(_shipped(name))
    if is_path(name):
        raise ConfigError(
            f"policy.model: there is no folder {name!r}; name an existing model folder or hub id, or make a nano "
            f"policy with `skill1 warmstart --out {name}`"
        )
    return name


def find_adapter(name: str) -> Path:
    """Return the folder of an adapter, looked for as a model's is.

    Raises:
        ConfigError: there is no such folder.
    """
    for folder in (Path(name).expanduser(), _shipped(name) if name.startswith("data/") else None):
        if folder is not None and folder.is_dir():
            return folder
    raise ConfigError(
        f"policy.adapter: there is no folder {name!r}; make one with `skill1 coldstart --set cold_start.save=adapter`"
    )


def is_shipped(name: str) -> bool:
    """Return whether `name` is a policy's that the package ships, which `find_model` finds from any folder."""
    return name.startswith("data/") and any(
        (_shipped(name) / file).is_file() for file in ("config.json", "adapter_config.json")
    )


def is_path(model: str) -> bool:
    """Return whether a model's name is a folder's, there or not, rather than a hub id's."""
    first, *rest = Path(model).parts or ("",)
    return model.startswith((".", "/", "~")) or first in _LOCAL or len(rest) > 1 or Path(first).is_dir()


def enter_project() -> None:
    """Change from a checkout's `notebooks/` to the folder above, which holds results/ and data/; elsewhere, stay.

    For notebooks: a kernel that JupyterLab starts stands in its notebook's folder, one that `skill1 notebook` starts
    where the user stands.
    """
    if Path.cwd() == _CHECKOUT / "notebooks":
        os.chdir(_CHECKOUT)


def _gguf(place: Path) -> Path | None:
    """The GGUF file that is meant: the place itself, or the first in a folder that holds no model for transformers."""
    if place.suffix == ".gguf":
        return place
    return None if (place / "config.json").exists() else min(place.glob("*.gguf"), default=None)


def _shipped(name: str) -> Path:
    return (checkout() or _PACKAGE / "resources") / name
