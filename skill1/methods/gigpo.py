"""GiGPO's two advantages (arXiv 2505.10978, Eq. 3-8), as pure functions: A = A_E + omega * A_S for an act row.

A_E compares whole episodes of a group: it is Eq. 12 of Skill1. A_S compares single steps: rows of one task group in
which the environment said the same thing before the action (their anchor) are compared by the discounted return from
there on. F, the divisor of both, is the standard deviation (`scale_by_std`) or 1.

Differs from the paper in: the standard deviation is the unbiased one and below 1e-8 gives 0 (as everywhere here).
verl-agent takes the mean and deviation of A_E over step rows, so that long episodes weigh more
(`gigpo_statistics="row"`), and fills its batches with copies of rows, which is not reproduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from skill1.advantages import group_advantages
from skill1.config import CreditConfig


def charged(invalid: np.ndarray, config: CreditConfig) -> np.ndarray:
    """(T,) bool, which of an episode's (T,) invalid actions cost something: with `max_penalised` the first so many."""
    return invalid if config.max_penalised is None else invalid & (np.cumsum(invalid) <= config.max_penalised)


def step_rewards(outcome: float, invalid: np.ndarray, config: CreditConfig) -> np.ndarray:
    """Rewards of an episode's steps: each invalid action's price where it happens, the outcome at the last step.

    Their plain sum is the return R of `credit.returns`, but for a ranking's reward, which is earned before the episode.

    Args:
        outcome: r of the episode.
        invalid: (T,) bool, T >= 1; with `max_penalised` only the first that many are charged.

    Returns:
        (T,) rewards.
    """
    rewards = -config.invalid_penalty * charged(invalid, config).astype(float)
    rewards[-1] += outcome
    return rewards


def discounted_returns(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """Eq. 5: R_t = sum over k >= t of gamma^(k - t) r_k. (T,) -> (T,)."""
    result = np.array(rewards, dtype=float)
    for t in range(len(result) - 2, -1, -1):
        result[t] += gamma * result[t + 1]
    return result


def episode_advantages(
    returns: np.ndarray,
    groups: np.ndarray,
    steps: np.ndarray,
    statistics: Literal["episode", "row"],
    scale_by_std: bool,
) -> np.ndarray:
    """Eq. 3: A_E, the episodes of a group compared by their returns.

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
    """Eq. 6-7: A_S, the rows of a task group with the same anchor compared by their discounted returns.

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
