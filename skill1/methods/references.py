"""Last trajectory per task and outcome, shown when distilling or reflecting (`rollout.distill_reference`).

The paper's distill prompt has no reference, the released scripts' has one, and so has RetroAgent's where the outcome is
told; this state exists only when the switch is on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from skill1.records import Rollout, Task

if TYPE_CHECKING:  # credit need not wait for the prompts' tokenizers
    from skill1.prompts.base import Exchange

SameTask = Literal["game", "text"]


def task_name(task: Task, instruction: str, same_task: SameTask) -> str:
    """What a task is remembered by: its game, or its sentence, which other games can share."""
    return task.game if same_task == "game" else instruction


class ReferenceTrajectories:
    """Task -> last successful and last failed trajectory; part of a checkpoint."""

    _FILE = "references.json"

    def __init__(self, same_task: SameTask = "game") -> None:
        self._same_task = same_task
        self._last: dict[str, dict[str, list[Exchange]]] = {}

    def opposite(self, task: str, won: bool) -> Sequence[Exchange] | None:
        """The last trajectory, with the outcome that is not `won`, of a task by its `task_name`; or None."""
        return self._last.get(task, {}).get("failure" if won else "success")

    def learn(self, rollouts: Iterable[Rollout]) -> None:
        """Remember the rollouts' trajectories, in rollout order."""
        for rollout in rollouts:
            outcome = "success" if rollout.outcome else "failure"
            steps = [(turn.observation, turn.value) for turn in rollout.turns_of("act")]
            self._last.setdefault(task_name(rollout.task, rollout.instruction, self._same_task), {})[outcome] = steps

    def save(self, folder: Path) -> None:
        partial = folder / f".{self._FILE}.partial"
        partial.write_text(json.dumps(self._last))
        os.replace(partial, folder / self._FILE)

    def load(self, folder: Path) -> None:
        """Raises FileNotFoundError when the checkpoint was written without references."""
        stored = json.loads((folder / self._FILE).read_text())
        self._last = {
            task: {outcome: [(o, a) for o, a in steps] for outcome, steps in last.items()}
            for task, last in stored.items()
        }
