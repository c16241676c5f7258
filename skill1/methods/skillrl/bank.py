"""The SkillBank: general principles, principles per task category, common mistakes; and its public JSON shape.

    general_skills:       [{skill_id, title, principle, when_to_apply}]
    task_specific_skills: {category: [{skill_id, title, principle, when_to_apply}]}
    common_mistakes:      [{mistake_id, description, why_it_happens, how_to_avoid}]
    metadata:             {...}                                            (optional)

That is the shape of the files that the authors publish; keys that are not listed are kept and written back. A bank is
immutable: `add` gives a new one. Ids "dyn_NNN" are those of evolved principles (released code's convention), numbered
from the bank's own entries, so that no other bank can decide them.

Differs from the paper in: an unknown category, a missing text and an id used twice are errors, not silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skill1.config import ConfigError, closest
from skill1.errors import UserError

_EVOLVED = re.compile(r"dyn_(\d+)")
_TEXTS = ("title", "principle")  # of a principle, required and not empty
_MISTAKE_TEXTS = ("description", "how_to_avoid")
_SECTIONS = ("general_skills", "task_specific_skills", "common_mistakes")


class BankError(UserError, ValueError):
    """A bank file or snapshot is not what it must be. The message names the file, the entry and the fix."""


@dataclass(frozen=True, slots=True)
class Principle:
    """A skill of the bank; `category` is None for a general one."""

    id: str
    title: str
    principle: str
    when: str = ""
    category: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)  # keys of the file that are not ours

    @property
    def evolved(self) -> bool:
        """It was added in training."""
        return _EVOLVED.fullmatch(self.id) is not None

    @property
    def text(self) -> str:
        """What is embedded: "title. principle. when"."""
        return " ".join(f"{part.rstrip('.')}." for part in (self.title, self.principle, self.when) if part)

    def to_json(self) -> dict[str, Any]:
        return {
            "skill_id": self.id, "title": self.title, "principle": self.principle, "when_to_apply": self.when,
        } | dict(self.extra)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mistake:
    """What goes wrong often, and what to do instead."""

    id: str
    description: str
    avoid: str
    why: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        return {
            "mistake_id": self.id, "description": self.description, "why_it_happens": self.why,
            "how_to_avoid": self.avoid,
        } | dict(self.extra)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SkillBank:
    """All entries, each section in its order, and the file's other top-level keys."""

    general: tuple[Principle, ...] = ()
    specific: tuple[Principle, ...] = ()  # grouped by category in the order of the file
    mistakes: tuple[Mistake, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __len__(self) -> int:
        """Entries of all three sections: what the limit counts."""
        return len(self.general) + len(self.specific) + len(self.mistakes)

    @property
    def principles(self) -> Iterator[Principle]:
        yield from self.general
        yield from self.specific

    @property
    def titles(self) -> tuple[str, ...]:
        return tuple(entry.title for entry in self.principles)

    @property
    def next_evolved(self) -> int:
        """Number of the next evolved id: nothing is ever removed, so an id is never given twice."""
        numbers = [int(match[1]) for entry in self.principles if (match := _EVOLVED.fullmatch(entry.id))]
        return max(numbers, default=0) + 1

    def of(self, categories: Iterable[str]) -> tuple[Principle, ...]:
        """Principles of these categories, in the order of the bank."""
        wanted = set(categories)
        return tuple(entry for entry in self.specific if entry.category in wanted)

    def add(self, entries: Sequence[Principle]) -> SkillBank:
        """The bank with `entries` at the end of their sections. Raises BankError for an id that is taken."""
        taken = {entry.id for entry in self.principles}
        if both := [entry.id for entry in entries if entry.id in taken]:
            raise BankError(f"the bank already holds {', '.join(both)}: the entries belong to another bank")
        return replace(
            self,
            general=self.general + tuple(e for e in entries if e.category is None),
            specific=self.specific + tuple(e for e in entries if e.category is not None),
        )

    def to_json(self) -> dict[str, Any]:
        """The public shape."""
        grouped: dict[str, list[dict[str, Any]]] = {}
        for entry in self.specific:
            grouped.setdefault(entry.category, []).append(entry.to_json())
        sections = [[e.to_json() for e in self.general], grouped, [e.to_json() for e in self.mistakes]]
        return dict(zip(_SECTIONS, sections, strict=True)) | dict(self.extra)

    def to_text(self) -> str:
        """The public shape as a file's text."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"


def load_bank(path: Path, categories: Sequence[str]) -> SkillBank:
    """Read a bank file of the public shape.

    Args:
        categories: those that the environment's tasks can have.

    Raises:
        BankError: no such file, no JSON, or an entry is not as it must be.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BankError(f"{path} does not exist: name a bank file of the public shape in method.bank") from None
    except (OSError, ValueError) as error:
        raise BankError(f"{path} is not a readable JSON file ({error})") from None
    try:
        return parse_bank(tree, categories)
    except BankError as error:
        raise BankError(f"{path}: {error}") from None


def parse_bank(tree: Any, categories: Sequence[str]) -> SkillBank:
    """The public shape -> a bank. A section that is missing is empty. Raises BankError."""
    if not isinstance(tree, dict) or not set(tree) & set(_SECTIONS):
        raise BankError(f"no bank: expected an object with the keys {', '.join(_SECTIONS)}")
    general, specific, mistakes = (
        tree.get(name, kind()) for name, kind in zip(_SECTIONS, (list, dict, list), strict=False)
    )
    if not isinstance(specific, dict):
        raise BankError("task_specific_skills must be an object of category -> list")
    for category in specific:
        try:
            closest(category, list(categories), "category")
        except ConfigError as error:
            raise BankError(f"task_specific_skills: {error}") from None
    bank = SkillBank(
        general=tuple(_principle(e, None, f"general_skills[{i}]") for i, e in _items(general, "general_skills")),
        specific=tuple(
            _principle(entry, category, f"task_specific_skills.{category}[{i}]")
            for category, entries in specific.items()
            for i, entry in _items(entries, f"task_specific_skills.{category}")
        ),
        mistakes=tuple(_mistake(e, f"common_mistakes[{i}]") for i, e in _items(mistakes, "common_mistakes")),
        extra={name: value for name, value in tree.items() if name not in _SECTIONS},
    )
    seen: set[str] = set()
    for entry in (*bank.principles, *bank.mistakes):
        if entry.id in seen:
            raise BankError(f"the id {entry.id!r} is there twice: give every entry an id of its own")
        seen.add(entry.id)
    return bank


def usable(entry: Any, texts: Sequence[str] = _TEXTS) -> bool:
    """Whether a teacher's entry holds the texts it must hold, as storable text."""
    if not isinstance(entry, dict) or not all(isinstance(entry.get(t), str) and entry[t].strip() for t in texts):
        return False
    try:
        json.dumps(entry, ensure_ascii=False).encode()  # half a surrogate pair could not be stored
    except ValueError:
        return False
    return True


def usable_mistake(entry: Any) -> bool:
    """As `usable`, for a mistake."""
    return usable(entry, _MISTAKE_TEXTS)


def _items(section: Any, name: str) -> Iterator[tuple[int, Any]]:
    if not isinstance(section, list):
        raise BankError(f"{name} must be a list")
    return enumerate(section)


def _principle(entry: Any, category: str | None, where: str) -> Principle:
    identity, title, principle = _required(entry, ("skill_id", *_TEXTS), where)
    known = ("skill_id", *_TEXTS, "when_to_apply")
    return Principle(identity, title, principle, _optional(entry, "when_to_apply"), category, _rest(entry, known))


def _mistake(entry: Any, where: str) -> Mistake:
    identity, description, avoid = _required(entry, ("mistake_id", *_MISTAKE_TEXTS), where)
    known = ("mistake_id", *_MISTAKE_TEXTS, "why_it_happens")
    return Mistake(identity, description, avoid, _optional(entry, "why_it_happens"), _rest(entry, known))


def _required(entry: Any, names: Sequence[str], where: str) -> list[str]:
    if not isinstance(entry, dict):
        raise BankError(f"{where} is {entry!r}, not an object")
    for name in names:
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            raise BankError(f"{where} has {name} = {entry.get(name)!r}: it needs a text")
    return [entry[name].strip() for name in names]


def _optional(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value.strip() if isinstance(value, str) else ""


def _rest(entry: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in known}
