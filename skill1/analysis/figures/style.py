"""What every figure shares: theme, files, and the marks of rates and curves.

Rates are dots with 95 % intervals, every variant has one colour-blind-safe colour everywhere (`analysis.variants`),
published values are hollow. `save` writes png and pdf whose bytes depend on the data alone. Figures are made without
pyplot: they belong to nobody but the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from skill1.stats import Estimate

HOLLOW = {"markerfacecolor": "none", "markeredgecolor": "black", "linestyle": "none", "markersize": 6}
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
    metadata = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    paths = [folder / f"{name}.{kind}" for kind in metadata]
    for path, fixed in zip(paths, metadata.values(), strict=True):
        figure.savefig(path, dpi=_DPI, metadata=fixed)
    return paths


def dots(
    axes: Axes,
    positions: Sequence[float],
    estimates: Sequence[Estimate],
    style: tuple[str, str],
    label: str,
    *,
    horizontal: bool = False,
    line: bool = False,
    size: float = 5,
) -> None:
    """Draw estimates in percent at `positions`, with their intervals; `style`: colour and marker."""
    colour, marker = style
    value = np.array([100 * e.value for e in estimates])  # (n,)
    # rounding can put a bound of 0 or 100 % a hair on the wrong side of the value
    below = np.maximum(value - [100 * e.low for e in estimates], 0)
    above = np.maximum([100 * e.high for e in estimates] - value, 0)
    spread = np.array([below, above])  # (2, n)
    x, y = (value, positions) if horizontal else (positions, value)
    axes.errorbar(
        x,
        y,
        **{"xerr" if horizontal else "yerr": spread},
        fmt=marker,
        linestyle="-" if line else "none",
        color=colour,
        markersize=size,
        linewidth=1.3,
        label=label,
        clip_on=False,
    )


def lines(axes: Axes, metrics: pd.DataFrame, names: Mapping[str, str]) -> None:
    """Draw logged metrics over the training step; `names`: metric -> label, those not logged are left out."""
    styles = ("-", "--", ":", "-.")
    for (name, label), shade, style in zip(names.items(), shades(len(names)), styles, strict=False):
        if name in metrics:
            axes.plot(metrics["step"], metrics[name], color=shade, linestyle=style, label=label)


def key(axes: Axes, label: str, **style: object) -> None:
    """Add a legend entry without data."""
    axes.plot([], [], label=label, **{"linestyle": "none" if "marker" in style else "-", **style})


def rows(axes: Axes, labels: Sequence[str]) -> None:
    """Give the rows of a figure of dots their labels, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def shades(count: int) -> list[tuple[float, float, float]]:
    """Quantities of one run: points of one ramp of lightness, so that they are never taken for variants."""
    return sns.color_palette("viridis", count)


def shifts(count: int) -> np.ndarray:
    """(count,) offsets that put `count` dots side by side within a row of height 1."""
    return (np.arange(count) - (count - 1) / 2) * min(0.22, 0.8 / count)


def several(numbers: Iterable[int]) -> str:
    """ "n = 64 or 128"."""
    return " or ".join(f"n = {n}" if i == 0 else str(n) for i, n in enumerate(sorted(set(numbers))))


def percent(axis: Axis) -> None:
    """Scale an axis of rates in percent."""
    axis.axes.set(**{f"{axis.axis_name}lim": (-3, 103)})
    axis.set_major_locator(MaxNLocator(steps=[2, 2.5, 5, 10]))
    axis.set_major_formatter(PercentFormatter(100, decimals=0, symbol=""))


def whole(axis: Axis) -> None:
    """Scale an axis of counts."""
    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def legend(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """One legend above all panels: dots with intervals first, lines and hollow markers behind."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: not isinstance(handles[i], ErrorbarContainer))
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside upper center",
        ncols=min(columns, len(labels)),
    )
