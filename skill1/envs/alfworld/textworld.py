"""The real ALFWorld package (alfworld on textworld) as a second engine: the reference for evaluation and conformance.

One game costs about a second to start and 0.1 s a step, so training runs on the native engine.
The package's own AlfredTWEnv is not used: it walks folders in the file system's order and its batches share wrappers.
Differs from the stock set-up in: no step limit and no expert (the environment counts steps itself).
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skill1.envs.alfworld.data import GameTree
from skill1.envs.base import DataError
from skill1.errors import MissingPackage

try:
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
    from textworld.envs.pddl import PddlEnv
except ImportError as error:
    raise MissingPackage(
        f"the textworld engine needs the real package ({error}): `pip install -e '.[reference]'` with g++ and make at "
        "hand to build it, or set environment.engine=native, which plays the same games without it"
    ) from error


class TextworldEngine:
    """Starts episodes, and lends the TextWorld environment of an episode that is gone to the next one.

    Every TextWorld environment loads its own 34 MB copy of the planner library, which cannot be unloaded safely.
    """

    def __init__(self) -> None:
        self._free: list[textworld.Environment] = []

    def start(self, games: GameTree, game: str) -> TextworldEpisode:
        """Begin an episode of a game id. Raises DataError if the game is missing or TextWorld rejects it."""
        path = games.path(game)
        env = self._free.pop() if self._free else _environment()
        with _contained(path):
            env.load(str(path))
            state = env.reset()
        episode = TextworldEpisode(env, state)
        weakref.finalize(episode, self._free.append, env).atexit = False
        return episode


class TextworldEpisode:
    """One game running in TextWorld."""

    def __init__(self, env: textworld.Environment, state: textworld.GameState) -> None:
        self._env = env
        self._state = state

    @property
    def text(self) -> str:
        return self._state.feedback

    @property
    def admissible(self) -> tuple[str, ...]:
        """Admissible commands, sorted; with `help` if the game has it."""
        return tuple(self._state.admissible_commands)

    @property
    def won(self) -> bool:
        return bool(self._state.won)

    def step(self, command: str) -> str:
        """Perform a command and return the new text; an inadmissible one answers "Nothing happens."."""
        self._state, _, _ = self._env.step(command)
        return self.text


def _environment() -> textworld.Environment:
    # Wrappers as AlfredTWEnv stacks them, without its step limit and expert.
    infos = textworld.EnvInfos(won=True, admissible_commands=True)
    return AlfredInfos(AlfredDemangler(PddlEnv(infos), shuffle=False))


@contextmanager
def _contained(path: Path) -> Iterator[None]:
    # Its PDDL translator overwrites sys.argv, leaves sys.stdout swapped on an error and calls sys.exit on bad PDDL.
    arguments, output = sys.argv, sys.stdout
    try:
        yield
    except SystemExit as error:
        raise DataError(f"TextWorld rejects the game {path}: {error}") from error
    finally:
        sys.argv, sys.stdout = arguments, output
