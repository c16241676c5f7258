"""Rollouts put together by hand, without an environment and a policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from skill1.analysis.tabular import episode
from skill1.records import Candidate, Lesson, Rollout, Row, Stage, Task, Turn


def turn(stage: Stage, tokens: int = 2, well_formed: bool = True, admissible: bool = True) -> Turn:
    return Turn(
        stage=stage,
        prompt_ids=np.arange(3, dtype=np.int32),
        completion_ids=np.arange(tokens, dtype=np.int32),
        logprobs=np.full(tokens, -0.5, dtype=np.float32),
        text="",
        value="",
        well_formed=well_formed,
        admissible=admissible,
    )


def rollout(
    group: int = 0,
    index: int = 0,
    outcome: float = 1.0,
    utilities: Sequence[float] = (),
    ranking: Sequence[int] | None = None,
    acts: Sequence[Turn] | None = None,
    selection: bool = True,
    distilled: bool | None = True,  # None: no distill turn
    ranking_parsed: bool = True,
    tokens: dict[str, int] | None = None,
    category: str = "Pick",
) -> Rollout:
    """An episode as Skill1 plays it, with a candidate per utility; two actions of 2 and 4 tokens unless said otherwise."""
    tokens = tokens or {}
    ranking = tuple(range(len(utilities))) if ranking is None else tuple(ranking)
    acts = [turn("act"), turn("act", 4)] if acts is None else acts
    turns = [turn("query", tokens.get("query", 3))] if selection else []
    if selection and len(utilities) >= 2:
        turns.append(turn("rerank", tokens.get("rerank", 5), ranking_parsed))
    turns += acts
    if distilled is not None:
        turns.append(turn("distill", tokens.get("distill", 7), distilled))
    candidates = tuple(Candidate(f"s{k}", u, 0.5, 0.5) for k, u in enumerate(utilities))
    made = episode(
        0,
        outcome,
        task=Task("alfworld", "train", f"train/{group}", category),
        instruction="put a mug on the desk",
        turns=turns,
        candidates=candidates,
        ranking=ranking,
        lesson=Lesson("when", "how") if distilled else None,
    )
    similarity = 0.25 * (index + 1) if candidates else math.nan
    return replace(
        made, group=group, index=index, ranking_parsed=ranking_parsed, skill_similarity=similarity, steps=len(acts)
    )


def bare(group: int = 0, index: int = 0, outcome: float = 1.0, acts: Sequence[Turn] | None = None) -> Rollout:
    """An episode of actions alone."""
    return rollout(group, index, outcome, acts=acts, selection=False, distilled=None)


def rows_of(rows: Sequence[Row], stage: Stage) -> list[Row]:
    return [row for row in rows if row.stage == stage]


def advantages(rows: Sequence[Row], stage: Stage) -> list[float]:
    return [row.advantage for row in rows if row.stage == stage]
