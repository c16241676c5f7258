"""Skills that somebody wrote, in either of their forms: a file of JSON lines, or folders with a `SKILL.md`."""

from __future__ import annotations

from pathlib import Path

from skill1.store.skill_file import WrittenSkill, read_skill_file
from skill1.store.skill_folders import read_skill_folders, skill_pages


def is_written(path: Path) -> bool:
    """Tell whether a path is of such skills; a folder can also hold a library. Raises LibraryError, see `skill_pages`."""
    return path.is_file() or bool(skill_pages(path))


def read_written(path: Path) -> tuple[WrittenSkill, ...]:
    """Read the skills of a file or folder.

    Raises:
        LibraryError: there are none, or one is malformed; the message names the place.
    """
    return read_skill_folders(path) if path.is_dir() else read_skill_file(path)
