"""Numbers formatted for display, shared by all tables, sentences and figures: values and differences with intervals, p values.

What cannot be computed is NaN, and an empty cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd


def number(value: float, show: str = ".1f") -> str:
    """ "54.8", or "" without a value."""
    return "" if np.isnan(value) else format(value, show)


def with_interval(value: float, low: float, high: float, show: str = ".1f") -> str:
    """ "54.8 [46.3, 63.1]", without an interval "54.8"; of differences ("+.1f") "+5.1 [-1.2, +11.4]"."""
    return " ".join(part for part in (number(value, show), interval(low, high, show)) if part)


def interval(low: float, high: float, show: str = "+.1f") -> str:
    """ "[-1.2, +11.4]" of a difference; of a rate with `show` ".1f"."""
    return "" if np.isnan(low) else f"[{format(low, show)}, {format(high, show)}]"


def p_value(value: float) -> str:
    """ "< .001" or ".032"."""
    return "" if np.isnan(value) else "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def p_text(value: float) -> str:
    """ "p < .001" or "p = .032"."""
    shown = p_value(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def plural(count: int, one: str, many: str = "") -> str:
    """ "1 pass", "4 passes" (`many` given) or "3 seeds"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def display_table(tidy: pd.DataFrame, keys: Sequence[str], cells: Mapping[str, Callable[[Any], Any]]) -> pd.DataFrame:
    """Format a tidy table for display: its `keys` as the index, and per heading what the function says of a row."""
    index = pd.MultiIndex.from_frame(tidy[list(keys)])
    shown = {heading: [cell(row) for row in tidy.itertuples()] for heading, cell in cells.items()}
    return pd.DataFrame(shown, index=index)


def rename_labels(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Say `task` ("goal") where the labels of a table's rows and columns say "game", as the tables are computed."""

    def say(label: Any) -> Any:
        return label.replace("game", task) if isinstance(label, str) else label

    return table.rename(index=say, columns=say).rename_axis(index=say, columns=say)
