"""Training on games that are easy to win, in one process or two.

An untrained policy wins no household game, so a library would stay empty: here every fourth (step, action) wins.
"""

from __future__ import annotations

import os
import socket
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from nano_runs import forked

import skill1.train
from skill1.config import Config, EnvironmentConfig
from skill1.envs.alfworld.data import GameTree
from skill1.envs.alfworld.environment import AlfworldEnvironment
from skill1.envs.base import Step


class EasyEnvironment(AlfworldEnvironment):
    """The native engine, won early by chance of the action's words."""

    def _advance(self, running, action: str) -> Step:
        step = super()._advance(running, action)
        if step.done or zlib.crc32(f"{running.steps} {action}".encode()) % 4:
            return step
        running.done = True
        return replace(step, reward=1.0, won=True, done=True)


def easy_environment(config: EnvironmentConfig) -> EasyEnvironment:
    return EasyEnvironment(GameTree.open(config.data), config.max_steps)


def run(config: Config, directory: Path, resume: bool = False, sabotage: Callable[[], None] | None = None) -> int:
    """Train in a process of its own, with `sabotage` done to it first; its exit status, negative for a signal."""

    def act() -> None:
        skill1.train.make_environment = easy_environment
        if sabotage is not None:
            sabotage()
        skill1.train.train(config, directory, resume)

    return forked(act)


def run_two(config: Config, directory: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Train in two processes, `prepare` done in each first; 0 if both ended well."""

    def act() -> None:
        skill1.train.make_environment = easy_environment
        prepare()
        skill1.train.train(config, directory)

    return two_ranks(act)


needs_deepspeed = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="DeepSpeed is not installed: make test-deepspeed"
)


def begin_deepspeed() -> None:
    """Let DeepSpeed shard over gloo in this process: accelerate begins its communication on GPUs only."""
    import deepspeed

    import skill1.checks
    import skill1.models.coldstart

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would compile an exchange of its own first
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    skill1.checks.check_sharding = skill1.models.coldstart.check_sharding = lambda *_: None  # it refuses CPUs


def begin_fsdp2() -> None:
    """Let accelerate shard over gloo in this process: on CPUs it would silently train whole weights."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    patch.object(PartialState, "_prepare_backend", lambda *_: ("gloo", DistributedType.MULTI_GPU)).start()


def two_ranks(act: Callable[[], None]) -> int:
    """`act` in two processes as torchrun would start them; 0 if both ended well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def rank(number: int) -> None:
        os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                       "MASTER_PORT": str(port)}  # fmt: skip
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        torch.manual_seed(0)
        act()

    other = os.fork()
    if other == 0:
        os._exit(forked(partial(rank, 1)))
    first = forked(partial(rank, 0))
    return first or os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])
