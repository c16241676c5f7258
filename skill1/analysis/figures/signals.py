"""Figures of a study's training signals, from its metrics alone: Figures 3 to 5.

Lines are means over seeds, unsmoothed, on a band from the lowest to the highest; published values are hollow, at the edge.

Differs from the paper in: its Figure 3 (a) is (a) to (c) here, one for each mean of U that "selection precision" may be;
Figure 5 has a panel for each variant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skill1.analysis import dynamics
from skill1.analysis.figures import style
from skill1.analysis.figures.study import colour_of, labelled
from skill1.analysis.figures.style import COLUMN, PAGE, key, legend, shifts, themed
from skill1.analysis.published import LABEL
from skill1.analysis.study import Study
from skill1.analysis.tables import plural
from skill1.analysis.variants import REFERENCE, label

_ACROSS = 4  # panels side by side


@themed
def training_signals(study: Study) -> Figure:
    """Draw Figure 3: three means of U that "selection precision" may be, mean r, and the share of r - U_hat > 0.

    Where a reward is 0 or 1, the last two are one panel: U_hat lies between, so that r - U_hat > 0 says that r is 1.
    """
    names = dynamics.shown(study, dynamics.FIGURE_3_VARIANTS)
    titles, (*_, reward, share) = dict(dynamics.FIGURE_3), dynamics.FIGURE_3
    drawn = study.metrics[study.metrics["variant"].isin(names)]
    if share in drawn and np.allclose(drawn[reward], drawn[share]):
        titles[reward] += f" = {titles.pop(share)}"
    figure, panels = _grid(len(titles), math.ceil(len(titles) / 2), 1.4)
    for name, shown in labelled(study, names)[1].items():
        key(panels[0], shown, color=colour_of(study, name), linewidth=1.3)
    _curve_keys(panels[0], study, names)
    for axes, letter, (metric, title) in zip(panels, ascii_lowercase, titles.items(), strict=False):
        for name in names:
            _draw_curve(axes, study, metric, name)
        _quoted(axes, study, dynamics.published_values(study, metric))
        axes.set(title=f"({letter}) {title}")
    legend(figure, panels[0])
    return figure


@themed
def u_hat_curves(study: Study) -> Figure:
    """Draw Figure 5: mean U_hat over training, a panel for each variant that estimates it, full in grey in the others."""
    names = dynamics.with_u_hat(study)
    figure, panels = _grid(len(names), min(len(names), _ACROSS), 1.35, sharey=True)
    labels = labelled(study, names)[1]
    key(panels[0], "mean over seeds", color="0.3", linewidth=1.3)
    _curve_keys(panels[0], study, names)
    if REFERENCE in names and len(names) > 1:
        key(panels[0], f"{label(REFERENCE)}, to compare", color="0.6", linewidth=0.8)
    for axes, name in zip(panels, names, strict=True):
        if REFERENCE in names and name != REFERENCE:
            full = dynamics.mean_over_seeds(dynamics.curves(study, dynamics.U_HAT, REFERENCE))
            axes.plot(full, color="0.6", linewidth=0.8)
        _draw_curve(axes, study, dynamics.U_HAT, name)
        if name == REFERENCE:
            _quoted(axes, study, dynamics.published_values(study, dynamics.U_HAT))
        axes.set_title(fill(labels[name], style.LABEL))
    figure.supylabel(dynamics.SIGNALS[dynamics.U_HAT], fontsize="medium")
    legend(figure, panels[0])
    return figure


@themed
def similarity_dots(study: Study) -> Figure:
    """Draw Figure 4: task-skill similarity at three checkpoints (`dynamics.at_checkpoints`), seeds and their mean."""
    names = dynamics.shown(study, dynamics.FIGURE_4_VARIANTS)
    table = dynamics.at_checkpoints(study, dynamics.SIMILARITY, names).dropna()
    names = [name for name in names if name in set(table["variant"])]  # without selection there may be none
    steps, (seeds, labels) = dynamics.checkpoints(study), labelled(study, names)
    figure, [axes] = style.panels(1, COLUMN, 2.4)
    for name, shift in zip(names, shifts(len(names)), strict=True):
        own = table[table["variant"] == name].pivot(index="step", columns="seed", values="value").reindex(steps)
        places, colour = np.arange(len(steps)) + shift, colour_of(study, name)
        if own.shape[1] > 1:
            axes.plot(places, own, "o", color=colour, markersize=2.5, alpha=0.5)
        mean = dynamics.mean_over_seeds(own)
        axes.plot(places, mean, "o-", color=colour, markersize=5, linewidth=0.8, label=labels[name])
    if any(len(study.seeds(name)) > 1 for name in names):
        key(axes, "one seed", marker="o", color="0.5", markersize=2.5)
    axes.set_xticks(range(len(steps)), [f"step {step}" for step in steps])
    average = f"mean over {plural(dynamics.window(study), 'step')}\nup to the named one{seeds}"
    axes.set(xlabel=average, ylabel="cosine of task and\nselected skill's description", xlim=(-0.5, len(steps) - 0.5))
    theirs = dynamics.published_values(study, dynamics.SIMILARITY)
    _quoted(axes, study, {point.split()[0]: value for point, value in theirs.items()}, " checkpoint")
    legend(figure, axes)
    return figure


# -- parts ------------------------------------------------------------------------------------------------------------


def _grid(count: int, across: int, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Make `count` panels of curves over training, so many `across`, each `height` inches high."""
    down = math.ceil(count / across)
    figure, panels = style.panels(across, PAGE if across > 1 else COLUMN, 0.6 + height * down, down, True, sharey)
    for axes in panels[count:]:
        axes.set_axis_off()
    style.over_steps(*panels[max(0, count - across) : count])
    for axes in panels[:count]:
        axes.tick_params(labelbottom=True)
    return figure, panels[:count]


def _draw_curve(axes: Axes, study: Study, metric: str, name: str) -> None:
    """Draw the mean over a variant's seeds, on a band from the lowest to the highest."""
    table, colour = dynamics.curves(study, metric, name), colour_of(study, name)
    if table.shape[1] > 1:
        axes.fill_between(table.index, table.min(axis=1), table.max(axis=1), color=colour, alpha=0.15, linewidth=0)
    axes.plot(dynamics.mean_over_seeds(table), color=colour, linewidth=1.3)


def _curve_keys(axes: Axes, study: Study, names: Sequence[str]) -> None:
    """Explain the band of `_draw_curve`, and how many seeds it is of where all have as many."""
    if any(len(study.seeds(name)) > 1 for name in names):
        seeds = labelled(study, names)[0].removeprefix(", ") or "the seeds"
        axes.fill_between([], [], color="0.3", alpha=0.2, linewidth=0, label=f"lowest to highest of {seeds}")


def _quoted(axes: Axes, study: Study, values: Mapping[str, float], kind: str = "") -> None:
    """Draw what is published of full beside curves, with its point of training."""
    if values:
        style.published_edge(axes, values, colour_of(study, REFERENCE))
        key(axes, f"{label(REFERENCE)}, {LABEL}{kind}", marker="o", **style.hollow(colour_of(study, REFERENCE)))
