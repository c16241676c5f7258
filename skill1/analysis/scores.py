"""Graded scores beside success, where an environment also counts what is right in part, and the ceiling of its tasks.

The score is 100 times the mean reward. What a policy could have reached is shown with it: the share of the tasks that can
be met at all, which on WebShop's original small catalogue is 93.4 % of its goals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from skill1.analysis.study import Study
from skill1.analysis.tables import display_table, with_interval
from skill1.config import EnvironmentConfig
from skill1.envs.base import DataError
from skill1.envs.make import environment_spec
from skill1.envs.spec import Ceiling, EnvironmentSpec
from skill1.stats import bootstrap_mean
from skill1.store.run_directory import RunDirectory


def score_table(frames: Mapping[str, pd.DataFrame], environment: EnvironmentSpec) -> pd.DataFrame:
    """Format scores and success of evaluations for display, in percent, the score's 95 % interval over tasks.

    Args:
        frames: label -> outcomes (columns of `run_directory.EVALUATION_SCHEMA`).
    """
    parts = [(split, label, part) for label, frame in frames.items() for split, part in frame.groupby("split")]
    tidy = pd.DataFrame(parts, columns=["split", "evaluation", "outcomes"]).sort_values("split", kind="stable")
    tidy["estimate"] = [bootstrap_mean(part["score"], part["game"]) for part in tidy["outcomes"]]
    cells = {
        f"score, 95 % over {environment.tasks}": lambda row: with_interval(
            *(100 * bound for bound in (row.estimate.value, row.estimate.low, row.estimate.high))
        ),
        "success %": lambda row: round(100 * row.outcomes["won"].mean(), 1),
        environment.tasks: lambda row: row.outcomes["game"].nunique(),
        "passes": lambda row: row.outcomes["pass"].nunique(),
    }
    return display_table(tidy, ["split", "evaluation"], cells)


def study_ceiling_note(study: Study) -> str:
    """Say how many of the evaluated tasks of a study can be met at all, as Markdown, a line per split."""
    tasks = study.environment.tasks
    return "\n".join(f"* Ceiling, {split}: {_in_words(found, tasks)}" for split, found in study.ceilings.items())


def ceiling_note(run: Path, frames: Mapping[str, pd.DataFrame]) -> str:
    """Say how many of the tasks evaluated in a run can be met at all; "" where the environment has no ceiling.

    Raises DataError if the run's data is not there any more, or is other data.
    """
    config = RunDirectory.open(run).config.environment
    spec = environment_spec(config.name)
    if spec.ceiling is None:
        return ""
    games = {game for frame in frames.values() for game in frame["game"]}
    return f"Ceiling: {_in_words(spec.ceiling(config, games), spec.tasks)}"


def played_note(config: EnvironmentConfig, games: Iterable[str]) -> str:
    """`ceiling_note` of the tasks that training episodes played, by their ids.

    What is read of a run alone must not need its data: the sentence says so where that is not there any more.
    """
    spec = environment_spec(config.name)
    if spec.ceiling is None:
        return ""
    try:
        return f"Ceiling: {_in_words(spec.ceiling(config, games), spec.tasks, 'played')}"
    except DataError as error:
        return f"Ceiling: not known without the data that was played on ({error})."


def _in_words(found: Ceiling, tasks: str, done: str = "evaluated") -> str:
    return (
        f"{found.reachable} of the {found.goals} {tasks} {done} ({100 * found.share:.1f} %) can reach a score of 1.0."
    )
