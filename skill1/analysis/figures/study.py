"""Figures of a study (method section 7), from its tables alone: ablations, training signals, categories.

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

from skill1.analysis import ablations, arms, dynamics, per_category
from skill1.analysis.arms import REFERENCE, UNTRAINED
from skill1.analysis.figures.style import VARIANT_COLOURS, dots, legend, percent, shifts, themed, whole
from skill1.analysis.published import LABEL, OVERALL
from skill1.analysis.study import Study
from skill1.analysis.tables import plural
from skill1.stats import Estimate

_UNTRAINED_STYLE = ("#333333", "s")
_HOLLOW = {"markerfacecolor": "none", "markeredgecolor": "black", "linestyle": "none", "markersize": 6}
_PAPER, _PAPER_RIVAL = "Skill1", "RetroAgent"  # methods of Figure 7


@themed
def ablation_dots(study: Study) -> Figure:
    """Figure 2: success of every variant (`ablations.success`, overall) with its seeds, the published values beside."""
    tidy = ablations.success(study)
    tidy = tidy[tidy["category"] == OVERALL]
    seeds = _seed_rates(arms.own(study))
    published = ablations.published_success(study).query("category == @OVERALL").set_index("variant")["success"]
    names = arms.variants(study)
    labels = [f"{name}\n{_seeds(study, name)}" for name in names]
    figure, panels = _by_split(study, 1.6 + 0.42 * len(names), labels)
    for axes, split in zip(panels, arms.splits(study), strict=True):
        part = tidy[tidy["split"] == split].set_index("variant")
        for row, name in enumerate(names):
            span = _spans(part.loc[[name], ["success", "low", "high"]])
            dots(axes, [row], span, (VARIANT_COLOURS[name], "o"), "_", horizontal=True, size=6)
            own = seeds.loc[split, name]
            if len(own) > 1:
                axes.plot(own, [row + 0.25] * len(own), "|", color=VARIANT_COLOURS[name], markersize=6, alpha=0.8)
        _key(axes, "mean over seeds, 95 % interval", marker="o", color="0.3")
        if seeds.groupby(level=[0, 1]).size().max() > 1:
            _key(axes, "one seed", marker="|", color="0.3")
        known = [name for name in names if name in published.index]
        if known:
            rows = [names.index(name) for name in known]
            axes.plot(published[known], rows, "o", label=LABEL, clip_on=False, **_HOLLOW)
        axes.set(xlabel=f"success (%)\n{_size(study, part.iloc[0])}")
        percent(axes.xaxis)
    legend(figure, panels[0])
    return figure


@themed
def effect_dots(study: Study) -> Figure:
    """Every variant against full in points (`ablations.effects`): thick: these runs, new games; thin: new runs, too."""
    table = ablations.effects(study)
    names = list(dict.fromkeys(table["variant"]))
    of_full = plural(len(study.seeds(REFERENCE)), "seed")
    labels = [f"{name}\n{len(study.seeds(name))} against {of_full}" for name in names]
    figure, panels = _by_split(study, 1.6 + 0.42 * len(names), labels)
    for axes, split in zip(panels, arms.splits(study), strict=True):
        axes.axvline(0, color="0.75", linewidth=0.8, zorder=0)
        for row, effect in enumerate(table[table["split"] == split].itertuples()):
            colour = VARIANT_COLOURS[effect.variant]
            axes.plot([effect.both_low, effect.both_high], [row, row], color=colour, linewidth=1.0)
            axes.plot([effect.games_low, effect.games_high], [row, row], color=colour, linewidth=3.2)
            axes.plot(effect.points, row, "o", color=colour, markersize=6)
            if not np.isnan(effect.published):
                axes.plot(effect.published, row, "o", **_HOLLOW)
        _key(axes, "difference", marker="o", color="0.3")
        words = study.environment.tasks
        _key(axes, f"95 %: these runs, new {words}", linewidth=3.2, color="0.3")
        _key(axes, f"95 %: new runs, new {words}", linewidth=1.0, color="0.3")
        if table["published"].notna().any():
            axes.plot([], [], "o", label=LABEL, **_HOLLOW)
        part = ablations.success(study).query("split == @split")
        axes.set(xlabel=f"success minus that of full (points)\n{_size(study, part.iloc[0])}")
    legend(figure, panels[0])
    return figure


@themed
def training_signals(study: Study) -> Figure:
    """Figure 3: (a) the three means of U that "selection precision" may be, (b) mean r, (c) share of r - U_hat > 0."""
    names = dynamics.shown(study, dynamics.FIGURE_3_VARIANTS)
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True).ravel()
    letters = ("a", "a", "a", "b", "c")
    for axes, letter, (metric, title) in zip(panels, letters, dynamics.FIGURE_3.items(), strict=False):
        _draw_curves(axes, study, metric, names)
        axes.set(title=f"({letter}) {title}", ylim=(-0.03, 1.03))
        axes.tick_params(labelbottom=True)
    _curve_legend(study, panels[0], panels[5], names)
    return figure


@themed
def u_hat_curves(study: Study) -> Figure:
    """Figure 5: mean U_hat over training of every variant that has a library."""
    names = dynamics.with_library(study)
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes, beside = figure.subplots(1, 2, width_ratios=(2.2, 1))
    _draw_curves(axes, study, dynamics.U_HAT, names)
    axes.set(ylabel=dynamics.SIGNALS[dynamics.U_HAT], ylim=(-0.03, 1.03))
    _curve_legend(study, axes, beside, names)
    return figure


@themed
def similarity_dots(study: Study) -> Figure:
    """Figure 4: task-skill similarity at the three checkpoints (`dynamics.at_checkpoints`), seeds and their mean."""
    names = dynamics.shown(study, dynamics.FIGURE_4_VARIANTS)
    table = dynamics.at_checkpoints(study, dynamics.SIMILARITY, names)
    steps = dynamics.checkpoints(study)
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, shift in zip(names, shifts(len(names)), strict=True):
        own = table[table["variant"] == name].pivot(index="step", columns="seed", values="value")
        places = np.arange(len(steps)) + shift
        colour = VARIANT_COLOURS[name]
        for seed in own:
            axes.plot(places, own[seed], "o", color=colour, markersize=3, alpha=0.5, linestyle="none")
        label = f"{name} ({_seeds(study, name)})"
        mean = dynamics.mean_over_seeds(own)
        axes.plot(places, mean, "o-", color=colour, markersize=7, linewidth=0.8, label=label)
    if (quoted := dynamics.published_similarity(study)) is not None:
        ends = dict(zip((0, len(steps) - 1), quoted, strict=False))
        axes.plot(list(ends), list(ends.values()), "o", label=f"{LABEL} (full)", **_HOLLOW)
    axes.plot([], [], "o", color="0.5", markersize=3, label="one seed")
    axes.set_xticks(range(len(steps)), [f"step {step}" for step in steps])
    average = f"mean over {plural(dynamics.window(study), 'step')} up to the named one"
    axes.set(xlabel=average, ylabel="cosine of task and\nselected skill's description", xlim=(-0.5, len(steps) - 0.5))
    legend(figure, axes, columns=3)
    return figure


@themed
def category_spread(study: Study) -> Figure:
    """Figure 7: success per category (`per_category.success`), mean and std over seeds, and published."""
    tidy = per_category.success(study)
    published = per_category.published_success(study)
    names = [*per_category.headline(study), UNTRAINED]
    figure, panels = _by_split(study, 5.2, ())
    rows = arms.categories(study, tidy)
    for axes, split in zip(panels, arms.splits(study), strict=True):
        part = tidy[tidy["split"] == split]
        *beside, last = shifts(len(names) + 1)
        for name, shift in zip(names, beside, strict=True):
            own = part[part["variant"] == name]
            std = own["seed_std"].fillna(0.0)  # of a single run: a dot alone
            spread = pd.DataFrame({"mean": own["success"], "low": own["success"] - std, "high": own["success"] + std})
            places = [rows.index(category) + shift for category in own["category"]]
            dots(axes, places, _spans(spread), _style(name), _seed_label(study, name), horizontal=True)
        for method, marker in ((_PAPER, "o"), (_PAPER_RIVAL, "^")):
            theirs = published[published["method"] == method].set_index("category")["success"]
            known = [category for category in rows if category in theirs.index]
            at = [rows.index(category) + last for category in known]
            axes.plot(theirs[known], at, marker, label=f"{method}, {LABEL}", clip_on=False, **_HOLLOW)
        _category_rows(axes, rows, part)
        axes.set(xlabel=f"success (%), mean ± std over seeds\n{_size(study, part.iloc[0])}")
        percent(axes.xaxis)
    legend(figure, panels[0], columns=3)
    return figure


@themed
def gain_dots(study: Study) -> Figure:
    """Success gained over the untrained policy per category (`per_category.gains`), 95 % for new runs and new games."""
    table = per_category.gains(study)
    names = per_category.headline(study)
    figure, panels = _by_split(study, 4.6, ())
    rows = arms.categories(study, table)
    for axes, split in zip(panels, arms.splits(study), strict=True):
        axes.axvline(0, color="0.75", linewidth=0.8, zorder=0)
        part = table[table["split"] == split]
        for name, shift in zip(names, shifts(len(names)), strict=True):
            own = part[part["variant"] == name]
            spans = _spans(own[["points", "both_low", "both_high"]])
            places = [rows.index(category) + shift for category in own["category"]]
            dots(axes, places, spans, _style(name), _seed_label(study, name), horizontal=True)
        _category_rows(axes, rows, part)
        passes = per_category.success(study).query("split == @split").iloc[0]
        axes.set(xlabel=f"gain over untrained (points), 95 % interval\n{_size(study, passes)}")
    legend(figure, panels[0])
    return figure


@themed
def behaviour_dots(study: Study, split: str) -> Figure:
    """Steps and invalid actions per episode and category on one split (`per_category.behaviour`), 95 % intervals.

    Raises:
        RunError: the study was not evaluated on that split.
    """
    table = per_category.behaviour(study)
    table = table[table["split"] == arms.known_split(study, split)]
    names = [*per_category.headline(study), UNTRAINED]
    rows = arms.categories(study, table)
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    panels = figure.subplots(1, 2)
    measures = {"steps": "steps per episode", "invalid": "invalid actions per episode"}
    for axes, (measure, title) in zip(panels, measures.items(), strict=True):
        for name, shift in zip(names, shifts(len(names)), strict=True):
            own = table[table["variant"] == name]
            spans = _spans(own[[measure, f"{measure}_low", f"{measure}_high"]])
            places = [rows.index(category) + shift for category in own["category"]]
            dots(axes, places, spans, _style(name), _seed_label(study, name), horizontal=True)
        _category_rows(axes, rows, table)
        axes.set(
            xlabel=f"{title}, 95 % interval\n{_size(study, table.iloc[0])}", title=study.environment.split_label(split)
        )
        axes.set_xlim(left=0)
    whole(panels[0].xaxis)
    panels[1].tick_params(labelleft=False)
    legend(figure, panels[0])
    return figure


# -- parts ------------------------------------------------------------------------------------------------------------


def _by_split(study: Study, height: float, rows: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    """A panel per split, side by side; `rows`, if given, are those of all panels, from the top.

    A single panel is as wide as two, which is what the legends need.
    """
    splits = arms.splits(study)
    figure = Figure(figsize=(1.4 + 3.1 * max(2, len(splits)), height), layout="constrained")
    panels = figure.subplots(1, len(splits), squeeze=False, sharex=True)[0]
    for axes, split in zip(panels, splits, strict=True):
        axes.set_title(study.environment.split_label(split))
        if rows:
            axes.set_yticks(range(len(rows)), rows if axes is panels[0] else [""] * len(rows))
            axes.set_ylim(len(rows) - 0.5, -0.5)
    return figure, panels


def _category_rows(axes: Axes, rows: Sequence[str], tidy: pd.DataFrame) -> None:
    games = tidy.groupby("category")["games"].first()
    axes.set_yticks(range(len(rows)), [f"{name}\nn = {games[name]}" for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axhline(0.5, color="0.8", linewidth=0.8)


def _draw_curves(axes: Axes, study: Study, metric: str, names: Sequence[str]) -> None:
    """Each seed thin, the mean over seeds on top, the published value of full hollow."""
    for name in names:
        table = dynamics.curves(study, metric, name)
        if table.shape[1] > 1:
            axes.plot(table.index, table, color=VARIANT_COLOURS[name], linewidth=0.6, alpha=0.35)
        axes.plot(table.index, dynamics.mean_over_seeds(table), color=VARIANT_COLOURS[name], linewidth=1.6)
    if (quoted := dynamics.published_value(study, metric)) is not None:
        axes.plot(*quoted, "o", **_HOLLOW)
    axes.set(xlabel="training step")
    whole(axes.xaxis)


def _curve_legend(study: Study, axes: Axes, beside: Axes, names: Sequence[str]) -> None:
    """The legend of `_draw_curves` in a panel of its own."""
    for name in names:
        _key(axes, f"{name} ({_seeds(study, name)})", color=VARIANT_COLOURS[name], linewidth=1.6)
    if any(len(study.seeds(name)) > 1 for name in names):
        _key(axes, "one seed", color="0.4", linewidth=0.6)
    if dynamics.published_value(study, dynamics.U_HAT) is not None:
        axes.plot([], [], "o", label=f"{LABEL} (full)", **_HOLLOW)
    beside.set_axis_off()
    beside.legend(*axes.get_legend_handles_labels(), loc="center left", title="mean over seeds, raw")


def _seed_rates(frame: pd.DataFrame) -> pd.Series:
    """Success (%) indexed by split, variant and seed."""
    per_game = frame.assign(won=100.0 * frame["won"]).groupby(["split", "variant", "seed", "game"])["won"].mean()
    return per_game.groupby(level=[0, 1, 2]).mean()


def _spans(values: pd.DataFrame) -> list[Estimate]:
    """What `plots.dots` draws, of the columns value, low, high in the units of the axis; without bounds a dot alone.

    `dots` takes shares and draws percent; n, level and method are not drawn.
    """
    return [Estimate(*row, 0, np.nan, "") for row in (values.ffill(axis=1) / 100).itertuples(index=False)]


def _key(axes: Axes, label: str, **style: object) -> None:
    """A legend entry without data."""
    axes.plot([], [], label=label, **{"linestyle": "none" if "marker" in style else "-", **style})


def _style(name: str) -> tuple[str, str]:
    return _UNTRAINED_STYLE if name == UNTRAINED else (VARIANT_COLOURS[name], "o")


def _seeds(study: Study, name: str) -> str:
    there, missing = len(study.seeds(name)), len(study.missing.get(name, ()))
    return plural(there, "seed") if not missing else f"{there} of {there + missing} seeds"


def _seed_label(study: Study, name: str) -> str:
    return name if name == UNTRAINED else f"{name} ({_seeds(study, name)})"


def _size(study: Study, row: pd.Series) -> str:
    passes = int(row["passes"])
    return f"n = {row['games']} {study.environment.tasks}, {passes} {'pass' if passes == 1 else 'passes'}"
