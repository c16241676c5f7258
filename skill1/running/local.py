"""Experiments in processes of this machine, some at a time, within the cores and GPUs that there are.

Each is bound to this process (skill1.running.launch): none outlives it, however it ends. SIGTERM is passed on: training
saves its step, evaluation what it has played, and this process ends with status 143.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch

from skill1.config import ConfigError
from skill1.distributed import TERMINATED, on_sigterm
from skill1.running.collect import PHASES, SECONDS, read_seconds
from skill1.running.experiment import Experiment, command
from skill1.running.jobs import Failure, Job, Phases, execute
from skill1.running.launch import bound_command, bound_environment, killed_by, last_error
from skill1.store.json_file import write_json


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
        devices = visible_devices()
        most = cores // nproc if not devices else min(cores, len(devices)) // nproc
        return cls(jobs or max(1, most), nproc, cores, devices)

    def environment(self, slot: int) -> dict[str, str]:
        """Return the variables of the job in a slot (0 .. jobs - 1); slots take the GPUs in turn."""
        share = {"OMP_NUM_THREADS": str(max(1, self.cores // (self.jobs * self.nproc)))}
        if self.devices:
            turn = range(slot * self.nproc, (slot + 1) * self.nproc)
            share["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices[i % len(self.devices)] for i in turn)
        return share


def visible_devices() -> tuple[str, ...]:
    """Name the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return tuple(names.split(",") if names else map(str, range(count)))[:count]


def run_within(experiment: Experiment, cpus: int) -> None:
    """Execute an experiment with `cpus` cores for each of its processes, as a Slurm job; exits if it fails."""
    share = Share(1, experiment.nproc, cpus * experiment.nproc, visible_devices())
    for failure in execute([experiment], Local(share), partial(print, flush=True)):
        print(failure, flush=True)
        sys.exit(f"error: {failure.error}")


class Local:
    """Executes experiments on this machine (`skill1.running.jobs.Executor`), `share.jobs` at a time."""

    poll = 0.5

    def __init__(self, share: Share) -> None:
        self.jobs = share.jobs
        self._share = share
        self._waiting: deque[Job] = deque()
        self._running: dict[int, _Process] = {}  # by slot
        self._terminated = False
        self._ending = ExitStack()

    def __enter__(self) -> Local:
        self._ending.enter_context(on_sigterm(self._terminate))
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._running.values():  # interrupted
            process.kill()
        self._ending.close()

    def submit(self, works: Sequence[Experiment]) -> list[Job]:
        """Take experiments over; `look` starts them."""
        jobs = [Job(work) for work in works]
        self._waiting.extend(jobs)
        return jobs

    def look(self) -> None:
        """Start what there is room for, see what has ended. After SIGTERM, SystemExit when all have."""
        for slot in range(self.jobs):
            if self._waiting and slot not in self._running and not self._terminated:
                self._running[slot] = _Process(self._waiting.popleft(), self._share.environment(slot))
        for slot, process in list(self._running.items()):
            if self._terminated:
                process.terminate()
            if process.look():
                del self._running[slot]
        if self._terminated and not self._running:
            sys.exit(TERMINATED)

    def _terminate(self) -> None:
        self._terminated = True


class _Process:
    """An experiment's process, and what the experiment cost so far, which is stored beside it."""

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        self._job, self._folder = job, job.work.folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log = self._folder / "log.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                bound_command(command(job.work)),
                env={**os.environ, **bound_environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        job.running, job.state = True, "started"
        self._phases = Phases(job.work)
        self._seconds = dict.fromkeys(PHASES, 0.0) | read_seconds(self._folder)  # of all attempts
        self._counted = time.monotonic()  # until when
        self._asked = False

    def look(self) -> bool:
        """Count what it cost; returns whether it has ended."""
        status = self._process.poll()
        now = time.monotonic()
        self._seconds[self._phases.name] += now - self._counted
        self._counted = now
        if self._phases.progress.look() or status is not None:
            rounded = {phase: round(seconds, 1) for phase, seconds in self._seconds.items()}
            write_json(self._folder / SECONDS, rounded, indent=None)
        self._phases.proceed()
        if status is None:
            return False
        self._job.running, self._job.ended = False, True
        if status != 0:
            error = killed_by(status) if status < 0 else last_error(self._log.read_text(errors="replace"))
            self._job.failure = Failure(self._job.work.label, error, self._log)
        return True

    def terminate(self) -> None:
        """Ask it to end, once: torchrun takes a second SIGTERM for a command to hurry."""
        if not self._asked:
            self._asked = True
            self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.look()
