"""What the tasks of an environment are called where its results are shown: games of ALFWorld, goals of WebShop.

Tables that are computed with keep one name for all of them, `game`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from skill1.envs.spec import EnvironmentSpec


def worded(table: pd.DataFrame, environment: EnvironmentSpec) -> pd.DataFrame:
    """Rename the rows and columns that say "game" to the environment's word for its tasks."""

    def say(label: Any) -> Any:
        if not isinstance(label, str):
            return label
        return label.replace("games", environment.tasks).replace("game", environment.task)

    return table.rename(index=say, columns=say).rename_axis(index=say, columns=say)
