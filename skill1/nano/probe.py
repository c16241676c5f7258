"""Does the policy follow its skill? First moves and success with a relevant, an irrelevant and no skill. Ours.

The arms are those of the environment's nano world (`alfworld.facts`, `webshop.facts`) or of its expert
(`models.experts.probing`); each has "none", "relevant" and "irrelevant". A
first move follows a skill if it is the one that the skill is about; without a skill, the one of the relevant skill.
All arms play the same games with the same random streams, so differences are paired by game.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from skill1.config import Config
from skill1.envs.base import VectorEnvironment
from skill1.envs.make import environment_spec
from skill1.nano.prompts import Fact
from skill1.nano.world import DrawArms, nano_of
from skill1.play import jobs, play
from skill1.policy import Policy
from skill1.records import Rollout, Task
from skill1.rollout import Ask, Episode, Stages
from skill1.stats import Estimate, bootstrap_mean, paired_difference

MIN_FOLLOWING = 0.3  # gate: share of first moves, relevant - none
MIN_GAIN = 0.08  # gate: success, relevant - none and relevant - irrelevant
# what the gate asks for -> arm, arm it is compared with, column, which smallest difference (None: only reported)
_GATE = {
    "following: relevant - none": ("relevant", "none", "followed", "following"),
    "success: relevant - none": ("relevant", "none", "won", "gain"),
    "success: relevant - irrelevant": ("relevant", "irrelevant", "won", "gain"),
    "following an irrelevant skill: irrelevant - none": ("irrelevant", "none", "followed_irrelevant", None),
}
_SMALLEST = {"following": MIN_FOLLOWING, "gain": MIN_GAIN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """What a probe shows, and how it is seen that it was followed."""

    draw: DrawArms
    write: Callable[[Any], str]  # what is drawn -> the skill block that is shown
    followed: Callable[[Any, Rollout], bool]  # whether an episode's first move is the one that it is about
    smallest: Mapping[str, float]  # what the gate asks for: "following", "gain"


def nano_arms(environment: str) -> Arms:
    """Return those of an environment's nano world. Raises ConfigError as `nano_of`."""
    world = nano_of(environment)
    prompts = world.prompts()

    def write(drawn: Sequence[Fact]) -> str:
        return prompts.skill_block([prompts.write_skill(fact) for fact in drawn])

    def followed(drawn: Sequence[Fact], rollout: Rollout) -> bool:
        return world.followed(drawn[0], rollout)

    return Arms(draw=world.draw_arms, write=write, followed=followed, smallest=_SMALLEST)


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """`frame` has one row per (arm, game, pass); `gate` the differences the gate is about."""

    frame: pd.DataFrame  # columns arm, game, pass, won, steps, followed, followed_irrelevant; where graded score
    arms: dict[str, dict[str, Estimate]]  # arm -> success, followed; where graded score
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


class Injected(Stages):
    """Acting with given strategies instead of those of a library."""

    def __init__(self, strategies: Mapping[tuple[Task, int], str]) -> None:
        """`strategies`: of each task and pass, "" for none."""
        self._strategies = strategies

    def begin(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """Show each episode its strategy."""
        for e in episodes:
            strategy = self._strategies[e.task, e.index]
            e.skill = ask.prompts.skill_block([strategy]) if strategy else ""


def probe(
    policy: Policy,
    environment: VectorEnvironment,
    config: Config,
    arms: Arms,
    *,
    split: str,
    passes: int,
    progress: bool = False,
) -> ProbeReport:
    """Play all arms. Raises DataError if the split's tasks have no fitting train tasks."""
    spec = environment_spec(config.environment.name)
    train, tasks = environment.tasks(config.environment.train_split), environment.tasks(split)
    probed, drawn = arms.draw(environment, train, tasks, passes, random.Random(config.evaluation.seed))
    todo, frames = jobs(probed, passes), []
    for arm in drawn[0]:
        shown = [draw[arm] for draw in drawn]
        skills = {
            (job.task, job.number): arms.write(fact) if fact else "" for job, fact in zip(todo, shown, strict=True)
        }
        rollouts = play(todo, policy, environment, Injected(skills), config, progress=progress)
        frames.append(
            pd.DataFrame(
                {
                    "arm": arm,
                    "game": job.task.game,
                    "pass": job.number,
                    "won": float(r.outcome),
                    **({"score": r.score} if spec.graded else {}),  # elsewhere it is success
                    "steps": r.steps,
                    "followed": float(arms.followed(draw[arm] or draw["relevant"], r)),
                    "followed_irrelevant": float(arms.followed(draw["irrelevant"], r)),
                }
                for job, r, draw in zip(todo, rollouts, drawn, strict=True)
            )
        )
    return judge(pd.concat(frames, ignore_index=True), arms.smallest)


def judge(frame: pd.DataFrame, smallest: Mapping[str, float] = _SMALLEST) -> ProbeReport:
    """Estimate every arm, and whether the policy follows relevant skills and gains by their content.

    Args:
        smallest: differences that the gate asks for, beside being above 0 significantly.
    """
    columns = {"success": "won", "score": "score", "followed": "followed"}
    arms = {
        arm: {name: bootstrap_mean(part[column], part["game"]) for name, column in columns.items() if column in part}
        for arm, part in frame.groupby("arm")
    }
    by_arm = {arm: part.set_index("game") for arm, part in frame.groupby("arm")}
    gate = {
        name: paired_difference(by_arm[arm][column], by_arm[other][column])
        for name, (arm, other, column, _) in _GATE.items()
    }
    asked = [(gate[name], smallest[which]) for name, (*_, which) in _GATE.items() if which is not None]
    return ProbeReport(frame, arms, gate, all(e.value >= lowest and e.low > 0 for e, lowest in asked))
