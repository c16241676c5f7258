"""Tables for the eye, shared by those of a study: rates and differences as text, with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from skill1.analysis.published import OVERALL


def block(tidy: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Rows of `arms.rates` of one split for the eye, categories `names` across, the numbers of games first."""
    one = tidy[tidy["category"] == OVERALL].set_index("variant")
    cells = wide(tidy, names, with_interval)
    cells["passes"], cells["seeds"] = one["passes"].astype(str), one["seeds"].astype(str)
    games = tidy.groupby("category")["games"].first().map("n = {}".format)
    return pd.concat([pd.DataFrame({"number of games": games}).T, cells])[cells.columns]


def wide(tidy: pd.DataFrame, names: Sequence[str], show: Callable[..., str], rows: str = "variant") -> pd.DataFrame:
    """Cells for the eye: `rows` down in their order, categories `names` across; `show` writes a row of `tidy`."""
    cells = tidy.assign(cell=[show(row) for row in tidy.itertuples()])
    table = cells.pivot(index=rows, columns="category", values="cell")
    return table.loc[tidy[rows].unique()].reindex(columns=names).rename_axis(columns=None)


def points_table(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Rows of `library_share` or `per_category.gains` for the eye."""
    pairs = {"these runs, new games": "games", "new runs, new games": "both"}
    intervals = {
        label: [interval(low, high) for low, high in zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)]
        for label, name in pairs.items()
    }
    shown = table[list(keys)].assign(points=table["points"].map("{:+.1f}".format), **intervals)
    p = "games_holm" if "games_holm" in table else "games_p"
    shown["p (Holm)" if p == "games_holm" else "p"] = table[p].map(p_text)
    return shown.assign(games=table["games"], seeds=table["seeds"]).set_index(list(keys))


def with_interval(row: Any) -> str:
    """ "54.8 [46.3, 63.1]" of a row of `arms.rates`."""
    return with_bounds(row.success, row.low, row.high)


def with_bounds(value: float, low: float, high: float) -> str:
    """A value with its interval, alone where there is none."""
    return f"{value:.1f}" + ("" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]")


def interval(low: float, high: float) -> str:
    return "" if np.isnan(low) else f"[{low:+.1f}, {high:+.1f}]"


def p_text(value: float) -> str:
    return "" if np.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
