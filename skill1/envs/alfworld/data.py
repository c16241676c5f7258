"""ALFWorld game folders: which games a split has, their categories, their hash.

A folder is as `alfworld-download` and `skill1 generate alfworld` leave it: `<root>/json_2.1.1/<split>/<task>/<trial>/`
with `game.tw-pddl` and `traj_data.json`; the `json_2.1.1` folder itself is accepted too. A game's id is
"<split>/<task>/<trial>" and ids are sorted, never in directory order. Games are filtered as the package's AlfredTWEnv
does: a known task type, no 'movable' and no 'Sliced' in the id, a game file marked solvable.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from skill1.envs.alfworld.game import Game, TextVersion, text_version
from skill1.envs.base import DataError
from skill1.envs.generation import MARKER

# Task type, the first part of a task's directory name -> the paper's category (Table 1).
CATEGORIES = {
    "pick_and_place_simple": "Pick",
    "look_at_obj_in_light": "Look",
    "pick_clean_then_place_in_recep": "Clean",
    "pick_heat_then_place_in_recep": "Heat",
    "pick_cool_then_place_in_recep": "Cool",
    "pick_two_obj_and_place": "Pick2",
}
DATA_FOLDER = "json_2.1.1"
GAME_FILE, TRAJECTORY_FILE = "game.tw-pddl", "traj_data.json"
_SOLVABLE = re.compile(rb'"solvable"\s*:\s*true\b')
_PUBLISHED = {"train": 3553, "valid_seen": 140, "valid_unseen": 134}  # games of ALFWorld's own tree (its Table 1)
_CACHED_GAMES = 1024  # parsed games kept in memory
_log = logging.getLogger(__name__)  # what is missing is said wherever a split is read
_ADVICE = (
    "generate games with `skill1 generate alfworld --out DIR`, or fetch ALFWorld's with `alfworld-download`, "
    "and name the folder as environment.data or in $ALFWORLD_DATA"
)


@dataclass(frozen=True, slots=True)
class GameFile:
    """A playable game as found on disk."""

    id: str  # "<split>/<task>/<trial>"
    category: str
    text_version: TextVersion
    sha256: str  # of the game file's bytes


class GameTree:
    """The games below a folder. Splits are scanned once, games are parsed when they are first played."""

    def __init__(self, root: str | Path) -> None:
        """Raises DataError if there is no such folder."""
        root = Path(root)
        self.folder = root / DATA_FOLDER if (root / DATA_FOLDER).is_dir() else root
        if not self.folder.is_dir():
            raise DataError(f"there is no folder {root}; {_ADVICE}")
        self._load = lru_cache(maxsize=_CACHED_GAMES)(Game.load)
        self._splits: dict[str, tuple[GameFile, ...]] = {}

    @classmethod
    def open(cls, root: str | None) -> GameTree:
        """Open the games below `root`, or below $ALFWORLD_DATA if it is None. Raises DataError if neither is given."""
        root = root or os.environ.get("ALFWORLD_DATA")
        if not root:
            raise DataError(f"no game data: environment.data is not set and $ALFWORLD_DATA is empty; {_ADVICE}")
        return cls(Path(root).expanduser())

    def games(self, split: str) -> tuple[GameFile, ...]:
        """Return the games of a split in sorted id order.

        Raises:
            DataError: no such split, no playable game in it, a truncated game file, or two text versions in one split.
        """
        if split not in self._splits:
            self._splits[split] = self._scan(split)
        return self._splits[split]

    def has(self, split: str) -> bool:
        """Return whether there is a folder of that split."""
        return (self.folder / split).is_dir()

    def path(self, game: str) -> Path:
        """Find the game file of an id. Raises DataError if it is not there."""
        path = self.folder / game / GAME_FILE
        if not path.is_file():
            raise DataError(f"there is no game {game!r} below {self.folder}; {_ADVICE}")
        return path

    def game(self, game: str) -> Game:
        """Return the parsed game of an id. Raises DataError if the file is missing or corrupt."""
        return self._load(self.path(game))

    def _scan(self, split: str) -> tuple[GameFile, ...]:
        folder = self.folder / split
        if not split or not folder.is_dir():
            splits = sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir())
            raise DataError(
                f"{self.folder} has no split {split!r} (it has: {', '.join(splits) or 'no folder at all'}); {_ADVICE}"
            )
        games = []
        for path in folder.glob(f"*/*/{GAME_FILE}"):
            task = path.parent.parent.name
            identity = f"{split}/{task}/{path.parent.name}"
            category = _category(path.parent)
            if category is None:
                continue
            if not (path.parent / TRAJECTORY_FILE).is_file():
                continue
            raw = path.read_bytes()
            if not raw.rstrip().endswith(b"}"):
                raise DataError(f"the game {path} is empty or cut off; fetch or generate it again")
            if not _SOLVABLE.search(raw):
                continue
            try:
                version = text_version(raw.decode("utf-8", errors="replace"))
            except DataError as error:
                raise DataError(f"the game {path} is corrupt or incomplete: {error}") from error
            games.append(GameFile(identity, category, version, hashlib.sha256(raw).hexdigest()))
        if not games:
            raise DataError(f"{folder} holds no playable game (0 found); {_ADVICE}")
        games.sort(key=lambda game: game.id)
        by_version = {game.text_version: game.id for game in games}
        if len(by_version) > 1:
            raise DataError(
                f"{folder} mixes games of two text versions, for example "
                f"{' and '.join(f'{i} ({version})' for version, i in sorted(by_version.items()))}; keep one"
            )
        self._say_missing(folder, split, len(games))
        return tuple(games)

    def _say_missing(self, folder: Path, split: str, found: int) -> None:
        """Warn of trials without a game file, and of a tree that has not as many games as ALFWorld's own."""
        generated = any((place / MARKER).is_file() for place in (self.folder, self.folder.parent))
        expected = None if generated else _PUBLISHED.get(split)
        if found == expected:
            return  # its own tree has trials that are no games, too
        trials = (file.parent for file in folder.glob(f"*/*/{TRAJECTORY_FILE}"))
        lacking = sorted(p for p in trials if _category(p) is not None and not (p / GAME_FILE).is_file())
        parts = [f"ALFWorld's own tree has {expected:,}"] if expected else []
        if lacking:
            parts.append(f"{len(lacking):,} more have no {GAME_FILE}, the first {lacking[0].relative_to(folder)}")
        if parts:
            _log.warning("%s holds %d games; %s", folder, found, "; ".join(parts))


def _category(place: Path) -> str | None:
    """The category of a trial's folder; None where AlfredTWEnv has no use for it."""
    task = place.parent.name
    barred = "movable" in f"{task}/{place.name}" or "Sliced" in f"{task}/{place.name}"
    return None if barred else CATEGORIES.get(task.split("-", 1)[0])


def content_hash(games: Iterable[GameFile]) -> str:
    """Hash the ids and contents of games by SHA-256, whatever their order: what a run's manifest records."""
    lines = sorted(f"{game.id} {game.sha256}\n" for game in games)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
