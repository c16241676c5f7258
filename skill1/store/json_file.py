"""JSON as every reader of it takes it: one writer, without NaN, and one reader, whatever editor a file went through."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from skill1.errors import UserError
from skill1.store.atomic import replace_file


class DamagedFile(UserError, ValueError):
    """A JSON file does not read. The message names it and where; `reason` is what is wrong with it."""

    def __init__(self, path: Path, reason: Exception) -> None:
        super().__init__(f"{path} is damaged ({reason}): restore it")
        self.reason = reason


def to_json(value: Any, indent: int | None = None) -> str:
    """Write a value as strict JSON (RFC 8259): what is no finite number is null, numpy's numbers are numbers."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Put a value into a file, whole or not at all."""
    replace_file(path, f"{to_json(value, indent)}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; a byte order mark is passed over.

    Raises:
        DamagedFile: it is no JSON, or no UTF-8.
        OSError: it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())  # bytes: json passes over the mark
    except ValueError as error:  # of either kind
        raise DamagedFile(path, error) from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
