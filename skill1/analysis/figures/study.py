"""Figures of a study, from its tables alone: ablations, training signals, categories.

Published values are hollow and labelled "published"; everything else is the study's own. Seeds are thin or small behind
the mean over them.

Differs from the paper in: Figure 3 (a) is drawn three times, once for each mean of U that "selection precision" may be;
Figure 7 shows the same training without a library and the untrained policy beside full.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skill1.analysis import ablations, arms, dynamics, per_category, variants
from skill1.analysis.figures import style
from skill1.analysis.figures.style import (
    dots,
    hollow,
    integer_axis,
    key,
    legend,
    percent_axis,
    quoted,
    rows,
    shifts,
    themed,
)
from skill1.analysis.published import LABEL, OVERALL
from skill1.analysis.study import Study
from skill1.analysis.tables import plural
from skill1.analysis.variants import REFERENCE, UNTRAINED, label
from skill1.errors import RunError

_RARE = 0.01  # invalid actions per episode that no axis would show
_PAPER = {"full": "o", "retroagent_rl": "^"}  # methods of the published Figure 7, and their markers


@themed
def ablation_dots(study: Study) -> Figure:
    """Draw Figure 2: success of every variant (`arms.results`, overall) with its seeds, the published values beside."""
    tidy = arms.results(study)
    tidy = tidy[tidy["category"] == OVERALL]
    per_game = arms.own(study).groupby(["split", "variant", "seed", "game"])["won"].mean()
    seeds = 100 * per_game.groupby(["split", "variant", "seed"]).mean()
    theirs = study.published("table2", "table1", metric="success", category=OVERALL).query("variant != ''")
    published = theirs.drop_duplicates("variant").set_index("variant")["value"]  # Table 2 has the ablations
    names = study.variants
    figure, panels = _by_split(study, 1.6 + 0.36 * len(names), "success (%)", names)
    for axes, split in zip(panels, study.splits, strict=True):
        part = tidy[tidy["split"] == split].set_index("variant")
        for row, name in enumerate(names):
            span = part.loc[[name], ["value", "low", "high"]]
            dots(axes, [row], span, _style(study, name), "_", size=6)
            own = seeds.loc[split, name]
            if len(own) > 1:
                axes.plot(own, [row + 0.25] * len(own), "|", color=_colour(study, name), markersize=6, alpha=0.8)
        key(axes, "mean over seeds, 95 % interval", marker="o", color="0.3")
        if seeds.groupby(level=[0, 1]).size().max() > 1:
            key(axes, "one seed", marker="|", color="0.3")
        _published(axes, published.reindex(names))
        percent_axis(axes.xaxis)
    legend(figure, panels[0])
    return figure


@themed
def effect_dots(study: Study) -> Figure:
    """Draw every variant against full in points (`ablations.effects`): thick these runs on new games, thin new runs."""
    table, tasks = ablations.effects(study), study.environment.tasks
    names = list(dict.fromkeys(table["variant"]))
    xlabel = f"success minus that of {label(REFERENCE)} (points)"
    figure, panels = _by_split(study, 1.6 + 0.36 * len(names), xlabel, names, [REFERENCE])
    for axes, split in zip(panels, study.splits, strict=True):
        axes.axvline(0, color="0.75", linewidth=0.8, zorder=0)
        part = table[table["split"] == split]
        for row, effect in enumerate(part.itertuples()):
            colour = _colour(study, effect.variant)
            axes.plot([effect.both_low, effect.both_high], [row, row], color=colour, linewidth=1.0)
            axes.plot([effect.games_low, effect.games_high], [row, row], color=colour, linewidth=3.2)
            axes.plot(effect.points, row, "o", color=colour, markersize=6)
        key(axes, "difference", marker="o", color="0.3")
        key(axes, f"95 %: these runs, new {tasks}", linewidth=3.2, color="0.3")
        key(axes, f"95 %: new runs, new {tasks}", linewidth=1.0, color="0.3")
        _published(axes, part["published"])
    legend(figure, panels[0], columns=2)
    return figure


@themed
def training_signals(study: Study) -> Figure:
    """Draw Figure 3: (a) three means of U that "selection precision" may be, (b) mean r, (c) share of r - U_hat > 0.

    Where a reward is 0 or 1, (b) and (c) are one panel: U_hat lies between, so that r - U_hat > 0 says that r is 1.
    """
    names = dynamics.shown(study, dynamics.FIGURE_3_VARIANTS)
    titles = {metric: f"(a) {title}" for metric, title in dynamics.PRECISION.items()}
    reward, share = (metric for metric in dynamics.FIGURE_3 if metric not in titles)
    drawn = study.metrics[study.metrics["variant"].isin(names)]
    if share in drawn and np.allclose(drawn[reward], drawn[share]):
        titles[reward] = f"(b) {dynamics.FIGURE_3[reward]} = (c) {dynamics.FIGURE_3[share]}"
    else:
        titles |= {reward: f"(b) {dynamics.FIGURE_3[reward]}", share: f"(c) {dynamics.FIGURE_3[share]}"}
    columns = 3 if len(titles) > 4 else 2
    figure, panels = style.panels(columns, 3.2 * columns, 5.6, rows=2, sharex=True)
    for axes, (metric, title) in zip(panels, titles.items(), strict=False):
        _draw_curves(axes, study, metric, names)
        axes.set(title=title)
        axes.tick_params(labelbottom=True)
    for axes in panels[len(titles) :]:
        axes.set_axis_off()
    _curve_legend(figure, study, panels[0], names)
    return figure


@themed
def u_hat_curves(study: Study) -> Figure:
    """Draw Figure 5: mean U_hat over training of every variant that estimates it."""
    names = dynamics.with_u_hat(study)
    figure, [axes] = style.panels(1, 6.4, 4.2)
    _draw_curves(axes, study, dynamics.U_HAT, names)
    axes.set(ylabel=dynamics.SIGNALS[dynamics.U_HAT])
    _curve_legend(figure, study, axes, names)
    return figure


@themed
def similarity_dots(study: Study) -> Figure:
    """Draw Figure 4: task-skill similarity at three checkpoints (`dynamics.at_checkpoints`), seeds and their mean."""
    names = dynamics.shown(study, dynamics.FIGURE_4_VARIANTS)
    table = dynamics.at_checkpoints(study, dynamics.SIMILARITY, names).dropna()
    names = [name for name in names if name in set(table["variant"])]  # without selection there may be none
    steps = dynamics.checkpoints(study)
    figure, [axes] = style.panels(1, 5.4, 3.4)
    for name, shift in zip(names, shifts(len(names)), strict=True):
        own = table[table["variant"] == name].pivot(index="step", columns="seed", values="value").reindex(steps)
        places, colour = np.arange(len(steps)) + shift, _colour(study, name)
        if own.shape[1] > 1:
            axes.plot(places, own, "o", color=colour, markersize=3, alpha=0.5)
        mean = dynamics.mean_over_seeds(own)
        axes.plot(places, mean, "o-", color=colour, markersize=7, linewidth=0.8, label=_with_seeds(study, name))
    if theirs := dynamics.published_values(study, dynamics.SIMILARITY):
        quoted(axes, list(np.linspace(0, len(steps) - 1, len(theirs))), theirs)
        hollow(axes, [], [], f"{label(REFERENCE)}, {LABEL}")
    if any(len(study.seeds(name)) > 1 for name in names):
        key(axes, "one seed", marker="o", color="0.5", markersize=3)
    axes.set_xticks(range(len(steps)), [f"step {step}" for step in steps])
    average = f"mean over {plural(dynamics.window(study), 'step')} up to the named one"
    axes.set(xlabel=average, ylabel="cosine of task and\nselected skill's description", xlim=(-0.5, len(steps) - 0.5))
    legend(figure, axes, columns=2)
    return figure


@themed
def category_spread(study: Study) -> Figure:
    """Draw Figure 7: success per category (`arms.results`), mean and std over seeds, and published."""
    tidy = pd.concat([arms.results(study), arms.results(study, before=True)])
    std = tidy["seed_std"].fillna(0.0)  # of a single run: a dot alone
    tidy = tidy.assign(low=(tidy["value"] - std).clip(lower=0), high=(tidy["value"] + std).clip(upper=100))
    theirs = study.published("table1", metric="success")
    names = [*per_category.headline(study), UNTRAINED]
    figure, panels = _by_split(study, 5.6, "success (%), mean ± std over seeds")
    for axes, split in zip(panels, study.splits, strict=True):
        part = tidy[tidy["split"] == split]
        categories, free = _category_dots(axes, study, part, names, ("value", "low", "high"), room_for=len(_PAPER))
        for (method, marker), shift in zip(_PAPER.items(), free, strict=True):
            values = theirs[theirs["variant"] == method].set_index("category")["value"].reindex(categories)
            _published(axes, values, shift, marker, f"{label(method)}, {LABEL}")
        percent_axis(axes.xaxis)
    legend(figure, panels[0], columns=3)
    return figure


@themed
def gain_dots(study: Study) -> Figure:
    """Draw gains over the untrained policy per category (`per_category.gains`), 95 % for new runs and new games."""
    table, names = per_category.gains(study), per_category.headline(study)
    figure, panels = _by_split(study, 4.6, "gain over untrained (points), 95 % interval")
    for axes, split in zip(panels, study.splits, strict=True):
        axes.axvline(0, color="0.75", linewidth=0.8, zorder=0)
        _category_dots(axes, study, table[table["split"] == split], names, ("points", "both_low", "both_high"))
    legend(figure, panels[0])
    return figure


@themed
def behaviour_dots(study: Study, split: str) -> Figure:
    """Draw steps and, if there are some, invalid actions per episode and category on a split, with 95 % intervals.

    Raises:
        RunError: the study was not evaluated on that split.
    """
    if split not in study.splits:
        raise RunError(f"{study.path} was not evaluated on {split!r} (it was on {', '.join(study.splits)})")
    names = [*per_category.headline(study), UNTRAINED]
    table = per_category.behaviour(study)
    table = table[(table["split"] == split) & table["variant"].isin(names)]
    measures = {"steps": "steps per episode", "invalid": "invalid actions per episode"}
    if table["invalid"].max() < _RARE:
        del measures["invalid"]
    figure, panels = style.panels(len(measures), 1.6 + 2.8 * max(len(measures), 1.3), 4.6)
    for axes, (measure, title) in zip(panels, measures.items(), strict=True):
        _category_dots(axes, study, table, names, (measure, f"{measure}_low", f"{measure}_high"))
        xlabel = f"{title}, 95 % interval\n{arms.size(study, split)}"
        axes.set(xlabel=xlabel, title=study.environment.split_label(split))
        axes.set_xlim(left=0)
        axes.tick_params(labelleft=axes is panels[0])
    integer_axis(panels[0].xaxis)
    legend(figure, panels[0], columns=2)
    return figure


# -- parts ------------------------------------------------------------------------------------------------------------


def _by_split(
    study: Study, height: float, xlabel: str, names: Sequence[str] = (), reference: Sequence[str] = ()
) -> tuple[Figure, list[Axes]]:
    """Make a panel per split, side by side; `names`, if given, are the variants in the rows of all panels, top down.

    Numbers of seeds stand below the axis if these and the `reference` have as many, else at the rows. A single panel is
    as wide as two, which is what the legends need.
    """
    figure, panels = style.panels(len(study.splits), 1.4 + 3.1 * max(2, len(study.splits)), height, sharex=True)
    counts = {study.seed_count(name) for name in (*reference, *names)}
    seeds = f", {counts.pop()}" if len(counts) == 1 else ""
    labels = [label(name) if seeds else f"{label(name)}\n{study.seed_count(name)}" for name in names]
    for axes, split in zip(panels, study.splits, strict=True):
        axes.set(title=study.environment.split_label(split), xlabel=f"{xlabel}\n{arms.size(study, split)}{seeds}")
        if names:
            rows(axes, labels if axes is panels[0] else [""] * len(names))
    return figure, panels


def _category_dots(
    axes: Axes,
    study: Study,
    tidy: pd.DataFrame,
    names: Sequence[str],
    columns: tuple[str, str, str],
    room_for: int = 0,
) -> tuple[list[str], np.ndarray]:
    """Draw a measure with its interval (`columns`: value, low, high) per category, the variants side by side.

    Returns the categories, which are the rows, and the offsets of `room_for` more dots within a row.
    """
    categories, games = arms.categories(study, tidy), tidy.groupby("category")["games"].first()
    style.category_rows(axes, games[categories])
    beside = shifts(len(names) + room_for)
    for name, shift in zip(names, beside, strict=False):
        own = tidy[tidy["variant"] == name]
        places = [categories.index(category) + shift for category in own["category"]]
        dots(axes, places, own[[*columns]], _style(study, name), _with_seeds(study, name))
    return categories, beside[len(names) :]


def _draw_curves(axes: Axes, study: Study, metric: str, names: Sequence[str]) -> None:
    """Draw seeds thin, their mean on top, and what is published of full hollow at the right edge, with its step."""
    for name in names:
        table, colour = dynamics.curves(study, metric, name), _colour(study, name)
        if table.shape[1] > 1:
            axes.plot(table.index, table, color=colour, linewidth=0.5, alpha=0.25)
        axes.plot(table.index, dynamics.mean_over_seeds(table), color=colour, linewidth=1.6)
    theirs = dynamics.published_values(study, metric)
    quoted(axes, [1.05 * study.metrics["step"].max()] * len(theirs), theirs)
    style.over_steps(axes)


def _curve_legend(figure: Figure, study: Study, axes: Axes, names: Sequence[str]) -> None:
    for name in names:
        key(axes, _with_seeds(study, name), color=_colour(study, name), linewidth=1.6)
    if any(len(study.seeds(name)) > 1 for name in names):
        key(axes, "one seed, raw", color="0.4", linewidth=0.6)
    if dynamics.published_values(study, dynamics.U_HAT):
        hollow(axes, [], [], f"{label(REFERENCE)}, {LABEL}, at the step named")
    legend(figure, axes, columns=2)


def _published(axes: Axes, values: pd.Series, shift: float = 0.0, marker: str = "o", shown: str = LABEL) -> None:
    """Draw published values, one a row; nothing, not even in the legend, if there is none."""
    if values.notna().any():
        hollow(axes, values.dropna(), np.flatnonzero(values.notna()) + shift, shown, marker)


def _colour(study: Study, name: str) -> str:
    return variants.colours([*study.variants, UNTRAINED])[name]


def _style(study: Study, name: str) -> tuple[str, str]:
    return _colour(study, name), "s" if name == UNTRAINED else "o"


def _with_seeds(study: Study, name: str) -> str:
    return label(name) if name == UNTRAINED else f"{label(name)}, {study.seed_count(name)}"
