"""`skill1 train --on slurm`: one training run as a Slurm job, of one node or several.

results/<name>/         the run directory
results/<name>.slurm/   what Slurm and submitit write (skill1.running.slurm)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from skill1.config import Config
from skill1.errors import UserError
from skill1.running.jobs import Failure, execute
from skill1.running.launch import Hosts, launch_torchrun
from skill1.running.progress import Progress, training_progress
from skill1.running.slurm import Slurm, SlurmConfig
from skill1.store.run_directory import RunDirectory

_PORTS = 20_000, 40_000  # the first, and how many, of which torchrun meets at one; by the job's number


@dataclass(frozen=True, slots=True)
class Training:
    """A training run on some nodes (skill1.running.jobs.Work)."""

    directory: Path
    words: tuple[str, ...]  # of `skill1 train`, without those that say where
    steps: int
    nodes: int
    nproc: int  # processes of a node

    @property
    def label(self) -> str:
        return self.directory.name

    @property
    def folder(self) -> Path:
        return self.directory

    def phases(self) -> dict[str, Callable[[], Progress]]:
        """Return what follows the training steps."""
        return {"train": lambda: training_progress(self.directory, self.steps)}

    def is_finished(self) -> bool:
        """Return whether the last step has a checkpoint. Raises RunError for a damaged run."""
        if not self.is_started():
            return False
        latest = RunDirectory.open(self.directory).latest_checkpoint()
        return latest is not None and latest.step == self.steps

    def is_started(self) -> bool:
        """Return whether there is a run to be resumed."""
        return (self.directory / "config.json").exists()


def train_on_slurm(
    config: Config,
    directory: Path,
    words: Sequence[str],
    options: SlurmConfig,
    *,
    resume: bool,
    nodes: int,
    nproc: int,
    say: Callable[[str], None] = print,
) -> list[Failure]:
    """Submit a training run, or find the job of an earlier call, and follow it; returns what failed.

    Args:
        words: of `skill1 train`, without those that say where.
        nproc: processes of each of the `nodes`.

    Raises:
        ConfigError, DataError, RunError, MissingPackage: what the run, or Slurm, would stop at; nothing is created.
    """
    from skill1.plan.dry_run import check_start  # not at the top: the job's processes would wait for transformers

    folder = directory.with_name(f"{directory.name}.slurm")
    slurm = Slurm(options, folder, run_training, jobs=1, nproc=nproc, nodes=nodes)
    training = Training(directory, tuple(words), config.train.steps, nodes, nproc)
    if training.is_finished():
        RunDirectory.open(directory).check_resumable(config)
        say(f"{directory} is finished: {config.train.steps} steps are done")
        return []
    if not slurm.is_queued(training):
        check_start(config, directory, resume=resume, processes=nodes * nproc)
    say(f"{folder} has the output; the job outlives this command: repeat it to follow it, scancel ends it")
    return execute([training], slurm, say)


def run_training(training: Training, cpus: int) -> None:
    """Run one node's processes of a training run in a Slurm job. `cpus`: cores of each of them."""
    # the same words on all nodes: none makes the run before all have met
    resume = ["--resume"] if training.is_started() and "--resume" not in training.words else []
    hosts = _hosts(training.nodes) if training.nodes > 1 else None
    try:
        environment = {"OMP_NUM_THREADS": str(cpus)}
        launch_torchrun([*training.words, *resume], training.nproc, environment=environment, hosts=hosts)
    except UserError as error:
        sys.exit(f"error: {error}")


def _hosts(count: int) -> Hosts:
    first, ports = _PORTS
    return Hosts(
        count=count,
        rank=int(os.environ["SLURM_NODEID"]),
        address=os.environ["SLURM_LAUNCH_NODE_IPADDR"],  # where the job's script runs: on its first node
        port=first + int(os.environ["SLURM_JOB_ID"]) % ports,
    )
