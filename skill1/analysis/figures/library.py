"""Figures of a run's skill library, drawn from the tables of the library study (method section 7, figure 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from skill1.analysis.figures.style import VARIANT_COLOURS, dots, lines, percent, shades, themed, whole
from skill1.analysis.library.payoff import Conflicts
from skill1.analysis.library.study import LibraryRun
from skill1.stats import Estimate

_BANDS = ((0.05, 0.95), (0.25, 0.75))  # quantiles, outer first
_LONGEST = 46  # characters of a skill's text beside a dot
_GREY = "0.72"


@themed
def lives(study: LibraryRun) -> Figure:
    """Ages at the end, utility over the steps, and, where skills were retired, who they were."""
    config, alive = study.run.config.library, study.alive
    gone = study.skills.dropna(subset="retired")
    figure = Figure(figsize=(10.2 if len(gone) else 7.0, 3.1), layout="constrained")
    left, middle, *rest = figure.subplots(1, 3 if len(gone) else 2)
    age, used = study.steps - alive["admitted"], alive["retrieved"] > 0
    bins = np.histogram_bin_edges(age, bins=min(20, study.steps), range=(-0.5, study.steps - 0.5))
    shade = VARIANT_COLOURS[study.run.config.variant]
    parts = {"retrieved": (age[used], shade), "never retrieved": (age[~used], _GREY)}
    labels = [f"{name} (n = {len(part)})" for name, (part, _) in parts.items()]
    left.hist(
        [part for part, _ in parts.values()], bins, stacked=True, color=[c for _, c in parts.values()], label=labels
    )
    left.set(xlabel="age at the end (steps)", ylabel="skills")
    whole(left.yaxis)

    known = study.history[study.history["retrieved"]].groupby("step")["utility"]
    for low, high in _BANDS:
        bottom, top = known.quantile(low), known.quantile(high)
        label = f"{100 * (high - low):.0f} % of them"
        middle.fill_between(bottom.index, bottom, top, color=shade, alpha=0.22, linewidth=0, label=label)
    median = known.median()
    middle.plot(median.index, median, color=shade, label="median")
    middle.axhline(config.initial_utility, color="0.6", linewidth=0.8, linestyle=":", label="at admission")
    middle.set(xlabel="training step", ylabel="U of skills retrieved so far", ylim=(0, 1))
    middle.set_xlim(0.5, study.steps + 0.5)
    for axes in rest:
        idle = gone["retrieved"] == 0
        for part, filled, name in ((gone[~idle], shade, "retrieved"), (gone[idle], "none", "never retrieved")):
            axes.scatter(
                part["retired"] - part["admitted"], part["utility"], s=12, facecolors=filled,
                edgecolors=shade if filled != "none" else "0.4", linewidth=0.7, label=f"{name} (n = {len(part)})",
            )  # fmt: skip
        axes.set(xlabel="age when retired (steps)", ylabel="U when retired", ylim=(0, 1))
    for axes in (left, middle, *rest):
        whole(axes.xaxis)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


@themed
def use(study: LibraryRun, table: pd.DataFrame) -> Figure:
    """How many skills the use is spread over, step by step, and how many were never retrieved.

    Args:
        table: `library_study.concentration`.
    """
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = {
        "retrieved_effective": "retrieved",
        "shown_effective": "shown",
        "effective_strategies": "strategies shown",
    }
    lines(left, table, names)
    rollout = study.run.config.rollout
    left.set(
        xlabel="training step",
        ylabel=f"effective number of skills\n({rollout.tasks_per_step * rollout.group_size} episodes a step)",
        ylim=(0, None),
    )
    right.plot(table["step"], 100 * table["never_retrieved"], color=VARIANT_COLOURS[study.run.config.variant])
    right.set(xlabel="training step", ylabel="skills never retrieved so far\n(% of those in the library)")
    percent(right.yaxis)
    for axes in (left, right):
        axes.set_xlim(0.5, study.steps + 0.5)
        whole(axes.xaxis)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.0, handlelength=1.6)
    return figure


@themed
def pays(chosen: pd.DataFrame, colour: str = VARIANT_COLOURS["full"]) -> Figure:
    """Difference of success with a skill within groups, of the skills that pay most and least.

    Args:
        chosen: `library_payoff.extremes`.

    Raises:
        ValueError: no skills.
    """
    if chosen.empty:
        raise ValueError("no skill has enough informative groups to be drawn: lower `least`, or train longer")
    figure = Figure(figsize=(7.6, 1.0 + 0.27 * len(chosen)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    rows = list(chosen.itertuples())
    for end, shade in (("most", colour), ("least", "0.45")):
        at = [i for i, row in enumerate(rows) if row.end == end]
        found = [
            Estimate(rows[i].difference, rows[i].low, rows[i].high, rows[i].informative, 0.95, "Mantel-Haenszel")
            for i in at
        ]
        dots(axes, at, found, (shade, "o"), f"pay {end}", horizontal=True)
    labels = [f"{_short(row.strategy)}  (n = {row.shown} in {row.informative})" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set(
        xlabel="success with the skill - the group's other episodes\n(points, 95 % interval; n episodes in groups)",
    )
    axes.margins(x=0.03)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


@themed
def conflict(study: LibraryRun, found: Conflicts) -> Figure:
    """How often candidates contradict each other, and whether the selected one is the one that U prefers."""
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    episodes = study.episodes[study.episodes["candidates"] > 1]
    torn = episodes.index.isin(found.candidates["episode"])
    share = 100 * pd.Series(torn, index=episodes.index).groupby(episodes["step"]).mean()
    colour = VARIANT_COLOURS[study.run.config.variant]
    left.plot(share.index, share, color=colour)
    left.set(xlabel="training step", ylabel=f"episodes with a conflict\n(% of n = {len(episodes)} with 2 or more)")
    chosen = found.selected
    parts = {"leads": chosen["lead"] > 0, "equal": chosen["lead"] == 0, "trails": chosen["lead"] < 0}
    start = 0.0
    for (name, mask), shade in zip(parts.items(), (colour, _GREY, "0.35"), strict=True):
        height = 100 * mask.groupby(chosen["step"]).mean()
        right.bar(height.index, height, 1.0, bottom=start, color=shade, label=name, linewidth=0)
        start = start + height
    right.set(xlabel="training step", ylabel=f"U of the selected one\n(% of n = {len(chosen)} in a conflict)")
    for axes in (left, right):
        axes.set_xlim(0.5, study.steps + 0.5)
        whole(axes.xaxis)
        percent(axes.yaxis)
    if len(chosen):
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


@themed
def smaller(table: pd.DataFrame) -> Figure:
    """What smaller capacities would have retired of what was used later: a counterfactual of retirement only.

    Args:
        table: `library_replay.counterfactual`.

    Raises:
        ValueError: no capacities.
    """
    if table.empty:
        raise ValueError("no capacity to draw: the library is too small to halve, name some")
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axes = figure.subplots()
    names = {"retrievals": "of all retrievals", "shown": "of skills shown", "won": "of those in won episodes"}
    for (name, label), shade, style in zip(names.items(), shades(len(names)), ("o-", "s--", "^:"), strict=True):
        axes.plot(table["capacity"], 100 * table[name], style, color=shade, label=label, markersize=4, clip_on=False)
    axes.set_xscale("log", base=2)
    axes.set_xticks(table["capacity"], [str(c) for c in table["capacity"]])
    axes.minorticks_off()
    axes.set(xlabel="capacity (skills), retirement replayed", ylabel="would have been retired by then (%)")
    percent(axes.yaxis)
    axes.legend(loc="upper right")
    return figure


@themed
def saturated(curves: pd.DataFrame) -> Figure:
    """Success, utility and retirement over the steps, a line per run, raw.

    Args:
        curves: `library_study.saturation`.
    """
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    panels = figure.subplots(1, 3)
    capacities = sorted(curves["capacity"].unique())
    colour = dict(zip(capacities, shades(len(capacities)), strict=True))
    for (_, capacity), part in curves.groupby(["run", "capacity"], sort=False):
        shown = (100 * part["reward"], part["mean_utility"], part["retired"])
        for axes, values in zip(panels, shown, strict=True):
            axes.plot(part["step"], values, color=colour[capacity], linewidth=1.0)
    for capacity in capacities:
        runs = curves.loc[curves["capacity"] == capacity, "run"].nunique()
        label = f"capacity {capacity}" + (f" ({runs} runs)" if runs > 1 else "")
        panels[0].plot([], [], color=colour[capacity], label=label)
    panels[0].set(ylabel="training success (%)")
    percent(panels[0].yaxis)
    panels[1].set(ylabel="mean U of the library", ylim=(0, 1))
    panels[2].set(ylabel="skills retired per step")
    panels[2].set_ylim(bottom=0)
    for axes in panels:
        axes.set(xlabel="training step")
        whole(axes.xaxis)
    figure.legend(loc="outside upper center", ncols=5)
    return figure


@themed
def library_map(spots: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """Figure 6: where the descriptions lie, and in colour those of the most-used tenth; a panel per run, one map.

    Args:
        spots: `library_map.places`.
        variants: of the runs, in the order of their labels.
    """
    labels = list(spots["label"].unique())
    figure = Figure(figsize=(0.4 + 3.7 * len(labels), 4.2), layout="constrained")
    panels = figure.subplots(1, len(labels), squeeze=False, sharex=True, sharey=True)[0]
    largest = spots["skills"].max()
    for axes, label, variant in zip(panels, labels, variants, strict=True):
        part = spots[spots["label"] == label]
        used = part[part["used"] > 0]
        colour = VARIANT_COLOURS[variant]
        rim = {"edgecolor": "white", "linewidth": 0.3}
        axes.scatter(
            part["x"], part["y"], s=_area(part["skills"], largest), color=_GREY, alpha=0.7, label="skills", **rim
        )
        name = f"most-used tenth, {label}"
        axes.scatter(used["x"], used["y"], s=_area(used["used"], largest), color=colour, label=name, **rim)
        numbers = f"{part['skills'].sum()} skills at {len(part)} places\nmost used: {part['used'].sum()} at {len(used)}"
        axes.set(title=f"{label}\n{numbers}", xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color="0.8")
        axes.set_box_aspect(1)
    every = [axes.get_legend_handles_labels() for axes in panels]
    handles = [every[0][0][0], *(found[0][1] for found in every)]
    names = [every[0][1][0], *(found[1][1] for found in every)]
    title = "area: number of skills with the description"
    figure.legend(handles, names, loc="outside lower center", ncols=1 if len(labels) == 1 else 3, title=title)
    return figure


def _area(skills: pd.Series, largest: int) -> pd.Series:
    """Marker areas in points squared: in proportion, but never too small to be seen."""
    return (80 * skills / largest).clip(lower=12)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
