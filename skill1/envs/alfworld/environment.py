"""ALFWorld behind the vector environment protocol (method section 1); `help` is not among the admissible commands.

An action outside the engine's commands answers "Nothing happens." and still counts a step. The reward is 1.0 on the
winning step and 0.0 before; an episode is done when it is won or has used its steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from skill1.config import EnvironmentConfig
from skill1.envs.alfworld.data import GameTree, content_hash
from skill1.envs.alfworld.engine import Episode
from skill1.envs.base import Observation, Step
from skill1.envs.episodes import EpisodeEnvironment
from skill1.records import Task

NAME = "alfworld"


class EngineEpisode(Protocol):
    """What the environment needs of an engine: the native one's `Episode` or the real package's."""

    @property
    def text(self) -> str: ...

    @property
    def admissible(self) -> tuple[str, ...]: ...

    @property
    def won(self) -> bool: ...

    def step(self, command: str) -> str: ...


@dataclass(slots=True)
class _Running:
    episode: EngineEpisode
    instruction: str
    observation: Observation
    steps: int = 0
    done: bool = False


class AlfworldEnvironment(EpisodeEnvironment[_Running]):
    """Any number of ALFWorld episodes in one process. Task ids are "<split>/<task>/<trial>"."""

    def __init__(
        self, games: GameTree, max_steps: int, start: Callable[[GameTree, str], EngineEpisode] | None = None
    ) -> None:
        """`start` begins an episode of a game id on another engine than the native one.

        Raises ValueError if max_steps < 1.
        """
        super().__init__(max_steps)
        self.games = games
        self._start = start or (lambda games, game: Episode(games.game(game)))

    def has(self, split: str) -> bool:
        """Whether there is a folder of that split."""
        return self.games.has(split)

    def tasks(self, split: str) -> tuple[Task, ...]:
        """Tasks of a split in sorted id order. Raises DataError if there are none."""
        return tuple(Task(NAME, split, game.id, game.category) for game in self.games.games(split))

    def data_hash(self, split: str) -> str:
        """SHA-256 of the ids and contents of the split's games. Raises DataError if there are none."""
        return content_hash(self.games.games(split))

    def _begin(self, task: Task) -> _Running:
        instruction = self.games.game(task.game).instruction
        episode = self._start(self.games, task.game)
        return _Running(episode, instruction, _observe(episode, instruction))

    def _advance(self, running: _Running, action: str) -> Step:
        admissible = action.strip() in running.observation.admissible
        running.episode.step(action)
        running.steps += 1
        won = running.episode.won
        running.done = won or running.steps >= self.max_steps
        running.observation = _observe(running.episode, running.instruction)
        return Step(running.observation, float(won), won, running.done, admissible)


def open_alfworld(config: EnvironmentConfig) -> AlfworldEnvironment:
    """The ALFWorld that a configuration asks for: its engine, on its data folder or $ALFWORLD_DATA.

    Raises:
        DataError: neither folder is given, or it does not exist.
        ImportError: the textworld engine is asked for and the package is not installed.
    """
    games = GameTree.open(config.data)
    if config.engine == "native":
        return AlfworldEnvironment(games, config.max_steps)
    from skill1.envs.alfworld.textworld import TextworldEngine  # the package is optional

    return AlfworldEnvironment(games, config.max_steps, TextworldEngine().start)


def _observe(episode: EngineEpisode, instruction: str) -> Observation:
    admissible = tuple(command for command in episode.admissible if command != "help")
    return Observation(episode.text, admissible, instruction)
