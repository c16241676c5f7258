"""Works on a Slurm cluster: a job each, submitted by submitit as one array, at most `jobs` of which run at a time.

    <folder>/jobs.json          work -> Slurm job, of the last submission
    <folder>/<job>_0_log.out    output of all attempts of a job; its last line says why a failed one failed
    <folder>/...                submitit's scripts and pickles

The jobs outlive whoever submitted them: a later `Slurm` on the same folder follows those that are still queued. The
working folder, the interpreter and the data must be where all nodes see them.

SIGTERM (preemption, or slurm.grace before the time limit) ends a training step with a checkpoint, and the job with status
143. Its script then has it requeued, unless Slurm counts it as ended: whoever cancels a job means it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from skill1.config import STRICT, ConfigError, closest, knob
from skill1.distributed import TERMINATED
from skill1.errors import MissingPackage, RunError, one_line
from skill1.running.jobs import Failure, Job
from skill1.running.launch import last_error
from skill1.store.json_file import read_json, write_json

_JOBS = "jobs.json"
_GONE = 2  # looks in a row that do not find a job in the queue until it counts as ended: shared folders lag behind
_ANSWER = 60  # seconds that Slurm has to answer
_FORMAT = "%i|%T|%r|%N"  # of squeue: job, state, why it waits, nodes
_REQUEUE = (  # after the job's command, in its script
    "status=$?",
    f'if [ $status = {TERMINATED} ] && [ "$(squeue --noheader --jobs=$SLURM_JOB_ID --format=%T)" = RUNNING ]',
    "then scontrol requeue $SLURM_JOB_ID",
    "fi",
    "exit $status",
)
_QUEUE = ("squeue", "--me", "--array", "--noheader", f"--format={_FORMAT}")


@dataclass(frozen=True, config=STRICT)
class SlurmConfig:
    """What a job asks of Slurm. None of it changes the result."""

    # Where the jobs run.
    partition: str | None = knob(None, "name, None = the cluster's default", "ours", min_length=1)
    # Who pays.
    account: str | None = knob(None, "name, None = the user's default", "ours", min_length=1)
    # The quality of service.
    qos: str | None = knob(None, "name, None = the user's default", "ours", min_length=1)
    # When a job is saved and requeued, as often as its run takes.
    time_limit: int | None = knob(None, "minutes, None = the partition's default", "ours", gt=0)
    # How long before that SIGTERM comes: a training step and its checkpoint must fit.
    grace: int = knob(600, "seconds", "ours", gt=0)
    # Cores, and threads of each process.
    cpus: int = knob(4, "cores per process", "ours", gt=0)
    # GPUs.
    gpus: int = knob(0, "GPUs per process", "ours", ge=0)
    # Memory.
    memory: float | None = knob(None, "GB per process, None = the cluster's default", "ours", gt=0)
    # How often the queue is looked at.
    poll: float = knob(10.0, "seconds", "ours", gt=0)

    def __post_init__(self) -> None:
        if self.time_limit is not None and self.grace >= 60 * self.time_limit:
            raise ConfigError(
                f"slurm.grace = {self.grace} s must be less than slurm.time_limit = {self.time_limit} minutes"
            )


@plain_dataclass(slots=True)
class _Queued:
    """A job of ours and its id; `gone` counts the looks that did not find it."""

    job: Job
    id: str
    gone: int = 0


class Slurm:
    """Executes works on a cluster (`skill1.running.jobs.Executor`)."""

    def __init__(
        self,
        options: SlurmConfig,
        folder: Path,
        act: Callable[[Any, int], None],
        *,
        jobs: int,
        nproc: int,
        nodes: int = 1,
    ) -> None:
        """Check that Slurm takes such jobs; nothing is created.

        Args:
            act: called in the job, once per node, with a work and the cores of each of its processes.
            jobs: at a time.
            nproc: processes of a work on each of its `nodes`.

        Raises:
            MissingPackage: submitit is not installed.
            RunError: there is no Slurm, it does not answer, or it refuses such jobs.
            ConfigError: there is no such partition (with the closest match).
        """
        self.jobs, self.poll = jobs, options.poll
        self._options, self._folder, self._act = options, folder, act
        self._queued: list[_Queued] = []
        memory = None if options.memory is None else f"{round(1000 * options.memory * nproc)}M"
        self._asked = {
            "partition": options.partition,
            "account": options.account,
            "qos": options.qos,
            "time": options.time_limit,
            "nodes": nodes,
            "ntasks_per_node": 1,
            "cpus_per_task": options.cpus * nproc,
            "gpus_per_node": options.gpus * nproc or None,
            "mem": memory,
        }
        self._check()

    def __enter__(self) -> Slurm:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the jobs to Slurm."""

    def submit(self, works: Sequence[Any]) -> list[Job]:
        """Submit those that are not queued yet, as one array. Raises RunError if Slurm refuses them."""
        before, queue = self._recorded(), _queue()
        new = [work for work in works if before.get(str(work.folder)) not in queue]
        ids = before | dict(zip([str(work.folder) for work in new], self._submit(new), strict=True))
        if new:
            write_json(self._folder / _JOBS, ids, indent=1)
        self._queued = [_Queued(Job(work), ids[str(work.folder)]) for work in works]
        return [each.job for each in self._queued]

    def is_queued(self, work: Any) -> bool:
        """Return whether an earlier submission of a work is still queued or running."""
        return self._recorded().get(str(work.folder)) in _queue()

    def look(self) -> None:
        """Bring the jobs up to date by the queue; while Slurm does not answer they stay as they are."""
        try:
            queue = _queue()
        except RunError as error:
            for each in self._queued:
                each.job.state = f"unknown: {error}"
            return
        for each in self._queued:
            if each.id in queue:
                each.gone = 0
                state, reason, nodes = queue[each.id]
                each.job.running = state in ("RUNNING", "COMPLETING")
                where = f" on {nodes}" if each.job.running else f" ({reason})" if reason != "None" else ""
                each.job.state = f"{state.lower()}{where}, Slurm job {each.id}"
                continue
            each.gone += 1
            if each.gone == _GONE:
                self._end(each)

    def _end(self, each: _Queued) -> None:
        each.job.running, each.job.ended = False, True
        if each.job.work.is_finished():
            return
        log = self._folder / f"{each.id}_0_log.out"
        text = log.read_text(errors="replace") if log.exists() else "it was cancelled before it started"
        lines = [line for line in text.splitlines() if "Exited with exit code" not in line]  # srun's, after the cause
        each.job.failure = Failure(each.job.work.label, last_error("\n".join(lines)), log)

    def _submit(self, works: Sequence[Any]) -> list[str]:
        """Submit works; returns their job ids."""
        if not works:
            return []
        import submitit
        from submitit.core.utils import FailedJobError

        self._folder.mkdir(parents=True, exist_ok=True)
        executor = submitit.SlurmExecutor(self._folder)
        executor.update_parameters(
            **self._asked,
            job_name="skill1",
            array_parallelism=self.jobs,
            stderr_to_stdout=True,
            teardown=list(_REQUEUE),
            # srun does not take the first from sbatch; with the second, accelerate would ask it for ranks
            srun_args=[f"--cpus-per-task={self._asked['cpus_per_task']}", "--mpi=none"],
            additional_parameters={"signal": f"TERM@{self._options.grace}", "requeue": True},
        )
        try:
            with _outside_of_jobs():
                jobs = executor.submit_array([partial(self._act, work, self._options.cpus) for work in works])
        except FailedJobError as error:
            raise RunError(f"Slurm refuses the jobs: {last_error(str(error))}") from None
        return [job.job_id for job in jobs]

    def _recorded(self) -> dict[str, str]:
        file = self._folder / _JOBS
        return read_json(file) if file.exists() else {}

    def _check(self) -> None:
        if shutil.which("sbatch") is None:
            raise RunError("there is no Slurm here (no sbatch on the PATH): use a login node, or leave out --on slurm")
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise MissingPackage("--on slurm needs submitit: pip install 'skill1[slurm]'") from None
        if self._options.partition is not None:
            known = ask("sinfo", "--noheader", "--format=%R").split()
            closest(self._options.partition, known, "Slurm partition")
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self._asked.items() if value is not None]
        ask("sbatch", "--test-only", *flags, "--wrap=true")


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the variables of a Slurm job that this process may be in; the one that names the cluster stays."""
    import submitit

    named = {name: value for name, value in os.environ.items() if name == "SLURM_CONF"}
    with submitit.helpers.clean_env():
        os.environ.update(named)
        yield


def ask(*words: str) -> str:
    """Run a command of Slurm; returns what it prints. Raises RunError if it fails, with what it says."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_ANSWER)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{words[0]} failed: {one_line(error)}") from None
    if done.returncode:
        raise RunError(f"{words[0]} failed: {last_error(done.stderr)}")
    return done.stdout


def _queue() -> dict[str, tuple[str, str, str]]:
    """Job id -> (state, why it waits, nodes) of this user's jobs that have not ended."""
    found: dict[str, tuple[str, str, str]] = {}
    for line in ask(*_QUEUE).splitlines():
        job, state, reason, nodes = line.split("|")
        found[job] = (state, reason, nodes)
    return found
