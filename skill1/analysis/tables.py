"""Numbers formatted for display, shared by tables, sentences and figures: values and differences with intervals, p.

What cannot be computed is NaN, and an empty cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skill1.envs.spec import EnvironmentSpec


def number(value: float, show: str = ".1f") -> str:
    """Format a value: "54.8", or "" without one."""
    return "" if np.isnan(value) else format(value, show)


def with_interval(value: float, low: float, high: float, show: str = ".1f") -> str:
    """Format "54.8 [46.3, 63.1]", without an interval "54.8"; of differences ("+.1f") "+5.1 [-1.2, +11.4]"."""
    return " ".join(part for part in (number(value, show), interval(low, high, show)) if part)


def interval(low: float, high: float, show: str = "+.1f") -> str:
    """Format "[-1.2, +11.4]" of a difference; of a rate with `show` ".1f"."""
    return "" if np.isnan(low) else f"[{format(low, show)}, {format(high, show)}]"


def p_value(value: float) -> str:
    """Format "< .001" or ".032"."""
    return "" if np.isnan(value) else "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def p_text(value: float) -> str:
    """Format "p < .001" or "p = .032"."""
    shown = p_value(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def plural(count: int, one: str, many: str = "") -> str:
    """Say "1 pass", "4 passes" (`many` given) or "3 seeds"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def size(frame: pd.DataFrame, environment: EnvironmentSpec) -> str:
    """Say how much was played: "n = 120 games, 4 passes"."""
    tasks = plural(frame["game"].nunique(), environment.task, environment.tasks)
    return f"n = {tasks}, {plural(frame['pass'].nunique(), 'pass', 'passes')}"


def display_table(tidy: pd.DataFrame, keys: Sequence[str], cells: Mapping[str, Callable[[Any], Any]]) -> pd.DataFrame:
    """Format a tidy table for display: its `keys` as the index, and per heading what the function says of a row."""
    index = pd.MultiIndex.from_frame(tidy[list(keys)])
    shown = {heading: [cell(row) for row in tidy.itertuples()] for heading, cell in cells.items()}
    return pd.DataFrame(shown, index=index)


def folded(table: pd.DataFrame) -> pd.DataFrame:
    """Put the second level of a table's columns into its rows, so that it is as wide as its first: for page and screen.

    Cells that have no second level ("") stand in a row's first line; lines without a cell are left out.
    """
    if table.columns.nlevels == 1:
        return table
    first = next(kind for _, kind in table.columns if kind)
    columns = pd.MultiIndex.from_tuples([(name, kind or first) for name, kind in table.columns])
    shown = table.set_axis(columns, axis=1).stack(level=1, future_stack=True).fillna("")
    return shown.loc[(shown != "").any(axis=1), columns.unique(0)]


def keep(table: pd.DataFrame, folder: Path, name: str) -> pd.DataFrame:
    """Write a table as `folder`/`name`.csv and, `folded`, .tex (of booktabs and multirow); return it folded, to be shown."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = folded(table)
    (folder / f"{name}.csv").write_text(table.to_csv())
    (folder / f"{name}.tex").write_text(shown.fillna("").to_latex(escape=True))
    return shown
