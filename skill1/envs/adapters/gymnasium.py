"""The environments behind Gymnasium's API: texts in, texts out.

`gymnasium.make` finds `TextEnv` as "skill1.envs.adapters.gymnasium:skill1/Text-v0"; several share their data if they are
made of one `SharedEnvironment`.
"""

from __future__ import annotations

import string
from typing import Any

import gymnasium
from gymnasium.spaces import Text

from skill1.envs.adapters.shared import SharedEnvironment
from skill1.registry import closest

_LONGEST_TEXT, _LONGEST_ACTION = 1_000_000, 1_000  # characters


class AnyText(Text):
    """All texts up to a length, in any script; samples are of ASCII letters, digits and punctuation."""

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length, min_length=0, charset=string.printable)

    def contains(self, x: Any) -> bool:
        """Tell whether it is a text of at most that length."""
        return isinstance(x, str) and len(x) <= self.max_length


class TextEnv(gymnasium.Env[str, str]):
    """One episode at a time of a split's tasks.

    The observation is the environment's text; the action is a command, and one that is not admissible still counts as a
    step. Its case does not matter. The reward is the score of the step that ends the episode, 0.0 before. `info` has the `instruction`, the
    `admissible` commands, the task's `game` and `category`, and whether the episode is `won`.
    """

    def __init__(self, shared: SharedEnvironment, split: str) -> None:
        """Raises DataError if the split has no tasks."""
        self._shared, self._split = shared, split
        self._games = tuple(shared.tasks(split))
        self._episode = shared.episode()
        self.observation_space = AnyText(_LONGEST_TEXT)
        self.action_space = AnyText(_LONGEST_ACTION)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start `options["game"]`, or a task drawn by the seed. Raises DataError for an unknown game."""
        super().reset(seed=seed)
        asked = {closest(name, ("game",), "option of reset"): value for name, value in (options or {}).items()}
        game = asked["game"] if asked else self._games[self.np_random.integers(len(self._games))]
        self._task = self._shared.task(self._split, game)
        self._episode.start(self._task)
        return self._episode.observation.text, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take an action. Raises ValueError if the episode is over."""
        self._episode.act(action)
        step = self._episode.last
        assert step is not None  # an action was taken
        return step.observation.text, step.reward, step.done and not step.truncated, step.truncated, self._info()

    def _info(self) -> dict[str, Any]:
        seen = self._episode.observation
        return {
            "instruction": seen.instruction,
            "admissible": seen.admissible,
            "game": self._task.game,
            "category": self._task.category,
            "won": self._episode.won,
        }


def make(environment: str, split: str = "train", **options: Any) -> TextEnv:
    """Open an environment of its own data for one `TextEnv`. Raises as `SharedEnvironment` and `TextEnv`."""
    return TextEnv(SharedEnvironment(environment, **options), split)


gymnasium.register("skill1/Text-v0", entry_point=f"{__name__}:make")
