"""What selection is worth: arms in which a run's library shows other candidates first, as `select_study` plays them. Ours.

Arms differ in what finds the candidates (the policy's query or the task's sentence), in the similarity below which none is
found, and in which candidate comes first:

    policy      as the policy ranks them
    similarity  the most similar to what was asked
    utility     the highest U
    count       the largest n
    random      any of them
    oracle      one that is right in this task, in a nano world, which knows; where none is, as retrieved
    none        no skill is shown

Ties stay as retrieved. Reading what was played needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from skill1.errors import RunError
from skill1.stats import Estimate, bootstrap_mean, difference_over_seeds, paired_difference, seed_difference
from skill1.store.run_directory import RunDirectory

Order = Literal["policy", "similarity", "utility", "count", "random", "oracle", "none"]
Key = Literal["query", "task"]
Floor = Literal["run", "none"]
ORDERS: tuple[Order, ...] = get_args(Order)
KEYS: tuple[Key, ...] = get_args(Key)
FLOORS: tuple[Floor, ...] = get_args(Floor)
FOLDER = "selection"
_ARM = ["order", "key", "floor"]


@dataclass(frozen=True, slots=True)
class Arm:
    """How candidates are found and which of them is shown."""

    order: Order = "policy"
    key: Key = "query"
    floor: Floor = "run"  # its own similarity floor, or none

    @property
    def name(self) -> str:
        return f"{self.order}-{self.key}-{self.floor}"


OWN = Arm()  # what the run itself does


def read(run: RunDirectory) -> pd.DataFrame:
    """Read all arms that were played with a run.

    Returns:
        One row per arm, step, split, game and pass: the columns of `outcomes.EVALUATION_SCHEMA`, order, key, floor, right
        (whether what was shown is right in the task) and offered (whether any candidate was); the last two are nan where
        nobody knows. Empty if none was played.
    """
    files = sorted((run.path / FOLDER).glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True) if files else pd.DataFrame()


def latest(frame: pd.DataFrame) -> pd.DataFrame:
    """Take the last step of `read`'s frame, and of its splits the one with the most arms."""
    last = frame[frame["step"] == frame["step"].max()]
    return last[last["split"] == last.groupby("split")["library"].nunique().idxmax()]


def open_seeds(paths: Sequence[Path]) -> list[RunDirectory]:
    """Open runs that are compared together. Raises RunError for two of one seed, besides `RunDirectory.open`'s."""
    opened: dict[int, RunDirectory] = {}
    for run in map(RunDirectory.open, paths):
        if (other := opened.setdefault(run.config.train.seed, run)) is not run:
            raise RunError(
                f"{other.path} and {run.path} both have seed {run.config.train.seed}: name runs of one seed each"
            )
    return list(opened.values())


def played(runs: Sequence[RunDirectory]) -> pd.DataFrame:
    """Join what `open_seeds` of runs played last: `latest` of each; empty if none played."""
    return pd.concat([latest(frame) for frame in map(read, runs) if len(frame)] or [pd.DataFrame()], ignore_index=True)


def compare(frame: pd.DataFrame) -> pd.DataFrame:
    """Compare the arms with what the run does.

    Args:
        frame: `read`'s, of one step and split; of several `open_seeds`.

    Returns:
        By order, key and floor: n (episodes), success, low, high (95 %, over games, and over runs where there are several),
        difference, difference_low, difference_high, p (to the run's own order, query and floor, paired by game, of several
        runs by run; nan without that arm), right, offered.
    """
    several = frame["seed"].nunique() > 1
    games = frame.assign(unit=frame["seed"].astype(str) + "/" + frame["game"], won=frame["won"].astype(float))
    by_arm = {Arm(*key): part for key, part in games.groupby(_ARM)}  # type: ignore[arg-type]
    own = by_arm.get(OWN)
    rows = []
    for arm in [Arm(*key) for key in product(ORDERS, KEYS, FLOORS) if Arm(*key) in by_arm]:
        part = by_arm[arm]
        rate = bootstrap_mean(part["won"], part["unit"], part["seed"] if several else None)
        row: dict[str, Any] = asdict(arm) | {
            "n": len(part), "success": rate.value, "low": rate.low, "high": rate.high,
            "right": part["right"].mean(), "offered": part["offered"].mean(),
        }  # fmt: skip
        if own is not None and arm != OWN:
            gap = (_over_runs if several else _over_games)(part, own)
            row |= {
                "difference": gap.value, "difference_low": gap.low, "difference_high": gap.high, "p": gap.p_value,
            }  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows).set_index(_ARM)


def _over_games(part: pd.DataFrame, own: pd.DataFrame) -> Estimate:
    return paired_difference(part.set_index("unit")["won"], own.set_index("unit")["won"])


def _over_runs(part: pd.DataFrame, own: pd.DataFrame) -> Estimate:
    sides = [arm.groupby(["seed", "unit"])["won"].mean().unstack() for arm in (part, own)]
    test = seed_difference(*(side.mean(axis=1) for side in sides), paired=True)
    return replace(difference_over_seeds(*sides), p_value=test.p_value)
