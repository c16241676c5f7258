"""Figures of single runs and evaluations, drawn from what is stored (method section 7).

Learning curves are raw (no smoothing).

Differs from the paper in: "selection precision" (Figure 3a) is shown as all three means of U that it may stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from skill1.analysis.figures.style import (
    VARIANT_COLOURS,
    dots,
    legend,
    lines,
    percent,
    several,
    shades,
    shifts,
    themed,
    whole,
)
from skill1.config import method_of_variant
from skill1.envs.make import environment_spec
from skill1.envs.spec import EnvironmentSpec
from skill1.presets import variants as known_variants
from skill1.stats import Estimate, success_rate, wilson
from skill1.store.journal import Journal
from skill1.store.run_directory import RunDirectory

_BEFORE, _WITHHELD = ("#333333", "s"), ("#56b4e9", "D")  # colour and marker of evaluations that are no variant
_OVERALL = "Overall"


@themed
def learning_curve(runs: Sequence[RunDirectory]) -> Figure:
    """Training reward of every step (thin, raw) and validation success (dots with 95 % intervals).

    Runs of one variant share its colour. A dot is one run's Wilson interval, or, over several seeds, the mean with the
    bootstrap over seeds and games; only steps that all seeds of the variant have validated get one.

    Raises:
        ValueError: no runs.
    """
    if not runs:
        raise ValueError("no runs to draw")
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    games: set[int] = set()
    variants = [v for v in known_variants() if any(run.config.variant == v for run in runs)]
    beside = 0.05 * max(run.config.train.steps for run in runs)  # dots of one step side by side
    for variant, shift in zip(variants, beside * shifts(len(variants)), strict=True):
        own = [run for run in runs if run.config.variant == variant]
        colour = VARIANT_COLOURS[variant]
        for run in own:
            metrics = run.metrics()
            if len(metrics):
                axes.plot(metrics["step"], 100 * metrics["reward"], color=colour, linewidth=0.7, alpha=0.6)
        points = _validation(own)
        games |= {estimate.n for estimate in points.values()}
        seeds = f" ({len(own)} seeds)" if len(own) > 1 else ""
        at = [step + shift for step in points]
        dots(axes, at, list(points.values()), (colour, "o"), variant + seeds, line=True)
    episodes = {run.config.rollout.tasks_per_step * run.config.rollout.group_size for run in runs}
    axes.plot([], [], color="0.4", linewidth=0.7, label=f"training reward, raw ({several(episodes)} episodes a step)")
    tasks = environment_spec(runs[0].config.environment.name).tasks
    validation = f"{several(games)} {tasks}, 95 % interval" if games else "none"
    axes.set(xlabel="training step", ylabel=f"success (%)\nvalidation: {validation}")
    percent(axes.yaxis)
    whole(axes.xaxis)
    legend(figure, axes, columns=2)
    return figure


@themed
def category_dots(
    frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec, published: Mapping[str, float] | None = None
) -> Figure:
    """Success per category and overall, a column per split: dots with 95 % intervals over games.

    Args:
        frames: label -> outcomes (columns of `runs.EVALUATION_SCHEMA`), in the order of drawing.
        published: category or "Overall" -> published success rate in percent, drawn as hollow markers.

    Raises:
        ValueError: no outcomes.
    """
    splits = _splits_of(frames, environment)
    figure = Figure(figsize=(0.6 + 3.3 * len(splits), 4.6), layout="constrained")
    panels = figure.subplots(1, len(splits), squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        parts = {label: frame[frame["split"] == split] for label, frame in frames.items()}
        present = set(pd.concat(parts.values())["category"])
        rows = [_OVERALL, *environment.ordered_categories(present)]
        for (label, part), shift in zip(parts.items(), shifts(len(parts)), strict=True):
            groups = {_OVERALL: part, **dict(tuple(part.groupby("category")))}
            shown = [name for name in rows if name in groups and len(groups[name])]
            estimates = [_rate(groups[name]) for name in shown]
            positions = [rows.index(name) + shift for name in shown]
            dots(axes, positions, estimates, _style(part), label, horizontal=True)
        if published:
            shown = [name for name in rows if name in published]
            axes.plot(
                [published[name] for name in shown],
                [rows.index(name) for name in shown],
                "o",
                markerfacecolor="none",
                markeredgecolor="black",
                label="published",
            )
        reference = next(iter(parts.values()))
        games = {_OVERALL: reference, **dict(tuple(reference.groupby("category")))}
        labels = [f"{name}\nn = {games[name]['game'].nunique()}" if name in games else name for name in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axhline(0.5, color="0.8", linewidth=0.8)
        axes.set(
            xlim=(-3, 103),
            title=environment.split_label(split),
            xlabel=f"success (%), 95 % interval\n{_size(reference, environment)}",
        )
        percent(axes.xaxis)
    legend(figure, panels[0])
    return figure


@themed
def demo_summary(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> Figure:
    """Success before and after training, with and without the library, on every split: dots with 95 % intervals.

    Args:
        frames: label -> outcomes (columns of `runs.EVALUATION_SCHEMA`), in the order of drawing.

    Raises:
        ValueError: no outcomes.
    """
    splits = _splits_of(frames, environment)
    figure = Figure(figsize=(6.0, 1.2 + 1.15 * len(splits)), layout="constrained")
    axes = figure.subplots()
    for (label, frame), shift in zip(frames.items(), shifts(len(frames)), strict=True):
        parts = [frame[frame["split"] == split] for split in splits]
        estimates = [_rate(part) for part in parts]
        positions = [row + shift for row in range(len(splits))]
        dots(axes, positions, estimates, _style(frame), label, horizontal=True, size=7)
        for position, estimate in zip(positions, estimates, strict=True):
            axes.annotate(
                f"{100 * estimate.value:.1f} %",
                (100 * estimate.high, position),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color="0.25",
            )
    reference = next(iter(frames.values()))
    sizes = [f"{environment.split_label(s)}\n{_size(reference[reference['split'] == s], environment)}" for s in splits]
    axes.set_yticks(range(len(splits)), sizes)
    axes.set_ylim(len(splits) - 0.5, -0.5)
    axes.set(xlim=(-3, 112), xlabel=f"success (%), 95 % interval over {environment.tasks}")
    axes.set_xticks(range(0, 101, 20))
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
    colour = VARIANT_COLOURS[run.config.variant]
    left.plot(trace["step"], trace["size"], color=colour, label="skills")
    left.plot(trace["step"], trace["distinct"], color=colour, linestyle="--", label="distinct strategies")
    if trace["size"].max() >= 0.8 * run.config.library.capacity:
        left.axhline(run.config.library.capacity, color="0.6", linewidth=0.8, label="capacity")
    for name, shade, style in zip(("admitted", "merged", "retired"), shades(3), ("-", "--", ":"), strict=True):
        right.plot(trace["step"], trace[name], color=shade, linestyle=style, label=name)
    left.set(xlabel="training step", ylabel="skills in the library")
    episodes = run.config.rollout.tasks_per_step * run.config.rollout.group_size
    right.set(xlabel="training step", ylabel=f"skills per step (of {episodes} episodes)")
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
    episodes = run.config.rollout.tasks_per_step * run.config.rollout.group_size
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharex=True)
    means = {
        "library/mean_utility": "U, whole library",
        "selection/utility_retrieved": "U, retrieved",
        "selection/utility_selected": "U, selected",
        "u_hat": r"$\hat{U}$",
    }
    lines(left, metrics, means)
    left.axhline(run.config.library.initial_utility, color="0.8", linewidth=0.8)
    colour = VARIANT_COLOURS[run.config.variant]
    if "ndcg/mean" in metrics:
        mean, spread = metrics["ndcg/mean"], metrics["ndcg/std"].fillna(0.0)
        middle.fill_between(
            metrics["step"],
            (mean - spread).clip(0, 1),
            (mean + spread).clip(0, 1),
            color=colour,
            alpha=0.2,
            linewidth=0,
            label="one standard deviation",
        )
        middle.plot(metrics["step"], mean, color=colour, label="mean")
    shares = {
        "selection/selected_share": "with a skill",
        "distill_positive_rate": r"$r - \hat{U} > 0$",
        "reward": "won",
    }
    lines(right, metrics, shares)
    left.set(ylabel="mean utility")
    middle.set(ylabel="NDCG of the ranking")
    right.set(ylabel=f"share of episodes (n = {episodes} a step)")
    for axes in (left, middle, right):
        axes.set(xlabel="training step", ylim=(-0.03, 1.03))
        whole(axes.xaxis)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
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
    rows = []
    for event in Journal(run.library_dir / "journal.jsonl").events():
        strategies.update((skill.id, skill.strategy) for skill in event.admitted)
        for skill in event.retired:
            del strategies[skill]
        counts = (len(event.admitted), len(event.merged), len(event.retired))
        rows.append((event.step, len(strategies), len(set(strategies.values())), *counts))
    return pd.DataFrame(rows, columns=["step", "size", "distinct", "admitted", "merged", "retired"])


# -- parts --------------------------------------------------------------------------------------------------------


def _require_library(run: RunDirectory) -> None:
    if run.config.library is None:
        raise ValueError(f"run {run.name} (variant {run.config.variant}) has no library to draw")


def _validation(runs: Sequence[RunDirectory]) -> dict[int, Estimate]:
    """Step -> validation success of the runs of one variant."""
    frames = [run.evaluations("validation") for run in runs]
    steps = set.intersection(*(set(frame["step"]) for frame in frames))
    points = {}
    for step in sorted(steps):
        at = pd.concat([frame[frame["step"] == step] for frame in frames])
        if len(runs) == 1:
            points[step] = wilson(int(at["won"].sum()), len(at))
        else:
            points[step] = success_rate(at["won"], at["game"], at["seed"])
    return points


def _rate(frame: pd.DataFrame) -> Estimate:
    return success_rate(frame["won"], frame["game"])


def _style(frame: pd.DataFrame) -> tuple[str, str]:
    """Colour and marker of an evaluation: before training, trained with its library withheld, or its variant's own."""
    first = frame.iloc[0]
    if first["step"] == 0:
        return _BEFORE
    if first["library"] == "none" and method_of_variant(first["variant"]).keeps_skills:
        return _WITHHELD
    return VARIANT_COLOURS[first["variant"]], "o"


def _splits_of(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> list[str]:
    empty = [label for label, frame in frames.items() if frame.empty]
    if not frames or empty:
        raise ValueError(f"no outcomes to draw: {', '.join(empty) or 'no frames'}")
    return environment.ordered_splits(split for frame in frames.values() for split in frame["split"])


def _size(frame: pd.DataFrame, environment: EnvironmentSpec) -> str:
    passes = frame["pass"].nunique()
    return f"n = {frame['game'].nunique()} {environment.tasks}, {passes} {'pass' if passes == 1 else 'passes'}"
