"""Training on games that are easy to win; as a script, one run: `distributed_train.py DIRECTORY SETTINGS_JSON`.

An untrained policy wins no household game, so a library would stay empty: here every fourth (step, action) wins.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from nano_runs import forked

import skill1.train
from skill1.config import Config, EnvironmentConfig, load_config
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


def main(directory: Path, preset: str, variant: str, overrides: dict) -> None:
    torch.set_num_threads(1)
    skill1.train.make_environment = easy_environment
    skill1.train.train(load_config(preset, variant, overrides), directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "nano", "full", json.loads(sys.argv[2]))
