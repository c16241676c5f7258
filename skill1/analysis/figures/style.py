"""What every figure shares: sizes, theme, files, and the marks of rates and curves.

Figures are as wide as one column of a paper or two, with text of 7 points or more at that size. Rates are dots with 95 %
intervals, every variant has one colour-blind-safe colour everywhere (`analysis.variants`), published values are hollow and
never stretch an axis. `save` writes png and pdf whose bytes depend on the data alone. Figures are made without pyplot: they
belong to the caller alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import display
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike
from PIL import Image

from skill1.stats import Estimate

COLUMN, PAGE = 3.35, 7.0  # inches: one column of a paper, and two; every figure is as wide as one of them
_TEXT = 0.8  # of seaborn's sizes for a paper: 7.0 points for ticks and legends, 7.7 for the rest
DPI = 300  # of the png
_SCREEN = 125  # pixels of a notebook per inch: text is as large as the notebook's
_COLOURS = 128  # of the png: a quarter of the bytes, and no difference to be seen
LABEL = 28  # characters of a row's label or a panel's title in a line

P = ParamSpec("P")
T = TypeVar("T")


def themed(function: Callable[P, T]) -> Callable[P, T]:
    """Run with our theme, whatever the caller's matplotlib settings are, and leave those alone."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        theme = {
            **matplotlib.rcParamsDefault,
            **sns.axes_style("ticks"),
            **sns.plotting_context("paper", font_scale=_TEXT),
            "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same bytes on every machine
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "legend.handlelength": 1.4,
            "legend.columnspacing": 1.2,
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
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    figure.savefig(drawn := BytesIO(), dpi=DPI, pil_kwargs={"compress_level": 0})  # it is packed below
    # of Pillow's methods the one that is never far off: at most 16 of 255 in a channel, where its default is 50
    few = Image.open(drawn).convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE)
    few.save(png, optimize=True, dpi=(DPI, DPI))
    figure.savefig(pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return [png, pdf]


def show(figure: Figure, folder: Path, name: str) -> display.Image:
    """Write a figure (`save`), and return the png to be shown in a notebook."""
    png, _ = save(figure, folder, name)
    return display.Image(png, width=round(_SCREEN * figure.get_figwidth()))


def panels(
    count: int, width: float, height: float, rows: int = 1, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make a figure of `width` (`COLUMN` or `PAGE`) by `height` inches with `rows` rows of `count` panels."""
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


def published_rows(axes: Axes, places: ArrayLike, values: ArrayLike, colours: Sequence[str]) -> None:
    """Mark published values (n,) in the rows `places` (n,) without stretching the axis, which own data has scaled.

    One that is off the scale stands at its edge, as an arrow with its number.
    """
    low, high = axes.get_xlim()
    for row, value, colour in zip(np.asarray(places), np.asarray(values), colours, strict=True):
        at, marker = _on_scale(value, low, high, "<>")
        axes.plot(at, row, marker, **hollow(colour), clip_on=False)
        if marker != "o":
            axes.annotate(f"{value:.1f}", (at, row), (5, 0), textcoords="offset points", va="center")
    axes.set_xlim(low, high)


def published_edge(axes: Axes, values: Mapping[str, float], colour: str) -> None:
    """Mark published values (name -> value) at the right edge of curves without stretching the axis of the values."""
    low, high = axes.get_ylim()
    texts: dict[tuple[float, str], list[str]] = {}
    for name, value in values.items():
        texts.setdefault(_on_scale(value, low, high, "v^"), []).append(f"{value:.2f}\n{name}")
    edge = axes.get_yaxis_transform()  # from 0 to 1 across the axes, data along them
    for (at, marker), shown in texts.items():
        axes.plot(1, at, marker, **hollow(colour), clip_on=False, transform=edge)
        axes.annotate("\n".join(shown), (1, at), (6, 0), edge, "offset points", va="center")
    axes.set_ylim(low, high)


def hollow(colour: str) -> dict[str, Any]:
    """Style a published value's marker, as of `Axes.plot`."""
    return {"mfc": "none", "mec": colour, "markersize": 5}


def _on_scale(value: float, low: float, high: float, arrows: str) -> tuple[float, str]:
    """Where a value is drawn on an axis, and as what: at its edge as one of the two arrows if it is beyond."""
    return (low, arrows[0]) if value < low else (high, arrows[1]) if value > high else (value, "o")


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


def rows(axes: Axes, labels: Sequence[str], width: int = LABEL) -> None:
    """Give the rows of a figure of dots their labels, the first on top, in lines of `width` characters at most."""
    axes.set_yticks(range(len(labels)), [fill(label, width) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)


def category_rows(axes: Axes, games: Mapping[str, int]) -> None:
    """Give the rows their categories, the first one (Overall) set apart, and say the categories' numbers of games.

    Once, behind the n of the horizontal axis, if all have as many.
    """
    overall, *names = games
    equal = len({games[name] for name in names}) == 1
    rows(axes, [overall, *(name if equal else f"{name} (n = {games[name]})" for name in names)])
    if equal:
        axes.set_xlabel(f"{axes.get_xlabel()}, {games[names[0]]} a category")
    axes.axhline(0.5, color="0.8", linewidth=0.8)


def shifts(count: int) -> np.ndarray:
    """Compute (count,) offsets that put `count` dots side by side within a row of height 1."""
    return (np.arange(count) - (count - 1) / 2) * min(0.22, 0.8 / max(count, 1))


def percent_axis(axis: Axis) -> None:
    """Cut an axis of rates in percent to what is drawn, and not beyond 0 or 100."""
    horizontal = isinstance(axis, XAxis)
    low, high = axis.axes.get_xlim() if horizontal else axis.axes.get_ylim()
    (axis.axes.set_xlim if horizontal else axis.axes.set_ylim)(max(low, -3), min(high, 103))
    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(100, decimals=0, symbol=""))


def integer_axis(axis: Axis) -> None:
    """Scale an axis of counts."""
    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def over_steps(*shown: Axes) -> None:
    """Name and scale the horizontal axis of curves over training."""
    for axes in shown:
        axes.set(xlabel="training step")
        integer_axis(axes.xaxis)


def legend(figure: Figure, axes: Axes) -> None:
    """Put one legend above all panels, in as few lines as fit: dots with intervals first, other marks behind."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: not isinstance(handles[i], ErrorbarContainer))
    shown = [handles[i] for i in order], [labels[i] for i in order]
    for lines in range(1, len(labels) + 1):
        made = figure.legend(*shown, loc="outside upper center", ncols=math.ceil(len(labels) / lines))
        if made.get_window_extent().width <= figure.bbox.width or lines == len(labels):
            break
        made.remove()


def legend_above(axes: Axes, columns: int = 1, **spacing: float) -> None:
    """Put the legend of one panel above it, if anything in it has a label."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, **spacing)
