"""Figures of single runs and evaluations, drawn from what is stored. Learning curves are raw (no smoothing).

Differs from the paper in: "selection precision" (Figure 3a) is shown as all three means of U that it may stand for.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from skill1.analysis import variants
from skill1.analysis.figures.style import (
    dots,
    legend,
    lines,
    percent,
    rows,
    several,
    shades,
    shifts,
    themed,
    whole,
)
from skill1.analysis.tables import plural
from skill1.analysis.variants import UNTRAINED
from skill1.envs.make import environment_spec
from skill1.envs.spec import EnvironmentSpec
from skill1.stats import Estimate, success_rate, wilson
from skill1.store.journal import Journal
from skill1.store.run_directory import RunDirectory

_WITHHELD = ("#56b4e9", "D")  # colour and marker of a trained policy whose skills are withheld
_OVERALL = "Overall"


@themed
def learning_curve(run: RunDirectory) -> Figure:
    """Training reward of every step (thin, raw) and validation success (dots with Wilson's 95 % intervals)."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    metrics, validation = run.metrics(), run.evaluations("validation")
    colour = variants.colour(run.config.variant)
    if len(metrics):
        label = f"training reward, raw, n = {run.config.rollout.episodes} episodes a step"
        axes.plot(metrics["step"], 100 * metrics["reward"], color=colour, linewidth=0.7, alpha=0.6, label=label)
    if len(validation):
        points = {step: wilson(int(at["won"].sum()), len(at)) for step, at in validation.groupby("step")}
        tasks = environment_spec(run.config.environment.name).tasks
        label = f"{variants.label(run.config.variant)}: validation, {several(e.n for e in points.values())} {tasks}"
        dots(axes, list(points), list(points.values()), (colour, "o"), label, line=True)
    axes.set(xlabel="training step", ylabel="success (%), 95 % interval")
    percent(axes.yaxis)
    whole(axes.xaxis)
    if len(metrics) or len(validation):
        legend(figure, axes, columns=1)
    return figure


@themed
def category_dots(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> Figure:
    """Success per category and overall, a column per split: dots with 95 % intervals over games.

    Args:
        frames: label -> outcomes (columns of `run_directory.EVALUATION_SCHEMA`), in the order of drawing.

    Raises:
        ValueError: no outcomes.
    """
    splits = environment.ordered_splits(_played(frames)["split"])
    figure = Figure(figsize=(0.6 + 3.3 * len(splits), 4.6), layout="constrained")
    panels = figure.subplots(1, len(splits), squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        parts = {label: frame[frame["split"] == split] for label, frame in frames.items()}
        whole_split = pd.concat(parts.values())
        names = [_OVERALL, *environment.ordered_categories(whole_split["category"])]
        for (label, part), shift in zip(parts.items(), shifts(len(parts)), strict=True):
            groups = {_OVERALL: part, **dict(tuple(part.groupby("category")))}
            shown = [name for name in names if name in groups and len(groups[name])]
            positions = [names.index(name) + shift for name in shown]
            estimates = [_rate(groups[name]) for name in shown]
            dots(axes, positions, estimates, _style(frames[label], frames), label, horizontal=True)
        games = {_OVERALL: whole_split, **dict(tuple(whole_split.groupby("category")))}
        rows(axes, [f"{name}\nn = {games[name]['game'].nunique()}" for name in names])
        axes.axhline(0.5, color="0.8", linewidth=0.8)
        size = _size(next(iter(parts.values())), environment)
        axes.set(title=environment.split_label(split), xlabel=f"success (%), 95 % interval\n{size}")
        percent(axes.xaxis)
    legend(figure, panels[0])
    return figure


@themed
def demo_summary(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> Figure:
    """Success before and after training, with and without the library, on every split: dots with 95 % intervals.

    Args:
        frames: label -> outcomes (columns of `run_directory.EVALUATION_SCHEMA`), in the order of drawing.

    Raises:
        ValueError: no outcomes.
    """
    splits = environment.ordered_splits(_played(frames)["split"])
    figure = Figure(figsize=(6.0, 1.2 + 1.15 * len(splits)), layout="constrained")
    axes = figure.subplots()
    for (label, frame), shift in zip(frames.items(), shifts(len(frames)), strict=True):
        parts = [frame[frame["split"] == split] for split in splits]
        estimates = [_rate(part) for part in parts]
        positions = [row + shift for row in range(len(splits))]
        dots(axes, positions, estimates, _style(frame, frames), label, horizontal=True, size=7)
        for position, estimate in zip(positions, estimates, strict=True):
            axes.annotate(
                f"{100 * estimate.value:.1f} %",
                (100 * estimate.high, position),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color="0.25",
                annotation_clip=False,
            )
    reference = next(iter(frames.values()))
    sizes = {split: _size(reference[reference["split"] == split], environment) for split in splits}
    rows(axes, [f"{environment.split_label(split)}\n{sizes[split]}" for split in splits])
    percent(axes.xaxis)
    axes.set(xlabel=f"success (%), 95 % interval over {environment.tasks}")
    legend(figure, axes)
    return figure


@themed
def library_growth(run: RunDirectory) -> Figure:
    """The library's size and its distinct strategies, and what every step admitted, merged and retired.

    Raises:
        ValueError: the run has no library.
        LibraryError: it has not trained a step yet, or its journal is damaged.
    """
    trace = library_trace(run)
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    colour = variants.colour(run.config.variant)
    left.plot(trace["step"], trace["size"], color=colour, label="skills")
    left.plot(trace["step"], trace["distinct"], color=colour, linestyle="--", label="distinct strategies")
    if trace["size"].max() >= 0.8 * run.config.library.capacity:
        left.axhline(run.config.library.capacity, color="0.6", linewidth=0.8, label="capacity")
    changed = {name: name for name in ("admitted", "merged", "retired") if trace[name].any()}
    lines(right, trace, changed)
    left.set(xlabel="training step", ylabel="skills in the library")
    right.set(xlabel="training step", ylabel=f"skills per step (of {run.config.rollout.episodes} episodes)")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        whole(axes.xaxis)
        whole(axes.yaxis)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


@themed
def utilities(run: RunDirectory) -> Figure:
    """What the two signals of the outcome do: utilities and U_hat, NDCG, and the shares that feed distillation.

    Raises:
        ValueError: the run has no library.
    """
    _require_library(run)
    metrics = run.metrics()
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharex=True)
    means = {
        "library/mean_utility": "whole library",
        "selection/utility_retrieved": "retrieved",
        "selection/utility_selected": "selected",
        "u_hat": r"$\hat{U}$",
    }
    lines(left, metrics, means)
    left.axhline(run.config.library.initial_utility, color="0.8", linewidth=0.8)
    [shade] = shades(1)
    if "ndcg/mean" in metrics:
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
    lines(right, metrics, shares)
    left.set(title="mean utility of skills", ylim=(-0.03, 1.03))
    middle.set(title="NDCG of the ranking")
    right.set(title=f"share of episodes (n = {run.config.rollout.episodes} a step)", ylim=(-0.03, 1.03))
    for axes in (left, middle, right):
        axes.set(xlabel="training step")
        whole(axes.xaxis)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


def library_trace(run: RunDirectory) -> pd.DataFrame:
    """The library after every step, from the run's journal.

    Returns:
        Columns step, size, distinct (different strategies among the skills), admitted, merged, retired (in the step).

    Raises:
        ValueError: the run has no library.
        LibraryError: it has not trained a step yet, or its journal is damaged.
    """
    _require_library(run)
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


def _require_library(run: RunDirectory) -> None:
    if run.config.library is None:
        raise ValueError(f"run {run.name} (variant {run.config.variant}) has no library to draw")


def _rate(frame: pd.DataFrame) -> Estimate:
    return success_rate(frame["won"], frame["game"])


def _style(frame: pd.DataFrame, frames: Mapping[str, pd.DataFrame]) -> tuple[str, str]:
    """Colour and marker of an evaluation: before training, trained with its skills withheld, or its variant's own."""
    first = frame.iloc[0]
    if first["step"] == 0:
        return variants.colour(UNTRAINED), "s"
    others = pd.concat(frames.values())
    trained = others[(others["variant"] == first["variant"]) & (others["step"] > 0)]
    if first["library"] == "none" and (trained["library"] != "none").any():
        return _WITHHELD
    return variants.colour(first["variant"]), "o"


def _played(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """All outcomes. Raises ValueError if there are none."""
    empty = [label for label, frame in frames.items() if frame.empty]
    if not frames or empty:
        raise ValueError(f"no outcomes to draw: {', '.join(empty) or 'no frames'}")
    return pd.concat(frames.values())


def _size(frame: pd.DataFrame, environment: EnvironmentSpec) -> str:
    games = plural(frame["game"].nunique(), environment.task, environment.tasks)
    return f"n = {games}, {plural(frame['pass'].nunique(), 'pass', 'passes')}"
