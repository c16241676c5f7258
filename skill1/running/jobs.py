"""Works followed while they are executed, on this machine or a cluster: how far each is, and what went wrong.

A work is an experiment (skill1.running.experiment) or a training run (skill1.running.slurm). Where it is executed is an
`Executor`'s business: skill1.running.local, skill1.running.slurm. What is shown of it is read from what it writes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from skill1.running.collect import read_seconds
from skill1.running.progress import Progress

_TAIL = 5  # lines of a failed job's log that are shown
_WIDTH = 200  # characters of such a line


class Work(Protocol):
    """What is executed. It is continued, not repeated, when it is executed again."""

    @property
    def label(self) -> str: ...

    @property
    def folder(self) -> Path: ...

    def phases(self) -> Mapping[str, Callable[[], Progress]]:
        """Return what follows the work's phases, in their order."""

    def is_finished(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that ended with an error."""

    label: str
    error: str  # the line of its output that says why
    log: Path  # all of its output

    def __str__(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL:] if self.log.exists() else []
        return "\n".join(
            [f"{self.label} failed: {self.error}", *(f"  | {line[:_WIDTH]}" for line in lines), f"  log: {self.log}"]
        )


@dataclass(slots=True, eq=False)
class Job:
    """A work that was handed to an executor, which keeps the other fields up to date."""

    work: Any  # a Work
    state: str = ""  # in words
    running: bool = False
    ended: bool = False
    failure: Failure | None = None  # of an ended one


class Executor(Protocol):
    """Where works are executed. Leaving its context says that nobody follows them any more."""

    poll: float  # seconds between two looks
    jobs: int  # at a time

    def submit(self, works: Sequence[Any]) -> list[Job]:
        """Take works over, in this order. Raises UserError if they cannot be executed there."""

    def look(self) -> None:
        """Bring the jobs up to date."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *error: object) -> None: ...


def execute(works: Sequence[Any], executor: Executor, say: Callable[[str], None] = print) -> list[Failure]:
    """Execute them all; a failed one does not stop the others. Returns the failed ones.

    On a terminal every running job has a line with how far it is and how long its phase will take; elsewhere each tenth
    of a phase is one line.
    """
    shown: dict[Job, _Line] = {}
    states: dict[Job, str] = {}
    ended = 0

    def tell(job: Job, text: str) -> None:
        with tqdm.external_write_mode():
            say(f"[{ended}/{len(works)}] {job.work.label}: {text}")

    with executor:
        left = jobs = executor.submit(works)
        try:
            while left:
                executor.look()
                for job in left:
                    if job.running and job not in shown:
                        shown[job] = _Line(job.work, next(i for i in itertools.count() if i not in _places(shown)))
                    if job.state != states.get(job, ""):
                        states[job] = job.state
                        tell(job, job.state)
                    if job in shown and (news := shown[job].look()) and not job.ended:
                        tell(job, news)
                    if job in shown and not job.running:
                        shown.pop(job).close()
                    if job.ended:
                        ended += 1
                        tell(job, f"failed: {job.failure.error}" if job.failure else f"done{_cost(job.work)}")
                left = [job for job in left if not job.ended]
                if left:
                    time.sleep(executor.poll)
        finally:
            for line in shown.values():
                line.close()
    return [job.failure for job in jobs if job.failure]


def _cost(work: Any) -> str:
    seconds = read_seconds(work.folder)  # of all attempts
    return f", {sum(seconds.values()) / 60:.1f} min in all" if seconds else ""


def _places(shown: Mapping[Job, _Line]) -> set[int]:
    return {line.place for line in shown.values()}


@dataclass
class Phases:
    """The phase that a work is in: the first that is not complete, else the last."""

    work: Any
    name: str = field(init=False)
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self._rest = iter(self.work.phases().items())
        self._begin(*next(self._rest))
        while self.proceed():
            pass

    def _begin(self, name: str, follow: Callable[[], Progress]) -> None:
        self.name, self.progress = name, follow()

    def proceed(self) -> bool:
        """Go on to the next phase if this one is complete; returns whether it did."""
        following = next(self._rest, None) if self.progress.share == 1 else None
        if following is not None:
            self._begin(*following)
        return following is not None


class _Line:
    """A running job's line on the terminal."""

    def __init__(self, work: Any, place: int) -> None:
        self.place = place
        self._work, self._phases = work, Phases(work)
        self._bar = tqdm(position=place, bar_format="{desc}  {elapsed}", leave=False, disable=None)  # on a terminal

    def look(self) -> str | None:
        """Show where the job is; returns what is worth a line: the end of a phase.

        Without a terminal's bars also every tenth of a phase.
        """
        phase, progress = self._phases.name, self._phases.progress
        before, changed = progress.share, progress.look()
        self._bar.set_description_str(f"{self._work.label:<26} {phase} {progress}")
        if not changed:
            return None
        if self._phases.proceed():
            return f"{phase} done{_cost(self._work)}; {self._phases.name}"
        passed = int(10 * before) < int(10 * progress.share)
        return f"{phase}, {progress}" if self._bar.disable and passed else None

    def close(self) -> None:
        self._bar.close()
