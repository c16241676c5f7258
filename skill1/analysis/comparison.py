"""Before and after, with and without skills: the evaluations of one run side by side.

What training gained is after against before; what the library contributes is the trained policy with its skills
against the same policy with its skills withheld, on the same games.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from skill1.analysis.tables import display_table, interval, p_text, p_value, plural, with_interval
from skill1.envs.make import environment_spec
from skill1.envs.spec import EnvironmentSpec
from skill1.errors import RunError
from skill1.stats import bootstrap_mean, paired_difference, success_rate, summarise, wilson
from skill1.store.evaluation_folder import EvaluationFolder, is_evaluation
from skill1.store.json_file import write_json
from skill1.store.run_directory import RunDirectory

BEFORE, WITH_LIBRARY, WITHHELD, WITHOUT = (
    "before",
    "after, with library",
    "after, library withheld",
    "after",  # a variant that has no library
)
FIRST_BANK = "after, with the first bank"  # of a skill bank that did not start empty


def stored_arms(paths: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Read all stored evaluations of runs and of other models (`evaluate_model`), to be shown beside each other.

    Returns:
        Label -> outcomes (columns of `outcomes.EVALUATION_SCHEMA`), in the order of `paths`. A label begins with
        the path below the folder that all have in common.

    Raises:
        RunError: a path is given twice, or holds neither, or is a run without evaluations.
    """
    frames: dict[str, pd.DataFrame] = {}
    for name, path in _names(paths).items():
        if is_evaluation(path):
            found = {name: EvaluationFolder.open(path).outcomes()}
        else:
            stored = RunDirectory.open(path).evaluations("evaluation_*")
            found = {
                f"{name}: step {step}, library {library}": frame
                for (step, library), frame in stored.groupby(["step", "library"])
            }
        if not found:
            raise RunError(f"{path} has no evaluations: make them with `skill1 evaluate --out {path}`")
        frames |= found
    return frames


def environment_of(paths: Sequence[Path]) -> EnvironmentSpec:
    """Find the environment of runs and other evaluations. Raises RunError if they have several."""
    configs = [(EvaluationFolder if is_evaluation(path) else RunDirectory).open(path).config for path in paths]
    found = {config.environment.name: path for config, path in zip(configs, paths, strict=True)}
    if len(found) > 1:
        listed = ", ".join(f"{path} is of {name}" for name, path in found.items())
        raise RunError(f"{listed}: compare evaluations of one environment at a time")
    return environment_spec(*found)


def success_table(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> pd.DataFrame:
    """Format evaluations for display, a row per split and arm that has it, success in percent with both 95 % intervals.

    Where the environment is graded also the score: 100 times the mean reward, with its 95 % interval over tasks. The
    seed of a model that was not trained here is "-".
    """
    parts = [
        (split, label, part)
        for split in _splits(frames)
        for label, frame in frames.items()
        if len(part := frame[frame["split"] == split])
    ]
    tidy, tasks = pd.DataFrame(parts, columns=["split", "evaluation", "outcomes"]), environment.tasks
    tidy["naive"] = [wilson(int(part["won"].sum()), len(part)) for part in tidy["outcomes"]]
    tidy["clustered"] = [success_rate(part["won"], part["game"]) for part in tidy["outcomes"]]
    cells: dict[str, Callable[[Any], Any]] = {
        "success %": lambda row: round(100 * row.naive.value, 1),
        tasks: lambda row: row.clustered.n,
        "passes": lambda row: row.outcomes["pass"].nunique(),
        "n": lambda row: row.naive.n,
        "seed": lambda row: "-" if pd.isna(seed := row.outcomes["seed"].iloc[0]) else int(seed),
        f"over {tasks}, 95 %": lambda row: interval(100 * row.clustered.low, 100 * row.clustered.high, ".1f"),
        "Wilson, 95 %": lambda row: interval(100 * row.naive.low, 100 * row.naive.high, ".1f"),
        "steps": lambda row: round(row.outcomes["steps"].mean(), 1),
    }
    if environment.graded:
        tidy["score"] = [bootstrap_mean(100 * part["score"], part["game"]) for part in tidy["outcomes"]]
        cells[f"score, 95 % over {tasks}"] = lambda row: with_interval(row.score.value, row.score.low, row.score.high)
    return display_table(tidy, ["split", "evaluation"], cells).reset_index()


def differences(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Compute paired differences on the same games, in points, with 95 % interval and permutation p value, per split.

    Trained against untrained, and with the library against withheld, as far as `frames` has both sides.

    Returns:
        Columns split, of, against, points, low, high, p, games, passes.
    """
    pairs = ((WITH_LIBRARY, WITHHELD), (WITH_LIBRARY, BEFORE), (WITHOUT, BEFORE))
    rows = []
    for split in _splits(frames):
        for first, second in pairs:
            if first in frames and second in frames:
                a, b = (frame[frame["split"] == split] for frame in (frames[first], frames[second]))
                gain = paired_difference(*(part.set_index("game")["won"].astype(float) for part in (a, b)))
                bounds = [round(100 * x, 1) for x in (gain.value, gain.low, gain.high)]
                rows.append((split, first, second, *bounds, gain.p_value, gain.n, a["pass"].nunique()))
    return pd.DataFrame(rows, columns=["split", "of", "against", "points", "low", "high", "p", "games", "passes"])


def difference_table(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> pd.DataFrame:
    """Format `differences` for display."""
    cells = {
        "points": lambda row: with_interval(row.points, row.low, row.high, "+.1f"),
        "p": lambda row: p_value(row.p),
        environment.tasks: lambda row: row.games,
        "passes": lambda row: row.passes,
    }
    return display_table(differences(frames), ["split", "of", "against"], cells)


def write_summary(path: Path, frames: Mapping[str, pd.DataFrame], folder: Path) -> Path:
    """Write `summary.json` of the run at `path` into `folder`: every arm's rates with intervals, and the differences."""
    run = RunDirectory.open(path)
    found = {
        "variant": run.config.variant,
        "seed": run.config.train.seed,
        "evaluations": {
            label: {split: summarise(frame[frame["split"] == split]) for split in _splits(frames)}
            for label, frame in frames.items()
        },
        "differences": differences(frames).to_dict("records"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "summary.json"
    write_json(file, found)
    return file


def summary(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> str:
    """Say per split, in a sentence of Markdown, what training gained (without a step 0, what the library adds)."""
    table = differences(frames)
    if (table["against"] == BEFORE).any():
        table = table[table["against"] == BEFORE]
    lines = [
        f"* {row.split}: *{row.of}* against *{row.against}* "
        f"{with_interval(row.points, row.low, row.high, '+.1f')} points, {p_text(row.p)} "
        f"(n = {row.games} {environment.tasks}, {plural(row.passes, 'pass', 'passes')}, one training seed)."
        for row in table.itertuples()
    ]
    return "\n".join(lines) or "* One evaluation alone: nothing to compare."


def training_summary(run: RunDirectory) -> str:
    """Say in two sentences of Markdown what a run won while it trained, and on validation."""
    metrics, validation = run.metrics(), run.evaluations("validation")
    few = max(1, len(metrics) // 10)
    first, last = (100 * part["reward"].mean() for part in (metrics.head(few), metrics.tail(few)))
    size = run.config.rollout.episodes
    lines = [
        f"* {len(metrics)} of {run.config.train.steps} steps of {size} episodes are done: the first {few} won "
        f"{first:.1f} % of their episodes, the last {few} won {last:.1f} %."
    ]
    if len(validation):
        found = []
        for step in (validation["step"].min(), validation["step"].max()):
            won = validation.loc[validation["step"] == step, "won"]
            rate = wilson(int(won.sum()), len(won))
            found.append(f"{100 * rate.value:.1f} % {interval(100 * rate.low, 100 * rate.high, '.1f')} at step {step}")
        tasks = environment_spec(run.config.environment.name).tasks
        lines.append(f"* Validation on {rate.n} {tasks}: {', '.join(found)}.")
    return "\n".join(lines)


def _splits(frames: Mapping[str, pd.DataFrame]) -> list[str]:
    return list(dict.fromkeys(split for frame in frames.values() for split in frame["split"]))


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """Paths by what follows the folder that they have in common. Raises RunError if one is given twice."""
    whole = [path.resolve() for path in paths]
    if twice := [path for path in dict.fromkeys(whole) if whole.count(path) > 1]:
        raise RunError(f"{twice[0]} is given twice")
    common = os.path.commonpath([path.parent for path in whole])
    return {path.relative_to(common).as_posix(): given for path, given in zip(whole, paths, strict=True)}
