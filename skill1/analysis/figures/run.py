"""Figures of single runs and evaluations, drawn from what is stored. Learning curves are raw (no smoothing).

Differs from the paper in: "selection precision" (Figure 3a) is shown as all three means of U that it may stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skill1.analysis import dynamics, variants
from skill1.analysis.arms import of_category
from skill1.analysis.figures import style
from skill1.analysis.figures.style import (
    COLUMN,
    PAGE,
    dots,
    integer_axis,
    legend,
    lines,
    over_steps,
    percent_axis,
    percents,
    shifts,
    themed,
)
from skill1.analysis.published import OVERALL
from skill1.analysis.tables import size
from skill1.analysis.variants import UNTRAINED
from skill1.config import LibraryConfig
from skill1.envs.make import environment_spec
from skill1.envs.spec import EnvironmentSpec
from skill1.stats import Estimate, success_rate, wilson
from skill1.store.journal import Journal
from skill1.store.run_directory import RunDirectory

_WITHHELD = ("#56b4e9", "D")  # colour and marker of a trained policy whose skills are withheld


@themed
def learning_curve(run: RunDirectory) -> Figure:
    """Draw training reward of every step (thin, raw) and validation success (dots with Wilson's 95 % intervals)."""
    figure, [axes] = style.panels(1, COLUMN, 2.6)
    metrics, validation = run.metrics(), run.evaluations("validation")
    colour = variants.colour(run.config.variant)
    if len(metrics):
        label = f"training reward, raw, n = {run.config.rollout.episodes} episodes a step"
        axes.plot(metrics["step"], 100 * metrics["reward"], color=colour, linewidth=0.7, alpha=0.6, label=label)
    if len(validation):
        points = {step: wilson(int(at["won"].sum()), len(at)) for step, at in validation.groupby("step")}
        sizes = " or ".join(str(n) for n in sorted({rate.n for rate in points.values()}))
        tasks = environment_spec(run.config.environment.name).tasks
        label = f"{variants.label(run.config.variant)}: validation, n = {sizes} {tasks}"
        dots(axes, list(points), percents(points.values()), (colour, "o"), label, curve=True)
    over_steps(axes)
    axes.set(ylabel="success (%), 95 % interval")
    percent_axis(axes.yaxis)
    if len(metrics) or len(validation):
        legend(figure, axes)
    return figure


@themed
def category_dots(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> Figure:
    """Draw success per category and overall, a column per split: dots with 95 % intervals over games.

    Args:
        frames: label -> outcomes (columns of `outcomes.EVALUATION_SCHEMA`), in the order of drawing.
    """
    everything = pd.concat(frames.values())
    splits = environment.ordered_splits(everything["split"])
    figure, panels = _by_split(splits, 3.3, everything, environment)
    for axes, split in zip(panels, splits, strict=True):
        here = everything[everything["split"] == split]
        names = [OVERALL, *environment.ordered_categories(here["category"])]
        for (label, frame), shift in zip(frames.items(), shifts(len(frames)), strict=True):
            part = frame[frame["split"] == split]
            parts = {row: found for row, name in enumerate(names) if len(found := of_category(part, name))}
            rates = percents(map(_rate, parts.values()))
            dots(axes, [row + shift for row in parts], rates, _style(frame, everything), label)
        style.category_rows(axes, {name: of_category(here, name)["game"].nunique() for name in names})
    percent_axis(panels[0].xaxis)
    legend(figure, panels[0])
    return figure


@themed
def demo_summary(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> Figure:
    """Draw success before and after training, with and without the library, a column per split, with 95 % intervals.

    Args:
        frames: as of `category_dots`.
    """
    everything = pd.concat(frames.values())
    splits = environment.ordered_splits(everything["split"])
    figure, panels = _by_split(splits, 0.75 + 0.22 * len(frames), everything, environment)
    for axes, split in zip(panels, splits, strict=True):
        for row, (label, frame) in enumerate(frames.items()):
            rates = percents([_rate(part)] if len(part := frame[frame["split"] == split]) else [])
            dots(axes, [row] * len(rates), rates, _style(frame, everything), label)
            for value, _, high in rates:
                axes.annotate(f"{value:.1f}", (high, row), (4, 0), textcoords="offset points", va="center")
        style.rows(axes, [label if axes is panels[0] else "" for label in frames])
    percent_axis(panels[0].xaxis)
    return figure


@themed
def library_growth(run: RunDirectory) -> Figure:
    """Draw the library's size and its distinct strategies, and what every step admitted, merged and retired.

    Raises as `library_trace`.
    """
    trace, capacity = library_trace(run), _library(run).capacity
    figure, [left, right] = style.panels(2, PAGE, 2.4)
    colour = variants.colour(run.config.variant)
    left.plot(trace["step"], trace["size"], color=colour, label="skills")
    left.plot(trace["step"], trace["distinct"], color=colour, linestyle="--", label="distinct strategies")
    if trace["size"].max() >= 0.8 * capacity:
        left.axhline(capacity, color="0.6", linewidth=0.8, label="capacity")
    lines(right, trace, {name: name for name in ("admitted", "merged", "retired") if trace[name].any()})
    left.set(ylabel="skills in the library")
    right.set(ylabel=f"skills per step (of {run.config.rollout.episodes} episodes)")
    over_steps(left, right)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        integer_axis(axes.yaxis)
        style.legend_above(axes, columns=3)
    return figure


@themed
def utilities(run: RunDirectory) -> Figure:
    """Draw what the two signals of the outcome do: utilities and U_hat, NDCG, and the shares that feed distillation.

    Raises:
        ValueError: the run has no library.
    """
    initial, metrics = _library(run).initial_utility, run.metrics()
    figure, [left, middle, right] = panels = style.panels(3, PAGE, 2.5, sharex=True)
    means = {name: label.removeprefix("mean U, ") for name, label in dynamics.PRECISION.items()}
    if dynamics.U_HAT in metrics:
        metrics[dynamics.U_HAT] = dynamics.estimated(metrics[dynamics.U_HAT])
    lines(left, metrics, means | {dynamics.U_HAT: r"$\hat{U}$"})
    left.axhline(initial, color="0.8", linewidth=0.8)
    if "ndcg/mean" in metrics:
        [shade] = style.shades(1)
        mean, spread = metrics["ndcg/mean"], metrics["ndcg/std"].fillna(0.0)
        low, high = (mean - spread).clip(0, 1), (mean + spread).clip(0, 1)
        middle.fill_between(metrics["step"], low, high, color=shade, alpha=0.2, linewidth=0, label="± one std")
        middle.plot(metrics["step"], mean, color=shade, label="mean")
        middle.set_ylim(top=1.01)
    shares = {
        "selection/selected_share": "shown a skill",
        "distill_positive_rate": r"$r - \hat{U} > 0$",
        "reward": "won",
    }
    if "distill_positive_rate" in metrics and np.allclose(metrics["distill_positive_rate"], metrics["reward"]):
        del shares["distill_positive_rate"]  # one line, as in Figure 3
        shares["reward"] = r"won ($r - \hat{U} > 0$)"
    lines(right, metrics, shares)
    left.set(title="mean utility of skills")
    middle.set(title="NDCG of the ranking")
    right.set(title=f"share of episodes (n = {run.config.rollout.episodes} a step)")
    for axes in (left, right):
        axes.set(ylim=(-0.03, 1.03), yticks=np.linspace(0, 1, 6))
    over_steps(left, middle, right)
    for axes in panels[1]:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2, columnspacing=0.8)
    return figure


def library_trace(run: RunDirectory) -> pd.DataFrame:
    """Follow the library step by step, from the run's journal.

    Returns:
        Columns step, size, distinct (different strategies among the skills), admitted, merged, retired (in the step).

    Raises:
        ValueError: the run has no library.
        LibraryError: it has not trained a step yet, or its journal is damaged.
    """
    _library(run)
    strategies: dict[str, str] = {}
    found = []
    for event in Journal(run.library_dir / "journal.jsonl").events():
        strategies.update((skill.id, skill.strategy) for skill in event.admitted)
        for skill in event.retired:
            del strategies[skill]
        counts = (len(event.admitted), len(event.merged), len(event.retired))
        found.append((event.step, len(strategies), len(set(strategies.values())), *counts))
    return pd.DataFrame(found, columns=["step", "size", "distinct", "admitted", "merged", "retired"])


# -- parts ------------------------------------------------------------------------------------------------------------


def _library(run: RunDirectory) -> LibraryConfig:
    if run.config.library is None:
        raise ValueError(f"run {run.name} (variant {run.config.variant}) has no library to draw")
    return run.config.library


def _by_split(
    splits: Sequence[str], height: float, everything: pd.DataFrame, environment: EnvironmentSpec
) -> tuple[Figure, list[Axes]]:
    """Make a panel per split, side by side, with n below."""
    figure, panels = style.panels(len(splits), PAGE if len(splits) > 1 else COLUMN, height, sharex=True)
    for axes, split in zip(panels, splits, strict=True):
        played = size(everything[everything["split"] == split], environment)
        xlabel = f"success (%), 95 % interval over {environment.tasks}\n{played}"
        axes.set(title=environment.split_label(split), xlabel=xlabel)
    return figure, panels


def _rate(frame: pd.DataFrame) -> Estimate:
    return success_rate(frame["won"], frame["game"])


def _style(frame: pd.DataFrame, everything: pd.DataFrame) -> tuple[str, str]:
    """Colour and marker of an evaluation: before training, trained with its skills withheld, or its variant's own."""
    first = frame.iloc[0]
    if first["step"] == 0:
        return variants.colour(UNTRAINED), "s"
    trained = everything[(everything["variant"] == first["variant"]) & (everything["step"] > 0)]
    if first["library"] == "none" and (trained["library"] != "none").any():
        return _WITHHELD
    return variants.colour(first["variant"]), "o"
