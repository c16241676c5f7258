"""Environments whose episodes run in this process: a subclass lists the tasks and plays one episode at a time.

An environment of one's own is a `TextEpisode`, an `EpisodeEnvironment` that lists its tasks and begins their episodes,
and an `EnvironmentSpec` (`examples/garden.py`).
"""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Self, TypeVar

from skill1.envs.base import DataError, Observation, Step
from skill1.records import Task


class TextEpisode(ABC):
    """One running episode. The constructor of a subclass sets `observation`, what it shows at the start."""

    observation: Observation  # what it shows now
    steps = 0  # actions taken
    done = False

    @abstractmethod
    def act(self, action: str) -> float | None:
        """Perform an action and set `observation`.

        Returns the final score, 1.0 for a win, or None where the episode continues.
        """

    def offers(self, action: str) -> bool:
        """Tell whether an action is one of the admissible ones of `observation`."""
        return action in self.observation.admissible


E = TypeVar("E", bound=TextEpisode)


class EpisodeEnvironment(ABC, Generic[E]):
    """`envs.base.VectorEnvironment` over single episodes. An episode also ends, lost, after `max_steps` actions."""

    def __init__(self, max_steps: int) -> None:
        """Raises ValueError if max_steps < 1."""
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, not {max_steps}")
        self.max_steps = max_steps
        self._running: list[E] = []

    @abstractmethod
    def tasks(self, split: str) -> tuple[Task, ...]:
        """Return the tasks of a split in sorted id order. Raises DataError if there are none."""

    @abstractmethod
    def begin(self, task: Task) -> E:
        """Start a task's episode: the same one every time. Raises DataError for a task without data."""

    def beside(self) -> Self:
        """Return episodes that run beside those of this environment, on the same data."""
        other = copy.copy(self)
        other._running = []
        return other

    def has(self, split: str) -> bool:
        """Return whether the split has tasks."""
        try:
            return bool(self.tasks(split))
        except DataError:
            return False

    def data_hash(self, split: str) -> str:
        """Hash the split's tasks and what their episodes show first by SHA-256. Raises DataError as `tasks`."""
        return hashlib.sha256(
            repr([(task, self.begin(task).observation) for task in self.tasks(split)]).encode()
        ).hexdigest()

    def reset(self, tasks: Sequence[Task]) -> list[Observation]:
        """Start one episode per task, replacing the running ones. Raises DataError for a task without data."""
        self._running = []  # what they held is free for the next
        self._running = [self.begin(task) for task in tasks]
        return [episode.observation for episode in self._running]

    def step(self, actions: Sequence[str | None]) -> list[Step | None]:
        """Take one action per episode, in `reset` order; None leaves an episode untouched and returns None for it.

        Raises ValueError when an action is given for a finished episode or the length does not match.
        """
        if len(actions) != len(self._running):
            raise ValueError(f"{len(actions)} actions for {len(self._running)} running episodes")
        pairs = list(zip(actions, self._running, strict=True))
        for index, (action, episode) in enumerate(pairs):
            if action is not None and episode.done:
                raise ValueError(f"episode {index} is finished; pass None instead of the action {action!r}")
        return [None if action is None else self._advance(episode, action) for action, episode in pairs]

    def _advance(self, episode: E, action: str) -> Step:
        offered, score = episode.offers(action), episode.act(action)
        episode.steps += 1
        truncated = score is None and episode.steps >= self.max_steps
        episode.done = score is not None or truncated
        return Step(episode.observation, score or 0.0, score == 1.0, episode.done, offered, truncated)
