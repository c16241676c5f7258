"""Training that is told to end, cannot write, or computes no number: what is saved, what is said, and how it resumes."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_train import easy_environment, run, run_two
from nano_runs import configure, forked
from run_record import record
from safetensors.torch import load_file
from tiny import random_rows, tiny_policy
from trainer_runs import configure as configure_trainer
from trainer_runs import largest_difference, make_trainer, weights

import skill1.train
from skill1.batching import Shape, plan_updates
from skill1.cli import main as cli
from skill1.config import diff, load_config
from skill1.library import SkillLibrary
from skill1.store.run_directory import RunDirectory
from skill1.train import Experience
from skill1.updates.divergence import FAILURE_FILE, Diverged

pytestmark = pytest.mark.slow

OPTIONS = {"method__max_distill_tokens": 16, "environment__max_steps": 5}


@pytest.fixture(scope="module")
def config(world, warm):
    return configure(world, warm, **OPTIONS)


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "straight"
    assert run(config, directory) == 0
    return directory


def words(config, directory: Path, *more: str) -> list[str]:
    """The command line that trains `config`."""
    sets = [f"--set={name}={value}" for name, (_, value) in diff(load_config("nano"), config).items()]
    return ["train", "--out", str(directory), *sets, *more]


def train(config, directory: Path, printed: Path, *more: str, sabotage: Callable[[], None] = lambda: None):
    """`skill1 train` in a process of its own: its status, and what it printed."""

    def act() -> None:
        skill1.train.make_environment = easy_environment
        sabotage()
        cli.main(words(config, directory, *more))

    status = forked(act, printed)
    return status, printed.read_text()


# -- SIGTERM ----------------------------------------------------------------------------------------------------------


def sigterm_in_step(step: int) -> Callable[[], None]:
    """SIGTERM while the rollouts of `step` (from 1) are written."""

    def sabotage() -> None:
        own = RunDirectory.write_rollouts

        def signalling(self, now, rollouts):
            if now == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return own(self, now, rollouts)

        RunDirectory.write_rollouts = signalling

    return sabotage


def test_sigterm_ends_with_a_checkpoint_and_resume_is_exact(config, straight, tmp_path):
    directory = tmp_path / "run"
    status, printed = train(config, directory, tmp_path / "out", sabotage=sigterm_in_step(3))
    assert status == 143 and "step 3 of 4 is saved; continue with --resume" in printed and "Traceback" not in printed
    assert [c.step for c in RunDirectory.open(directory).checkpoints()] == [2, 3]
    assert train(config, directory, tmp_path / "out", "--resume")[0] == 0
    expected, found = record(straight, 4), record(directory, 4)
    assert expected.pop("checkpoints") == [2, 4] and found.pop("checkpoints") == [2, 3, 4]
    assert found == expected


def test_sigterm_in_the_last_step_changes_nothing(config, straight, tmp_path):
    status, printed = train(config, tmp_path / "run", tmp_path / "out", sabotage=sigterm_in_step(4))
    assert status == 0 and "SIGTERM" not in printed
    assert record(tmp_path / "run", 4) == record(straight, 4)


# -- more steps -------------------------------------------------------------------------------------------------------


def test_a_finished_run_that_is_given_more_steps_equals_one_that_had_them(world, warm, straight, tmp_path):
    short = configure(world, warm, train__steps=2, train__save_every=1, train__warmup_steps=3, **OPTIONS)
    long = configure(world, warm, train__steps=4, train__save_every=2, train__warmup_steps=3, **OPTIONS)
    assert run(long, tmp_path / "long") == 0
    assert run(short, tmp_path / "run") == 0
    assert run(long, tmp_path / "run", resume=True) == 0
    expected, found = record(tmp_path / "long", 4), record(tmp_path / "run", 4)
    assert expected.pop("checkpoints") == [2, 4] and found.pop("checkpoints") == [1, 2, 4]  # saved as now asked
    assert found == expected
    assert RunDirectory.open(tmp_path / "run").config == long
    rates = RunDirectory.open(tmp_path / "run").metrics()["learning_rate"] / long.train.learning_rate
    assert rates.tolist() == pytest.approx([0.25, 0.5, 0.75, 1.0])


# -- a full disk ------------------------------------------------------------------------------------------------------


def own_disk(folder: Path, size: int) -> None:
    """Mount a file system of `size` bytes on `folder`, seen by this process alone; skips where that is forbidden."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, new_user, private, recursive = 0x00020000, 0x10000000, 1 << 18, 1 << 14
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(new_mounts | (new_user if user else 0)) != 0:
        os._exit(77)
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if libc.mount(b"none", b"/", None, private | recursive, None) != 0:
        os._exit(77)
    folder.mkdir()
    if libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={size}".encode()) != 0:
        os._exit(77)


def fill_before(owner: object, name: str, folder: Path, count: int, left: int) -> None:
    """Leave `left` bytes of `folder`'s disk when `owner.name` is called for the `count`-th time."""
    own, calls = getattr(owner, name), []

    def filling(*args, **kwargs):
        calls.append(name)
        if len(calls) == count:
            free = shutil.disk_usage(folder).free
            with (folder / "filler").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free - left)
        return own(*args, **kwargs)

    setattr(owner, name, filling)


FULL = {
    "in the weights": ((skill1.trainer.RowTrainer, "_save_checkpoint"), 2, 8192),
    "in the library": ((SkillLibrary, "save"), 2, 0),
    "in the rollouts": ((RunDirectory, "write_rollouts"), 3, 0),
}


@pytest.mark.parametrize("place", FULL)
def test_a_full_disk_leaves_the_last_checkpoint_and_says_what_is_missing(config, straight, tmp_path, place):
    (owner, name), count, left = FULL[place]
    disk, rescued = tmp_path / "disk", tmp_path / "rescued"

    def act() -> None:
        own_disk(disk, 64 << 20)
        fill_before(owner, name, disk, count, left)
        skill1.train.make_environment = easy_environment
        try:
            cli.main(words(config, disk / "run"))
        finally:
            shutil.copytree(disk / "run", rescued)  # the disk goes with this process

    status = forked(act, tmp_path / "out")
    if status == 77:
        pytest.skip("mounting a file system is forbidden here")
    printed = (tmp_path / "out").read_text()
    (error,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert status == 2 and "Traceback" not in printed
    if place == "in the rollouts":
        assert f"no space left for {disk / 'run'} (" in error and "bytes are free): make room" in error
    else:
        trained = sum(w.nbytes for w in load_file(Path(config.policy.model) / "model.safetensors").values())
        assert f"{disk / 'run' / 'checkpoint-4'} could not be written" in error
        assert f"needs about {3 * trained:,} bytes" in error and "continue with --resume from checkpoint-2" in error
    assert [c.step for c in RunDirectory.open(rescued).checkpoints()] == [2]
    assert run(config, rescued, resume=True) == 0
    assert record(rescued, 4) == record(straight, 4)


# -- no number --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy"))


def test_a_loss_that_is_not_a_number_stops_before_the_weights_change(policy, tmp_path):
    rows = random_rows(12)
    first, second = plan_updates(
        Shape.of(rows), np.ones(12, dtype=bool), np.ones(12, dtype=bool), world=1, rows_per_update=6, rows_per_micro_batch=64,
        tokens_per_micro_batch=10**6, seed=0, step=0,
    )  # fmt: skip
    spoilt = second.micro_batches[0].ranks[0][2]
    rows[spoilt] = replace(rows[spoilt], advantage=1e300)  # finite until it is a float32
    settings = configure_trainer(train__rows_per_update=6, train__rows_per_micro_batch=64)
    trainer, _ = make_trainer(policy, tmp_path, settings, lambda step, model: rows)
    start, between = weights(trainer), []
    own = trainer._finish_update

    def watched(model):
        own(model)
        between.append(weights(trainer))

    trainer._finish_update = watched
    with pytest.raises(Diverged) as error:
        trainer.train()
    stage, folder = rows[spoilt].stage, tmp_path / "failed-step-1"
    assert re.search(rf"step 1, update 2 of 2: loss (nan|-?inf), .*: 1 {stage}\. .*{folder}$", str(error.value))
    described = json.loads((folder / FAILURE_FILE).read_text())
    assert [(row["row"], row["stage"]) for row in described["rows"]] == [(spoilt, stage)]
    saved, now = load_file(folder / "model.safetensors"), weights(trainer)
    assert largest_difference(now, between[0]) == 0 < largest_difference(now, start)
    assert all(torch.equal(saved[name], weight) for name, weight in now.items())


def test_an_infinite_gradient_of_a_finite_loss_stops_too(policy, tmp_path):
    trainer, _ = make_trainer(policy, tmp_path, configure_trainer(), lambda step, model: random_rows(5))
    start = weights(trainer)
    next(trainer.model.parameters()).register_hook(lambda gradient: gradient * np.inf)
    with pytest.raises(
        Diverged, match=r"step 1, update 1 of 1: loss -?\d.*every row's loss is finite, the gradient is"
    ):
        trainer.train()
    assert largest_difference(weights(trainer), start) == 0


def spoil() -> None:
    """Make the loss of the third step's first row infinite."""
    own = Experience.collect

    def collect(self, step, model):
        rows, metrics = own(self, step, model)
        if step == 2:
            object.__setattr__(rows[0], "advantage", 1e300)  # finite until it is a float32
        return rows, metrics

    Experience.collect = collect


def test_a_diverged_run_keeps_the_step_and_resumes_from_its_checkpoint(config, straight, tmp_path):
    directory = tmp_path / "run"
    status, printed = train(config, directory, tmp_path / "out", sabotage=spoil)
    (error,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert status == 2 and "step 3, update 1 of 1: loss " in error and "Traceback" not in printed
    failed = directory / "failed-step-3"
    assert (failed / "rollouts.parquet").read_bytes() == (directory / "rollouts" / "step_000003.parquet").read_bytes()
    assert run(config, directory, resume=True) == 0
    assert record(directory, 4) == record(straight, 4)


def test_two_ranks_stop_together_on_a_row_that_one_of_them_has(config, tmp_path):
    assert run_two(config, tmp_path / "run", prepare=spoil) == 1
    described = json.loads((tmp_path / "run" / "failed-step-3" / FAILURE_FILE).read_text())
    assert [row["row"] for row in described["rows"]] == [0] and described["step"] == 3
    assert [c.step for c in RunDirectory.open(tmp_path / "run").checkpoints()] == [2]


# -- several processes ------------------------------------------------------------------------------------------------


def started(config, directory: Path, *more: str) -> subprocess.Popen:
    """`skill1 train --nproc 2`: this command, torchrun, two ranks."""
    command = [sys.executable, "-m", "skill1", *words(config, directory, "--nproc=2", *more)]
    output = (directory.parent / "printed.txt").open("w")
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"})


def steps_done(directory: Path) -> int:
    file = directory / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_two_ranks_end_together_after_sigterm(world, nano, tmp_path):
    directory = tmp_path / "run"
    config = configure(world, nano, train__steps=10**6, train__save_every=10**6, train__validate_every=0)
    command = started(config, directory)
    while not steps_done(directory):
        assert command.poll() is None, (tmp_path / "printed.txt").read_text()
        time.sleep(0.05)
    command.terminate()
    assert command.wait(60) == 143, (tmp_path / "printed.txt").read_text()
    saved = steps_done(directory)
    assert [c.step for c in RunDirectory.open(directory).checkpoints()] == [saved]
    assert f"step {saved} of 1000000 is saved" in (tmp_path / "printed.txt").read_text()
