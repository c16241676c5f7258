"""What every figure shares: theme, files, and the marks of rates and curves.

Rates are dots with 95 % intervals, every variant has one colour-blind-safe colour everywhere (`analysis.variants`),
published values are hollow. `save` writes png and pdf whose bytes depend on the data alone. Figures are made without
pyplot: they belong to the caller alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from skill1.stats import Estimate

_DPI = 300

P = ParamSpec("P")
T = TypeVar("T")


def themed(function: Callable[P, T]) -> Callable[P, T]:
    """Run with our theme, whatever the caller's matplotlib settings are, and leave those alone."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        theme = {
            **matplotlib.rcParamsDefault,
            **sns.axes_style("ticks"),
            **sns.plotting_context("paper"),
            "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same bytes on every machine
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "pdf.fonttype": 42,
        }
        theme.pop("backend")
        with matplotlib.rc_context(theme):
            return function(*args, **kwargs)

    return wrapped


@themed
def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `folder`/`name`.png (300 dpi) and .pdf, the same bytes at every run. Returns both, the png first."""
    folder.mkdir(parents=True, exist_ok=True)
    unstamped = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    paths = [folder / f"{name}.{kind}" for kind in unstamped]
    for path, metadata in zip(paths, unstamped.values(), strict=True):
        figure.savefig(path, dpi=_DPI, metadata=metadata)
    return paths


def panels(
    count: int, width: float, height: float, rows: int = 1, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make a figure of `width` by `height` inches with `rows` rows of `count` panels."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, count, squeeze=False, sharex=sharex, sharey=sharey).ravel())


# -- marks ------------------------------------------------------------------------------------------------------------


def percents(estimates: Iterable[Estimate]) -> list[tuple[float, float, float]]:
    """List (value, low, high) of rates in percent."""
    return [(100 * e.value, 100 * e.low, 100 * e.high) for e in estimates]


def dots(
    axes: Axes,
    places: ArrayLike,
    spans: ArrayLike,
    style: tuple[str, str],
    label: str,
    *,
    curve: bool = False,
    size: float = 5,
) -> None:
    """Draw values with their intervals, side by side in the rows `places` (n,); of a curve above these places.

    Args:
        spans: (n, 3) value, low and high in the units of the axis; without bounds (NaN) a dot alone.
        style: colour and marker.
    """
    colour, marker = style
    value, low, high = np.asarray(spans, dtype=float).T  # (n,) each
    # rounding can put a bound of 0 or 100 % a hair on the wrong side of the value
    spread = np.nan_to_num(np.maximum([value - low, high - value], 0))  # (2, n)
    x, y = (places, value) if curve else (value, places)
    axes.errorbar(
        x,
        y,
        xerr=None if curve else spread,
        yerr=spread if curve else None,
        fmt=marker,
        linestyle="-" if curve else "none",
        color=colour,
        markersize=size,
        linewidth=1.3,
        label=label,
        clip_on=False,
    )


def hollow(axes: Axes, x: ArrayLike, y: ArrayLike, label: str, marker: str = "o") -> None:
    """Draw published values; without any, a legend entry alone."""
    clipped = np.size(x) == 0  # else the layout makes room for it
    axes.plot(x, y, marker, mfc="none", mec="black", markersize=6, label=label, clip_on=clipped)


def quoted(axes: Axes, places: Sequence[float], values: Mapping[str, float]) -> None:
    """Mark published values (text -> value) at `places` without stretching the vertical axis, which own data has scaled.

    One that is off the scale stands at its edge, as an arrow with the value beside the text.
    """
    low, high = axes.get_ylim()
    for x, (text, value) in zip(places, values.items(), strict=True):
        inside = low <= value <= high
        hollow(axes, x, min(max(value, low), high), "_", "o" if inside else "^" if value > high else "v")
        below = value > (low + high) / 2
        axes.annotate(
            text if inside else f"{text}: {value:.2f}", (x, min(max(value, low), high)), (0, -7 if below else 7),
            textcoords="offset points", ha="right" if x > sum(axes.get_xlim()) / 2 else "left",
            va="top" if below else "bottom", fontsize=7,
        )  # fmt: skip
    axes.set_ylim(low, high)


def lines(axes: Axes, metrics: pd.DataFrame, names: Mapping[str, str]) -> None:
    """Draw logged metrics over the training step; `names`: metric -> label, those not logged are left out."""
    styles = ("-", "--", ":", "-.")
    for (name, label), shade, style in zip(names.items(), shades(len(names)), styles, strict=False):
        if name in metrics:
            axes.plot(metrics["step"], metrics[name], color=shade, linestyle=style, label=label)


def key(axes: Axes, label: str, **style: Any) -> None:
    """Add a legend entry without data; `style` as of `Axes.plot`."""
    axes.plot([], [], label=label, **{"linestyle": "none" if "marker" in style else "-", **style})


def shades(count: int) -> list[tuple[float, float, float]]:
    """Choose colours for quantities of one run: one ramp of lightness, so that they are never taken for variants."""
    return sns.color_palette("viridis", count)


# -- axes and legends -------------------------------------------------------------------------------------------------


def rows(axes: Axes, labels: Sequence[str]) -> None:
    """Give the rows of a figure of dots their labels, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def category_rows(axes: Axes, games: Mapping[str, int]) -> None:
    """Give the rows their categories and numbers of games, the first one (Overall) set apart."""
    rows(axes, [f"{name}\nn = {count}" for name, count in games.items()])
    axes.axhline(0.5, color="0.8", linewidth=0.8)


def shifts(count: int) -> np.ndarray:
    """Compute (count,) offsets that put `count` dots side by side within a row of height 1."""
    return (np.arange(count) - (count - 1) / 2) * min(0.22, 0.8 / max(count, 1))


def percent_axis(axis: Axis) -> None:
    """Scale an axis of rates in percent."""
    limit = axis.axes.set_xlim if isinstance(axis, XAxis) else axis.axes.set_ylim
    limit(-3, 103)
    axis.set_major_locator(MaxNLocator(steps=[2, 2.5, 5, 10]))
    axis.set_major_formatter(PercentFormatter(100, decimals=0, symbol=""))


def integer_axis(axis: Axis) -> None:
    """Scale an axis of counts."""
    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def over_steps(*shown: Axes) -> None:
    """Name and scale the horizontal axis of curves over training."""
    for axes in shown:
        axes.set(xlabel="training step")
        integer_axis(axes.xaxis)


def legend(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """Put one legend above all panels: dots with intervals first, lines and hollow markers behind."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: not isinstance(handles[i], ErrorbarContainer))
    shown = [handles[i] for i in order], [labels[i] for i in order]
    figure.legend(*shown, loc="outside upper center", ncols=min(columns, len(labels)))


def legend_above(axes: Axes, columns: int = 1, **spacing: float) -> None:
    """Put the legend of one panel above it."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, **spacing)
