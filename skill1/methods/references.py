"""What a run remembers per task: the last trajectory of either outcome, shown when distilling or reflecting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from skill1.prompts import Exchange
from skill1.records import Rollout, Task
from skill1.rollout import Episode
from skill1.store.atomic import replace_file

SameTask = Literal["game", "text"]


def task_name(task: Task, instruction: str, same_task: SameTask) -> str:
    """Return what a task is remembered by: its game, or its sentence, which other games can share."""
    return task.game if same_task == "game" else instruction


class ReferenceTrajectories:
    """Task -> last successful and last failed trajectory; part of a checkpoint."""

    _FILE = "references.json"

    def __init__(self, same_task: SameTask = "game") -> None:
        self._same_task = same_task
        self._last: dict[str, dict[str, list[Exchange]]] = {}

    def opposite(self, episode: Episode) -> Sequence[Exchange] | None:
        """Return the last trajectory of the episode's task with the other outcome, if there is one."""
        name = task_name(episode.task, episode.start.instruction, self._same_task)
        return self._last.get(name, {}).get("failure" if episode.won else "success")

    def learn(self, rollouts: Iterable[Rollout]) -> None:
        """Remember the rollouts' trajectories, in rollout order."""
        for rollout in rollouts:
            outcome = "success" if rollout.outcome else "failure"
            steps = [(turn.observation, turn.value) for turn in rollout.turns_of("act")]
            self._last.setdefault(task_name(rollout.task, rollout.instruction, self._same_task), {})[outcome] = steps

    def save(self, folder: Path) -> None:
        """Write them into a checkpoint."""
        replace_file(folder / self._FILE, json.dumps(self._last).encode())

    def load(self, folder: Path) -> None:
        """Read what `save` wrote. Raises FileNotFoundError when the checkpoint was written without references."""
        stored = json.loads((folder / self._FILE).read_text())
        self._last = {
            task: {outcome: [(o, a) for o, a in steps] for outcome, steps in last.items()}
            for task, last in stored.items()
        }
