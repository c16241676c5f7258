"""Graded scores of a run's evaluations beside its success: what WebShop reports besides wins.

The score is 100 times the mean reward. What the policy could have reached is shown with it, where the environment knows:
the share of the evaluated tasks that can be met at all, which on WebShop's small catalogue is 93.4 % of all goals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from skill1.analysis.wording import worded
from skill1.config import EnvironmentConfig
from skill1.envs.base import DataError
from skill1.envs.make import environment_spec
from skill1.envs.spec import Ceiling, EnvironmentSpec
from skill1.stats import bootstrap_mean
from skill1.store.run_directory import RunDirectory


def score_table(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> pd.DataFrame:
    """One row per split and evaluation: score and success, both in percent, with the score's 95 % interval over goals.

    Args:
        frames: label -> outcomes (columns of `runs.EVALUATION_SCHEMA`).
    """
    rows = []
    for label, frame in frames.items():
        for split, part in frame.groupby("split", sort=False):
            estimate = bootstrap_mean(part["score"], part["game"])
            rows.append(
                {
                    "split": split,
                    "evaluation": label,
                    "score": round(100 * estimate.value, 1),
                    "over games, 95 %": f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}",
                    "success %": round(100 * part["won"].mean(), 1),
                    "games": part["game"].nunique(),
                    "passes": part["pass"].nunique(),
                }
            )
    return worded(pd.DataFrame(rows).sort_values("split", kind="stable", ignore_index=True), environment)


def ceiling_note(run: Path, frames: Mapping[str, pd.DataFrame]) -> str:
    """How many of the tasks evaluated in a run can be met at all, as a sentence; "" where the environment cannot say.

    Raises DataError if the run's data is not there any more, or is another one.
    """
    config = RunDirectory.open(run).config.environment
    spec = environment_spec(config.name)
    if spec.ceiling is None:
        return ""
    games = {game for frame in frames.values() for game in frame["game"]}
    return f"Ceiling: {in_words(spec.ceiling(config, games), spec)}"


def played_note(config: EnvironmentConfig, games: Iterable[str]) -> str:
    """`ceiling_note` of the tasks that training episodes played, by their ids.

    What is read of a run alone must not need its data: the sentence says so where that is not there any more.
    """
    spec = environment_spec(config.name)
    if spec.ceiling is None:
        return ""
    try:
        return f"Ceiling: {in_words(spec.ceiling(config, games), spec, 'played')}"
    except DataError as error:
        return f"Ceiling: not known without the data that was played ({error})."


def in_words(found: Ceiling, environment: EnvironmentSpec, done: str = "evaluated") -> str:
    """A ceiling as the rest of a sentence; `done`: what happened to the tasks."""
    return (
        f"{found.reachable} of the {found.goals} {environment.tasks} {done} ({100 * found.share:.1f} %) can reach a "
        "score of 1.0."
    )
