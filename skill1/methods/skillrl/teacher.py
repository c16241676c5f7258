"""Teachers: who writes the bank's entries. One call, `Teacher.write(call, inputs) -> list[dict]`, four backends.

    file       a bank file: it answers the three calls of a first bank and has nothing to say about failures
    policy     the policy itself ("self-taught" in tables); `policy_teacher`
    endpoint   a model behind an OpenAI-compatible address (the paper's setting); `endpoint_teacher`
    scripted   counts over the episodes, in words of the nano policies: for their presets and tests; `skill1.nano.teacher`

A teacher that cannot be had or does not answer with a JSON array is a `TeacherError`: the caller counts it and continues.

Differs from the paper in: ids are given by the bank, not asked of the teacher.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from skill1.methods.skillrl.bank import SkillBank
from skill1.methods.skillrl.evolution import Episode

Call = Literal["general", "category", "mistakes", "evolve"]


class TeacherError(RuntimeError):
    """A teacher gave no usable answer. The message says what came instead."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a call is made from."""

    environment: str
    successes: tuple[Episode, ...] = ()
    failures: tuple[Episode, ...] = ()
    category: str | None = None  # "category": the one; "evolve": the failures' common one
    titles: tuple[str, ...] = ()  # "evolve": of all principles that are there
    counted: tuple[
        Episode, ...
    ] = ()  # "evolve": all episodes of the weak categories, won or lost; models do not see them


class Teacher(Protocol):
    """Writes entries in the bank's public shape, without ids."""

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """The entries as they came: `method.usable` says which can be used. Raises TeacherError."""
        ...


def read_answer(text: str) -> list[Any]:
    """The JSON array in a model's answer: from the first "[" to the last "]". Raises TeacherError without one."""
    first, last = text.find("["), text.rfind("]")
    try:
        found = json.loads(text[first : last + 1]) if first >= 0 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise TeacherError(f"no JSON array in the answer {_short(text)!r}")
    return found


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


class FileTeacher:
    """What a bank file holds."""

    def __init__(self, bank: SkillBank) -> None:
        self._bank = bank

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """The section that the call asks for; nothing about failures."""
        if call == "evolve":
            return []
        if call == "mistakes":
            return [entry.to_json() for entry in self._bank.mistakes]
        wanted = self._bank.general if call == "general" else self._bank.of([inputs.category])
        return [entry.to_json() for entry in wanted]
