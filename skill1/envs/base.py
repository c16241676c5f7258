"""The vector environment protocol. Environments know nothing of policies, prompts or skills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from skill1.errors import UserError
from skill1.records import Task


class DataError(UserError, ValueError):
    """Environment data is missing, empty, corrupt or mixed. The message names the path and the fix."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What an episode shows now: `instruction` is the task's sentence, constant over the episode."""

    text: str
    admissible: tuple[str, ...]  # admissible commands: sorted in ALFWorld, in page order in WebShop
    instruction: str


@dataclass(frozen=True, slots=True)
class Step:
    """Result of one action. `done` is won or step limit; success is `won`, never `done`."""

    observation: Observation
    reward: float
    won: bool
    done: bool
    admissible: bool  # the action was in the admissible list it was chosen from
    truncated: bool  # done by the step limit alone


class Episodes(Protocol):
    """Any number of running episodes."""

    def reset(self, tasks: Sequence[Task]) -> list[Observation]:
        """Start one episode per task, replacing the running ones; `len(tasks)` may change at every call."""
        ...

    def step(self, actions: Sequence[str | None]) -> list[Step | None]:
        """Take one action per episode, in `reset` order; None leaves an episode untouched and returns None for it.

        Raises ValueError when an action is given for a finished episode or the length does not match.
        """
        ...


class VectorEnvironment(Episodes, Protocol):
    """Any number of episodes in one process. Resetting a Task again gives exactly the same episode."""

    max_steps: int

    def beside(self) -> Episodes:
        """Return episodes that run beside those of this environment, on the same data."""
        ...

    def has(self, split: str) -> bool:
        """Return whether the data has that split."""
        ...

    def tasks(self, split: str) -> tuple[Task, ...]:
        """Return the tasks of a split in sorted id order. Raises DataError if there are none."""
        ...

    def data_hash(self, split: str) -> str:
        """Hash by SHA-256 what a split's tasks are made of: what a run's manifest records. Raises as `tasks`."""
        ...
