"""Figures of a run's skill library or bank, drawn from the tables of `analysis.library`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skill1.analysis.figures.style import dots, lines, percent, rows, shades, themed, whole
from skill1.analysis.library.bank import SECTIONS, BankRun
from skill1.analysis.library.payoff import selections
from skill1.analysis.library.study import LibraryRun
from skill1.analysis.variants import colour as colour_of
from skill1.stats import Estimate

_BANDS = ((0.05, 0.95, 0.2), (0.25, 0.75, 0.45))  # quantiles and opacity, outer first
_LONGEST = 46  # characters of a skill's text beside a dot
_BINS = 10  # parts of a run over which rare events are averaged
_GREY, _DARK = "0.72", "0.3"


@themed
def lives(study: LibraryRun) -> Figure:
    """Draw ages at the end, utility over the steps, and, where skills were retired, who they were."""
    alive, gone = study.alive, study.skills.dropna(subset="retired")
    figure = Figure(figsize=(10.2 if len(gone) else 7.0, 3.1), layout="constrained")
    left, middle, *rest = figure.subplots(1, 3 if len(gone) else 2)
    colour = _colour(study)
    age, used = study.steps - alive["admitted"], alive["retrieved"] > 0
    bins = np.histogram_bin_edges(age, bins=min(20, study.steps), range=(-0.5, study.steps - 0.5))
    labels = [f"{name} (n = {n})" for name, n in (("retrieved", used.sum()), ("never retrieved", (~used).sum()))]
    left.hist([age[used], age[~used]], bins, stacked=True, color=[colour, _GREY], label=labels)
    left.set(xlabel="age at the end (steps)", ylabel="skills")
    whole(left.yaxis)

    known = study.history[study.history["retrieved"]].groupby("step")["utility"]
    for low, high, opacity in _BANDS:
        bottom, top = known.quantile(low), known.quantile(high)
        label = f"{100 * (high - low):.0f} % of them"
        middle.fill_between(bottom.index, bottom, top, color=colour, alpha=opacity, linewidth=0, label=label)
    median = known.median()
    middle.plot(median.index, median, color=_DARK, label="median")
    middle.axhline(study.config.initial_utility, color=_DARK, linewidth=0.8, linestyle=":", label="at admission")
    middle.set(ylabel="U of skills retrieved so far", ylim=(0, 1))
    _over_steps(study, middle)
    for axes in rest:
        idle = gone["retrieved"] == 0
        for part, face, edge, name in (
            (gone[~idle], colour, colour, "retrieved"),
            (gone[idle], "none", _DARK, "never retrieved"),
        ):
            label = f"{name} (n = {len(part)})"
            ages = part["retired"] - part["admitted"]
            axes.scatter(ages, part["utility"], s=12, facecolors=face, edgecolors=edge, linewidth=0.7, label=label)
        axes.set(xlabel="age when retired (steps)", ylabel="U when retired", ylim=(0, 1))
    for axes in (left, middle, *rest):
        whole(axes.xaxis)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2 if axes is middle else 1)
    return figure


@themed
def use(study: LibraryRun, table: pd.DataFrame) -> Figure:
    """Draw over how many skills the use is spread, step by step, and how many were never retrieved.

    Args:
        table: `study.concentration`.
    """
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    for column, label, style in (
        ("retrieved_effective", "retrieved", {"color": _GREY, "linewidth": 3}),
        ("shown_effective", "shown", {"color": _colour(study)}),
        ("effective_strategies", "strategies shown", {"color": "black", "linestyle": ":"}),
    ):
        left.plot(table["step"], table[column], label=label, **style)
    rollout = study.run.config.rollout
    episodes = rollout.tasks_per_step * rollout.group_size
    left.set(ylabel=f"effective number of skills\n({episodes} episodes a step)", ylim=(0, None))
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.0, handlelength=1.6)
    right.plot(table["step"], 100 * table["never_retrieved"], color=_colour(study))
    right.set(ylabel="skills never retrieved so far\n(% of those in the library)")
    percent(right.yaxis)
    _over_steps(study, left, right)
    return figure


@themed
def pays(chosen: pd.DataFrame, variant: str = "full") -> Figure:
    """Draw the difference of success with a skill within groups, of the skills that most surely help and harm.

    Args:
        chosen: `payoff.extremes`.
        variant: of the run.

    Raises:
        ValueError: no skills.
    """
    if chosen.empty:
        raise ValueError("no skill has enough informative groups to be drawn: lower `min_groups`, or train longer")
    figure = Figure(figsize=(7.6, 1.0 + 0.27 * len(chosen)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    for end, shade in (("help", colour_of(variant)), ("harm", _DARK)):
        at = np.flatnonzero(chosen["end"] == end)
        found = [
            Estimate(row.difference, row.low, row.high, row.informative, 0.95, "Mantel-Haenszel")
            for row in chosen[chosen["end"] == end].itertuples()
        ]
        if found:
            dots(axes, at, found, (shade, "o"), f"skills that {end} most", horizontal=True)
    labels = [f"{_short(row.strategy)}  (n = {row.shown} in {row.informative})" for row in chosen.itertuples()]
    rows(axes, labels)
    axes.set_xlabel(
        "success with the skill - the group's other episodes\n(points, 95 % interval; n episodes in groups)"
    )
    axes.margins(x=0.03)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


@themed
def conflict(study: LibraryRun, found: pd.DataFrame) -> Figure:
    """Draw how often the skill that U prefers is selected among contradicting candidates, against chance.

    Args:
        found: `payoff.conflicts`.
    """
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axes = figure.subplots()
    chosen = selections(found)
    edges = np.linspace(0, study.steps, min(_BINS, study.steps) + 1)
    parts = chosen.groupby(np.searchsorted(edges, chosen["step"]) - 1)  # (edge, next edge]
    rates = 100 * parts[["leads", "chance"]].mean()
    steps = ((edges[:-1] + edges[1:] + 1) / 2)[rates.index]
    axes.plot(steps, rates["chance"], color=_GREY, linewidth=3, label="at random")
    axes.plot(steps, rates["leads"], color=_colour(study), label="selected")
    axes.scatter(steps, rates["leads"], s=parts.size(), color=_colour(study), label="area: episodes")
    several = (study.episodes["candidates"] > 1).sum()
    axes.set_title(
        f"{found['episode'].nunique()} of {several} episodes with 2 candidates or more conflict", fontsize="small"
    )
    axes.set_ylabel(f"selected one has the highest U\n(% of n = {len(chosen)} where U differs)")
    percent(axes.yaxis)
    _over_steps(study, axes)
    axes.legend(loc="upper left")
    return figure


@themed
def smaller(table: pd.DataFrame) -> Figure:
    """Draw what smaller capacities would have retired of what was used later: a counterfactual of retirement only.

    Args:
        table: `study.counterfactual`.

    Raises:
        ValueError: no capacities.
    """
    if table.empty:
        raise ValueError("no capacity to draw: the library is too small to halve, name some")
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axes = figure.subplots()
    ordered = table.sort_values("capacity", ignore_index=True)
    for column, label, style, colour in (
        ("retrievals", "all retrievals", "o-", _GREY),
        ("shown", "skills shown", "s--", colour_of("full")),
        ("won", "skills shown in won episodes", "^:", "black"),
    ):
        axes.plot(ordered.index, 100 * ordered[column], style, color=colour, label=label, markersize=4, clip_on=False)
    axes.set_xticks(ordered.index, ordered["capacity"].astype(str))
    axes.set(xlabel="replayed capacity (skills)", ylabel="uses of skills that it would\nhave retired before (%)")
    percent(axes.yaxis)
    axes.legend(loc="upper right")
    return figure


@themed
def saturated(curves: pd.DataFrame) -> Figure:
    """Draw success, utility and retirement over the steps, a line per run, raw; larger capacities lie below.

    Args:
        curves: `study.saturation`.
    """
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    panels = figure.subplots(1, 3)
    capacities = sorted(curves["capacity"].unique(), reverse=True)
    styles = {
        capacity: {"color": shade, "linewidth": 1.0 + 2.0 * (len(capacities) - 1 - i) / max(len(capacities) - 1, 1)}
        for i, (capacity, shade) in enumerate(zip(capacities, shades(len(capacities)), strict=True))
    }
    for capacity in capacities:
        runs = curves[curves["capacity"] == capacity].groupby("run", sort=False)
        label = f"capacity {capacity}" + (f" ({len(runs)} runs)" if len(runs) > 1 else "")
        for number, (_, part) in enumerate(runs):
            shown = (100 * part["reward"], part["mean_utility"], part["retired"])
            for axes, values in zip(panels, shown, strict=True):
                axes.plot(part["step"], values, **styles[capacity], label="_" if number else label)
    panels[0].set(ylabel="training success (%)")
    percent(panels[0].yaxis)
    panels[1].set(ylabel="mean U of the library", ylim=(0, 1))
    panels[2].set(ylabel="skills retired per step")
    panels[2].set_ylim(bottom=0)
    for axes in panels:
        axes.set(xlabel="training step")
        whole(axes.xaxis)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


@themed
def library_map(spots: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """Draw Figure 6: where the descriptions lie, and in colour those of the most-used tenth; a panel per run, one map.

    Args:
        spots: `map.places`.
        variants: of the runs, in the order of their labels.
    """
    labels = list(spots["label"].unique())
    figure = Figure(figsize=(0.4 + 3.7 * len(labels), 4.2), layout="constrained")
    panels = figure.subplots(1, len(labels), squeeze=False, sharex=True, sharey=True)[0]
    largest = spots["skills"].max()
    handles = {}
    for axes, label, variant in zip(panels, labels, variants, strict=True):
        part = spots[spots["label"] == label]
        used = part[part["used"] > 0]
        for name, spot, column, style in (
            ("skills", part, "skills", {"color": _GREY, "alpha": 0.7}),
            (f"most-used tenth, {label}", used, "used", {"color": colour_of(variant)}),
        ):
            area = (80 * spot[column] / largest).clip(lower=12)  # points squared, never too small to be seen
            handles[name] = axes.scatter(spot["x"], spot["y"], s=area, edgecolor="white", linewidth=0.3, **style)
        numbers = f"{part['skills'].sum()} skills at {len(part)} places\nmost used: {part['used'].sum()} at {len(used)}"
        axes.set(title=f"{label}\n{numbers}", xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color="0.8")
        axes.set_box_aspect(1)
    title = "area: number of skills with the description"
    columns = 1 if len(labels) == 1 else 3
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns, title=title)
    return figure


@themed
def bank_growth(study: BankRun) -> Figure:
    """Draw the bank's entries by section, and how many of each an episode was shown, over the steps."""
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    labels = dict(zip(SECTIONS, ("general", "of a category", "mistakes"), strict=True))
    names = {section: label for section, label in labels.items() if study.growth[section].any()}
    lines(left, study.growth, names)
    lines(right, study.growth, {f"shown_{section}": label for section, label in names.items()})
    failed = [event.step for event in study.events if event.error is not None]
    for number, step in enumerate(failed):
        label = "_" if number else f"call without an answer (n = {len(failed)})"
        left.axvline(step, color="0.6", linewidth=0.8, linestyle=":", label=label)
    left.set(ylabel=f"entries of the bank (limit {study.run.config.method.limit})")
    whole(left.yaxis)
    right.set(ylabel="entries shown per episode")
    for axes in (left, right):
        axes.set(xlabel="training step")
        axes.set_ylim(bottom=0)
        whole(axes.xaxis)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _colour(study: LibraryRun) -> str:
    return colour_of(study.run.config.variant)


def _over_steps(study: LibraryRun, *panels: Axes) -> None:
    for axes in panels:
        axes.set(xlabel="training step", xlim=(0.5, study.steps + 0.5))
        whole(axes.xaxis)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
