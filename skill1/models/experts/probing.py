"""The probe's arms for policies that an expert demonstrates to: lessons of training games about the same task, or another.

A relevant skill is about the same object and task type; whether it is true of the probed game is not looked at.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from skill1.config import Config
from skill1.envs.base import DataError, VectorEnvironment
from skill1.models.experts.base import APART, kept, make_expert, make_writers
from skill1.nano.probe import Arms
from skill1.nano.world import Draw
from skill1.records import Task

_SMALLEST = {"following": 0.0, "gain": 0.0}


def expert_arms(config: Config, environment: VectorEnvironment) -> Arms:
    """Let the environment's expert draw what is shown. Raises ConfigError, DataError: see `make_expert`, `make_writers`."""
    prompts, expert = make_writers(config), make_expert(config, environment)
    known = list(dict.fromkeys(expert.facts.values()))

    def draw(
        environment: VectorEnvironment, train: Sequence[Task], tasks: Sequence[Task], passes: int, rng: random.Random
    ) -> tuple[list[Task], list[Draw]]:
        """See `NanoWorld.draw_arms`; tasks are left out of which no training game has both kinds of skills."""
        probed = []
        for task, start in zip(tasks, environment.reset(tasks), strict=True):
            asked = expert.asked(start)
            here = [fact for fact in known if expert.can_follow(fact, start)]
            same, apart = ([f for f in here if expert.distance(asked, f) == far] for far in (0, APART))
            if same and apart:
                probed.append((task, same, apart))
        if not probed:
            raise DataError(f"no game of {tasks[0].split} asks for what a training game teaches: probe another split")
        drawn = [
            {"none": None, "relevant": rng.choice(same), "irrelevant": rng.choice(apart)}
            for _ in range(passes)
            for _, same, apart in probed
        ]
        return [task for task, _, _ in probed], drawn

    def write(fact: Any) -> str:
        return kept(prompts, expert.lesson(fact, True, random.Random(0))).strategy

    return Arms(draw=draw, write=write, followed=expert.follows, smallest=_SMALLEST)
