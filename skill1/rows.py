"""Policy calls with advantages in, weighted rows out (Skill1 Eq. 11 and 13).

The trainer's loss is the mean over all rows of (token mean of the row's clipped surrogate with `advantage * weight`).
`row_weights` chooses the weights so that this mean is exactly Skill1 Eq. 11 with the token mean of Eq. 13.

Differs from the paper in: each stage's term is averaged over its own rows before it is weighted (Eq. 11 read literally).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from skill1.records import Rollout, Row, Stage, Turn


def row_weights(
    stages: Sequence[Stage],
    trajectories: np.ndarray,
    lengths: np.ndarray,
    token_mean: Literal["trajectory", "batch"],
    terms: Mapping[Stage, float],
    lambda_per: Literal["row", "token"] = "row",
) -> np.ndarray:
    """Weights that turn the mean over rows of token means into Skill1 Eq. 11 with the token mean of Eq. 13.

    With M rows, N trajectories and L a row's completion tokens, the terms and their rows' weights are

        utilisation, token_mean="trajectory"   1/N sum_i 1/|tau_i| sum over tokens    (M / N) * L / |tau_i|
        utilisation, token_mean="batch"        mean over all tokens                   M * L / sum_i |tau_i|
        lambda * mean over the rows of a stage that is a term of its own              lambda * M / N_stage
        the same of their tokens' sums, lambda_per="token"                            lambda * M * L / N_stage

    |tau_i| counts the completion tokens of trajectory i's rows in the utilisation term.

    Args:
        stages: M stages.
        trajectories: (M,) int, the rollout of each row, 0..N-1, every one with a utilisation row.
        lengths: (M,) int >= 1, completion tokens.
        terms: lambda of each stage that is a term of its own; all others are utilisation.

    Returns:
        (M,) weights >= 0.
    """
    rows = len(stages)
    names = np.array(stages)
    util = ~np.isin(names, list(terms))
    weights = np.empty(rows)
    tokens = np.bincount(trajectories[util], weights=lengths[util])  # (N,)
    if token_mean == "trajectory":
        weights[util] = rows / len(tokens) * lengths[util] / tokens[trajectories[util]]
    else:
        weights[util] = rows * lengths[util] / tokens.sum()
    for stage, factor in terms.items():
        own = names == stage
        weights[own] = factor * rows / max(own.sum(), 1) * (lengths[own] if lambda_per == "token" else 1)
    return weights


@dataclass(frozen=True, slots=True)
class Call:
    """A policy call that becomes a row."""

    rollout: int  # index of the rollout
    position: int  # index of the turn within it
    turn: Turn


def calls_of(rollouts: Sequence[Rollout], without: Iterable[Stage] = ()) -> list[Call]:
    """List all policy calls but those of stages that are not trained, in the order of `rollouts` and of their turns."""
    off = set(without)
    return [
        Call(i, position, turn)
        for i, rollout in enumerate(rollouts)
        for position, turn in enumerate(rollout.turns)
        if turn.stage not in off
    ]


def make_rows(
    rollouts: Sequence[Rollout],
    calls: Sequence[Call],
    advantages: Sequence[float] | np.ndarray,
    token_mean: Literal["trajectory", "batch"],
    terms: Mapping[Stage, float] | None = None,
    lambda_per: Literal["row", "token"] = "row",
    earlier: Sequence[Row] = (),
) -> list[Row]:
    """Make the rows of one training step.

    Rows of a rollout with advantage 0 are kept: they count in the means, and the trainer may skip their policy term.

    Args:
        calls: M calls; every rollout needs one that is no term of its own.
        advantages: (M,) of these calls.
        token_mean, terms, lambda_per: see `row_weights`.
        earlier: rows of earlier steps that join this one, with their advantages; their stage is a term of its own.

    Returns:
        M rows, in the order of `calls`, then the earlier ones.
    """
    weights = row_weights(
        [*(call.turn.stage for call in calls), *(row.stage for row in earlier)],
        np.array([call.rollout for call in calls] + [0] * len(earlier)),
        np.array([len(call.turn.completion_ids) for call in calls] + [len(row.completion_ids) for row in earlier]),
        token_mean,
        terms or {},
        lambda_per,
    )
    read = read_by_calls(rollouts, calls)
    rows = [
        Row(
            prompt_ids=prompt,
            completion_ids=call.turn.completion_ids,
            logprobs=call.turn.logprobs,
            stage=call.turn.stage,
            advantage=float(advantage),
            weight=float(weight),
            group=rollouts[call.rollout].group,
            rollout=call.rollout,
            turn=call.position,
            continues=continues,
        )
        for call, (prompt, continues), advantage, weight in zip(
            calls, read, advantages, weights[: len(calls)], strict=True
        )
    ]
    return rows + [
        replace(row, weight=float(weight)) for row, weight in zip(earlier, weights[len(calls) :], strict=True)
    ]


def read_by_calls(rollouts: Sequence[Rollout], calls: Sequence[Call]) -> Iterator[tuple[np.ndarray, bool]]:
    """What each call has read since the call before it in the same chat, and whether there is one.

    Turns of the chat that are no calls (their stage is not trained) are part of what is read.
    """
    rollout, last = -1, -1  # of the call before
    for call in calls:
        turns = rollouts[call.rollout].turns
        first = call.position  # of the chat
        while turns[first].continues:
            first -= 1
        continues = call.rollout == rollout and last >= first
        between = turns[last + 1 if continues else first : call.position]
        parts = [ids for turn in between for ids in (turn.prompt_ids, turn.completion_ids)]
        yield np.concatenate([*parts, call.turn.prompt_ids]) if parts else call.turn.prompt_ids, continues
        rollout, last = call.rollout, call.position
