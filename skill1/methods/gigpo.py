"""GiGPO (arXiv 2505.10978): A = A_E + omega * A_S for every action. No skills.

A_E compares whole episodes of a group, as GRPO does (GiGPO Eq. 3). A_S compares single steps: rows of one task group in
which the environment said the same thing before the action (their anchor) are compared by the discounted return from
there on (GiGPO Eq. 5-7). F, the divisor of both, is the standard deviation (`credit.scale_by_std`) or 1.

Differs from the paper in: the standard deviation is the unbiased one and below 1e-8 gives 0 (as everywhere here).
verl-agent takes the mean and deviation of A_E over step rows, so that long episodes weigh more
(`method.statistics="row"`), and fills its batches with copies of rows, which is not reproduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from skill1.config import STRICT, Config, MethodConfig, knob
from skill1.credit import check_rollouts, group_advantages, groups_of, invalid_actions, returns_of
from skill1.methods.base import Method, refuse_price_apart
from skill1.records import Rollout, Row
from skill1.rows import calls_of, make_rows

Statistics = Literal["episode", "row"]


@dataclass(frozen=True, config=STRICT)
class GiGPOConfig(MethodConfig):
    """GiGPO's options."""

    # How much the comparison of single steps counts beside that of episodes.
    omega: float = knob(1.0, "weight of the step advantage", "arXiv 2505.10978", ge=0)
    # What a later reward is worth at an earlier step.
    gamma: float = knob(0.95, "discount per step", "arXiv 2505.10978", ge=0, le=1)
    # Whether an episode counts once in a group's mean and deviation, or once per step.
    statistics: Statistics = knob("episode", "mean and std over", "ours; verl-agent takes rows")


def step_rewards(outcome: float, invalid: np.ndarray, penalty: float) -> np.ndarray:
    """Reward an episode's steps: each invalid action's price where it happens, the outcome at the last step.

    Their plain sum is the return of `credit.returns_of`.

    Args:
        outcome: r of the episode.
        invalid: (T,) bool, T >= 1, the actions that cost something.
        penalty: what each costs.

    Returns:
        (T,) rewards.
    """
    rewards = -penalty * invalid.astype(float)
    rewards[-1] += outcome
    return rewards


def discounted_returns(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """Discount: R_t = sum over k >= t of gamma^(k - t) r_k (GiGPO Eq. 5). (T,) -> (T,)."""
    result = np.array(rewards, dtype=float)
    for t in range(len(result) - 2, -1, -1):
        result[t] += gamma * result[t + 1]
    return result


def episode_advantages(
    returns: np.ndarray, groups: np.ndarray, steps: np.ndarray, statistics: Statistics, scale_by_std: bool
) -> np.ndarray:
    """Compare the episodes of a group by their returns: A_E (GiGPO Eq. 3).

    Args:
        returns: (N,) R of each episode.
        groups: (N,) its task group.
        steps: (N,) int >= 1, its act rows.
        statistics: "episode" counts every episode once in mean and deviation, "row" once per step.

    Returns:
        (N,) advantages.

    Raises:
        ValueError: a group has fewer than two episodes (or, by rows, fewer than two rows).
    """
    if statistics == "episode":
        return group_advantages(returns, groups, scale_by_std)
    rows = np.repeat(np.arange(len(returns)), steps)  # (sum of steps,)
    first = np.cumsum(steps) - steps  # (N,) each episode's first row
    return group_advantages(returns[rows], groups[rows], scale_by_std)[first]


def step_advantages(returns: np.ndarray, groups: np.ndarray, anchors: Sequence[str], scale_by_std: bool) -> np.ndarray:
    """Compare the rows of a task group with one anchor by their discounted returns: A_S (GiGPO Eq. 6-7).

    Args:
        returns: (M,) R_t of each act row.
        groups: (M,) its task group.
        anchors: M observations before the action, compared for equality.

    Returns:
        (M,) advantages, 0 for a row whose anchor no other row of its group has.
    """
    numbers: dict[tuple[int, str], int] = {}
    pairs = zip(groups.tolist(), anchors, strict=True)
    anchored = np.array([numbers.setdefault(pair, len(numbers)) for pair in pairs], dtype=int)  # (M,)
    shared = np.bincount(anchored)[anchored] >= 2  # (M,)
    result = np.zeros(len(returns))
    result[shared] = group_advantages(returns[shared], anchored[shared], scale_by_std)
    return result


class GiGPO(Method):
    """GRPO with step advantages beside the episode's."""

    Options: ClassVar[type[MethodConfig]] = GiGPOConfig

    @classmethod
    def check(cls, config: Config) -> None:
        """See `Method.check`."""
        refuse_price_apart(config)

    @classmethod
    def rows(cls, rollouts: Sequence[Rollout], config: Config) -> list[Row]:
        """Credit every action by A_E + omega * A_S (GiGPO Eq. 8)."""
        check_rollouts(rollouts)
        options, credit, groups = GiGPOConfig.of(config), config.credit, groups_of(rollouts)
        invalid = [invalid_actions(r, credit) for r in rollouts]
        steps = np.array([len(part) for part in invalid])
        episode = episode_advantages(
            returns_of(rollouts, credit), groups, steps, options.statistics, credit.scale_by_std
        )
        taken = [
            discounted_returns(step_rewards(r.outcome, part, credit.invalid_penalty), options.gamma)
            for r, part in zip(rollouts, invalid, strict=True)
        ]
        anchors = [turn.observation for r in rollouts for turn in r.turns_of("act")]
        step = step_advantages(np.concatenate(taken), np.repeat(groups, steps), anchors, credit.scale_by_std)
        advantages = np.repeat(episode, steps) + options.omega * step
        return make_rows(rollouts, calls_of(rollouts), advantages, credit.token_mean)
