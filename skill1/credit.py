"""One outcome, four credits: the equations of Skill1 (Eq. 4-12), of arrays, and of rollouts.

Pure: nothing is read but stages, flags and numbers of the rollouts, never a text. A method puts the equations together
(`methods`): it says what advantage every policy call has and which stages form a term of their own; `rows.make_rows` does
the rest.

Differs from the paper in:
    * An ill-formed action costs `invalid_penalty` (the released scripts do; the paper is silent). Eq. 4 is then
      R = r - penalty, with an optional cap and an optional penalty on inadmissible actions.
    * The standard deviation of Eq. 10 and 12 is the unbiased one (ddof=1), as in TRL and verl, without their epsilon:
      a spread below 1e-8 gives advantage 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from skill1.config import CreditConfig
from skill1.records import Rollout, Stage

NO_SPREAD = 1e-8  # below this a standard deviation or an ideal DCG is rounding noise


# -- equations --------------------------------------------------------------------------------------------------------


def ndcg(ranking: Sequence[int], utilities: Sequence[float]) -> float:
    """Skill1 Eq. 6: agreement of a ranking with the order of the utilities, in [0, 1].

    Linear gain U, discount 1 / log2(rank + 1) with rank from 1. An ideal DCG below 1e-8 (all utilities 0) gives 0.

    Args:
        ranking: positions in `utilities`, best first; a permutation of 0..K-1.
        utilities: (K,) finite and >= 0, K >= 1.

    Raises:
        ValueError: `ranking` is no permutation, or a utility is negative or not finite.
    """
    gains = np.asarray(utilities, dtype=float)  # (K,)
    order = np.asarray(ranking, dtype=int)  # (K,)
    if not np.array_equal(np.sort(order), np.arange(len(gains))):
        raise ValueError(f"ranking {tuple(ranking)} is not a permutation of the {len(gains)} candidates' positions")
    if not (np.isfinite(gains) & (gains >= 0)).all():
        raise ValueError(f"utilities {tuple(utilities)} must be finite and >= 0")
    discount = 1 / np.log2(np.arange(len(gains)) + 2)  # (K,)
    ideal = (np.sort(gains)[::-1] * discount).sum()
    return float((gains[order] * discount).sum() / ideal) if ideal >= NO_SPREAD else 0.0


def u_hat(utilities: Sequence[float], how: Literal["max", "mean"]) -> float:
    """Skill1 Eq. 7: the library's expectation of the outcome; 0 when nothing was retrieved.

    Args:
        utilities: (K,) of the candidates, before this step's update.
        how: "max" (paper) or "mean" over the K.
    """
    if not len(utilities):
        return 0.0
    return float(max(utilities) if how == "max" else np.mean(utilities))


def distill_rewards(
    outcomes: np.ndarray, u_hats: np.ndarray, parsed: np.ndarray, unparsed: Literal["zero", "lost"]
) -> np.ndarray:
    """Skill1 Eq. 7: r - U_hat. Where the distilled text did not parse, 0 ("zero", paper) or -U_hat ("lost").

    After a lost episode 0 is more than any readable lesson earns: the policy then learns to be unreadable. With "lost"
    readability costs nothing there, and still pays after a win.

    Args:
        outcomes, u_hats: (N,).
        parsed: (N,) bool.
    """
    return np.where(parsed, outcomes - u_hats, -u_hats if unparsed == "lost" else 0.0)


def rerank_advantages(ndcgs: np.ndarray, baseline: Literal["none", "batch_mean"]) -> np.ndarray:
    """Skill1 Eq. 9: REINFORCE weighs a ranking by its NDCG, without a baseline in the paper.

    Args:
        ndcgs: (N,), nan for a rollout without a ranking, which stays nan and is left out of the mean.
    """
    if baseline == "none" or np.isnan(ndcgs).all():
        return ndcgs
    return ndcgs - np.nanmean(ndcgs)


def group_advantages(
    rewards: np.ndarray, groups: np.ndarray, scale_by_std: bool, over: np.ndarray | None = None
) -> np.ndarray:
    """Skill1 Eq. 10 and 12: rewards centred on their group's mean and divided by its unbiased std; 0 without spread.

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


# -- rollouts ---------------------------------------------------------------------------------------------------------


def groups_of(rollouts: Sequence[Rollout]) -> np.ndarray:
    """Return (N,) int, the group of each rollout."""
    return np.array([r.group for r in rollouts])


def outcomes_of(rollouts: Sequence[Rollout]) -> np.ndarray:
    """Return (N,) r of each rollout."""
    return np.array([r.outcome for r in rollouts], dtype=float)


def u_hats_of(rollouts: Sequence[Rollout], how: Literal["max", "mean"]) -> np.ndarray:
    """Return (N,) U_hat of each rollout's candidates (Skill1 Eq. 7)."""
    return np.array([u_hat([c.utility for c in r.candidates], how) for r in rollouts])


def ndcgs_of(rollouts: Sequence[Rollout]) -> np.ndarray:
    """Return (N,) Skill1 Eq. 6 of each rollout: nan without a ranking call, 0 for one that did not parse."""

    def of(rollout: Rollout) -> float:
        calls = rollout.turns_of("rerank")
        if not calls:
            return math.nan
        return ndcg(rollout.ranking, [c.utility for c in rollout.candidates]) if calls[0].well_formed else 0.0

    return np.array([of(r) for r in rollouts])


def invalid_actions(rollout: Rollout, config: CreditConfig) -> np.ndarray:
    """Return (T,) bool, which actions cost something; with `max_penalised` the first so many of those that are invalid.

    An action that is both ill-formed and inadmissible counts once.
    """
    invalid = np.array(
        [not t.well_formed or (config.penalise_inadmissible and not t.admissible) for t in rollout.turns_of("act")],
        dtype=bool,
    )
    return invalid if config.max_penalised is None else invalid & (np.cumsum(invalid) <= config.max_penalised)


def returns_of(rollouts: Sequence[Rollout], config: CreditConfig) -> np.ndarray:
    """Compute (N,) returns: Skill1 Eq. 4 less the price of invalid actions."""
    counted = np.array([invalid_actions(r, config).sum() for r in rollouts])
    return outcomes_of(rollouts) - config.invalid_penalty * counted


def outcome_advantages(
    rollouts: Sequence[Rollout], config: CreditConfig, bonus: np.ndarray | float = 0.0
) -> np.ndarray:
    """Compute (N,) advantages of the episodes within their groups: Skill1 Eq. 12, with the price of invalid actions.

    Args:
        bonus: (N,) added to the returns.
    """
    groups, returns, outcomes = groups_of(rollouts), returns_of(rollouts, config), outcomes_of(rollouts)
    if config.penalise == "return":
        return group_advantages(returns + bonus, groups, config.scale_by_std)
    prices = group_advantages(outcomes - returns, groups, scale_by_std=False)
    return group_advantages(outcomes + bonus, groups, config.scale_by_std) - prices


def check_rollouts(rollouts: Sequence[Rollout]) -> None:
    """Check that a step's rollouts can be credited.

    Raises:
        ValueError: groups of different sizes or tasks, a rollout without actions, an outcome or utility that is not
            finite, a selection that is not of the candidates, an empty completion, log-probs that are not finite or not
            one per token. The message names the rollout.
    """
    if not rollouts:
        raise ValueError("no rollouts: a step needs at least one group of two")
    groups: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group, []).append(rollout)
    sizes = {group: len(members) for group, members in groups.items()}
    if len(set(sizes.values())) > 1 or min(sizes.values()) < 2:
        raise ValueError(f"groups must have one common size >= 2, got rollouts per group {sizes}")
    for group, members in groups.items():
        if len({r.task for r in members}) > 1:
            raise ValueError(f"group {group} mixes tasks {sorted({r.task.game for r in members})}")
        if len({r.index for r in members}) < len(members):
            raise ValueError(f"group {group} holds an index twice: {sorted(r.index for r in members)}")
    for rollout in rollouts:
        _check_rollout(rollout)


def check_stages(rollouts: Sequence[Rollout], expected: Mapping[Stage, Sequence[bool]]) -> None:
    """Check that every rollout has one turn of a stage where `expected[stage][i]`, and none elsewhere.

    Raises:
        ValueError: naming the rollout and stage that differ.
    """
    for stage, there in expected.items():
        for rollout, one in zip(rollouts, there, strict=True):
            if (found := len(rollout.turns_of(stage))) != one:
                raise ValueError(f"{_name(rollout)} has {found} {stage} turns, expected {int(one)}")


def _check_rollout(rollout: Rollout) -> None:
    name, known = _name(rollout), [c.skill for c in rollout.candidates]
    if not rollout.turns_of("act"):
        raise ValueError(f"{name} has no act turns")
    if not math.isfinite(rollout.outcome):
        raise ValueError(f"{name} has outcome {rollout.outcome}: expected a finite number")
    if not all(math.isfinite(c.utility) for c in rollout.candidates):
        raise ValueError(f"{name} has candidates of utility {[c.utility for c in rollout.candidates]}: expected finite")
    if rollout.selected is not None and rollout.selected not in known:
        raise ValueError(f"{name} selected {rollout.selected!r}, which is not among its candidates {known}")
    for turn in rollout.turns:
        length = len(turn.completion_ids)
        if not length:
            raise ValueError(f"{name} has an empty {turn.stage} completion: it needs at least its end token")
        if len(turn.logprobs) != length or not np.isfinite(turn.logprobs).all():
            raise ValueError(f"{name} has a {turn.stage} turn of {length} tokens without {length} finite log-probs")


def _name(rollout: Rollout) -> str:
    return f"rollout {rollout.index} of group {rollout.group} ({rollout.task.game})"


# -- metrics ----------------------------------------------------------------------------------------------------------


def rollout_metrics(rollouts: Sequence[Rollout], returns: np.ndarray) -> dict[str, float]:
    """Measure what is logged of every step, whatever the method; nan where there is nothing to average.

    Args:
        returns: (N,) R of each rollout.
    """
    groups, outcomes = groups_of(rollouts), outcomes_of(rollouts)
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    acts = [turn for turn in turns if turn.stage == "act"]
    stages = dict.fromkeys(turn.stage for turn in turns)
    reward_stds, return_stds = _group_stds(outcomes, groups), _group_stds(returns, groups)
    metrics = {
        "reward": mean(outcomes),
        "reward_std": mean(reward_stds),
        "frac_reward_zero_std": mean(reward_stds < NO_SPREAD),
        "return": mean(returns),
        "frac_return_zero_std": mean(return_stds < NO_SPREAD),
        "actions/ill_formed": mean(not t.well_formed for t in acts),
        "actions/inadmissible": mean(not t.admissible for t in acts),
        "steps": mean(r.steps for r in rollouts),
        "cost/calls": float(len(turns)),
        "cost/tokens": float(sum(len(t.completion_ids) for t in turns)),
    }
    if any(t.continues for t in turns):
        metrics["conversation/cut"] = mean(r.cut for r in rollouts)
    for stage in stages:
        of_stage = [t for t in turns if t.stage == stage]
        metrics[f"{stage}/tokens"] = mean(len(t.completion_ids) for t in of_stage)
        if stage != "act":
            metrics[f"{stage}/parse_failures"] = mean(not t.well_formed for t in of_stage)
    for category in sorted({r.task.category for r in rollouts}):
        metrics[f"success/{category}"] = mean(r.outcome for r in rollouts if r.task.category == category)
    return metrics


def selection_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Measure what is logged where skills are retrieved and one of them is selected."""
    cosines = [r.skill_similarity for r in rollouts if not math.isnan(r.skill_similarity)]
    return {
        "selection/utility_retrieved": mean(c.utility for r in rollouts for c in r.candidates),
        "selection/utility_selected": mean(c.utility for r in rollouts for c in r.candidates if c.skill == r.selected),
        "selection/selected_share": mean(r.selected is not None for r in rollouts),
        "selection/retrieved_count": mean(len(r.candidates) for r in rollouts),
        "selection/zero_retrieved": mean(not r.candidates for r in rollouts),
        "skill_similarity": mean(cosines),
    }


def mean(values: Iterable[float]) -> float:
    """Return the mean of numbers or flags; nan of none."""
    numbers = np.array([float(v) for v in values])
    return float(numbers.mean()) if len(numbers) else math.nan


def std(values: np.ndarray) -> float:
    """Return the unbiased standard deviation of (n,) values; nan of fewer than two."""
    return float(values.std(ddof=1)) if len(values) >= 2 else math.nan


def _group_stds(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(groups,) unbiased stds of the groups that have at least two rollouts."""
    stds = np.array([std(values[groups == group]) for group in np.unique(groups)])
    return stds[~np.isnan(stds)]
