"""The skill library on disk: the snapshot of a checkpoint and the journal of a run.

* Snapshot: `skills.jsonl` (a header, one record per line in id order, a footer with count and checksum) and the
  embeddings file that the header names. Both are written as temp file + fsync + rename; the rename of `skills.jsonl`
  comes last and makes the new snapshot the current one, so that a kill at any moment leaves the old or the new one.
* Journal: one line per step that learnt, flushed to the disk before `append` returns. Only the last line can be torn.

One process (rank 0) writes. Text is UTF-8 JSON lines; floats are written by `repr`, which Python reads back bit by bit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from pydantic import TypeAdapter

from skill1.errors import UserError
from skill1.records import Skill
from skill1.store.atomic import replace_file

SNAPSHOT_FILE = "skills.jsonl"
_SNAPSHOT_HEAD = {"format": "skill1-library", "version": 1}
_RESTORE = "restore it from a backup or resume from another checkpoint"


class LibraryError(UserError, RuntimeError):
    """A library, snapshot or journal is not what it must be. The message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class LibraryEvent:
    """All that one training step did to the library, enough to do it again."""

    sequence: int  # 1 for the first step that learnt, then without gaps
    step: int
    # (skill id, outcome r) of every candidate in rollout order: Eq. 5; None is a retrieval that moves no utility
    updates: tuple[tuple[str, float | None], ...]
    admitted: tuple[Skill, ...]  # as they were admitted
    merged: tuple[str, ...]  # ids of the records that took an equal skill in; one may appear twice
    retired: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The whole state of a library."""

    sequence: int  # events applied
    next_id: int  # number of the next skill's id
    settings: Mapping[str, Any]  # the configuration that the stored numbers depend on
    skills: tuple[Skill, ...]  # in id order
    embeddings: np.ndarray  # (n, d) float32


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write `snapshot` into `folder` (made if missing), replacing the one there in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    np.save(buffer, snapshot.embeddings, allow_pickle=False)
    checksum = _sha256(buffer.getvalue())
    # Named by its content: the old skills.jsonl keeps its own embeddings until it is replaced.
    embeddings = f"embeddings-{checksum[:16]}.npy"
    replace_file(folder / embeddings, buffer.getvalue())
    head = _SNAPSHOT_HEAD | {
        "sequence": snapshot.sequence,
        "next_id": snapshot.next_id,
        "settings": dict(snapshot.settings),
        "embeddings": embeddings,
        "embeddings_sha256": checksum,
    }
    body = "".join(f"{line(record)}\n" for record in (head, *map(asdict, snapshot.skills))).encode()
    foot = {"records": len(snapshot.skills), "sha256": _sha256(body)}
    replace_file(folder / SNAPSHOT_FILE, body + f"{line(foot)}\n".encode())
    for stale in folder.glob("embeddings-*.npy"):
        if stale.name != embeddings:
            stale.unlink()


def read_snapshot(folder: Path) -> Snapshot:
    """Read what `write_snapshot` wrote.

    Raises:
        LibraryError: a file is missing, truncated, altered, or from another version of the format.
    """
    path = folder / SNAPSHOT_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise LibraryError(
            f"{path} does not exist: is {folder} the library folder of a checkpoint, or one of skills with a SKILL.md each?"
        ) from None
    lines = data.split(b"\n")
    _check_head(path, lines[0], _SNAPSHOT_HEAD)
    try:
        foot = json.loads(lines[-2])
        records, checksum = foot["records"], foot["sha256"]
    except (ValueError, LookupError, TypeError):
        raise LibraryError(f"{path} is truncated: its last line is not the footer; {_RESTORE}") from None
    body = data[: -len(lines[-2]) - 1] if not lines[-1] else b""
    if records != len(lines) - 3 or checksum != _sha256(body):
        raise LibraryError(f"{path} is corrupt: its content does not match its checksum; {_RESTORE}")
    head = json.loads(lines[0])
    skills = tuple(Skill(**json.loads(record)) for record in lines[1:-2])
    return Snapshot(head["sequence"], head["next_id"], head["settings"], skills, _read_embeddings(folder, head))


def _read_embeddings(folder: Path, head: Mapping[str, Any]) -> np.ndarray:
    path = folder / head["embeddings"]
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise LibraryError(f"{path} does not exist, but {SNAPSHOT_FILE} needs it; {_RESTORE}") from None
    if _sha256(data) != head["embeddings_sha256"]:
        raise LibraryError(f"{path} is corrupt: it does not match its checksum; {_RESTORE}")
    return np.load(BytesIO(data), allow_pickle=False)


class Event(Protocol):
    """A dataclass of JSON values that says what one step did."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def sequence(self) -> int: ...


E = TypeVar("E", bound=Event)


class EventJournal(Generic[E]):
    """The append-only file of a run's events of one kind, one JSON line each, with its checksum.

    Args:
        path: the file; the first `append` makes it. An existing one is read and checked.

    Raises:
        LibraryError: a whole line is damaged or out of order, or the file is no journal of this version.
    """

    FORMAT: ClassVar[str]  # names the kind in the file's header
    EVENT: ClassVar[type]  # E
    _VERSION = 1

    def __init__(self, path: Path) -> None:
        self._path = path
        self._head = {"format": self.FORMAT, "version": self._VERSION}
        self._ends: list[int] = []  # byte offset behind the header and behind each event
        self._torn = False
        self._events: TypeAdapter[E] = TypeAdapter(self.EVENT)
        if path.exists():
            _, self._ends, self._torn = self._read()

    @property
    def sequence(self) -> int:
        """Sequence of the last whole event; 0 without any."""
        return max(len(self._ends) - 1, 0)

    @property
    def torn(self) -> bool:
        """The last line was cut while it was being written: that step is to be done again. `truncate` removes it."""
        return self._torn

    def events(self) -> tuple[E, ...]:
        """Read all whole events, oldest first.

        Raises:
            LibraryError: there is no file.
        """
        self._require()
        return tuple(self._read()[0])

    def append(self, event: E) -> None:
        """Add the next event; it is on the disk when this returns.

        Raises:
            LibraryError: the event is not the next one, or the last line is torn.
        """
        if self._torn:
            raise LibraryError(f"{self._path} ends in a torn line: truncate it to the checkpoint's sequence first")
        if event.sequence != self.sequence + 1:
            raise LibraryError(f"{self._path} ends at event {self.sequence}: event {event.sequence} cannot follow")
        if not self._ends:
            head = f"{line(self._head)}\n".encode()
            replace_file(self._path, head)
            self._ends.append(len(head))
        record = asdict(event)
        data = f"{line({'sha256': _sha256(line(record).encode()), 'event': record})}\n".encode()
        self._torn = True  # until it is whole
        with self._path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self._ends.append(self._ends[-1] + len(data))

    def truncate(self, sequence: int) -> None:
        """Drop all events after `sequence` and a torn last line: what a resumed run will do again.

        Raises:
            LibraryError: there is no file, or it ends before `sequence`.
        """
        self._require()
        if not 0 <= sequence <= self.sequence:
            raise LibraryError(
                f"{self._path} ends at event {self.sequence}, the checkpoint is at {sequence}: it is not this run's, "
                f"or events were lost; {_RESTORE}"
            )
        del self._ends[sequence + 1 :]
        with self._path.open("r+b") as file:
            file.truncate(self._ends[-1])
            os.fsync(file.fileno())
        self._torn = False

    def _require(self) -> None:
        if not self._path.exists():
            raise LibraryError(f"{self._path} does not exist: is this a run directory that has trained?")

    def _read(self) -> tuple[list[E], list[int], bool]:
        lines = self._path.read_bytes().split(b"\n")
        _check_head(self._path, lines[0], self._head)
        events: list[E] = []
        ends = [len(lines[0]) + 1]
        for number, data in enumerate(lines[1:-1], start=1):
            event = self._parse(data)
            if event is None or event.sequence != number:
                raise LibraryError(f"{self._path} is corrupt in line {number + 1}; {_RESTORE}")
            events.append(event)
            ends.append(ends[-1] + len(data) + 1)
        return events, ends, lines[-1] != b""  # a line without its end is one whose writing was cut

    def _parse(self, data: bytes) -> E | None:
        try:
            record = json.loads(data)
            event = record["event"]
            return self._events.validate_python(event) if record["sha256"] == _sha256(line(event).encode()) else None
        except (ValueError, LookupError, TypeError):
            return None


class Journal(EventJournal[LibraryEvent]):
    """The journal of the skill library."""

    FORMAT = "skill1-library-journal"
    EVENT = LibraryEvent


def _check_head(path: Path, data: bytes, expected: Mapping[str, Any]) -> None:
    try:
        head = json.loads(data)
        found = {name: head[name] for name in expected}
    except (ValueError, LookupError, TypeError):
        raise LibraryError(f"{path} is corrupt: line 1 is not a {expected['format']} header; {_RESTORE}") from None
    if found != expected:
        raise LibraryError(f"{path} is {found}, this code reads {dict(expected)}: use the code version that wrote it")


def line(record: Mapping[str, Any]) -> str:
    """Write one record as one line of JSON."""
    return json.dumps(record, ensure_ascii=False)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
