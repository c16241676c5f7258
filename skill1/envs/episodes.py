"""What environments that run their episodes in this process share: the book-keeping of the vector protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from skill1.envs.base import Observation, Step
from skill1.records import Task


class Running(Protocol):
    """One running episode."""

    observation: Observation
    done: bool


R = TypeVar("R", bound=Running)


class EpisodeEnvironment(ABC, Generic[R]):
    """`reset`, `step` and `close` of `envs.base.VectorEnvironment`; a subclass begins and advances single episodes."""

    def __init__(self, max_steps: int) -> None:
        """Raises ValueError if max_steps < 1."""
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, not {max_steps}")
        self.max_steps = max_steps
        self._running: list[R] = []

    def reset(self, tasks: Sequence[Task]) -> list[Observation]:
        """Start one episode per task, replacing the running ones. Raises DataError for a task without data."""
        self.close()
        self._running = [self._begin(task) for task in tasks]
        return [running.observation for running in self._running]

    def step(self, actions: Sequence[str | None]) -> list[Step | None]:
        """One action per episode, in `reset` order; None leaves an episode untouched and returns None for it.

        Raises ValueError when an action is given for a finished episode or the length does not match.
        """
        if len(actions) != len(self._running):
            raise ValueError(f"{len(actions)} actions for {len(self._running)} running episodes")
        for index, (action, running) in enumerate(zip(actions, self._running, strict=True)):
            if action is not None and running.done:
                raise ValueError(f"episode {index} is finished; pass None instead of the action {action!r}")
        return [
            None if action is None else self._advance(running, action)
            for action, running in zip(actions, self._running, strict=True)
        ]

    def close(self) -> None:
        """Drop the running episodes."""
        self._running = []

    @abstractmethod
    def _begin(self, task: Task) -> R: ...

    @abstractmethod
    def _advance(self, running: R, action: str) -> Step: ...
