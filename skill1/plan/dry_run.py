"""`skill1 train --dry-run`: everything that can be checked of a run without starting it."""

from __future__ import annotations

from pathlib import Path

from skill1.checks import check_run, count_tasks
from skill1.config import Config, ConfigError
from skill1.envs.make import make_environment
from skill1.errors import RunError, one_line
from skill1.plan.architecture import read_architecture
from skill1.plan.plan import Plan, Planner
from skill1.plan.rates import this_machine
from skill1.policy import load_tokenizer
from skill1.store.run_directory import RunDirectory
from skill1.store.writable import check_writable


def dry_run(config: Config, directory: Path, *, resume: bool, processes: int) -> tuple[dict[str, int], Plan]:
    """Check as `check_start` does, and plan for this machine.

    Returns:
        Tasks of each split that training plays, and the plan.

    Raises: as `check_start`.
    """
    tasks = check_start(config, directory, resume=resume, processes=processes)
    sharded = config.train.sharding != "none"
    machine = this_machine(processes, dtype=config.policy.dtype, sharded=sharded)
    return tasks, Planner.of(config.policy.model, config.policy.revision).plan(config, machine)


def check_start(config: Config, directory: Path, *, resume: bool, processes: int) -> dict[str, int]:
    """Check data, run directory, model and the arithmetic of ranks and lengths; returns the tasks of each split.

    Raises:
        ConfigError, DataError, RunError: what training would stop at.
    """
    if resume:
        RunDirectory.open(directory).check_resumable(config)
    elif (directory / "config.json").exists():
        raise RunError(f"{directory} already holds a run: continue with --resume, or choose another name")
    check_writable(directory)
    tasks = count_tasks(config, make_environment(config.environment))
    read_architecture(config.policy.model, config.policy.revision)
    try:
        load_tokenizer(config.policy.model, config.policy.revision)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.model: {config.policy.model!r} has no tokenizer that loads ({one_line(error)})"
        ) from error
    check_run(config, processes)
    return tasks
