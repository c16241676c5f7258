"""What generators of games and catalogues share: a finished generation is recognised, another one never overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template

from skill1.store.writable import check_writable

MARKER = "generation.json"  # written last: its presence says complete


@dataclass(frozen=True, slots=True)
class Generator:
    """What `skill1 generate NAME` runs."""

    about: str  # what it makes, in a sentence
    parameters: type  # dataclass; each field is Annotated with what it says
    generate: Callable[..., Any]  # (out, **fields of parameters) -> a report, which is a dataclass


@dataclass(frozen=True, slots=True)
class GenerationReport:
    """What a folder holds."""

    out: Path
    parameters: Any  # what it was drawn from, of the generator's own dataclass
    counts: dict[str, Any]  # what came of it: task types per split, or goals per kind


def check_integers(parameters: Any, bounds: Mapping[str, int]) -> None:
    """Check that fields are integers, and not below their bounds. Raises ValueError."""
    for name, bound in bounds.items():
        value = getattr(parameters, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < bound:
            raise ValueError(f"{name}={value!r}: must be an integer of at least {bound}")


def generate_once(
    out: Path,
    parameters: Any,
    version: Mapping[str, Any],
    counted: str,
    make: Callable[[], tuple[dict[str, Any], str]],
    lacks: Callable[[], str],
) -> GenerationReport:
    """Fill `out`, unless it holds exactly this generation.

    Args:
        version: what else decides the bytes; noted in `generation.json`.
        counted: what the counts are called there.
        make: writes the data, returns the counts and the text of the data card.
        lacks: what of a finished generation is not there any more, in words; "" for nothing.

    Raises:
        FileExistsError: something else is there, or not all of it.
    """
    record = {**version, "parameters": asdict(parameters)}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = _existing(out, record)
        if lacking := lacks():
            raise FileExistsError(f"{out} {lacking}; delete it and generate again")
        return GenerationReport(out, parameters, found[counted])
    check_writable(out)
    counts, card = make()
    write_text(out / "DATACARD.md", card)
    write_text(out / MARKER, json.dumps({**record, counted: counts}, indent=1) + "\n")
    return GenerationReport(out, parameters, counts)


def data_card(template: Path, **values: Any) -> str:
    """Fill a folder's data card from its template, Markdown with the names of `values`. Raises UndefinedError."""
    text = template.read_text(encoding="utf-8")
    return Template(text, keep_trailing_newline=True, trim_blocks=True, undefined=StrictUndefined).render(values)


def write_text(path: Path, text: str) -> None:
    """Write the same bytes on every platform."""
    path.write_text(text, encoding="utf-8", newline="\n")


def _existing(out: Path, record: Mapping[str, Any]) -> dict[str, Any]:
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
