"""JSON objects in what an instruction-tuned model writes, and the lessons in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_MIN_LESSON = 5  # characters; a lesson must be longer (released code)
_LESSONS = (("action_lesson", "Actions"), ("navigation_lesson", "Navigation"))
_FENCED = re.compile(r"```(?:json)?\s*(\{.*?\})\s*```", re.DOTALL)
_BRACES = re.compile(r"\{.*\}", re.DOTALL)


def json_object(text: str) -> dict[str, Any] | None:
    """The object from the first "{" to the last "}", or None if that is none that could be stored."""
    found = _BRACES.search(text)
    return _read(found.group(0)) if found else None


def fenced_object(text: str) -> dict[str, Any] | None:
    """The object of a fenced block if there is one, else as `json_object`."""
    found = _FENCED.search(text)
    return json_object(text) if found is None else _read(found.group(1))


def lessons(fields: Mapping[str, Any]) -> str | None:
    """The lessons of an answer as one text, each with its label; None without one that is long enough."""
    found = [(label, fields.get(key)) for key, label in _LESSONS]
    kept = [f"{label}: {v.strip()}" for label, v in found if isinstance(v, str) and len(v.strip()) > _MIN_LESSON]
    return " ".join(kept) or None


def _read(text: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(text)
        json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair ("\\ud800") could not be stored
    except (ValueError, RecursionError):  # not JSON, not Unicode, nested without end
        return None
    return fields
