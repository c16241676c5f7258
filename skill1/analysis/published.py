"""The numbers that were published, read from `data/paper/*.csv`: one value per row, each with its source.

They are facts quoted from papers, never results of this project: every frame says so in its `label` column.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from skill1.store.resources import resource

COLUMNS = ("table", "method", "variant", "benchmark", "category", "metric", "step", "value", "unit", "source")
LABEL = "published"
OVERALL = "Overall"  # the category of a success rate over all games
# Games per category of ALFWorld's valid_seen split, the weights of an average over its 140 games.
_GAMES = {"Pick": 35, "Look": 13, "Clean": 27, "Heat": 16, "Cool": 25, "Pick2": 24}


def published(name: str, *others: str, **where: str) -> pd.DataFrame:
    """Select published values, tidy: the columns of `COLUMNS` and `label`, which is "published" in every row.

    Args:
        name, others: tables ("table1", "table2", "table3", "text", "retroagent", "skillrl"), the files of `data/paper`.
        where: method, variant, benchmark, category or metric -> the value to keep, e.g. `variant="no_library"`.

    Returns:
        One row per value in the order of the files; `step` is NA and a name is "" where there is none. No rows where
        nothing is published.
    """
    frame = pd.concat([_read(table) for table in (name, *others)], ignore_index=True)
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame.reset_index(drop=True)


@cache
def _read(name: str) -> pd.DataFrame:
    types = dict.fromkeys(COLUMNS, "string") | {"step": "Int64", "value": "float64"}
    file = resource("data/paper") / f"{name}.csv"
    frame = pd.read_csv(file, dtype=types, keep_default_na=False, na_values={"step": [""]})
    return frame.assign(label=LABEL)


def inconsistencies() -> pd.DataFrame:
    """Find published numbers of Skill1 that disagree with each other by more than rounding, by arithmetic.

    Returns:
        Columns claim, published, recomputed, difference (recomputed - published, percentage points), how.
    """
    overall = published("table1", "table2", benchmark="alfworld", category=OVERALL)
    table1 = overall[overall["table"] == "table1"].set_index("method")["value"]
    table2 = overall[overall["table"] == "table2"].set_index("variant")["value"]
    own = published("table1", variant="full", benchmark="alfworld", metric="success").set_index("category")["value"]
    categories, games = own[list(_GAMES)], list(_GAMES.values())
    weighted = np.average(categories, weights=games)
    gain = published("text", metric="gain_over_gigpo")["value"].item()
    rows = [
        ("gain over GiGPO in the text", gain, table1["Skill1"] - table1["GiGPO"], "Table 1: Skill1 - GiGPO"),
        ("Skill1 overall", own[OVERALL], weighted, "its six categories, weighted by valid_seen's games"),
        ("Skill1 overall", own[OVERALL], categories.mean(), "its six categories, unweighted"),
        ("GRPO, Table 1", table1["GRPO"], table2["no_library"], "Table 2: no library, which is plain GRPO"),
        ("Skill1, Table 1", table1["Skill1"], table2["full"], "Table 2: full"),
    ]
    frame = pd.DataFrame(rows, columns=["claim", "published", "recomputed", "how"])
    frame.insert(3, "difference", (frame["recomputed"] - frame["published"]).round(2))
    return frame[frame["difference"].abs() > 0.1].reset_index(drop=True)  # both are rounded to 0.1
