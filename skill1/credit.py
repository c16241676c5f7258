"""One outcome, four credits: rollouts in, weighted rows out (method sections 3 and 5; the paper's Eq. 4-13).

Pure: nothing is read but stages, flags and numbers of the rollouts, never a text (GiGPO compares observations for
equality). Each equation is a function of arrays, those that compare within groups in `advantages`, the baselines' in
`gigpo` and `retroagent`; `credit` puts them together and `credit_metrics` gives the scalars that are logged for a step.

The trainer's loss is the mean over all rows of (token mean of the row's clipped surrogate with `advantage * weight`).
`row_weights` chooses the weights so that this mean is exactly Eq. 11 with the token mean of Eq. 13.

Differs from the paper in:
    * An ill-formed action costs `invalid_penalty` (the released scripts do; the paper is silent). Eq. 4 is then
      R = r - penalty, with an optional cap and an optional penalty on inadmissible actions.
    * Each stage's term is averaged over its own rows before it is weighted (Eq. 11 read literally).
    * The standard deviation of Eq. 10 and 12 is the unbiased one (ddof=1), as in TRL and verl, without their epsilon:
      a spread below 1e-8 gives advantage 0.
    * With fewer than two candidates there is no ranking and no row for it.
    * A stage whose lambda is 0 gives no rows: its text is generated and used, its loss (and its KL) is off.
    * `rerank_credit="return"` is the released code: lambda1 * NDCG joins the trajectory's return and the rerank row is
      one more row of the trajectory, with the trajectory's advantage.
    * `estimator="gigpo"` is a baseline's credit: act rows get A_E + omega * A_S, rows of all other stages A_E alone.
    * `estimator="return_to_go"`, `intrinsic_weight`, `distill_reward`, `distill_baseline`: another's, in `retroagent`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skill1.advantages import NO_SPREAD, group_advantages, rerank_advantages
from skill1.config import CreditConfig
from skill1.credit_checks import check_rollouts
from skill1.methods.gigpo import discounted_returns, episode_advantages, step_advantages, step_rewards
from skill1.methods.retroagent import (
    intrinsic_of,
    judged_right,
    potential,
    reflection_rewards,
    return_advantages,
    step_returns,
)
from skill1.records import STAGES, Rollout, Row, Stage, Turn


def ndcg(ranking: Sequence[int], utilities: Sequence[float]) -> float:
    """Eq. 6: agreement of a ranking with the order of the utilities, in [0, 1].

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
    """Eq. 7: the library's expectation of the outcome; 0 when nothing was retrieved.

    Args:
        utilities: (K,) of the candidates, before this step's update.
        how: "max" (paper) or "mean" over the K.
    """
    if not len(utilities):
        return 0.0
    return float(max(utilities) if how == "max" else np.mean(utilities))


def returns(rewards: np.ndarray, invalid: np.ndarray, ndcgs: np.ndarray, config: CreditConfig) -> np.ndarray:
    """Eq. 4 less the price of invalid actions; with `rerank_credit="return"` plus lambda1 * NDCG.

    Args:
        rewards: (N,) r of each rollout (with `intrinsic_weight` plus c_int * R_int).
        invalid: (N,) number of invalid actions.
        ndcgs: (N,) rerank credit, nan for a rollout without a ranking (which adds 0).

    Returns:
        (N,) returns R.
    """
    counted = invalid if config.max_penalised is None else np.minimum(invalid, config.max_penalised)
    result = rewards - config.invalid_penalty * counted
    if config.rerank_credit == "return":
        result = result + config.lambda1 * np.nan_to_num(ndcgs, nan=0.0)
    return result


def distill_rewards(
    outcomes: np.ndarray, u_hats: np.ndarray, parsed: np.ndarray, unparsed: Literal["zero", "lost"]
) -> np.ndarray:
    """Eq. 7: r - U_hat. Where the distilled text did not parse, 0 ("zero", paper) or -U_hat ("lost").

    After a lost episode 0 is more than any readable lesson earns: the policy then learns to be unreadable. With "lost"
    readability costs nothing there, and still pays after a win.

    Args:
        outcomes, u_hats: (N,).
        parsed: (N,) bool.
    """
    return np.where(parsed, outcomes - u_hats, -u_hats if unparsed == "lost" else 0.0)


def row_weights(
    stages: Sequence[Stage], trajectories: np.ndarray, lengths: np.ndarray, config: CreditConfig
) -> np.ndarray:
    """Weights that turn the mean over rows of token means into Eq. 11 with the token mean of Eq. 13.

    With M rows, N trajectories and L a row's completion tokens, the terms and their rows' weights are

        utilisation, token_mean="trajectory"   1/N sum_i 1/|tau_i| sum over tokens    (M / N) * L / |tau_i|
        utilisation, token_mean="batch"        mean over all tokens                   M * L / sum_i |tau_i|
        lambda1 * mean over the rerank rows                                           lambda1 * M / N_rerank
        lambda2 * mean over the distill rows                                          lambda2 * M / N_distill

    |tau_i| counts the completion tokens of trajectory i's query and act rows; with `rerank_credit="return"` also those
    of its rerank row, which then belongs to the utilisation term.

    Args:
        stages: M stages.
        trajectories: (M,) int, the rollout of each row, 0..N-1, every one with a utilisation row.
        lengths: (M,) int >= 1, completion tokens.

    Returns:
        (M,) weights >= 0.
    """
    rows = len(stages)
    term = np.array([_term(stage, config) for stage in stages])  # (M,)
    weights = np.empty(rows)
    util = term == "util"
    tokens = np.bincount(trajectories[util], weights=lengths[util])  # (N,)
    if config.token_mean == "trajectory":
        weights[util] = rows / len(tokens) * lengths[util] / tokens[trajectories[util]]
    else:
        weights[util] = rows * lengths[util] / tokens.sum()
    for name, factor in (("rerank", config.lambda1), ("distill", config.lambda2)):
        own = term == name
        weights[own] = factor * rows / max(own.sum(), 1)
    return weights


def _term(stage: Stage, config: CreditConfig) -> str:
    """The term of Eq. 11 that a stage's rows belong to."""
    if stage == "distill" or (stage == "rerank" and config.rerank_credit == "loss"):
        return stage
    return "util"


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """What the equations need of N rollouts."""

    groups: np.ndarray  # (N,) int
    outcomes: np.ndarray  # (N,) r
    intrinsics: np.ndarray  # (N,) RetroAgent's R_int
    rewards: np.ndarray  # (N,) r + c_int * R_int
    returns: np.ndarray  # (N,) R
    ndcgs: np.ndarray  # (N,) nan without a rerank turn
    u_hats: np.ndarray  # (N,)


def credit(rollouts: Sequence[Rollout], config: CreditConfig, *, selection: bool, distillation: bool) -> list[Row]:
    """All rows of one training step, in the order of `rollouts` and of their turns.

    Rows of a rollout with advantage 0 are kept: they count in the means, and the trainer may skip their policy term.

    Args:
        rollouts: groups of equal size >= 2 in any order; a group is one `Rollout.group`.
        selection: query and rerank are on; off (also without a library) no rollout may hold such turns.
        distillation: distill is on; off (also without a library) no rollout may hold such a turn.

    Raises:
        ValueError: groups of different sizes or tasks, a wrong number of turns of a stage, an outcome or utility that
            is not finite, a ranking or selection that is not of the candidates, an empty completion, log-probs that are
            not finite or not one per token (the message names the rollout), or a baseline that has no effect.
    """
    if config.rerank_credit == "return" and config.rerank_baseline != "none":
        raise ValueError("rerank_baseline has no effect with rerank_credit='return': set it to 'none'")
    if config.estimator == "gigpo" and selection and config.rerank_baseline != "none":
        raise ValueError("rerank_baseline has no effect with estimator='gigpo': set it to 'none'")
    check_rollouts(rollouts, selection=selection, distillation=distillation)
    columns = _columns(rollouts, config)
    by_stage = _episode_credit(rollouts, columns, config)

    off = {stage for stage, factor in (("rerank", config.lambda1), ("distill", config.lambda2)) if factor == 0}
    calls = [
        (i, position, turn)
        for i, rollout in enumerate(rollouts)
        for position, turn in enumerate(rollout.turns)
        if turn.stage not in off
    ]
    stages = [turn.stage for _, _, turn in calls]
    advantages = np.array([by_stage[stage][i] for stage, (i, _, _) in zip(stages, calls, strict=True)])  # (M,)
    acts = np.array(stages) == "act"
    if config.estimator == "gigpo":
        advantages[acts] += config.gigpo_omega * _step_credit(rollouts, columns, config)
    elif config.estimator == "return_to_go":
        advantages[acts] = _return_credit(rollouts, columns, config)
    weights = row_weights(
        stages,
        np.array([i for i, _, _ in calls]),
        np.array([len(turn.completion_ids) for _, _, turn in calls]),
        config,
    )
    return [
        Row(
            prompt_ids=turn.prompt_ids,
            completion_ids=turn.completion_ids,
            logprobs=turn.logprobs,
            stage=turn.stage,
            advantage=float(advantage),
            weight=float(weight),
            group=rollouts[i].group,
            rollout=i,
            turn=position,
        )
        for (i, position, turn), advantage, weight in zip(calls, advantages, weights, strict=True)
    ]


def _episode_credit(rollouts: Sequence[Rollout], columns: _Columns, config: CreditConfig) -> dict[Stage, np.ndarray]:
    """Stage -> (N,) advantage of each rollout's rows of that stage; for a stage that it lacks, a value not used."""
    if config.estimator == "gigpo":
        steps = np.array([len(r.turns_of("act")) for r in rollouts])
        util = episode_advantages(columns.returns, columns.groups, steps, config.gigpo_statistics, config.scale_by_std)
        return dict.fromkeys(STAGES, util)
    util = group_advantages(columns.returns, columns.groups, config.scale_by_std)
    by_stage = dict.fromkeys(STAGES, util)
    if config.rerank_credit == "loss":
        by_stage["rerank"] = rerank_advantages(columns.ndcgs, config.rerank_baseline)
    by_stage["distill"] = _distill_credit(rollouts, columns, config)
    return by_stage


def _distill_credit(rollouts: Sequence[Rollout], columns: _Columns, config: CreditConfig) -> np.ndarray:
    """(N,) advantages of the distill rows."""
    if config.distill_reward == "surplus":
        parsed = np.array([all(turn.well_formed for turn in r.turns_of("distill")) for r in rollouts])
        rewards = distill_rewards(columns.outcomes, columns.u_hats, parsed, config.unparsed_distill)
    else:
        right = np.array([judged_right(r) for r in rollouts])
        rewards = reflection_rewards(columns.outcomes, right, columns.intrinsics, config.distill_reward)
    if config.distill_baseline == "none":
        return rewards
    compared = columns.groups if config.distill_baseline == "group" else np.zeros(len(rollouts), dtype=int)
    return group_advantages(rewards, compared, config.scale_by_std)


def _return_credit(rollouts: Sequence[Rollout], columns: _Columns, config: CreditConfig) -> np.ndarray:
    """RetroAgent's advantages of all act turns, in order."""
    taken = [step_returns(x, _invalid(r, config), config) for r, x in zip(rollouts, columns.rewards, strict=True)]
    steps = np.array([len(part) for part in taken])
    groups = np.repeat(columns.groups, steps)
    return return_advantages(np.concatenate(taken), groups, steps, config.gigpo_statistics, config.scale_by_std)


def _step_credit(rollouts: Sequence[Rollout], columns: _Columns, config: CreditConfig) -> np.ndarray:
    """GiGPO's A_S of all act turns, in order."""
    taken = [
        discounted_returns(step_rewards(x, _invalid(r, config), config), config.gigpo_gamma)
        for r, x in zip(rollouts, columns.rewards, strict=True)
    ]
    return step_advantages(
        np.concatenate(taken),
        np.repeat(columns.groups, [len(part) for part in taken]),
        [turn.observation for r in rollouts for turn in r.turns_of("act")],
        config.scale_by_std,
    )


def _columns(rollouts: Sequence[Rollout], config: CreditConfig) -> _Columns:
    outcomes = np.array([r.outcome for r in rollouts], dtype=float)
    invalid = np.array([_invalid(r, config).sum() for r in rollouts])
    ndcgs = np.array([_rerank_credit(r) for r in rollouts])
    intrinsics = np.array([intrinsic_of(r) for r in rollouts])
    rewards = outcomes + config.intrinsic_weight * intrinsics
    return _Columns(
        groups=np.array([r.group for r in rollouts]),
        outcomes=outcomes,
        intrinsics=intrinsics,
        rewards=rewards,
        returns=returns(rewards, invalid, ndcgs, config),
        ndcgs=ndcgs,
        u_hats=np.array([u_hat([c.utility for c in r.candidates], config.u_hat) for r in rollouts]),
    )


def _invalid(rollout: Rollout, config: CreditConfig) -> np.ndarray:
    """(T,) bool, which actions are invalid; one that is both ill-formed and inadmissible counts once."""
    return np.array(
        [
            not turn.well_formed or (config.penalise_inadmissible and not turn.admissible)
            for turn in rollout.turns_of("act")
        ],
        dtype=bool,
    )


def _rerank_credit(rollout: Rollout) -> float:
    """Eq. 6 for one rollout: nan without a ranking call, 0 for one that did not parse."""
    calls = rollout.turns_of("rerank")
    if not calls:
        return math.nan
    return ndcg(rollout.ranking, [c.utility for c in rollout.candidates]) if calls[0].well_formed else 0.0


# Name -> meaning. `success/<category>` is added for every category among the rollouts.
METRICS: dict[str, str] = {
    "reward": "mean outcome r",
    "reward_std": "mean over the groups of the outcome's unbiased std",
    "frac_reward_zero_std": "share of groups whose outcomes have no spread",
    "return": "mean return R (Eq. 4 with penalties)",
    "frac_return_zero_std": "share of groups whose returns have no spread: no utilisation gradient",
    "u_hat": "mean U_hat (Eq. 7), 0 for a rollout that retrieved nothing",
    "distill_positive_rate": "share of r - U_hat > 0 among the rollouts with a distill turn",
    "ndcg/mean": "mean NDCG over the rerank turns (Eq. 6)",
    "ndcg/std": "its unbiased std",
    "selection/utility_retrieved": "mean U over all retrieved candidates",
    "selection/utility_selected": "mean U over the selected skills",
    "selection/selected_share": "share of episodes with a skill",
    "selection/retrieved_count": "mean number of candidates",
    "selection/zero_retrieved": "share of episodes that retrieved nothing",
    **{f"{stage}/parse_failures": f"share of {stage} turns that did not parse" for stage in STAGES if stage != "act"},
    "actions/ill_formed": "share of actions that are ill-formed",
    "actions/inadmissible": "share of actions that are inadmissible",
    "skill_similarity": "mean cosine of the task and the selected skill's description",
    "steps": "mean actions per episode",
    **{f"{stage}/tokens": f"mean completion tokens of a turn of stage {stage}" for stage in STAGES},
    "cost/calls": "calls of the policy in the step",
    "cost/tokens": "completion tokens of these calls",
    "memory/success": "mean outcome of the episodes that could retrieve",
    "memory/control": "mean outcome of those that could not",
    "reflection/potential": "mean phi of the episodes that were reflected on",
    "reflection/intrinsic": "mean R_int of these",
    "reflection/right": "share of these whose outcome was judged right",
}


def credit_metrics(rollouts: Sequence[Rollout], config: CreditConfig) -> dict[str, float]:
    """The scalars logged for a step: `METRICS` and `success/<category>`; nan where there is nothing to average.

    Raises:
        ValueError: no rollouts.
    """
    if not rollouts:
        raise ValueError("no rollouts to measure")
    columns = _columns(rollouts, config)
    turns: dict[Stage, list[Turn]] = {stage: [t for r in rollouts for t in r.turns_of(stage)] for stage in STAGES}
    distilled = np.array([bool(r.turns_of("distill")) for r in rollouts])
    reward_stds, return_stds = (_group_stds(x, columns.groups) for x in (columns.outcomes, columns.returns))
    reflected = [r for r in rollouts if r.reflection is not None]
    ranked = columns.ndcgs[~np.isnan(columns.ndcgs)]
    metrics = {
        "reward": _mean(columns.outcomes),
        "reward_std": _mean(reward_stds),
        "frac_reward_zero_std": _mean(reward_stds < NO_SPREAD),
        "return": _mean(columns.returns),
        "frac_return_zero_std": _mean(return_stds < NO_SPREAD),
        "u_hat": _mean(columns.u_hats),
        "distill_positive_rate": _mean((columns.outcomes > columns.u_hats)[distilled]),
        "ndcg/mean": _mean(ranked),
        "ndcg/std": _std(ranked),
        "selection/utility_retrieved": _mean(c.utility for r in rollouts for c in r.candidates),
        "selection/utility_selected": _mean(c.utility for r in rollouts for c in r.candidates if c.skill == r.selected),
        "selection/selected_share": _mean(r.selected is not None for r in rollouts),
        "selection/retrieved_count": _mean(len(r.candidates) for r in rollouts),
        "selection/zero_retrieved": _mean(not r.candidates for r in rollouts),
        **{f"{s}/parse_failures": _mean(not t.well_formed for t in turns[s]) for s in STAGES if s != "act"},
        "actions/ill_formed": _mean(not t.well_formed for t in turns["act"]),
        "actions/inadmissible": _mean(not t.admissible for t in turns["act"]),
        "skill_similarity": _mean(r.skill_similarity for r in rollouts if not math.isnan(r.skill_similarity)),
        "steps": _mean(r.steps for r in rollouts),
        **{f"{stage}/tokens": _mean(len(t.completion_ids) for t in turns[stage]) for stage in STAGES},
        "cost/calls": float(sum(map(len, turns.values()))),
        "cost/tokens": float(sum(len(t.completion_ids) for of_stage in turns.values() for t in of_stage)),
        "memory/success": _mean(r.outcome for r in rollouts if r.memory),
        "memory/control": _mean(r.outcome for r in rollouts if not r.memory),
        "reflection/potential": _mean(potential(r.reflection, bool(r.outcome)) for r in reflected),
        "reflection/intrinsic": _mean(intrinsic_of(r) for r in reflected),
        "reflection/right": _mean(judged_right(r) for r in reflected),
    }
    for category in sorted({r.task.category for r in rollouts}):
        metrics[f"success/{category}"] = _mean(r.outcome for r in rollouts if r.task.category == category)
    return metrics


def _mean(values: Iterable[float]) -> float:
    numbers = np.array([float(v) for v in values])
    return float(numbers.mean()) if len(numbers) else math.nan


def _std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) >= 2 else math.nan


def _group_stds(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(groups,) unbiased stds of the groups that have at least two rollouts."""
    stds = np.array([_std(values[groups == group]) for group in np.unique(groups)])
    return stds[~np.isnan(stds)]
