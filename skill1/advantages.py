"""Rewards compared within groups (Eq. 9, 10 and 12): pure functions of arrays."""

from __future__ import annotations

from typing import Literal

import numpy as np

NO_SPREAD = 1e-8  # below this a standard deviation or an ideal DCG is rounding noise


def group_advantages(
    rewards: np.ndarray, groups: np.ndarray, scale_by_std: bool, over: np.ndarray | None = None
) -> np.ndarray:
    """Eq. 10 and 12: rewards centred on their group's mean and divided by its unbiased std; 0 without spread.

    Args:
        rewards: (N,) one per rollout, in any order.
        groups: (N,) group of each rollout.
        scale_by_std: False leaves them centred only.
        over: (N,) bool, those that mean and std are taken over; None = all.

    Returns:
        (N,) advantages; those that mean and std are taken over sum to 0 over each group.

    Raises:
        ValueError: a group has fewer than two rollouts (to take mean and std over).
    """
    result = np.zeros(len(rewards))
    for group in np.unique(groups):
        members = groups == group
        counted = rewards[members if over is None else members & over]
        if len(counted) < 2:
            raise ValueError(f"group {group} has one rollout: a group advantage needs at least two")
        spread = counted.std(ddof=1)
        if spread >= NO_SPREAD:
            centred = rewards[members] - counted.mean()
            result[members] = centred / spread if scale_by_std else centred
    return result


def rerank_advantages(ndcgs: np.ndarray, baseline: Literal["none", "batch_mean"]) -> np.ndarray:
    """Eq. 9: REINFORCE weighs a ranking by its NDCG, without a baseline in the paper.

    Args:
        ndcgs: (N,), nan for a rollout without a ranking, which stays nan and is left out of the mean.
    """
    if baseline == "none" or np.isnan(ndcgs).all():
        return ndcgs
    return ndcgs - np.nanmean(ndcgs)
