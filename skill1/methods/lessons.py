"""Lessons that wait until a later episode was shown what they became, and are credited by how it ended. Ours.

In the paper a lesson's reward is its own episode's outcome, less what the library expected (Skill1 Eq. 7): whatever is
written, the reward is the same. Here the lesson's row waits with the log-probs that it was sampled with. In the first step
that shows its skill it joins the update, through the clipped ratio, with

    advantage = mean over the episodes that were shown it of (r - r of the others)

where the others are the episodes of the same group that were not shown it, or without any those of the whole step. A
lesson that merged into a known skill waits for that one. After `patience` steps it is forgotten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from skill1.records import Rollout, Row
from skill1.rows import calls_of, read_by_calls
from skill1.store.journal import LibraryEvent
from skill1.store.json_file import read_json, write_json

FILE = "lessons.json"


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    skill: str
    step: int  # of the episode
    row: Row


class WaitingLessons:
    """Those of a run, the same on every rank; part of a checkpoint."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._waiting: list[_Waiting] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def credited(self, rollouts: Sequence[Rollout], step: int) -> list[Row]:
        """Take out the rows whose skill this step's episodes were shown, with their advantages; forget the old ones."""
        worth = _worth(rollouts)
        ready = [w for w in self._waiting if w.skill in worth]
        self._waiting = [w for w in self._waiting if w.skill not in worth and step - w.step < self._patience]
        return [replace(w.row, advantage=worth[w.skill]) for w in ready]

    def wait(self, rollouts: Sequence[Rollout], event: LibraryEvent) -> None:
        """Let the lessons of a step wait that the library took.

        Args:
            event: what the library made of these rollouts; lessons appear in it in their order.
        """
        admitted, merged = list(event.admitted), list(event.merged)
        taken = []
        for number, rollout in enumerate(rollouts):
            if rollout.lesson is None or not rollout.outcome:
                continue
            fresh = admitted and (admitted[0].desc, admitted[0].strategy) == (
                rollout.lesson.desc, rollout.lesson.strategy,
            )  # fmt: skip
            taken.append((number, admitted.pop(0).id if fresh else merged.pop(0)))
        rows = _lone_rows([rollouts[number] for number, _ in taken])
        self._waiting += [_Waiting(skill, event.step, row) for (_, skill), row in zip(taken, rows, strict=True)]

    def save(self, folder: Path) -> None:
        """Write them into a checkpoint."""
        lines = [{"skill": w.skill, "step": w.step, "row": _plain(w.row)} for w in self._waiting]
        write_json(folder / FILE, lines, indent=None)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote. Raises FileNotFoundError when the checkpoint was written without it."""
        lines = read_json(folder / FILE)
        self._waiting = [_Waiting(line["skill"], line["step"], _row(line["row"])) for line in lines]


def _lone_rows(rollouts: Sequence[Rollout]) -> list[Row]:
    """The rows of the rollouts' lessons, each for itself."""
    calls = [call for call in calls_of(rollouts) if call.turn.stage == "distill"]
    return [
        Row(
            prompt_ids=prompt,
            completion_ids=call.turn.completion_ids,
            logprobs=call.turn.logprobs,
            stage="distill",
            advantage=0.0,
            weight=0.0,
            group=rollouts[call.rollout].group,
            rollout=-1,  # of no rollout of the step that it joins
            turn=call.position,
            earlier=True,
        )
        for call, (prompt, _) in zip(calls, read_by_calls(rollouts, calls), strict=True)
    ]


def _worth(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Skill -> mean of r less the others' r, over the episodes that were shown it."""
    gains: defaultdict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        if rollout.selected is None:
            continue
        others = [r for r in rollouts if r.selected != rollout.selected]
        near = [r.outcome for r in others if r.group == rollout.group] or [r.outcome for r in others]
        if near:
            gains[rollout.selected].append(rollout.outcome - float(np.mean(near)))
    return {skill: float(np.mean(found)) for skill, found in gains.items()}


_ARRAYS = {"prompt_ids": np.int32, "completion_ids": np.int32, "logprobs": np.float32}


def _plain(row: Row) -> dict[str, Any]:
    return {name: value.tolist() if name in _ARRAYS else value for name, value in asdict(row).items()}


def _row(plain: dict[str, Any]) -> Row:
    found: dict[str, Any] = {name: np.array(v, _ARRAYS[name]) if name in _ARRAYS else v for name, v in plain.items()}
    return Row(**found)
