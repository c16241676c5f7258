"""The environments as TRL's GRPOTrainer plays them: an `environment_factory` whose one tool is `act`.

    shared = SharedEnvironment("alfworld", data="data/games")
    GRPOTrainer(
        model, environment_factory=partial(ToolEnvironment, shared), train_dataset=Dataset.from_list(rows(shared, "train"))
    )

TRL makes a tool of every public method of an environment but `reset` and `get_reward`.
"""

from __future__ import annotations

from typing import Any

from skill1.envs.adapters.shared import SharedEnvironment

_TOOL = "Call the tool `act` with one action at a time, until the episode is over."


class ToolEnvironment:
    """One rollout's episode. Its reward is the episode's score, 1.0 for a win."""

    def __init__(self, shared: SharedEnvironment) -> None:
        self._shared = shared
        self._episode = shared.episode()

    def reset(self, *, split: str, game: str, **row: Any) -> str:
        """Start the task of a row; returns what TRL appends to the prompt. Raises DataError for an unknown task."""
        return self._episode.start(self._shared.task(split, game))

    def act(self, action: str) -> str:
        """Take one action in the environment.

        Args:
            action: The action, alone.

        Returns:
            What the environment shows afterwards.
        """
        return self._episode.act(action)

    def get_reward(self) -> float:
        """Return the episode's score, 0.0 as long as it is not over."""
        return self._episode.score


def rows(shared: SharedEnvironment, split: str) -> list[dict[str, Any]]:
    """Return a split's tasks as rows of a dataset: `prompt`, `split`, `game`, `category`. Raises DataError without tasks.

    The prompt is the rules; `ToolEnvironment.reset` adds the task and the first observation.
    """
    prompt = [{"role": "system", "content": f"{shared.rules} {_TOOL}"}, {"role": "user", "content": ""}]
    return [
        {"prompt": prompt, "split": split, "game": task.game, "category": task.category}
        for task in shared.tasks(split).values()
    ]
