"""What generators of games and catalogues share: a finished generation is recognised, another one never overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKER = "generation.json"  # written last: its presence says complete


@dataclass(frozen=True, slots=True)
class Generator:
    """What `skill1 generate NAME` runs."""

    about: str  # what it makes, in a sentence
    parameters: type  # dataclass; each field is Annotated with what it says
    generate: Callable[..., Any]  # (out, **fields of parameters) -> a report, which is a dataclass


def existing_generation(out: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the finished generation in `out`, which must agree with `record`.

    Raises:
        FileExistsError: something else is there.
    """
    marker = out / MARKER
    if not marker.is_file():
        raise FileExistsError(f"{out} exists without a finished generation in it; delete it or choose another folder")
    found = json.loads(marker.read_text(encoding="utf-8"))
    if differing := [name for name in record if found.get(name) != record[name]]:
        raise FileExistsError(
            f"{out} holds another generation ({', '.join(f'{n}: {found.get(n)}' for n in differing)}); "
            "delete it or choose another folder"
        )
    return found
