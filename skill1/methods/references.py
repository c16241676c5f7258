"""What a run remembers per task: here the last trajectory of either outcome, shown when distilling or reflecting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

from pydantic import TypeAdapter

from skill1.prompts import Exchange
from skill1.records import Rollout, Task
from skill1.rollout import Episode
from skill1.store.json_file import read_json, write_json

SameTask = Literal["game", "text"]
V = TypeVar("V")


class PerTask(ABC, Generic[V]):
    """Something kept of every task met, by its name; part of a checkpoint."""

    FILE: ClassVar[str]
    CONTENT: ClassVar[TypeAdapter]  # dict[str, V]

    def __init__(self, same_task: SameTask = "game") -> None:
        self._same_task = same_task
        self._kept: dict[str, V] = {}

    @abstractmethod
    def learn(self, rollouts: Iterable[Rollout]) -> None:
        """Take a training step's rollouts into account, in rollout order."""

    def of(self, episode: Episode) -> V | None:
        """Look up what is kept of an episode's task; None before it was played."""
        return self._kept.get(self._name(episode.task, episode.start.instruction))

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        write_json(folder / self.FILE, self._kept, indent=None)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote. Raises FileNotFoundError when the checkpoint was written without it."""
        self._kept = self.CONTENT.validate_python(read_json(folder / self.FILE))

    def _name(self, task: Task, instruction: str) -> str:
        """The task's game, or its sentence, which other games can share."""
        return task.game if self._same_task == "game" else instruction


class ReferenceTrajectories(PerTask[dict[str, list[Exchange]]]):
    """Task -> last successful and last failed trajectory."""

    FILE = "references.json"
    CONTENT = TypeAdapter(dict[str, dict[str, list[Exchange]]])

    def opposite(self, episode: Episode) -> Sequence[Exchange] | None:
        """Return the last trajectory of the episode's task with the other outcome, if there is one."""
        return (self.of(episode) or {}).get("failure" if episode.won else "success")

    def learn(self, rollouts: Iterable[Rollout]) -> None:
        """Remember the rollouts' trajectories."""
        for rollout in rollouts:
            outcome = "success" if rollout.outcome else "failure"
            steps = [(turn.observation, turn.value) for turn in rollout.turns_of("act")]
            self._kept.setdefault(self._name(rollout.task, rollout.instruction), {})[outcome] = steps
