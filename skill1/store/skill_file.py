"""Skills that somebody wrote, or that a library has earned, as a file of JSON lines: the kit's own form.

One object a line: "desc" (when it helps) and "strategy", and maybe "task", "outcome" and the statistics "utility" and
"count". Without these a skill is a fresh one wherever it is used: U0, n = 1.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from skill1.errors import RunError
from skill1.records import Skill
from skill1.registry import ConfigError, closest
from skill1.store.atomic import replace_file
from skill1.store.journal import LibraryError, line


@dataclass(frozen=True, slots=True)
class WrittenSkill:
    """A skill outside of a library: its texts, and what it has earned if it comes from one."""

    desc: str
    strategy: str
    task: str = ""
    utility: Annotated[float | None, Field(ge=0, le=1)] = None  # of a skill that was never used: none
    count: Annotated[int, Field(ge=1)] = 1
    outcome: Literal["success", "failure"] = "success"


FIELDS = {field.name: field.default for field in fields(WrittenSkill)}
_SKILL: TypeAdapter[WrittenSkill] = TypeAdapter(WrittenSkill)


def skill_id(number: int) -> str:
    """Name the `number`-th skill, from 1, that a library holds or has held."""
    return f"s{number:06d}"


def as_written(skill: Skill) -> WrittenSkill:
    """Take a library's skill with what it has earned."""
    return WrittenSkill(**{name: getattr(skill, name) for name in FIELDS})


def as_skills(written: Iterable[WrittenSkill], initial_utility: float) -> tuple[Skill, ...]:
    """Make the skills that a library can start with; those without a utility get `initial_utility`."""
    return tuple(
        Skill(
            skill_id(number), skill.desc, skill.strategy, skill.task,
            initial_utility if skill.utility is None else skill.utility, skill.count, admitted=0, last_used=0,
            outcome=skill.outcome,
        )
        for number, skill in enumerate(written, start=1)
    )  # fmt: skip


def told(skill: WrittenSkill) -> dict[str, Any]:
    """List what a skill says beyond the defaults."""
    return {name: value for name, value in asdict(skill).items() if value != FIELDS[name]}


def checked(record: Mapping[str, Any], place: str) -> WrittenSkill:
    """Make a skill of what was read.

    Raises:
        LibraryError: a name is unknown or missing, or a value does not fit; the message begins with `place`.
    """
    try:
        for name in record:
            closest(name, FIELDS, "entry")
        line(record).encode()
        skill = _SKILL.validate_python(record)
    except ConfigError as error:
        raise LibraryError(f"{place}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        value = "" if first["type"] == "missing" else f" = {reprlib.repr(first['input'])}"
        raise LibraryError(f"{place}: {name}{value}: {first['msg']}") from None
    except UnicodeEncodeError:
        raise LibraryError(f"{place}: half of a character (a surrogate alone) cannot be stored: remove it") from None
    if (empty := _empty(skill)) is not None:
        raise LibraryError(f'{place}: "{empty}" is empty: a skill needs the texts "desc" and "strategy"')
    return skill


def _empty(skill: WrittenSkill) -> str | None:
    return next((name for name in ("desc", "strategy") if not getattr(skill, name).strip()), None)


def read_text(path: Path) -> str:
    """Read a text file as it is, without a byte order mark.

    Raises:
        LibraryError: it does not read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LibraryError(f"{path} does not read ({error.strerror}): name a file or folder of skills") from None
    except UnicodeDecodeError as error:
        raise LibraryError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from None


def read_skill_file(path: Path) -> tuple[WrittenSkill, ...]:
    """Read skills, one JSON object a line.

    Raises:
        LibraryError: there is no such file, it holds no skill, or a line is none; the message names the line.
    """
    skills = []
    # Lines end where bytes say so: a text may hold what str.splitlines takes for a line's end.
    for number, data in enumerate(read_text(path).encode().splitlines(), start=1):
        place = f"{path}, line {number}"
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):  # no JSON, or nested without end
            found = None
        if not isinstance(found, dict):
            raise LibraryError(f'{place}: needs an object with the texts "desc" and "strategy"')
        skills.append(checked(found, place))
    if not skills:
        raise LibraryError(f"{path} holds no skills: write one JSON object a line")
    return tuple(skills)


def check_new(path: Path, skills: Collection[WrittenSkill]) -> None:
    """Raise RunError unless there are skills, none without text, and nothing is where they shall be written."""
    if not skills:
        raise RunError(f"there are no skills to write to {path}: choose another source or step")
    for skill in skills:
        if (empty := _empty(skill)) is not None:
            raise RunError(f"cannot write {path}: a skill has an empty {empty} ({line(told(skill))}): give it a text")
    if path.exists():
        raise RunError(f"{path} exists: choose another place, or remove it")


def write_skill_file(path: Path, skills: Sequence[WrittenSkill]) -> None:
    """Write skills such that `read_skill_file` reads the same.

    Raises:
        RunError: see `check_new`, or `path` cannot be written.
    """
    check_new(path, skills)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, "".join(f"{line(told(skill))}\n" for skill in skills).encode())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
