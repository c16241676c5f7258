"""How far something is that runs elsewhere, by what it has written so far."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm


@dataclass
class Progress:
    """What is done of a phase of a run, and how long the rest will take at the rate so far."""

    unit: str
    total: int
    count: Callable[[], int]  # how many are done
    skip: int = 0  # first ones that are left out of the rate: they wait for processes that start once
    note: Callable[[], str] = str  # what else is known of what is done: "reward 0.41, 219 skills"
    then: Callable[[], float] = float  # seconds of the phase after this one, once it has started; 0: there is none
    clock: Callable[[], float] = time.monotonic
    done: int = field(default=0, init=False)  # at the last look
    _noted: str = field(default="", init=False)
    _changes: list[tuple[float, int]] = field(default_factory=list, init=False)  # (seconds, done) when something was

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> bool:
        """Count again; returns whether something was done since the last look."""
        self.done = self.count()
        changed = not self._changes or self._changes[-1][1] != self.done
        if changed:
            self._changes.append((self.clock(), self.done))
            self._noted = self.note()
        return changed

    @property
    def share(self) -> float:
        return self.done / self.total

    def __str__(self) -> str:
        """Say where it is; without a remaining time while nothing has been done that counts."""
        where = ", ".join(filter(None, [f"{self.done} of {self.total} {self.unit}", self._noted]))
        if len(self._changes) < self.skip + 2:
            return where
        (looked, there), (began, first), (now, done) = self._changes[0], self._changes[self.skip], self._changes[-1]
        each = (now - began) / (done - first)
        seconds, then = each * (self.total - done), self.then()
        waited = max(0.0, began - looked - each * (first - there))  # for its processes to start, as what follows will
        in_all = f" ({tqdm.format_interval(seconds + waited + then)} in all)" if then else ""
        return f"{where}, {tqdm.format_interval(seconds)} left{in_all}"


def steps_logged(run: Path) -> int:
    """Count the training steps that a run has logged; 0 before there is a run."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def training_progress(run: Path, steps: int, then: Callable[[], float] = float) -> Progress:
    """Follow a run's training steps, with the last one's reward and the library's size. `then`: see `Progress`."""
    return Progress("steps", steps, lambda: steps_logged(run), skip=1, note=lambda: _last_step(run), then=then)


def last_metrics(run: Path) -> dict[str, float]:
    """Read the metrics of the last step that a run has logged; empty before there is one."""
    file = run / "metrics.jsonl"
    whole = file.read_text().rpartition("\n")[0] if file.exists() else ""  # the process may be writing the next
    return json.loads(whole.rpartition("\n")[2]) if whole else {}


def _last_step(run: Path) -> str:
    """The reward of the last logged step, and the library's size after it; "" before there is one."""
    last = last_metrics(run)
    if not last:
        return ""
    skills = f", {last['library/size']:.0f} skills" if "library/size" in last else ""
    return f"reward {last['reward']:.2f}{skills}"
