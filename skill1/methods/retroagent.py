"""RetroAgent's credit (arXiv 2603.08561, Eq. 3, 5, 6 and 11-13), as pure functions, and Phi, which Eq. 5 keeps.

A policy reflects on its episode: which subtasks it completed, whether it won. phi is the share of subtasks completed,
Phi what the task's groups have won so far at best, and R_int = [phi - Phi]+ rewards an episode that got further than
that, also in a group that never won. Every action is compared, within its group, by the return from there on.

Everything is in units of a win: the paper's win is 10 and its R_int counts once, so R_int counts 0.1 here
(`intrinsic_weight`).

Differs from the paper in:
    * subtasks that do not apply do not count (the released code counts them among those not completed);
    * the standard deviation is the unbiased one and below 1e-8 gives 0 (as everywhere here);
    * a reflection earns 1 for a right judgement of either outcome (`distill_reward="judged"`); read literally, a judged
      failure earns nothing ("judged_won");
    * reflections are trained in the same update as actions, and rows are averaged as Skill1's.
The released code gives R_int to no action (`intrinsic_weight=0`), and to the reflections where these are trained
(`distill_reward="intrinsic"`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from skill1.advantages import group_advantages
from skill1.config import CreditConfig
from skill1.methods.gigpo import charged, discounted_returns
from skill1.methods.references import SameTask, task_name
from skill1.records import Reflection, Rollout
from skill1.store.journal import replace_file


def memory_arm(size: int, share: float) -> list[bool]:
    """Which rollouts of a group of `size` may retrieve: its last `share`, rounded up; the first are the control."""
    control = size - math.ceil(size * share)
    return [index >= control for index in range(size)]


def potential(reflection: Reflection | None, won: bool) -> float:
    """phi in [0, 1]: 1 for a won episode, else the share of subtasks completed, 0 if none is listed.

    Without a reflection that parsed it is 0, also for a won episode (released).
    """
    if reflection is None or reflection.success is None:
        return 0.0
    if won:
        return 1.0
    return reflection.completed / reflection.listed if reflection.listed else 0.0


def intrinsic(potential: float, baseline: float) -> float:
    """Eq. 6: R_int = [phi - Phi]+."""
    return max(0.0, potential - baseline)


def intrinsic_of(rollout: Rollout) -> float:
    """R_int of an episode."""
    return intrinsic(potential(rollout.reflection, bool(rollout.outcome)), rollout.baseline)


def judged_right(rollout: Rollout) -> bool:
    """The reflection's judgement c is the outcome. False without a reflection."""
    return rollout.reflection is not None and rollout.reflection.success == bool(rollout.outcome)


def step_returns(reward: float, invalid: np.ndarray, config: CreditConfig) -> np.ndarray:
    """What each action of an episode is compared by: G_t = gamma^(T-1-t) * reward, less the price of an invalid one.

    Unlike GiGPO's, the price is the invalid action's alone: those before it do not share it (released).

    Args:
        reward: r + c_int * R_int, earned by the last action.
        invalid: (T,) bool, T >= 1; with `max_penalised` only the first that many are charged.

    Returns:
        (T,) returns to go.
    """
    rewards = np.zeros(len(invalid))
    rewards[-1] = reward
    return discounted_returns(rewards, config.gigpo_gamma) - config.invalid_penalty * charged(invalid, config)


def return_advantages(
    returns: np.ndarray,
    groups: np.ndarray,
    steps: np.ndarray,
    statistics: Literal["episode", "row"],
    scale_by_std: bool,
) -> np.ndarray:
    """The actions of a group compared by their returns to go.

    Args:
        returns: (M,) of the actions, episode by episode.
        groups: (M,) their task groups.
        steps: (N,) int >= 1, the episodes' numbers of actions; they sum to M.
        statistics: mean and deviation over all actions ("row"), or over each episode's first ("episode").

    Returns:
        (M,) advantages.
    """
    if statistics == "row":
        return group_advantages(returns, groups, scale_by_std)
    first = np.zeros(len(returns), dtype=bool)
    first[np.cumsum(steps) - steps] = True
    return group_advantages(returns, groups, scale_by_std, over=first)


def reflection_rewards(
    outcomes: np.ndarray, right: np.ndarray, intrinsics: np.ndarray, how: Literal["judged", "judged_won", "intrinsic"]
) -> np.ndarray:
    """Eq. 3: what a reflection earns: 1{c = r} ("judged"), r * 1{c = r} ("judged_won"), or R_int ("intrinsic").

    Args:
        outcomes, intrinsics: (N,) r and R_int.
        right: (N,) bool, c = r.
    """
    if how == "intrinsic":
        return intrinsics
    return right * (outcomes if how == "judged_won" else np.ones(len(outcomes)))


class Potentials:
    """Phi of every task met: the best share of a group that won it; part of a checkpoint."""

    _FILE = "potentials.json"

    def __init__(self, same_task: SameTask) -> None:
        self._same_task = same_task
        self._best: dict[str, float] = {}

    def __getitem__(self, task: str) -> float:
        """Phi of a task by its `references.task_name`; 0 before it was played."""
        return self._best.get(task, 0.0)

    def learn(self, rollouts: Iterable[Rollout]) -> None:
        """Eq. 5: Phi <- max(Phi, share of the group that won), for every group of a step."""
        groups: dict[int, list[Rollout]] = {}
        for rollout in rollouts:
            groups.setdefault(rollout.group, []).append(rollout)
        for members in groups.values():
            name = task_name(members[0].task, members[0].instruction, self._same_task)
            self._best[name] = max(self[name], float(np.mean([r.outcome for r in members])))

    def save(self, folder: Path) -> None:
        replace_file(folder / self._FILE, json.dumps(self._best).encode())

    def load(self, folder: Path) -> None:
        """Raises FileNotFoundError when the checkpoint was written without potentials."""
        self._best = json.loads((folder / self._FILE).read_text())
