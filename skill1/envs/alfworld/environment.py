"""ALFWorld behind the vector environment protocol; `help` is not among the admissible commands.

An action outside the engine's commands answers "Nothing happens." and still counts a step. The reward is 1.0 on the
winning step and 0.0 before; an episode is done when it is won or has used its steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from skill1.envs.alfworld.data import GameTree, content_hash
from skill1.envs.alfworld.engine import RunningGame
from skill1.envs.alfworld.options import ALFWorldConfig
from skill1.envs.base import Observation
from skill1.envs.episodes import EpisodeEnvironment, TextEpisode
from skill1.records import Task

NAME = "alfworld"


class EngineGame(Protocol):
    """What the environment needs of an engine: the native one's `RunningGame` or the real package's."""

    @property
    def text(self) -> str: ...

    @property
    def admissible(self) -> tuple[str, ...]: ...

    @property
    def won(self) -> bool: ...

    def step(self, command: str) -> str: ...


class AlfworldEpisode(TextEpisode):
    """One episode of a game, on either engine."""

    def __init__(self, game: EngineGame, instruction: str) -> None:
        self._game, self._instruction = game, instruction
        self._observe()

    def act(self, action: str) -> float | None:
        self._game.step(action)
        self._observe()
        return 1.0 if self._game.won else None

    def offers(self, action: str) -> bool:
        return super().offers(action.strip())

    def _observe(self) -> None:
        admissible = tuple(command for command in self._game.admissible if command != "help")
        self.observation = Observation(self._game.text, admissible, self._instruction)


class AlfworldEnvironment(EpisodeEnvironment[AlfworldEpisode]):
    """Any number of ALFWorld episodes in one process. Task ids are "<split>/<task>/<trial>"."""

    def __init__(
        self, games: GameTree, max_steps: int, start: Callable[[GameTree, str], EngineGame] | None = None
    ) -> None:
        """`start` starts a game by its id on another engine than the native one.

        Raises ValueError if max_steps < 1.
        """
        super().__init__(max_steps)
        self.games = games
        self._start = start or (lambda games, game: RunningGame(games.game(game)))

    def has(self, split: str) -> bool:
        """Return whether there is a folder of that split."""
        return self.games.has(split)

    def tasks(self, split: str) -> tuple[Task, ...]:
        """Return the tasks of a split in sorted id order. Raises DataError if there are none."""
        return tuple(Task(NAME, split, game.id, game.category) for game in self.games.games(split))

    def data_hash(self, split: str) -> str:
        """Hash the ids and contents of the split's games by SHA-256. Raises DataError if there are none."""
        return content_hash(self.games.games(split))

    def begin(self, task: Task) -> AlfworldEpisode:
        return AlfworldEpisode(self._start(self.games, task.game), self.games.game(task.game).instruction)


def open_alfworld(config: ALFWorldConfig) -> AlfworldEnvironment:
    """Open the ALFWorld that a configuration asks for: its engine, on its data folder or $ALFWORLD_DATA.

    Raises:
        DataError: neither folder is given, or it does not exist.
        MissingPackage: the textworld engine is asked for and the package is not installed.
    """
    games = GameTree.open(config.data)
    if config.engine == "native":
        return AlfworldEnvironment(games, config.max_steps)
    from skill1.envs.alfworld.textworld import TextworldEngine  # the package is optional

    return AlfworldEnvironment(games, config.max_steps, TextworldEngine().start)
