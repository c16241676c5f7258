"""RetroAgent's credit (RetroAgent Eq. 3, 5, 6 and 11-13), as pure functions, and Phi, which Eq. 5 keeps.

A policy reflects on its episode: which subtasks it completed, whether it won. phi is the share of subtasks completed,
Phi what the task's groups have won so far at best, and R_int = [phi - Phi]+ rewards an episode that got further than
that, also in a group that never won. Every action is compared, within its group, by the return from there on.

Everything is in units of a win: the paper's win is 10 and its R_int counts once, so R_int counts 0.1 here.

Differs from the paper in:
    * subtasks that do not apply do not count (the released code counts them among those not completed);
    * the standard deviation is the unbiased one and below 1e-8 gives 0 (as everywhere here);
    * a reflection earns 1 for a right judgement of either outcome ("judged"); read literally, a judged failure earns
      nothing ("judged_won").
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from skill1.credit import group_advantages
from skill1.methods.gigpo import discounted_returns
from skill1.methods.references import PerTask
from skill1.records import Rollout
from skill1.rollout import Episode


@dataclass(frozen=True, slots=True)
class Reflection:
    """What a policy says of its own episode."""

    success: bool | None  # its judgement c, whether or not it was told; None: it did not parse
    completed: int  # subtasks
    listed: int  # subtasks, but for those that do not apply


@dataclass(frozen=True, slots=True)
class Retrospect:
    """What RetroAgent stores on a rollout."""

    memory: bool = True  # False: played without the library, in the half of the group that is to be compared with
    reflection: Reflection | None = None  # None: none was asked for
    baseline: float = 0.0  # Phi of the task as the step began


def memory_arm(size: int, share: float) -> list[bool]:
    """Say which rollouts of a group of `size` may retrieve: its last `share`, rounded up; the first are the control."""
    control = size - math.ceil(size * share)
    return [index >= control for index in range(size)]


def potential(reflection: Reflection | None, won: bool) -> float:
    """Compute phi in [0, 1]: 1 for a won episode, else the share of subtasks completed, 0 if none is listed.

    Without a reflection that parsed it is 0, also for a won episode (released).
    """
    if reflection is None or reflection.success is None:
        return 0.0
    if won:
        return 1.0
    return reflection.completed / reflection.listed if reflection.listed else 0.0


def intrinsic(potential: float, baseline: float) -> float:
    """Compute R_int = [phi - Phi]+ (RetroAgent Eq. 6)."""
    return max(0.0, potential - baseline)


def intrinsic_of(rollout: Rollout) -> float:
    """Compute R_int of an episode."""
    said: Retrospect = rollout.extra
    return intrinsic(potential(said.reflection, bool(rollout.outcome)), said.baseline)


def judged_right(rollout: Rollout) -> bool:
    """Tell whether the reflection's judgement c is the outcome. False without a reflection."""
    said = rollout.extra.reflection
    return said is not None and said.success == bool(rollout.outcome)


def step_returns(reward: float, invalid: np.ndarray, penalty: float, gamma: float) -> np.ndarray:
    """Compute the returns to go of an episode: G_t = gamma^(T-1-t) * reward, less the price of an invalid action.

    Unlike GiGPO's, the price is the invalid action's alone: those before it do not share it (released).

    Args:
        reward: r + c_int * R_int, earned by the last action.
        invalid: (T,) bool, T >= 1, the actions that cost something.
        penalty: what each costs.

    Returns:
        (T,) returns to go.
    """
    rewards = np.zeros(len(invalid))
    rewards[-1] = reward
    return discounted_returns(rewards, gamma) - penalty * invalid


def return_advantages(
    returns: np.ndarray,
    groups: np.ndarray,
    steps: np.ndarray,
    statistics: Literal["episode", "row"],
    scale_by_std: bool,
) -> np.ndarray:
    """Compare the actions of a group by their returns to go (RetroAgent Eq. 11).

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
    """Reward reflections (RetroAgent Eq. 3): 1{c = r} ("judged"), r * 1{c = r} ("judged_won"), R_int ("intrinsic").

    Args:
        outcomes, intrinsics: (N,) r and R_int.
        right: (N,) bool, c = r.
    """
    if how == "intrinsic":
        return intrinsics
    return right * (outcomes if how == "judged_won" else np.ones(len(outcomes)))


class Potentials(PerTask[float]):
    """Phi of every task: the best share of a group that won it."""

    FILE = "potentials.json"
    CONTENT = TypeAdapter(dict[str, float])

    def of(self, episode: Episode) -> float:
        """Look up Phi of an episode's task; 0 before it was played."""
        return super().of(episode) or 0.0

    def learn(self, rollouts: Iterable[Rollout]) -> None:
        """Raise Phi to the share of the group that won, for every group of a step (RetroAgent Eq. 5)."""
        groups: dict[int, list[Rollout]] = {}
        for rollout in rollouts:
            groups.setdefault(rollout.group, []).append(rollout)
        for members in groups.values():
            name = self._name(members[0].task, members[0].instruction)
            self._kept[name] = max(self._kept.get(name, 0.0), float(np.mean([r.outcome for r in members])))
