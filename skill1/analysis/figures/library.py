"""Figures of a run's skill library or bank, drawn from the tables of `analysis.library`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skill1.analysis.figures import style
from skill1.analysis.figures.style import (
    COLUMN,
    PAGE,
    dots,
    integer_axis,
    legend_above,
    lines,
    over_steps,
    percent_axis,
    themed,
)
from skill1.analysis.library.bank import SECTIONS, BankRun
from skill1.analysis.library.payoff import selections
from skill1.analysis.library.study import LibraryRun
from skill1.analysis.variants import colour as colour_of

_BANDS = ((0.05, 0.95, 0.2), (0.25, 0.75, 0.45))  # quantiles and opacity, outer first
_LONGEST = 46  # characters of a skill's text beside a dot
_BINS = 10  # parts of a run over which rare events are averaged
_GREY, _DARK = "0.72", "0.3"
_KEY_LABELS = {"query": "found by the policy's query", "task": "found by the task's sentence"}
_FLOOR_MARKS = {"run": ("the run's floor", "C0", "o"), "none": ("no floor", "C1", "s")}  # label, colour, marker


@themed
def lifetimes(study: LibraryRun) -> Figure:
    """Draw ages at the end, utility over the steps, and, where skills were retired, their age and utility."""
    alive, gone = study.alive, study.skills.dropna(subset="retired")
    figure, [left, middle, *rest] = style.panels(3 if len(gone) else 2, PAGE, 2.5)
    colour = _colour(study)
    age, used = study.steps - alive["admitted"], alive["retrieved"] > 0
    bins = np.histogram_bin_edges(age, bins=min(20, study.steps), range=(-0.5, study.steps - 0.5))
    labels = [f"{name} (n = {n})" for name, n in (("retrieved", used.sum()), ("never retrieved", (~used).sum()))]
    left.hist([age[used], age[~used]], bins.tolist(), stacked=True, color=[colour, _GREY], label=labels)
    left.set(xlabel="age at the end (steps)", ylabel="skills")
    integer_axis(left.yaxis)

    known = study.history[study.history["retrieved"]].groupby("step")["utility"]
    for low, high, opacity in _BANDS:
        bottom, top = known.quantile(low), known.quantile(high)
        label = f"{100 * (high - low):.0f} % of them"
        middle.fill_between(bottom.index, bottom, top, color=colour, alpha=opacity, linewidth=0, label=label)
    median = known.median()
    middle.plot(median.index, median, color=_DARK, label="median")
    middle.axhline(study.config.initial_utility, color=_DARK, linewidth=0.8, linestyle=":", label="at admission")
    middle.set(ylabel="U of skills retrieved so far", ylim=(0, 1))
    _over_run(study, middle)
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
        integer_axis(axes.xaxis)
        legend_above(axes, columns=2 if axes is middle else 1)
    return figure


@themed
def concentration(study: LibraryRun, table: pd.DataFrame) -> Figure:
    """Draw over how many skills the use is spread, step by step, and how many were never retrieved.

    Args:
        table: `study.concentration`.
    """
    figure, [left, right] = style.panels(2, PAGE, 2.4)
    left.plot(table["step"], table["retrieved_effective"], color=_GREY, linewidth=3, label="retrieved")
    left.plot(table["step"], table["shown_effective"], color=_colour(study), label="shown")
    left.plot(table["step"], table["effective_strategies"], color="black", linestyle=":", label="strategies shown")
    episodes = study.run.config.rollout.episodes
    left.set(ylabel=f"effective number of skills\n({episodes} episodes a step)", ylim=(0, None))
    legend_above(left, columns=3, columnspacing=1.0, handlelength=1.6)
    right.plot(table["step"], 100 * table["never_retrieved"], color=_colour(study))
    right.set(ylabel="skills never retrieved so far\n(% of those in the library)")
    percent_axis(right.yaxis)
    _over_run(study, left, right)
    return figure


@themed
def payoffs(chosen: pd.DataFrame, variant: str = "full") -> Figure:
    """Draw the difference of success with a skill within groups, of the skills that most surely help and harm.

    Args:
        chosen: `payoff.extremes`.
        variant: of the run.
    """
    figure, [axes] = style.panels(1, PAGE, 0.9 + 0.2 * len(chosen))
    axes.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    spans = 100 * chosen[["difference", "low", "high"]].to_numpy()
    for end, shade in (("help", colour_of(variant)), ("harm", _DARK)):
        at = np.flatnonzero(chosen["end"] == end)
        if len(at):
            dots(axes, at, spans[at], (shade, "o"), f"skills that {end} most")
    labels = [f"{_short(row.strategy)}  (n = {row.shown} in {row.informative})" for row in chosen.itertuples()]
    style.rows(axes, labels, width=80)
    axes.set(
        xlabel="success with the skill - the group's other episodes\n(points, 95 % interval; n episodes in groups)"
    )
    axes.margins(x=0.03)
    legend_above(axes, columns=2)
    return figure


@themed
def conflicts(study: LibraryRun, found: pd.DataFrame) -> Figure:
    """Draw how often the skill that U prefers is selected among contradicting candidates, against chance.

    Args:
        found: `payoff.conflicts`.
    """
    figure, [axes] = style.panels(1, COLUMN, 2.5)
    chosen = selections(found)
    edges = np.linspace(0, study.steps, min(_BINS, study.steps) + 1)
    parts = chosen.groupby(np.searchsorted(edges, chosen["step"]) - 1)  # (edge, next edge]
    rates = 100 * parts[["leads", "chance"]].mean()
    steps = ((edges[:-1] + edges[1:] + 1) / 2)[rates.index]
    axes.plot(steps, rates["chance"], color=_GREY, linewidth=3, label="at random")
    axes.plot(steps, rates["leads"], color=_colour(study), label="selected")
    axes.scatter(steps, rates["leads"], s=parts.size(), color=_colour(study), label="area: episodes")
    several = (study.episodes["candidates"] > 1).sum()
    axes.set_ylabel(f"selected one has the highest U\n(% of n = {len(chosen)} where U differs)")
    percent_axis(axes.yaxis)
    _over_run(study, axes)
    conflicting = f"{found['episode'].nunique()} of {several} episodes"
    axes.set_xlabel(f"training step\n{conflicting} with\n2 candidates or more conflict")
    legend_above(axes, columns=3)
    return figure


@themed
def counterfactual(table: pd.DataFrame) -> Figure:
    """Draw what smaller capacities would have retired of what was used later: a counterfactual of retirement only.

    Args:
        table: `study.counterfactual`.
    """
    figure, [axes] = style.panels(1, COLUMN, 2.5)
    ordered = table.sort_values("capacity", ignore_index=True)
    for column, label, marks, colour in (
        ("retrievals", "all retrievals", "o-", _GREY),
        ("shown", "skills shown", "s--", colour_of("full")),
        ("won", "skills shown in won episodes", "^:", "black"),
    ):
        axes.plot(ordered.index, 100 * ordered[column], marks, color=colour, label=label, markersize=4, clip_on=False)
    axes.set_xticks(ordered.index, ordered["capacity"].astype(str))
    axes.set(xlabel="replayed capacity (skills)", ylabel="uses of skills that it would\nhave retired before (%)")
    percent_axis(axes.yaxis)
    axes.legend(loc="lower left")  # uses fall with the capacity
    return figure


@themed
def saturation(curves: pd.DataFrame) -> Figure:
    """Draw success, utility and retirement over the steps, a line per run, raw; larger capacities lie below.

    Args:
        curves: `study.saturation`.
    """
    figure, panels = style.panels(3, PAGE, 2.4)
    capacities = sorted(curves["capacity"].unique(), reverse=True)
    widths = np.linspace(3.0, 1.0, len(capacities)) if len(capacities) > 1 else [1.0]
    for capacity, shade, width in zip(capacities, style.shades(len(capacities)), widths, strict=True):
        runs = curves[curves["capacity"] == capacity].groupby("run", sort=False)
        label = f"capacity {capacity}" + (f" ({len(runs)} runs)" if len(runs) > 1 else "")
        for number, (_, part) in enumerate(runs):
            shown = (100 * part["reward"], part["mean_utility"], part["retired"])
            for axes, values in zip(panels, shown, strict=True):
                axes.plot(part["step"], values, color=shade, linewidth=width, label="_" if number else label)
    panels[0].set(ylabel="training success (%)")
    percent_axis(panels[0].yaxis)
    panels[1].set(ylabel="mean U of the library", ylim=(0, 1))
    panels[2].set(ylabel="skills retired per step")
    panels[2].set_ylim(bottom=0)
    over_steps(*panels)
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
    sizes = (COLUMN, 3.6) if len(labels) == 1 else (PAGE, 1.1 + PAGE / len(labels))
    figure, panels = style.panels(len(labels), *sizes, sharex=True, sharey=True)
    largest = spots["skills"].max()
    handles = {}
    for axes, label, variant in zip(panels, labels, variants, strict=True):
        part = spots[spots["label"] == label]
        used = part[part["used"] > 0]
        for name, spot, column, colour, opacity in (
            ("skills", part, "skills", _GREY, 0.7),
            (f"most-used tenth, {label}", used, "used", colour_of(variant), None),
        ):
            area = (80 * spot[column] / largest).clip(lower=12)  # points squared, never too small to be seen
            handles[name] = axes.scatter(
                spot["x"], spot["y"], s=area, color=colour, alpha=opacity, edgecolor="white", linewidth=0.3
            )
        numbers = f"{part['skills'].sum()} skills at {len(part)} places\nmost used: {part['used'].sum()} at {len(used)}"
        axes.set(title=f"{label}\n{numbers}", xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color="0.8")
        axes.set_box_aspect(1)
    columns, title = 1 if len(labels) == 1 else 3, "area: number of skills with the description"
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns, title=title)
    return figure


@themed
def bank_growth(study: BankRun) -> Figure:
    """Draw the bank's entries by section, and how many of each an episode was shown, over the steps."""
    figure, [left, right] = style.panels(2, PAGE, 2.4)
    labels = dict(zip(SECTIONS, ("general", "of a category", "mistakes"), strict=True))
    names = {section: label for section, label in labels.items() if study.growth[section].any()}
    lines(left, study.growth, names)
    lines(right, study.growth, {f"shown_{section}": label for section, label in names.items()})
    failed = [event.step for event in study.events if event.error is not None]
    for number, step in enumerate(failed):
        label = "_" if number else f"call without an answer (n = {len(failed)})"
        left.axvline(step, color="0.6", linewidth=0.8, linestyle=":", label=label)
    left.set(ylabel=f"entries of the bank (limit {study.limit})")
    integer_axis(left.yaxis)
    right.set(ylabel="entries shown per episode")
    over_steps(left, right)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _colour(study: LibraryRun) -> str:
    return colour_of(study.run.config.variant)


def _over_run(study: LibraryRun, *panels: Axes) -> None:
    over_steps(*panels)
    for axes in panels:
        axes.set_xlim(0.5, study.steps + 0.5)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


@themed
def selection(arms: pd.DataFrame) -> Figure:
    """Draw the success of every order of the candidates, by what finds them and with and without the floor.

    Args:
        arms: `selection.compare`.
    """
    orders = list(dict.fromkeys(arms.index.get_level_values("order")))
    keys = [key for key in _KEY_LABELS if key in arms.index.get_level_values("key")]
    floors = [floor for floor in _FLOOR_MARKS if floor in arms.index.get_level_values("floor")]
    figure, panels = style.panels(len(keys), PAGE, 1.0 + 0.25 * len(orders), sharex=True, sharey=True)
    for axes, key in zip(panels, keys, strict=True):
        for floor, shift in zip(floors, style.shifts(len(floors)), strict=True):
            there = [row for row, order in enumerate(orders) if (order, key, floor) in arms.index]
            if there:
                part = arms.loc[[(orders[row], key, floor) for row in there]]
                spans = 100 * part[["success", "low", "high"]].to_numpy()
                label, colour, marker = _FLOOR_MARKS[floor]
                dots(axes, np.add(there, shift), spans, (colour, marker), label)
        style.rows(axes, orders)
        axes.set_xlabel(f"success (%, 95 % interval)\n{_KEY_LABELS[key]}, n = {arms['n'].max()} an arm")
        axes.margins(x=0.05)
    legend_above(panels[0], columns=len(floors))
    return figure
