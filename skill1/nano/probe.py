"""Does the policy follow its skill? First moves and success with a relevant, an irrelevant and no skill. Ours.

In ALFWorld, for every game of a split that has a train game of the same home and object, the relevant skill is what an
episode of such a train game would teach (the place where its walkthrough takes the object). The arms:

    none           no skill
    relevant       the skill of this home and this object
    irrelevant     a skill of another home and another object
    other_object   this home, another object
    other_home     this object, another home

A first move follows a skill if it goes to the skill's place. The arms of WebShop are in `shop_probe`.

All arms play the same games with the same random streams, so differences are paired by game.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from skill1.config import Config
from skill1.envs.alfworld.environment import AlfworldEnvironment
from skill1.envs.base import DataError, Observation, VectorEnvironment
from skill1.evaluate import Job, jobs, play
from skill1.nano import shop_probe
from skill1.nano.expert import read_goal
from skill1.nano.prompts.alfworld import CompactPrompts, compact, home
from skill1.policy import Policy
from skill1.records import Rollout, Task
from skill1.stats import Estimate, bootstrap_mean, paired_difference

ARMS = ("none", "relevant", "irrelevant", "other_object", "other_home")
MIN_FOLLOWING = 0.3  # gate: share of first moves, relevant - none
MIN_GAIN = 0.08  # gate: success, relevant - none and relevant - irrelevant


@dataclass(frozen=True, slots=True)
class Fact:
    """What one episode teaches: in which place of which home an object type was."""

    target: str
    place: str  # entity token
    start: Observation

    @property
    def home(self) -> str:
        return home(self.start)

    @property
    def skill(self) -> str:
        return CompactPrompts.write_skill(self.target, self.place, self.start)

    def followed(self, rollout: Rollout) -> bool:
        return first_place(rollout) == self.place


class Shown(Protocol):
    """What an arm shows: `Fact`, or `shop_probe.ShopFact`."""

    @property
    def skill(self) -> str: ...

    def followed(self, rollout: Rollout) -> bool:
        """Whether the episode's first move is the one that the skill is about."""
        ...


Draw = dict[str, Shown | None]  # arm -> what it shows in one episode


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """`frame` has one row per (arm, game, pass); `gate` the differences the gate is about."""

    frame: pd.DataFrame  # columns arm, game, pass, won, steps, followed, followed_irrelevant; in WebShop score
    arms: dict[str, dict[str, Estimate]]  # arm -> success, followed; in WebShop score
    gate: dict[str, Estimate]
    passed: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "games": int(self.frame["game"].nunique()),
            "passes": int(self.frame["pass"].nunique()),
            "arms": {arm: {k: asdict(e) for k, e in values.items()} for arm, values in self.arms.items()},
            "gate": {name: asdict(e) for name, e in self.gate.items()},
            "passed": self.passed,
        }


def teach(environment: AlfworldEnvironment, tasks: Sequence[Task]) -> list[Fact]:
    """The facts that the walkthroughs of `tasks` teach. Games whose walkthrough takes no target are left out."""
    facts = []
    for task, start in zip(tasks, environment.reset(tasks), strict=True):
        target = read_goal(start.instruction).target
        for words in (compact(command).split() for command in environment.games.game(task.game).walkthrough):
            if words[0] == "take" and words[1].rsplit("_", 1)[0] == target:
                facts.append(Fact(target, words[2], start))
                break
    return facts


def probe(
    policy: Policy, environment: VectorEnvironment, config: Config, *, split: str, passes: int, progress: bool = False
) -> ProbeReport:
    """Play all arms.

    Raises:
        DataError: no game of the split has a train game of the same home and object; or see `shop_probe.draw_facts`.
    """
    rng = random.Random(config.evaluation.seed)
    if config.environment.name == "webshop":
        known = shop_probe.learn_facts(environment, environment.tasks(config.environment.train_split))
        tasks = environment.tasks(split)
        drawn = [d for _ in range(passes) for d in shop_probe.draw_facts(environment, tasks, known, rng)]
        return _play(policy, environment, config, jobs(tasks, passes), drawn, progress)
    tasks, drawn = _homes(environment, config, split, passes, rng)
    return _play(policy, environment, config, jobs(tasks, passes), drawn, progress)


def _homes(
    environment: AlfworldEnvironment, config: Config, split: str, passes: int, rng: random.Random
) -> tuple[list[Task], list[Draw]]:
    """The games that can be probed, and what their episodes are shown, pass by pass."""
    known: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in teach(environment, environment.tasks(config.environment.train_split)):
        known[fact.target, fact.home].append(fact)
    tasks = environment.tasks(split)
    starts = environment.reset(tasks)
    keys = [(read_goal(start.instruction).target, home(start)) for start in starts]
    probed = [i for i, key in enumerate(keys) if key in known]
    if not probed:
        raise DataError(
            f"no game of {split} has a train game with the same object and receptacle list: probe a split whose homes "
            "are in train (valid_seen)"
        )
    return [tasks[i] for i in probed], [_draw(known, keys[i], rng) for _ in range(passes) for i in probed]


def _play(
    policy: Policy, environment: VectorEnvironment, config: Config, todo: Sequence[Job], drawn: Sequence[Draw],
    progress: bool,
) -> ProbeReport:  # fmt: skip
    frames = []
    for arm in drawn[0]:
        skills = [choice[arm].skill if choice[arm] else "" for choice in drawn]
        rollouts = play(todo, policy, environment, None, config, skills=skills, progress=progress)
        frames.append(
            pd.DataFrame(
                {
                    "arm": arm,
                    "game": job.task.game,
                    "pass": job.number,
                    "won": float(r.outcome),
                    **({"score": r.score} if job.task.environment == "webshop" else {}),  # elsewhere it is success
                    "steps": r.steps,
                    "followed": float(_named(choice, arm).followed(r)),
                    "followed_irrelevant": float(choice["irrelevant"].followed(r)),
                }
                for job, r, choice in zip(todo, rollouts, drawn, strict=True)
            )
        )
    return _judge(pd.concat(frames, ignore_index=True))


def first_place(rollout: Rollout) -> str | None:
    """The first place the episode went to, as an entity token."""
    moves = (compact(turn.value).split() for turn in rollout.turns_of("act") if turn.value.startswith("go to "))
    return next((words[1] for words in moves if len(words) > 1), None)


def _named(choice: Draw, arm: str) -> Shown:
    """What "followed" is about: what the arm shows, and the relevant fact where it shows none."""
    return choice[arm] or choice["relevant"]


def _draw(known: dict[tuple[str, str], list[Fact]], key: tuple[str, str], rng: random.Random) -> dict[str, Fact | None]:
    target, at = key

    def pick(wanted: Any) -> Fact | None:
        keys = sorted(k for k in known if wanted(k))
        return rng.choice(known[rng.choice(keys)]) if keys else None

    return {
        "none": None,
        "relevant": rng.choice(known[key]),
        "irrelevant": pick(lambda k: k[0] != target and k[1] != at),
        "other_object": pick(lambda k: k[0] != target and k[1] == at),
        "other_home": pick(lambda k: k[0] == target and k[1] != at),
    }


def _judge(frame: pd.DataFrame) -> ProbeReport:
    arms = {
        arm: {
            name: bootstrap_mean(part[column], part["game"])
            for name, column in {"success": "won", "score": "score", "followed": "followed"}.items()
            if column in part
        }
        for arm, part in frame.groupby("arm")
    }
    by_arm = {arm: part.set_index("game") for arm, part in frame.groupby("arm")}

    def difference(a: str, b: str, column: str) -> Estimate:
        return paired_difference(by_arm[a][column], by_arm[b][column])

    gate = {
        "following: relevant - none": difference("relevant", "none", "followed"),
        "success: relevant - none": difference("relevant", "none", "won"),
        "success: relevant - irrelevant": difference("relevant", "irrelevant", "won"),
        "following an irrelevant skill: irrelevant - none": difference("irrelevant", "none", "followed_irrelevant"),
    }
    wanted = zip(list(gate.values())[:3], (MIN_FOLLOWING, MIN_GAIN, MIN_GAIN), strict=True)
    return ProbeReport(frame, arms, gate, bool(np.all([e.value >= least and e.low > 0 for e, least in wanted])))
