"""What an instruction-tuned model writes: rankings, commands, JSON objects, and the lessons in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from skill1.prompts.base import complete_ranking

_MIN_LESSON = 5  # characters; a lesson must be longer (released code)
_LESSONS = (("action_lesson", "Actions"), ("navigation_lesson", "Navigation"))
_RANKING = re.compile(r"[0-9\s,;>]+")
_LABELLED = re.compile(r"Actions: (.+?)(?: Navigation: (.+))?|Navigation: (.+)", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?\s*(\{.*?\})\s*```", re.DOTALL)
_BRACES = re.compile(r"\{.*\}", re.DOTALL)
T = TypeVar("T")


def ranking(text: str, count: int) -> tuple[tuple[int, ...], bool]:
    """Read numbers and what may stand between them, "," ";" ">" and blanks; see `PromptSet.parse_rerank`."""
    return complete_ranking(re.findall("[0-9]+", text) if _RANKING.fullmatch(text) else (), count)


def json_object(text: str) -> dict[str, Any] | None:
    """Read the object from the first "{" to the last "}", or None if that is none that could be stored."""
    found = _BRACES.search(text)
    return _read(found.group(0)) if found else None


def fenced_object(text: str) -> dict[str, Any] | None:
    """Read the object of a fenced block if there is one, else as `json_object`."""
    found = _FENCED.search(text)
    return json_object(text) if found is None else _read(found.group(1))


def lessons(fields: Mapping[str, Any]) -> str | None:
    """Read the lessons of an answer as one text, each with its label; None without one that is long enough."""
    found = [(label, fields.get(key)) for key, label in _LESSONS]
    kept = [f"{label}: {v.strip()}" for label, v in found if isinstance(v, str) and len(v.strip()) > _MIN_LESSON]
    return " ".join(kept) or None


def labelled(strategy: str) -> str:
    """Put the label of actions before a strategy that is not of the form that `lessons` gives."""
    return strategy if _LABELLED.fullmatch(strategy) else f"{_LESSONS[0][1]}: {strategy}"


def lesson_fields(strategy: str) -> dict[str, str]:
    """Take a labelled strategy apart into the fields that `lessons` joins."""
    found = _LABELLED.fullmatch(strategy)
    said = zip(_LESSONS, (found[1], found[2] or found[3]), strict=True) if found else ()
    return {key: value for (key, _), value in said if value is not None}


def one_line(text: str) -> str:
    """Join a text's words by single blanks."""
    return " ".join(text.split())


def checked(written: str, read: T, meant: T) -> str:
    """Return an answer. Raises ValueError if its parser has `read` something else than was `meant`."""
    if read != meant:
        raise ValueError(f"{written!r} would be read as {read!r}, not as {meant!r}")
    return written


def _read(text: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(text)
        json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair ("\\ud800") could not be stored
    except (ValueError, RecursionError):  # not JSON, not Unicode, nested without end
        return None
    return fields
