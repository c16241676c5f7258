"""What the adapters share: an environment's data, opened once, and single episodes of it as a chat model plays them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from skill1.config import environment_config
from skill1.envs.base import DataError, Observation, Step
from skill1.envs.make import environment_spec, make_environment
from skill1.records import Task

OVER = "The episode is over."


class SharedEnvironment:
    """An environment opened once; any number of its episodes run beside each other, on the same data."""

    def __init__(self, name: str, *, list_admissible: bool = True, **options: Any) -> None:
        """Open the environment of a name ("alfworld"), "module:OBJECT" or "file.py:OBJECT".

        Args:
            list_admissible: whether its texts list the admissible actions: easier, and many more tokens.
            options: fields of the environment's section of a configuration: `data`, `max_steps`, ...

        Raises:
            ConfigError: there is no such environment or option (with the closest match), or a value does not fit.
            DataError: its data is missing or malformed.
        """
        config = environment_config(name, options)
        self.spec = environment_spec(name)
        self.environment = make_environment(config)
        self._list_admissible = list_admissible
        self._tasks = cache(lambda split: {task.game: task for task in self.environment.tasks(split)})

    def tasks(self, split: str) -> Mapping[str, Task]:
        """Return the tasks of a split by `Task.game`, in sorted order. Raises DataError if there are none."""
        return self._tasks(split)

    def task(self, split: str, game: str) -> Task:
        """Return one task. Raises DataError if the split has no such task."""
        found = self.tasks(split).get(game)
        if found is None:
            raise DataError(f"{self.spec.name} has no {self.spec.task} {game!r} in its split {split!r}")
        return found

    def episode(self) -> SingleEpisode:
        """Return an episode that has not started, independent of all others."""
        return SingleEpisode(self)

    @property
    def rules(self) -> str:
        """What a model is told before the first observation: what it solves, and the forms of its actions."""
        words = self.spec.words
        actions = f"Your actions are: {words.actions}." if words.actions else ""
        return " ".join(
            part for part in (f"You are an agent that solves {words.setting}.", actions, words.hint) if part
        )

    def text(self, observation: Observation, *, first: bool) -> str:
        """Write an observation, the first with the task before it."""
        said = [self.spec.words.plain(observation.text, observation.instruction)]
        if first:
            said.insert(0, f"Task: {observation.instruction}")
        if self._list_admissible:
            said.append(f"Admissible actions: {', '.join(observation.admissible)}")
        return "\n".join(said)


class SingleEpisode:
    """One running episode, played by texts."""

    def __init__(self, shared: SharedEnvironment) -> None:
        self._shared = shared
        self._episodes = shared.environment.beside()
        self._now: Observation | None = None
        self.last: Step | None = None  # of the last action; None before the first

    def start(self, task: Task) -> str:
        """Start a task, whatever was running; returns what the model reads first."""
        [self._now] = self._episodes.reset([task])
        self.last = None
        return self._shared.text(self._now, first=True)

    @property
    def observation(self) -> Observation:
        """What the episode shows now. Raises RuntimeError before `start`."""
        if self._now is None:
            raise RuntimeError("no episode was started")
        return self._now

    def act(self, action: str) -> str:
        """Take an action, whatever its case and the blanks around it; returns what the model reads next.

        Raises ValueError if the episode is over.
        """
        command = self._shared.spec.words.command(action.strip(), self.observation.admissible)
        if self.done:
            raise ValueError(f"{OVER} Take no more actions.")
        [self.last] = self._episodes.step([command])
        assert self.last is not None  # an action was given
        self._now = self.last.observation
        said = self._shared.text(self._now, first=False)
        return f"{said}\n{OVER}" if self.done else said

    @property
    def done(self) -> bool:
        """Whether it is won, lost or out of steps."""
        return self.last is not None and self.last.done

    @property
    def score(self) -> float:
        """The graded score so far, 1.0 for a win."""
        return 0.0 if self.last is None else self.last.reward

    @property
    def won(self) -> bool:
        """Whether it is won."""
        return self.last is not None and self.last.won
