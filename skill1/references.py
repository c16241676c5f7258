"""Last trajectory per task and outcome, shown when distilling (the released scripts' `distill_reference`).

The paper's distill prompt has no reference; this state exists only when the switch is on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from skill1.prompts.base import Exchange
from skill1.records import Rollout


class ReferenceTrajectories:
    """game id -> last successful and last failed trajectory; part of a checkpoint."""

    _FILE = "references.json"

    def __init__(self) -> None:
        self._last: dict[str, dict[str, list[Exchange]]] = {}

    def opposite(self, game: str, won: bool) -> Sequence[Exchange] | None:
        """The last trajectory of `game` with the outcome that is not `won`, or None."""
        return self._last.get(game, {}).get("failure" if won else "success")

    def learn(self, rollouts: Iterable[Rollout]) -> None:
        """Remember the rollouts' trajectories, in rollout order."""
        for rollout in rollouts:
            outcome = "success" if rollout.outcome else "failure"
            steps = [(turn.observation, turn.value) for turn in rollout.turns_of("act")]
            self._last.setdefault(rollout.task.game, {})[outcome] = steps

    def save(self, folder: Path) -> None:
        partial = folder / f".{self._FILE}.partial"
        partial.write_text(json.dumps(self._last))
        os.replace(partial, folder / self._FILE)

    def load(self, folder: Path) -> None:
        """Raises FileNotFoundError when the checkpoint was written without references."""
        stored = json.loads((folder / self._FILE).read_text())
        self._last = {
            game: {outcome: [(o, a) for o, a in steps] for outcome, steps in last.items()}
            for game, last in stored.items()
        }
