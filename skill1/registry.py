"""What a run names and other packages provide: methods, environments, prompt sets, presets and variants, found by name.

A name is one of an entry point group ("skill1.methods", "skill1.environments", "skill1.prompts"), this package's own or
another's, or says where the object is: "package.module:OBJECT", or "path/to/file.py:OBJECT".
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from skill1.errors import UserError


class ConfigError(UserError, ValueError):
    """A configuration name or value is wrong. The message names it and, for names, the closest match."""


def names(group: str) -> list[str]:
    """List the names that a group knows ("methods" for the entry point group "skill1.methods"), sorted."""
    return sorted(_entries(group))


def find(group: str, name: str) -> Any:
    """Load what `name` stands for in a group.

    Raises:
        ConfigError: the name is unknown (with the closest match), or there is no such module, file or object.
    """
    if ":" in name:
        return _located(group, name)
    entries = _entries(group)
    return entries[closest(name, entries, group.removesuffix("s"))].load()


def is_folder(name: str) -> bool:
    """Tell whether a name is a folder's path, "path/to/folder" or "./folder", and no name of a group or object."""
    return "/" in name and ":" not in name


def absolute(name: str) -> str:
    """Make the file of "path/to/file.py:OBJECT", or a folder, an absolute path: runs are resumed from anywhere."""
    if is_folder(name):
        return str(Path(name).expanduser().resolve())
    place, colon, attribute = name.rpartition(":")
    return f"{Path(place).expanduser().resolve()}:{attribute}" if colon and place.endswith(".py") else name


def listed(given: Any) -> Any:
    """Take one text for the list of it: nobody means its letters. Anything else is as it was."""
    return (given,) if isinstance(given, str) else given


def closest(name: str, known: Iterable[str], what: str) -> str:
    """Return `name` if known, else raise ConfigError naming the closest match and all that is known."""
    there = list(known)
    if name in there:
        return name
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"unknown {what} {name!r}{hint} (known: {', '.join(sorted(there))})")


@cache
def gather(group: str) -> dict[str, Any]:
    """Merge the mappings that a group's entry points name, this package's first; a name taken twice is an error.

    Raises:
        ConfigError: two packages give the same name.
    """
    merged: dict[str, Any] = {}
    for entry in sorted(_entries(group).values(), key=lambda e: (e.dist is None or e.dist.name != "skill1", e.name)):
        found = entry.load()
        if taken := sorted(set(found) & set(merged)):
            raise ConfigError(f"{entry.value} names {', '.join(taken)} again, which another package did in {group}")
        merged |= found
    return merged


@cache
def _entries(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"skill1.{group}")}


def _located(group: str, name: str) -> Any:
    place, _, attribute = name.rpartition(":")
    try:
        if place.endswith(".py"):
            return getattr(_file(Path(place).expanduser().resolve()), attribute)
        return resolve_name(name)
    except FileNotFoundError:
        raise ConfigError(f"{group}: there is no file {place!r}, which {name!r} names") from None
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{group}: {name!r} does not load ({error}): it must be MODULE:OBJECT or FILE.py:OBJECT"
        ) from None


def _file(path: Path) -> Any:
    """The module of a file, loaded once: its classes must be the same wherever they are named."""
    module_name = f"skill1_file_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None  # the name ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # before it runs: dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return sys.modules[module_name]
