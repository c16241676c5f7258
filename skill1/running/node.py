"""What a Slurm job does on its node with an experiment: what any machine does, within the cores and GPUs of the job.

SIGTERM (preemption, or slurm.grace before the time limit) ends the running step with a checkpoint; then the job has
itself requeued, unless Slurm counts it as ended: who cancels it means it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from skill1.distributed import TERMINATED
from skill1.running.experiment import Experiment
from skill1.running.jobs import execute
from skill1.running.local import Local, Share, visible_devices
from skill1.running.slurm import ask


def run_experiment(experiment: Experiment, cpus: int) -> None:
    """Execute an experiment in a Slurm job. `cpus`: cores of each of its processes."""
    share = Share(1, experiment.nproc, cpus * experiment.nproc, visible_devices())
    with requeued_when_terminated():
        for failure in execute([experiment], Local(share), partial(print, flush=True)):
            print(failure, flush=True)
            sys.exit(f"error: {failure.error}")


@contextmanager
def requeued_when_terminated() -> Iterator[None]:
    """Requeue the running job if what is inside ends with status 143, as what saves at SIGTERM does."""
    try:
        yield
    except SystemExit as end:
        if end.code == TERMINATED and os.environ["SLURM_PROCID"] == "0":
            _requeue()
        raise


def _requeue() -> None:
    from submitit import JobEnvironment

    job = JobEnvironment().job_id
    if ask("squeue", f"--jobs={job}", "--noheader", "--format=%T").strip() == "RUNNING":
        print("requeued: it resumes where it was saved", flush=True)
        ask("scontrol", "requeue", job)
