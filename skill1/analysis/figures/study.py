"""Figures of a study's outcomes, from its tables alone: ablations and categories (of its training: `signals`).

Published values are hollow, in their method's colour, and labelled "published"; everything else is the study's own.

Differs from the paper in: Figure 7 shows the same training without a library and the untrained policy beside full.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skill1.analysis import ablations, arms, per_category, variants
from skill1.analysis.figures import style
from skill1.analysis.figures.style import COLUMN, PAGE, dots, key, legend, percent_axis, rows, shifts, themed
from skill1.analysis.published import LABEL, OVERALL
from skill1.analysis.study import Study
from skill1.analysis.variants import REFERENCE, UNTRAINED, label
from skill1.errors import RunError

_RARE = 0.1  # invalid actions per episode, of which a table says all there is to say
_PAPER = ("full", "retroagent_rl")  # methods of the published Figure 7


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
    figure, panels = _by_split(study, names, 0.9 + 0.27 * len(names), "success (%)", in_rows=True)
    for axes, split in zip(panels, study.splits, strict=True):
        part = tidy[tidy["split"] == split].set_index("variant")
        for row, name in enumerate(names):
            dots(axes, [row], part.loc[[name], ["value", "low", "high"]], _style(study, name), "_")
            own = seeds.loc[split, name]
            if len(own) > 1:
                axes.plot(own, [row + 0.3] * len(own), "|", color=colour_of(study, name), markersize=4, alpha=0.8)
    percent_axis(panels[0].xaxis)
    key(panels[0], "mean over seeds, 95 % interval", marker="o", color="0.3")
    if seeds.groupby(level=[0, 1]).size().max() > 1:
        key(panels[0], "one seed", marker="|", color="0.3")
    for axes in panels:
        _published(axes, study, published.reindex(names))
    legend(figure, panels[0])
    return figure


@themed
def effect_dots(study: Study) -> Figure:
    """Draw every variant against full in points (`ablations.effects`): thick these runs on new games, thin new runs."""
    table, tasks = ablations.effects(study), study.environment.tasks
    names, xlabel = list(dict.fromkeys(table["variant"])), f"success against {label(REFERENCE)} (points)"
    figure, panels = _by_split(study, names, 1.35 + 0.27 * len(names), xlabel, in_rows=True, against=[REFERENCE])
    for axes, split in zip(panels, study.splits, strict=True):
        axes.axvline(0, color="0.75", linewidth=0.8, zorder=0)
        for row, effect in enumerate(table[table["split"] == split].itertuples()):
            colour = colour_of(study, effect.variant)
            axes.plot([effect.both_low, effect.both_high], [row, row], color=colour, linewidth=1.0)
            axes.plot([effect.games_low, effect.games_high], [row, row], color=colour, linewidth=2.6)
            axes.plot(effect.points, row, "o", color=colour, markersize=4.5)
    key(panels[0], "difference", marker="o", color="0.3")
    key(panels[0], f"95 %: these runs, new {tasks}", linewidth=2.6, color="0.3")
    key(panels[0], f"95 %: new runs, new {tasks}", linewidth=1.0, color="0.3")
    for axes in panels:
        _published(axes, study, table.drop_duplicates("variant").set_index("variant")["published"])
    legend(figure, panels[0])
    return figure


@themed
def category_spread(study: Study) -> Figure:
    """Draw Figure 7: success per category (`arms.results`), mean and std over seeds, and published."""
    tidy = pd.concat([arms.results(study), arms.results(study, before=True)])
    std = tidy["seed_std"].fillna(0.0)  # of a single run: a dot alone
    tidy = tidy.assign(low=(tidy["value"] - std).clip(lower=0), high=(tidy["value"] + std).clip(upper=100))
    theirs = study.published("table1", metric="success").set_index(["variant", "category"])["value"]
    names = [*per_category.headline(study), UNTRAINED]
    figure, panels = _by_category(study, tidy, names, "success (%), mean ± std over seeds", room_for=_PAPER)
    percent_axis(panels[0].xaxis)
    beside = shifts(len(names) + len(_PAPER))[len(names) :]
    for axes, split in zip(panels, study.splits, strict=True):
        categories = arms.categories(study, tidy[tidy["split"] == split])
        for method, shift in zip(_PAPER, beside, strict=True):
            values = theirs[theirs.index.get_level_values("variant") == method].droplevel("variant").reindex(categories)
            _published(axes, study, values, shift, method)
    legend(figure, panels[0])
    return figure


@themed
def gain_dots(study: Study) -> Figure:
    """Draw gains over the untrained policy per category (`per_category.gains`), 95 % for new runs and new games."""
    table, names = per_category.gains(study), per_category.headline(study)
    table = table.rename(columns={"points": "value", "both_low": "low", "both_high": "high"})
    figure, panels = _by_category(study, table, names, "gain over untrained (points), 95 % interval")
    for axes in panels:
        axes.axvline(0, color="0.75", linewidth=0.8, zorder=0)
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
    figure, panels = style.panels(len(measures), PAGE if len(measures) > 1 else COLUMN, _height(study, table, names))
    for axes, (measure, title) in zip(panels, measures.items(), strict=True):
        names_of = {measure: "value", f"{measure}_low": "low", f"{measure}_high": "high"}
        seeds = labelled(study, names)[0]
        axes.set(
            xlabel=f"{title}, 95 % interval\n{arms.size(study, split)}{seeds}",
            title=study.environment.split_label(split),
        )
        _category_dots(axes, study, table.rename(columns=names_of), names)
        axes.tick_params(labelleft=axes is panels[0])
    legend(figure, panels[0])
    return figure


# -- parts ------------------------------------------------------------------------------------------------------------


def _by_split(
    study: Study,
    names: Sequence[str],
    height: float,
    xlabel: str,
    *,
    in_rows: bool = False,
    against: Sequence[str] = (),
) -> tuple[Figure, list[Axes]]:
    """Make a panel per split, side by side, with n below; `names` are its variants, and `in_rows` its rows, top down."""
    width = PAGE if len(study.splits) > 1 else COLUMN
    figure, panels = style.panels(len(study.splits), width, height, sharex=True)
    seeds, labels = labelled(study, [*names, *against])
    for axes, split in zip(panels, study.splits, strict=True):
        axes.set(title=study.environment.split_label(split), xlabel=f"{xlabel}\n{arms.size(study, split)}{seeds}")
        if in_rows:
            rows(axes, [labels[name] if axes is panels[0] else "" for name in names])
    return figure, panels


def _by_category(
    study: Study, tidy: pd.DataFrame, names: Sequence[str], xlabel: str, room_for: Sequence[str] = ()
) -> tuple[Figure, list[Axes]]:
    """Draw `_category_dots`, a panel per split."""
    figure, panels = _by_split(study, names, _height(study, tidy, [*names, *room_for]), xlabel)
    for axes, split in zip(panels, study.splits, strict=True):
        _category_dots(axes, study, tidy[tidy["split"] == split], names, len(room_for))
    return figure, panels


def _height(study: Study, tidy: pd.DataFrame, names: Sequence[str]) -> float:
    """Inches that the categories need for as many dots in each."""
    return 1.1 + len(arms.categories(study, tidy)) * max(0.26, 0.1 * len(names))


def _category_dots(axes: Axes, study: Study, tidy: pd.DataFrame, names: Sequence[str], room_for: int = 0) -> None:
    """Draw value, low and high per category, which are the rows, the variants side by side with `room_for` more dots."""
    categories, games = arms.categories(study, tidy), tidy.groupby("category")["games"].first()
    style.category_rows(axes, games[categories].to_dict())
    labels = labelled(study, names)[1]
    for name, shift in zip(names, shifts(len(names) + room_for), strict=False):
        own = tidy[tidy["variant"] == name]
        places = [categories.index(category) + shift for category in own["category"]]
        dots(axes, places, own[["value", "low", "high"]], _style(study, name), labels[name])


def _published(axes: Axes, study: Study, values: pd.Series, shift: float = -0.3, method: str = "") -> None:
    """Draw published values, one a row, of the variants that are the rows or of a `method`; nothing if there is none."""
    there = values.notna()
    if there.any():
        colours = [colour_of(study, method or name) for name in values.index[there]]
        style.published_rows(axes, np.flatnonzero(there) + shift, values[there], colours)
        key(
            axes,
            f"{label(method)}, {LABEL}" if method else LABEL,
            marker="o",
            **style.hollow(colours[0] if method else "0.3"),
        )


def colour_of(study: Study, name: str) -> str:
    """Choose the colour of a variant among those of its study."""
    return variants.colours([*study.variants, UNTRAINED, name])[name]


def _style(study: Study, name: str) -> tuple[str, str]:
    return colour_of(study, name), "s" if name == UNTRAINED else "o"


def labelled(study: Study, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Say ", 3 seeds" once if all variants have as many, else "" and the numbers behind their labels."""
    counts = {name: study.seed_count(name) for name in names if name != UNTRAINED}
    if len(set(counts.values())) == 1:
        return f", {counts.popitem()[1]}", {name: label(name) for name in names}
    return "", {name: ", ".join([label(name), *([counts[name]] if name in counts else [])]) for name in names}
