"""Skills that somebody wrote, as a library can start with, and the ids that skills have in a library."""

from __future__ import annotations

import json
from pathlib import Path

from skill1.records import Skill
from skill1.store.journal import LibraryError


def skill_id(number: int) -> str:
    """Name the `number`-th skill, from 1, that a library holds or has held."""
    return f"s{number:06d}"


def read_skills(path: Path, initial_utility: float) -> tuple[Skill, ...]:
    """Read skills that somebody wrote: JSON lines with "desc" (when it helps), "strategy", and maybe "task".

    Raises:
        LibraryError: there is no such file, or a line is no object with these texts; the message names the line.
    """
    try:
        lines = path.read_bytes().splitlines()  # bytes: a text may hold what str.splitlines takes for a line's end
    except OSError as error:
        raise LibraryError(f"{path} does not read ({error.strerror}): name a file of JSON lines") from None
    skills = []
    for number, data in enumerate(lines, start=1):
        try:
            found = json.loads(data)
            desc, strategy = (found[name].strip() for name in ("desc", "strategy"))
        except (ValueError, LookupError, TypeError, AttributeError):
            desc = strategy = ""
        if not desc or not strategy:
            raise LibraryError(f'{path}, line {number}: needs an object with the texts "desc" and "strategy"')
        skills.append(
            Skill(
                skill_id(number), desc, strategy, str(found.get("task", "")), initial_utility, count=1, admitted=0,
                last_used=0, outcome="success",
            )
        )  # fmt: skip
    return tuple(skills)
