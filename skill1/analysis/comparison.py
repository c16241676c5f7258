"""Before and after, with and without skills: the evaluations of one run side by side (method section 8).

What training gained is after against before; what the library contributes is the trained policy with its skills
against the same policy with its skills withheld, on the same games.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from skill1.analysis.scores import played_note
from skill1.analysis.wording import worded
from skill1.envs.make import environment_spec
from skill1.envs.spec import EnvironmentSpec
from skill1.evaluate import summarise
from skill1.stats import paired_difference, success_rate, wilson
from skill1.store.evaluation_folder import EvaluationFolder, is_evaluation
from skill1.store.run_directory import RunDirectory, RunError

BEFORE, WITH_LIBRARY, WITHHELD, WITHOUT = (
    "before",
    "after, with library",
    "after, library withheld",
    "after",  # a variant that has no library
)
FIRST_BANK = "after, with the first bank"  # of a skill bank that did not start empty


def stored_arms(paths: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """All stored evaluations of runs and of other models (`evaluate_model`), to be shown beside each other.

    Returns:
        Label -> outcomes (columns of `runs.EVALUATION_SCHEMA`), in the order of `paths`.

    Raises:
        RunError: a path holds neither, a run without evaluations, or two of one name.
    """
    frames: dict[str, pd.DataFrame] = {}
    for path in paths:
        if is_evaluation(path):
            found = {path.name: EvaluationFolder.open(path).outcomes()}
        else:
            stored = RunDirectory.open(path).evaluations("evaluation_*")
            found = {
                f"{path.name}: step {step}, library {library}": frame
                for (step, library), frame in stored.groupby(["step", "library"])
            }
        if not found:
            raise RunError(f"{path} has no evaluations: make them with `skill1 evaluate --out {path}`")
        if twice := frames.keys() & found.keys():
            raise RunError(
                f"{sorted(twice)[0]} is named twice ({path}): evaluations are told apart by their folders' names"
            )
        frames |= found
    return frames


def environment_of(paths: Sequence[Path]) -> EnvironmentSpec:
    """The environment of runs and other evaluations. Raises RunError if they have several."""
    configs = [(EvaluationFolder if is_evaluation(path) else RunDirectory).open(path).config for path in paths]
    found = {config.environment.name: path for config, path in zip(configs, paths, strict=True)}
    if len(found) > 1:
        listed = ", ".join(f"{path} is of {name}" for name, path in found.items())
        raise RunError(f"{listed}: compare evaluations of one environment at a time")
    return environment_spec(*found)


def success_table(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> pd.DataFrame:
    """One row per split and arm that has it: success in percent, n, passes, training seed and both 95 % intervals.

    The seed of a model that was not trained here is "-".
    """
    rows = []
    for split in _splits(frames):
        for label, frame in frames.items():
            part = frame[frame["split"] == split]
            if part.empty:
                continue
            naive = wilson(int(part["won"].sum()), len(part))
            over_games = success_rate(part["won"], part["game"])
            rows.append(
                {
                    "split": split,
                    "evaluation": label,
                    "success %": _points(naive.value),
                    "games": over_games.n,
                    "passes": part["pass"].nunique(),
                    "n": naive.n,
                    "seed": "-" if pd.isna(seed := part["seed"].iloc[0]) else int(seed),
                    "over games, 95 %": _interval(over_games.low, over_games.high),
                    "Wilson, 95 %": _interval(naive.low, naive.high),
                    "steps": round(part["steps"].mean(), 1),
                }
            )
    return worded(pd.DataFrame(rows), environment)


def differences(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Paired differences on the same games, in points, with 95 % interval and permutation p value, per split.

    Trained against untrained, and with the library against withheld, as far as `frames` has both sides.

    Returns:
        Columns split, of, against, points, low, high, p, games.
    """
    pairs = ((WITH_LIBRARY, WITHHELD), (WITH_LIBRARY, BEFORE), (WITHOUT, BEFORE))
    rows = []
    for split in _splits(frames):
        for first, second in pairs:
            if first in frames and second in frames:
                a, b = (_by_game(frames[label], split) for label in (first, second))
                gain = paired_difference(a, b)
                bounds = [_points(x) for x in (gain.value, gain.low, gain.high)]
                rows.append((split, first, second, *bounds, gain.p_value, gain.n))
    return pd.DataFrame(rows, columns=["split", "of", "against", "points", "low", "high", "p", "games"])


def write_summary(path: Path, frames: Mapping[str, pd.DataFrame]) -> Path:
    """Write `summary.json` into the run directory: every arm's rates with intervals, and the differences."""
    run = RunDirectory.open(path)
    summary = {
        "variant": run.config.variant,
        "seed": run.config.train.seed,
        "evaluations": {
            label: {split: summarise(frame[frame["split"] == split]) for split in _splits(frames)}
            for label, frame in frames.items()
        },
        "differences": differences(frames).to_dict("records"),
    }
    file = path / "summary.json"
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(summary, indent=2) + "\n")
    os.replace(partial, file)
    return file


def read_training(run: RunDirectory) -> str:
    """A short reading (Markdown) of a run's training numbers."""
    metrics, validation = run.metrics(), run.evaluations("validation")
    few = max(1, len(metrics) // 10)
    first, last = (100 * part["reward"].mean() for part in (metrics.head(few), metrics.tail(few)))
    size = run.config.rollout.tasks_per_step * run.config.rollout.group_size
    lines = [
        f"* {len(metrics)} of {run.config.train.steps} steps of {size} episodes are done. The first {few} won {first:.1f} % "
        f"of their episodes, the last {few} won {last:.1f} %."
    ]
    if len(validation):
        rates = {step: wilson(int(at["won"].sum()), len(at)) for step, at in validation.groupby("step")}
        start, end = min(rates), max(rates)
        lines.append(
            f"* Validation on {rates[end].n} {environment_spec(run.config.environment.name).tasks}: {_with_interval(rates[start])} at "
            f"step {start}, {_with_interval(rates[end])} at step {end}."
        )
        if ceiling := played_note(run.config.environment, validation["game"]):
            lines.append(f"* {ceiling}")
    if "bank/size" in metrics:
        now = metrics.iloc[-1]
        lines.append(
            f"* The bank holds {now['bank/size']:.0f} entries, {now['bank/evolved']:.0f} of them learnt in training; "
            f"{now['bank/failed_calls']:.0f} of {now['bank/calls']:.0f} calls of the teacher failed."
        )
    if run.config.library is not None:
        now = metrics.iloc[-1]
        shown = 100 * now["selection/selected_share"]
        lines.append(
            f"* The library holds {now['library/size']:.0f} skills; {shown:.0f} % of the last step's episodes were shown one."
        )
        if shown:
            lines.append(
                f"* Mean U in the last step: {now['library/mean_utility']:.2f} over the library, "
                f"{now['selection/utility_retrieved']:.2f} over what was retrieved, "
                f"{now['selection/utility_selected']:.2f} over what was selected; mean NDCG {now['ndcg/mean']:.2f}. "
                "Selection works as far as these rise in that order."
            )
    return "\n".join(lines)


def read_evaluation(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> str:
    """A short reading (Markdown) of the paired differences."""
    lines = []
    for row in differences(frames).itertuples():
        lead = f"* {row.split}: *{row.of}* against *{row.against}*, over {row.games} {environment.tasks}: "
        if row.low == row.high == 0:
            lines.append(f"{lead}no {environment.task} came out differently.")
            continue
        verdict = "zero lies outside" if row.low > 0 or row.high < 0 else "zero lies inside, the two are not told apart"
        interval = f"[{row.low:+.1f}, {row.high:+.1f}]"
        lines.append(f"{lead}{row.points:+.1f} points, 95 % interval {interval}, p = {row.p:.3f}; {verdict}.")
    return "\n".join(lines) or "* One evaluation alone: nothing to compare."


def _splits(frames: Mapping[str, pd.DataFrame]) -> list[str]:
    return list(dict.fromkeys(split for frame in frames.values() for split in frame["split"]))


def _by_game(frame: pd.DataFrame, split: str) -> pd.Series:
    part = frame[frame["split"] == split]
    return part.set_index("game")["won"].astype(float)


def _points(share: float) -> float:
    return round(100 * share, 1)


def _interval(low: float, high: float) -> str:
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def _with_interval(rate: Any) -> str:
    return f"{100 * rate.value:.1f} % {_interval(rate.low, rate.high)}"
