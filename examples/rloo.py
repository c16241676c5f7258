"""A method of one's own in one file: RLOO, every rollout against the mean of its group's others.

skill1 train --preset nano --set environment.data=data/games --set method.name=examples/rloo.py:RLOO --name rloo
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skill1.config import Config
from skill1.credit import check_rollouts, groups_of, returns_of
from skill1.methods.base import Method
from skill1.records import Rollout, Row
from skill1.rows import calls_of, make_rows


def leave_one_out(returns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(N,) A_i = R_i - mean of the group's other returns."""
    advantages = np.empty(len(returns))
    for group in np.unique(groups):
        own = returns[groups == group]
        advantages[groups == group] = own - (own.sum() - own) / (len(own) - 1)
    return advantages


class RLOO(Method):
    """REINFORCE with a leave-one-out baseline; no skills, no division by the spread."""

    @classmethod
    def rows(cls, rollouts: Sequence[Rollout], config: Config) -> list[Row]:
        """Credit every call with its episode's advantage."""
        check_rollouts(rollouts)
        advantages, calls = leave_one_out(returns_of(rollouts, config.credit), groups_of(rollouts)), calls_of(rollouts)
        return make_rows(rollouts, calls, [advantages[c.rollout] for c in calls], config.credit.token_mean)
