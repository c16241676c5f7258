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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from skill1.config import ConfigError, closest
from skill1.errors import UserError
from skill1.store.json_file import DamagedFile, read_json

_EVOLVED = re.compile(r"dyn_(\d+)")
_SECTIONS = ("general_skills", "task_specific_skills", "common_mistakes")
_OPTIONAL = ("when_to_apply", "why_it_happens")


class BankError(UserError, ValueError):
    """A bank file or snapshot is not what it must be. The message names the file, the entry and the fix."""


@dataclass(frozen=True, slots=True)
class Principle:
    """A skill of the bank; `category` is None for a general one."""

    KEYS: ClassVar[dict[str, str]] = {
        "skill_id": "id", "title": "title", "principle": "principle", "when_to_apply": "when",
    }  # fmt: skip

    id: str
    title: str
    principle: str
    when: str = ""
    category: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)  # keys of the file that are not ours

    @property
    def evolved(self) -> bool:
        """Tell whether it was added in training."""
        return _EVOLVED.fullmatch(self.id) is not None

    @property
    def text(self) -> str:
        """Join what is embedded: "title. principle. when"."""
        return " ".join(f"{part.rstrip('.')}." for part in (self.title, self.principle, self.when) if part)


@dataclass(frozen=True, slots=True)
class Mistake:
    """What goes wrong often, and what to do instead."""

    KEYS: ClassVar[dict[str, str]] = {
        "mistake_id": "id", "description": "description", "why_it_happens": "why", "how_to_avoid": "avoid",
    }  # fmt: skip

    id: str
    description: str
    avoid: str
    why: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def title(self) -> str:
        """Name the entry as a principle's title does."""
        return self.description


Entry = Principle | Mistake
E = TypeVar("E", Principle, Mistake)


def read_entry(kind: type[E], entry: Any, where: str, **given: Any) -> E:
    """Read an object of the public shape; `given` are the fields that it does not hold.

    Raises:
        BankError: it is no object, or lacks a text. The message begins with `where`.
    """
    if not isinstance(entry, dict):
        raise BankError(f"{where} is {entry!r}, not an object")
    texts = {}
    for key, name in kind.KEYS.items():
        value = entry.get(key)
        texts[name] = value.strip() if isinstance(value, str) else ""
        if not texts[name] and key not in _OPTIONAL:
            raise BankError(f"{where} has {key} = {value!r}: it needs a text")
    return kind(**texts, **given, extra={key: value for key, value in entry.items() if key not in kind.KEYS})


def read_taught(kind: type[E], entry: Any, identity: str, **given: Any) -> E | None:
    """Read what a teacher wrote, under an id of the bank's; None for what lacks a text or cannot be stored."""
    if not isinstance(entry, dict):
        return None
    try:
        json.dumps(entry, ensure_ascii=False).encode()  # half a surrogate pair could not be stored
        made = read_entry(kind, entry | {next(iter(kind.KEYS)): identity}, "an entry", **given)
    except ValueError:
        return None
    return replace(made, extra={})


def write_entry(entry: Entry) -> dict[str, Any]:
    """Give an entry its public shape."""
    return {key: getattr(entry, name) for key, name in entry.KEYS.items()} | dict(entry.extra)


@dataclass(frozen=True, slots=True)
class SkillBank:
    """All entries, each section in its order, and the file's other top-level keys."""

    general: tuple[Principle, ...] = ()
    specific: tuple[Principle, ...] = ()  # grouped by category in the order of the file
    mistakes: tuple[Mistake, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __len__(self) -> int:
        """Count the entries of all three sections, as the limit does."""
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
        """Number the next evolved id: nothing is ever removed, so an id is never given twice."""
        numbers = [int(match[1]) for entry in self.principles if (match := _EVOLVED.fullmatch(entry.id))]
        return max(numbers, default=0) + 1

    def of(self, categories: Iterable[str | None]) -> tuple[Principle, ...]:
        """List the principles of these categories, in the order of the bank."""
        wanted = set(categories)
        return tuple(entry for entry in self.specific if entry.category in wanted)

    def add(self, entries: Sequence[Principle]) -> SkillBank:
        """Append `entries` to their sections, in a new bank. Raises BankError for an id that is taken."""
        taken = {entry.id for entry in self.principles}
        if both := [entry.id for entry in entries if entry.id in taken]:
            raise BankError(f"the bank already holds {', '.join(both)}: the entries belong to another bank")
        return replace(
            self,
            general=self.general + tuple(e for e in entries if e.category is None),
            specific=self.specific + tuple(e for e in entries if e.category is not None),
        )

    def to_json(self) -> dict[str, Any]:
        """Write the public shape."""
        specific: dict[str | None, list[dict[str, Any]]] = {}
        for entry in self.specific:
            specific.setdefault(entry.category, []).append(write_entry(entry))
        sections = [list(map(write_entry, self.general)), specific, list(map(write_entry, self.mistakes))]
        return dict(zip(_SECTIONS, sections, strict=True)) | dict(self.extra)

    def to_text(self) -> str:
        """Write the public shape as a file's text."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"


def load_bank(path: Path, categories: Sequence[str]) -> SkillBank:
    """Read a bank file of the public shape.

    Args:
        categories: those that the environment's tasks can have.

    Raises:
        BankError: no such file, no JSON, or an entry is not as it must be.
    """
    try:
        return parse_bank(read_json(path), categories)
    except FileNotFoundError:
        raise BankError(f"{path} does not exist: name a bank file of the public shape in method.bank") from None
    except (BankError, ConfigError) as error:
        raise BankError(f"{path}: {error}") from None
    except (OSError, DamagedFile) as error:
        raise BankError(f"{path} is not a readable JSON file ({error})") from None


def parse_bank(tree: Any, categories: Sequence[str]) -> SkillBank:
    """Read the public shape; a section that is missing is empty. Raises BankError, ConfigError (unknown category)."""
    if not isinstance(tree, dict) or not set(tree) & set(_SECTIONS):
        raise BankError(f"no bank: expected an object with the keys {', '.join(_SECTIONS)}")
    specific = tree.get("task_specific_skills", {})
    if not isinstance(specific, dict):
        raise BankError("task_specific_skills must be an object of category -> list")
    bank = SkillBank(
        general=_entries(Principle, tree.get("general_skills", []), "general_skills"),
        specific=tuple(
            entry
            for name, found in specific.items()
            for entry in _entries(
                Principle, found, f"task_specific_skills.{name}", category=closest(name, categories, "category")
            )
        ),
        mistakes=_entries(Mistake, tree.get("common_mistakes", []), "common_mistakes"),
        extra={name: value for name, value in tree.items() if name not in _SECTIONS},
    )
    entries: tuple[Entry, ...] = (*bank.principles, *bank.mistakes)
    for identity, count in Counter(entry.id for entry in entries).items():
        if count > 1:
            raise BankError(f"the id {identity!r} is there twice: give every entry an id of its own")
    return bank


def _entries(kind: type[E], found: Any, where: str, **given: Any) -> tuple[E, ...]:
    if not isinstance(found, list):
        raise BankError(f"{where} must be a list")
    return tuple(read_entry(kind, entry, f"{where}[{i}]", **given) for i, entry in enumerate(found))
