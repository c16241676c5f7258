"""What the tasks of an environment are called where its results are shown: games of ALFWorld, goals of WebShop.

Tables that are computed with keep one name for both, `game`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

_WORDS = {"alfworld": "game", "webshop": "goal"}
_SPLIT_OF_GOALS = "test"  # WebShop's alone; its goals are never evaluated on "train"


def task_word(environment: str) -> str:
    """ "game" or "goal"."""
    return _WORDS[environment]


def word_of_splits(splits: Iterable[str]) -> str:
    """`task_word` of outcomes, which do not name their environment; both environments side by side are games."""
    return _WORDS["webshop" if set(splits) == {_SPLIT_OF_GOALS} else "alfworld"]


def worded(table: pd.DataFrame, word: str) -> pd.DataFrame:
    """A table for the eye whose rows and columns say `word` where they say "game"."""

    def say(label: Any) -> Any:
        return label.replace("game", word) if isinstance(label, str) else label

    return table.rename(index=say, columns=say).rename_axis(index=say, columns=say)
