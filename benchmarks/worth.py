"""What a library, selection and distillation are worth in a generated world, to a scripted player that does not learn.

    python benchmarks/worth.py --preset nano --seeds 100,101 [--size spares=2] [--set library.utility_of=selected]

The player of the warm start (`skill1.nano.demonstrator`) plays training steps with the method's own library: it asks for what it
needs, is shown the first candidate that is about its task, and distils where it found the thing. Then it plays the
validation games with the library as it is, once for each way to choose among the candidates:

    none       no skill
    any        one of the candidates, whatever it is about
    random     one of those that are about the task
    first      the first of these, as retrieved (by utility)
    count      the one retrieved and merged most often
    oracle     one that is right in this game, where there is one

and, with a library of raw trajectories in the place of lessons, `first` again ("raw"). A slip is played instead of an
answer as often as `warm_start.noise` says. Worlds 0-5 are those that studies report on: try sizes on others.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from skill1.analysis.tabular import episode
from skill1.config import Config, LibraryConfig, load_config, load_section
from skill1.encoder import load_encoder
from skill1.envs.base import Observation, VectorEnvironment
from skill1.envs.make import make_environment
from skill1.library import Mode, SkillLibrary
from skill1.nano.options import WarmStartConfig
from skill1.nano.prompts import Fact
from skill1.nano.world import NanoWorld, nano_of
from skill1.prompts.base import Exchange
from skill1.records import Candidate, Lesson, Task
from skill1.train import step_tasks

ORDERS = ("none", "any", "random", "first", "count", "oracle")
Shown = tuple[tuple[Candidate, ...], str | None]  # candidates, the one that is shown


class Scripted:
    """The player, and what it has learnt to know."""

    def __init__(self, config: Config, world: NanoWorld, environment: VectorEnvironment, seed: int, raw: bool) -> None:
        self._config, self._world, self._environment, self._raw = config, world, environment, raw
        self._warm = load_section(WarmStartConfig, "warm_start", config.preset)
        self._prompts, self._demonstrator = world.prompts(), world.demonstrator(self._warm)
        options = LibraryConfig.of(config)
        self.library = SkillLibrary(options, load_encoder(options.encoder))
        self._facts: dict[str, Fact] = {}  # what a strategy says
        self._rng = random.Random(seed)

    def learn(self, tasks: Sequence[Task], steps: int) -> list[float]:
        """Play training steps; returns the share that was won in each."""
        groups, size = self._config.rollout.tasks_per_step, self._config.rollout.group_size
        wins = []
        for step in range(steps):
            drawn = [t for t in step_tasks(tasks, step, groups, self._config.train.seed) for _ in range(size)]
            starts = self._environment.reset(drawn)
            shown = self._select(starts, "ucb", "first", [None] * len(drawn))
            won, lessons = self._play(drawn, shown)
            rollouts = [
                episode(
                    number,
                    float(won[number]),
                    task=task,
                    instruction=starts[number].instruction,
                    candidates=shown[number][0],
                    ranking=_first(*shown[number]),
                    lesson=lessons[number],
                )
                for number, task in enumerate(drawn)
            ]
            self.library.learn(rollouts, step)
            wins.append(float(np.mean(won)))
        return wins

    def evaluate(self, tasks: Sequence[Task], order: str, passes: int) -> dict[str, float]:
        """Play tasks: share won, share of episodes with a right skill among the candidates, and with one shown."""
        right, drawn = self._world.right(self._environment, tasks) * passes, list(tasks) * passes
        starts = self._environment.reset(drawn)
        shown: list[Shown] = [((), None)] * len(drawn)
        if order != "none":
            shown = self._select(starts, "greedy", order, right)
        won, _ = self._play(drawn, shown)
        facts = [None if wanted is None else self._facts.get(wanted) for wanted in right]
        there = [
            any(self._says(c.skill) == fact for c in found)
            for (found, _), fact in zip(shown, facts, strict=True)
            if fact
        ]
        hit = [pick is not None and self._says(pick) == fact for (_, pick), fact in zip(shown, facts, strict=True)]
        return {"won": float(np.mean(won)), "right found": float(np.mean(there)), "right shown": float(np.mean(hit))}

    def _says(self, skill: str) -> Fact:
        return self._facts[self.library[skill].strategy]

    def _select(
        self, starts: Sequence[Observation], mode: Mode, order: str, right: Sequence[str | None]
    ) -> list[Shown]:
        prompts = self._prompts
        queries = [prompts.parse_query(prompts.write_query(prompts.fact(s, "")), s).value for s in starts]
        shown: list[Shown] = []
        for start, found, wanted in zip(starts, self.library.retrieve(queries, mode), right, strict=True):
            topic = prompts.fact(start, "").topic
            fitting = [c for c in found if self._says(c.skill).topic == topic]
            shown.append((found, self._pick(order, found, fitting, wanted)))
        return shown

    def _pick(
        self, order: str, found: Sequence[Candidate], fitting: Sequence[Candidate], right: str | None
    ) -> str | None:
        """Choose the one that is shown, of the candidates or of those that are about the task; None where there is none."""
        if order == "any":
            return self._rng.choice(found).skill if found else None
        if not fitting:
            return None
        match order:
            case "random":
                return self._rng.choice(fitting).skill
            case "count":
                return max(fitting, key=lambda c: self.library[c.skill].count).skill
            case "oracle":
                hits = [c for c in fitting if self._prompts.write_skill(self._says(c.skill)) == right]
                return (hits or fitting)[0].skill
        return fitting[0].skill

    def _play(self, tasks: Sequence[Task], shown: Sequence[Shown]) -> tuple[list[bool], list[Lesson | None]]:
        """Play one episode of each task; a skill is followed if it is about the task."""
        starts = self._environment.reset(tasks)
        told = [None if pick is None else self._says(pick) for _, pick in shown]
        players = [
            self._demonstrator.player(s, fact if fact and fact.topic == self._prompts.fact(s, "").topic else None)
            for s, fact in zip(starts, told, strict=True)
        ]
        trajectories: list[list[Exchange]] = [[] for _ in tasks]
        now, won, live = list(starts), [False] * len(tasks), set(range(len(tasks)))
        while live:
            given = {i: self._answer(players[i], now[i]) for i in live}
            actions: list[str | None] = [None] * len(tasks)
            for i, answer in given.items():
                actions[i] = self._prompts.parse_action(answer, now[i].admissible).value
                trajectories[i].append((now[i].text, actions[i] or ""))
            for i, step in enumerate(self._environment.step(actions)):
                if step is not None:
                    now[i], won[i] = step.observation, step.won
                    players[i].moved(given[i], now[i])
                    live -= {i} if step.done else set()
        found = [player.found for player in players]
        return won, [self._lesson(*of) for of in zip(starts, found, trajectories, strict=True)]

    def _answer(self, player: Any, now: Observation) -> str:
        answer = player.act(now)
        return player.slip(now, self._rng) if self._rng.random() < self._warm.noise else answer

    def _lesson(self, start: Observation, found: str | None, trajectory: Sequence[Exchange]) -> Lesson | None:
        if found is None:
            return None
        fact = self._prompts.fact(start, found)
        written = self._prompts.parse_distill(self._prompts.write_lesson(fact), start)
        lesson = self._prompts.raw_lesson(start, trajectory) if self._raw else written
        if lesson:
            self._facts[lesson.strategy] = self._facts[self._prompts.write_skill(fact)] = fact
        return lesson


def _first(found: tuple[Candidate, ...], pick: str | None) -> tuple[int, ...]:
    """A ranking of the candidates with the one that is shown first; none where none is shown."""
    return () if pick is None else tuple(sorted(range(len(found)), key=lambda i: found[i].skill != pick))


def worth(config: Config, world: NanoWorld, data: Path, steps: int, passes: int, seed: int) -> list[dict[str, Any]]:
    """Measure one world: one row for each way to choose."""
    environment = make_environment(replace(config.environment, data=str(data)))
    train, tasks = environment.tasks(config.environment.train_split), environment.tasks(
        config.environment.validation_split
    )  # fmt: skip
    rows = []
    for raw, orders in ((False, ORDERS), (True, ("first",))):
        player = Scripted(config, world, environment, seed, raw)
        wins = player.learn(train, steps)
        for order in orders:
            found = player.evaluate(tasks, order, passes)
            name = "raw" if raw else order
            rows.append({"world": seed, "order": name, **found, "skills": len(player.library), "training": wins[-1]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--seeds", default="100,101,102", help="of the worlds")
    parser.add_argument("--steps", type=int, default=45)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--size", action="append", default=[], metavar="NAME=NUMBER", help="of the generator")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the run")
    given = parser.parse_args()
    config = load_config(given.preset, overrides=dict(change.split("=", 1) for change in given.set))
    world = nano_of(config.environment.name)
    sizes = {name: float(n) if "." in n else int(n) for name, n in (size.split("=") for size in given.size)}
    rows: list[dict[str, Any]] = []
    for seed in tqdm([int(seed) for seed in given.seeds.split(",")], unit="world"):
        with TemporaryDirectory() as folder:
            data = Path(folder) / "games"
            world.generate(data, seed=seed, **{**world.sizes, **sizes})
            rows += worth(config, world, data, given.steps, given.passes, seed)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.3f"))
    won = table.pivot(index="world", columns="order", values="won").mul(100)
    for name, one, other in (
        ("library against none", "first", "none"),
        ("right choice against a random one of those about the task", "oracle", "random"),
        ("right choice against any candidate", "oracle", "any"),
        ("lessons against raw trajectories", "first", "raw"),
    ):
        gains = won[one] - won[other]
        print(f"{name}: {gains.mean():+.1f} points ({', '.join(f'{gain:+.1f}' for gain in gains)})")


if __name__ == "__main__":
    main()
