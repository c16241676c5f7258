"""Graded scores of a run's evaluations beside its success: the other half of WebShop's results (method section 8).

The score is 100 times the mean reward. What the policy could have reached is shown with it: the share of the evaluated
goals that can be met at all (`envs.webshop.ceiling`), which on the original's small catalogue is 93.4 % of all goals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from skill1.analysis.wording import task_word, worded
from skill1.config import EnvironmentConfig
from skill1.envs.base import DataError
from skill1.envs.webshop.ceiling import Ceiling, ceiling
from skill1.envs.webshop.environment import open_webshop
from skill1.stats import bootstrap_mean
from skill1.store.run_directory import RunDirectory


def is_graded(run: Path) -> bool:
    """Whether the run's environment grades what was not won; elsewhere a score says what success says."""
    return RunDirectory.open(run).config.environment.name == "webshop"


def score_table(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
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
    return worded(pd.DataFrame(rows).sort_values("split", kind="stable", ignore_index=True), task_word("webshop"))


def ceiling_note(run: Path, frames: Mapping[str, pd.DataFrame]) -> str:
    """How many of the goals evaluated in a run in WebShop can be met at all, as a sentence.

    Raises DataError if the run's shop is not there any more, or is another one.
    """
    games = {game for frame in frames.values() for game in frame["game"]}
    return f"Ceiling: {in_words(ceiling_of(RunDirectory.open(run).config.environment, games))}"


def played_note(config: EnvironmentConfig, games: Iterable[str]) -> str:
    """`ceiling_note` of the goals that training episodes played, by the ids of their tasks; "" outside WebShop.

    What is read of a run alone must not need its shop: the sentence says so where that is not there any more.
    """
    if config.name != "webshop":
        return ""
    try:
        return f"Ceiling: {in_words(ceiling_of(config, games), 'played')}"
    except DataError as error:
        return f"Ceiling: not known without the shop that was played in ({error})."


def ceiling_of(config: EnvironmentConfig, games: Iterable[str]) -> Ceiling:
    """How many of some goals of WebShop, named by the ids of their tasks, can be met at all.

    Raises DataError if the configured shop is not there, or is another one.
    """
    environment = open_webshop(config)
    return ceiling(environment.shop, [environment.number(game) for game in sorted(set(games))])


def in_words(found: Ceiling, done: str = "evaluated") -> str:
    """A ceiling as the rest of a sentence; `done`: what happened to the goals."""
    return (
        f"{found.reachable} of the {found.goals} goals {done} ({100 * found.share:.1f} %) can reach a score of 1.0 "
        "with their own product."
    )
