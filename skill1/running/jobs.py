"""Experiments in processes of their own, some at a time, within the cores and GPUs that there are.

Each is bound to this process (skill1.running.launch): none outlives it, however it ends.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from skill1.config import ConfigError
from skill1.running.collect import PHASES, SECONDS, read_seconds
from skill1.running.experiment import Experiment, command
from skill1.running.launch import bound_command, bound_environment, killed_by, last_error
from skill1.store.json_file import write_json

_POLL = 0.5  # seconds between two looks at the running jobs


@dataclass(frozen=True, slots=True)
class Share:
    """How many jobs run at a time, and what of the machine each of them gets."""

    jobs: int
    nproc: int  # training processes of one job
    cores: int
    devices: tuple[str, ...]  # names of the GPUs, as CUDA_VISIBLE_DEVICES has them

    def __post_init__(self) -> None:
        most = max(1, self.cores // self.nproc)
        if self.devices and self.nproc > len(self.devices):
            raise ConfigError(f"nproc = {self.nproc} needs as many GPUs, there are {len(self.devices)}")
        if self.jobs > most:
            raise ConfigError(
                f"jobs = {self.jobs} with nproc = {self.nproc} is more than {self.cores} cores can run: "
                f"use at most {most}"
            )

    @classmethod
    def of_this_machine(cls, nproc: int = 1, jobs: int | None = None) -> Share:
        """Share this machine: by default one job per `nproc` GPUs, or, without a GPU, per `nproc` cores.

        Raises:
            ConfigError: more processes than cores, or more processes of one job than GPUs.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        devices = _devices()
        most = cores // nproc if not devices else min(cores, len(devices)) // nproc
        return cls(jobs or max(1, most), nproc, cores, devices)

    def environment(self, slot: int) -> dict[str, str]:
        """Return the variables of the job in a slot (0 .. jobs - 1); slots take the GPUs in turn."""
        share = {"OMP_NUM_THREADS": str(max(1, self.cores // (self.jobs * self.nproc)))}
        if self.devices:
            turn = range(slot * self.nproc, (slot + 1) * self.nproc)
            share["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices[i % len(self.devices)] for i in turn)
        return share


def _devices() -> tuple[str, ...]:
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return tuple(names.split(",") if names else map(str, range(count)))[:count]


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that ended with an error."""

    label: str
    error: str  # the last line of its output that reports one
    log: Path  # all of its output

    def __str__(self) -> str:
        return f"{self.label} failed: {self.error}\n  log: {self.log}"


def execute(experiments: Sequence[Experiment], share: Share, say: Callable[[str], None] = print) -> list[Failure]:
    """Execute them all, `share.jobs` at a time; a failed one does not stop the others. Returns the failed ones.

    On a terminal every running job has a line with how far it is and how long its phase will take; elsewhere each tenth
    of a phase is one line.
    """
    todo = deque(experiments)
    running: dict[int, _Job] = {}  # by slot
    failures: list[Failure] = []
    ended = 0

    def tell(job: _Job, state: str) -> None:
        with tqdm.external_write_mode():
            say(f"[{ended}/{len(experiments)}] {job.experiment.label}: {state}")

    try:
        while todo or running:
            for slot in range(share.jobs):
                if todo and slot not in running:
                    running[slot] = job = _Job(todo.popleft(), share.environment(slot), slot)
                    tell(job, "started")
            time.sleep(_POLL)
            for slot, job in list(running.items()):
                status = job.process.poll()
                if (state := job.look()) and status is None:
                    tell(job, state)
                if status is not None:
                    ended += 1
                    failure = running.pop(slot).end(status)
                    tell(job, f"failed: {failure.error}" if failure else f"done, {job.minutes:.1f} min in all")
                    failures += [failure] if failure else []
    finally:
        for job in running.values():  # interrupted
            job.process.kill()
            job.end(job.process.wait())
    return failures


class _Job:
    """A running experiment: its process, what it cost so far, and its line on the terminal."""

    def __init__(self, experiment: Experiment, environment: Mapping[str, str], slot: int) -> None:
        self.experiment = experiment
        folder = experiment.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "log.txt"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                bound_command(command(experiment)),
                env={**os.environ, **bound_environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._seconds = dict.fromkeys(PHASES, 0.0) | read_seconds(folder)  # of all attempts
        self._counted = time.monotonic()  # until when
        self._phase, self._progress = PHASES[0], experiment.training_progress()
        if self._progress.share == 1:
            self._phase, self._progress = PHASES[1], experiment.evaluation_progress()
        self._bar = tqdm(position=slot, bar_format="{desc}  {elapsed}", leave=False, disable=None)  # on a terminal

    @property
    def minutes(self) -> float:
        """Of all attempts."""
        return sum(self._seconds.values()) / 60

    def look(self) -> str | None:
        """Count what it cost and show where it is; returns what is worth a line: the end of training.

        Without a terminal's bars also every tenth of a phase.
        """
        now, progress = time.monotonic(), self._progress
        self._seconds[self._phase] += now - self._counted
        self._counted = now
        before, changed = progress.share, progress.look()
        self._bar.set_description_str(f"{self.experiment.label:<26} {self._phase} {progress}")
        if not changed:
            return None
        self._store()
        if self._phase == PHASES[0] and progress.share == 1:
            self._phase, self._progress = PHASES[1], self.experiment.evaluation_progress()
            return f"trained, {self.minutes:.1f} min; evaluating"
        passed = int(10 * before) < int(10 * progress.share)
        return f"{self._phase}, {progress}" if self._bar.disable and passed else None

    def end(self, status: int) -> Failure | None:
        """Close the job after its process ended; returns what went wrong."""
        self._store()
        self._bar.close()
        if status == 0:
            return None
        error = killed_by(status) if status < 0 else last_error(self._log.read_text(errors="replace"))
        return Failure(self.experiment.label, error, self._log)

    def _store(self) -> None:
        rounded = {phase: round(seconds, 1) for phase, seconds in self._seconds.items()}
        write_json(self.experiment.folder / SECONDS, rounded, indent=None)
