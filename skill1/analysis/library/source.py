"""The skills of whatever holds some: a run at a step, a checkpoint, an exported model, a file, folders of skills."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skill1.analysis.library.replay import moments
from skill1.config import LibraryConfig, method_of
from skill1.errors import RunError
from skill1.methods.library_method import JOURNAL
from skill1.records import Skill
from skill1.store.journal import SNAPSHOT_FILE, Journal, LibraryError, read_snapshot
from skill1.store.run_directory import RunDirectory
from skill1.store.skill_file import WrittenSkill, as_written, skill_id
from skill1.store.skill_source import is_written, read_written


@dataclass(frozen=True, slots=True)
class Entry:
    """A skill where it was found."""

    id: str  # in its library; of written skills: by their order
    skill: WrittenSkill
    admitted: int | None = None  # training step, of a library's
    retired: int | None = None  # training step, None = it is there


def read_entries(path: Path, step: int | None = None, *, retired: bool = False) -> list[Entry]:
    """Read the skills of a path, in the order of their ids.

    Args:
        step: of a run: its library as it was after this step; None = after the last.
        retired: of a run: also those that had been retired by then, as they were when they left.

    Raises:
        RunError: there is nothing of the kind, the run keeps no library or has not learnt so far, or `step` or
            `retired` is asked of something that is no run.
        LibraryError: see `read_written`, `read_snapshot` and `Journal`.
    """
    if (path / "manifest.json").is_file() and (path / "config.json").is_file():
        return _of_run(path, step, retired)
    if step is not None or retired:
        raise RunError(f"{path} is no run: only runs have steps and retired skills")
    if path.exists() and is_written(path):
        written = enumerate(read_written(path), start=1)
        return [Entry(skill_id(number), skill) for number, skill in written]
    for folder in (path, path / "library"):
        if (folder / SNAPSHOT_FILE).is_file():
            return [_entry(skill) for skill in read_snapshot(folder).skills]
    if not path.exists():
        raise RunError(f"{path} does not exist: name a run, a checkpoint, a file or a folder of skills")
    raise LibraryError(
        f"{path} holds no skills: name a run, a checkpoint, an exported model, a file of JSON lines, or a folder whose "
        "folders have a SKILL.md"
    )


def to_json(entry: Entry) -> dict[str, Any]:
    """List what is known of an entry."""
    skill = entry.skill
    return {
        "id": entry.id, "utility": skill.utility, "count": skill.count, "desc": skill.desc, "strategy": skill.strategy,
        "task": skill.task, "outcome": skill.outcome, "admitted": entry.admitted, "retired": entry.retired,
    }  # fmt: skip


def by_utility(entries: list[Entry]) -> list[Entry]:
    """Sort entries by utility, the best first and those without one last; of equals the oldest first."""
    return sorted(entries, key=lambda e: (e.skill.utility is None, -(e.skill.utility or 0.0), e.id))


def _of_run(path: Path, step: int | None, retired: bool) -> list[Entry]:
    run = RunDirectory.open(path)
    if not method_of(run.config).uses_library:
        raise RunError(f"{path} (variant {run.config.variant}) keeps no library: choose another run")
    events = Journal(run.library_dir / JOURNAL).events()
    last = events[-1].step if events else 0
    if step is not None and step > last:
        raise RunError(f"{path} has learnt until step {last}, not {step}: choose a step up to it")
    found: dict[str, Entry] = {}
    for moment in moments([e for e in events if step is None or e.step <= step], LibraryConfig.of(run.config)):
        found |= {
            skill.id: _entry(skill, moment.step if skill.id in moment.retired else None) for skill in moment.skills
        }
    return [entry for entry in found.values() if retired or entry.retired is None]


def _entry(skill: Skill, retired: int | None = None) -> Entry:
    return Entry(skill.id, as_written(skill), skill.admitted, retired)
