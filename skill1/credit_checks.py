"""What the rollouts of a step must be before they can be credited. Everything wrong is named, nothing is mended."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from skill1.records import Rollout, Stage


def check_rollouts(rollouts: Sequence[Rollout], *, selection: bool, distillation: bool) -> None:
    """Raises ValueError naming the group or rollout that is not as `credit.credit` requires."""
    _check_groups(rollouts)
    for rollout in rollouts:
        _check_rollout(rollout, selection=selection, distillation=distillation)


def _check_groups(rollouts: Sequence[Rollout]) -> None:
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


def _check_rollout(rollout: Rollout, *, selection: bool, distillation: bool) -> None:
    name = f"rollout {rollout.index} of group {rollout.group} ({rollout.task.game})"
    if not rollout.turns_of("act"):
        raise ValueError(f"{name} has no act turns")
    if not math.isfinite(rollout.outcome):
        raise ValueError(f"{name} has outcome {rollout.outcome}: expected a finite number")
    if not all(math.isfinite(c.utility) for c in rollout.candidates):
        raise ValueError(f"{name} has candidates of utility {[c.utility for c in rollout.candidates]}: expected finite")
    known = [c.skill for c in rollout.candidates]
    if rollout.selected is not None and rollout.selected not in known:
        raise ValueError(f"{name} selected {rollout.selected!r}, which is not among its candidates {known}")
    expected: dict[Stage, bool] = {
        "query": selection and rollout.memory,
        "rerank": selection and len(known) >= 2,
        "distill": distillation,
    }
    for stage, present in expected.items():
        if len(rollout.turns_of(stage)) != present:
            raise ValueError(
                f"{name} has {len(rollout.turns_of(stage))} {stage} turns, expected {int(present)} with "
                f"selection={selection}, distillation={distillation} and {len(known)} candidates"
            )
    for turn in rollout.turns:
        length = len(turn.completion_ids)
        if not length:
            raise ValueError(f"{name} has an empty {turn.stage} completion: it needs at least its end token")
        if len(turn.logprobs) != length or not np.isfinite(turn.logprobs).all():
            raise ValueError(f"{name} has a {turn.stage} turn of {length} tokens without {length} finite log-probs")
