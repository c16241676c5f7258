"""Replays recordings of the original TextWorld engine on the native one and counts every difference.

A recording is `.jsonl.xz`, one object a game: `game` ("<split>/<task>/<trial>"), `reset` {observation, admissible,
won} and `steps` [{action, observation, admissible, won, reward, done}], with `help` among the admissible commands where
the game has it and without a step limit (so reward and done both say whether the game is won).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skill1.envs.alfworld.data import GameTree
from skill1.envs.alfworld.engine import RunningGame
from skill1.envs.base import DataError
from skill1.envs.recording import Record, read_recording

_RESET = ("observation", "admissible", "won")
_STEP = (*_RESET, "reward", "done")
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One differing field; step 0 is the reset."""

    game: str
    step: int
    action: str | None
    field: str
    recorded: Any
    native: Any


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """`mismatches` counts differing fields; `first` holds the first ten of them."""

    games: int
    steps: int
    mismatches: int
    first: tuple[Mismatch, ...]


def replay(games: str | Path, transcripts: str | Path) -> ReplayReport:
    """Play a recording's actions on the games below `games` and compare every recorded field.

    Raises:
        DataError: a game is missing or corrupt, or the recording is unreadable, truncated, malformed or empty.
    """
    tree = GameTree(games)
    played = steps = mismatches = 0
    first: list[Mismatch] = []
    for record in read_recording(Path(transcripts), _check):
        episode = RunningGame(tree.game(record["game"]))
        played += 1
        for number, row in enumerate((record["reset"], *record["steps"])):
            action = row["action"] if number else None
            if action is not None:
                episode.step(action)
                steps += 1
            native = {
                "observation": episode.text, "admissible": list(episode.admissible), "won": episode.won,
                "reward": int(episode.won), "done": episode.won,
            }  # fmt: skip
            for field in _STEP if number else _RESET:
                if row[field] != native[field]:
                    mismatches += 1
                    if len(first) < _SHOWN:
                        first.append(Mismatch(record["game"], number, action, field, row[field], native[field]))
    if not played:
        raise DataError(f"the recording {transcripts} holds no game")
    return ReplayReport(played, steps, mismatches, tuple(first))


def replay_command(games: str | Path, transcripts: str | Path) -> int:
    """Replay, print the counts as one JSON line and the first mismatches to stderr; 1 if there are any, else 0."""
    report = replay(games, transcripts)
    for mismatch in report.first:
        print(json.dumps(asdict(mismatch)), file=sys.stderr)
    print(json.dumps({"games": report.games, "steps": report.steps, "mismatches": report.mismatches}))
    return int(report.mismatches > 0)


def _check(record: Record, number: int) -> None:
    if not isinstance(record["game"], str):
        raise TypeError("'game' is not a text")
    for row, names in ((record["reset"], _RESET), *((step, ("action", *_STEP)) for step in record["steps"])):
        for name in names:
            row[name]
