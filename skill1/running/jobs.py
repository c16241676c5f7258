"""Experiments in processes of their own, some at a time, within the cores and GPUs that there are.

Each is bound to this process (skill1.running.launch): none outlives it, however it ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from skill1.config import ConfigError
from skill1.running.collect import PHASES, SECONDS, read_seconds
from skill1.running.experiment import Experiment, command
from skill1.running.launch import bound_command, bound_environment, killed_by, last_error
from skill1.store.atomic import replace_file

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
        """By default one job per `nproc` GPUs, or, without a GPU, per `nproc` cores.

        Raises:
            ConfigError: more processes than cores, or more processes of one job than GPUs.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        devices = _devices()
        most = cores // nproc if not devices else min(cores, len(devices)) // nproc
        return cls(jobs or max(1, most), nproc, cores, devices)

    def environment(self, slot: int) -> dict[str, str]:
        """Variables of the job in a slot (0 .. jobs - 1); GPUs are dealt out in turn."""
        share = {"OMP_NUM_THREADS": str(max(1, self.cores // (self.jobs * self.nproc)))}
        if self.devices:
            turn = range(slot * self.nproc, (slot + 1) * self.nproc)
            share["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices[i % len(self.devices)] for i in turn)
        return share


def _devices() -> tuple[str, ...]:
    import torch  # not at the top: a misspelt name is reported without waiting for it

    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return tuple(names.split(",") if names else map(str, range(count)))[:count]


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that ended with an error."""

    label: str
    error: str  # the last line of its output that tells of one
    log: Path  # all of its output

    def __str__(self) -> str:
        return f"{self.label} failed: {self.error}\n  log: {self.log}"


def execute(experiments: Sequence[Experiment], share: Share, say: Callable[[str], None] = print) -> list[Failure]:
    """Execute them all, `share.jobs` at a time; a failed one does not stop the others. Returns the failed ones.

    On a terminal every running job has a line with its step and time; elsewhere each change of state is one line.
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
                if job.look() and status is None:
                    tell(job, f"trained, {job.minutes:.1f} min; evaluating")
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
        self._seen = time.monotonic()  # when the cost was last counted
        self._bar = tqdm(
            total=experiment.config.train.steps,
            initial=experiment.steps_logged(),
            position=slot,
            desc=experiment.label,
            bar_format="{desc:<26} {n_fmt:>4} of {total_fmt} steps  {postfix}  {elapsed}<{remaining}",
            leave=False,
            disable=None,  # not on a terminal
        )
        self._phase = PHASES[self._bar.n >= self._bar.total]

    @property
    def minutes(self) -> float:
        """Of all attempts."""
        return sum(self._seconds.values()) / 60

    def look(self) -> bool:
        """Count what it cost and show where it is; returns whether its training has ended since the last look."""
        now, step = time.monotonic(), self.experiment.steps_logged()
        self._seconds[self._phase] += now - self._seen
        self._seen = now
        trained = step >= self._bar.total and self._phase == PHASES[0]
        self._phase = PHASES[1] if trained else self._phase
        if step != self._bar.n:
            self._bar.n = step
            self._store()
        self._bar.set_postfix_str(self._phase)
        return trained

    def end(self, status: int) -> Failure | None:
        """After the process ended: what went wrong."""
        self._store()
        self._bar.close()
        if status == 0:
            return None
        error = killed_by(status) if status < 0 else last_error(self._log.read_text(errors="replace"))
        return Failure(self.experiment.label, error, self._log)

    def _store(self) -> None:
        rounded = {phase: round(seconds, 1) for phase, seconds in self._seconds.items()}
        replace_file(self.experiment.folder / SECONDS, f"{json.dumps(rounded)}\n".encode())
