"""What lies in a folder of results: one row per run and per evaluation of another model, with its success."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from skill1.analysis.tables import with_interval
from skill1.config import Config
from skill1.envs.make import environment_spec
from skill1.stats import success_rate
from skill1.store.find import find_evaluations, find_runs
from skill1.store.run_directory import RunDirectory

COLUMNS = ("path", "preset", "variant", "seed", "steps", "of", "split", "success", "low", "high", "games", "passes")


def list_results(folder: Path) -> pd.DataFrame:
    """List the runs and evaluations in `folder`, at any depth; runs first, the one that was worked on last on top.

    Returns:
        Columns COLUMNS. `success` (0 to 1, with its 95 % interval over games) is that of the last evaluated step, with
        the library where there is one, on the first split evaluated; empty before there is one, as are `steps` of what
        was not trained here.
    """
    rows = [_run(run) for run in find_runs(folder)]
    rows += [_row(found.path, found.config, found.outcomes(), "") for found in find_evaluations(folder)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _run(run: RunDirectory) -> dict[str, Any]:
    outcomes = run.evaluations("evaluation_*")
    last = outcomes[outcomes["step"] == outcomes["step"].max()]
    shown = last[last["library"] != "none"]
    about = {"seed": run.config.train.seed, "steps": len(run.metrics()), "of": run.config.train.steps}
    return _row(run.path, run.config, last if shown.empty else shown, run.config.variant) | about


def _row(path: Path, config: Config, outcomes: pd.DataFrame, variant: str) -> dict[str, Any]:
    row: dict[str, Any] = {"path": str(path), "preset": config.preset, "variant": variant}
    splits = environment_spec(config.environment.name).ordered_splits(outcomes["split"])
    if not splits:
        return row
    played = outcomes[outcomes["split"] == splits[0]]
    rate = success_rate(played["won"], played["game"])
    bounds = {"success": rate.value, "low": rate.low, "high": rate.high}
    return row | bounds | {"split": splits[0], "games": rate.n, "passes": played["pass"].nunique()}


def to_text(table: pd.DataFrame) -> str:
    """Format `list_results` for a terminal."""
    shown = table[["path", "preset", "variant"]].copy()
    shown["seed"] = table["seed"].map("{:.0f}".format, na_action="ignore")
    shown["steps"] = [f"{a:.0f} of {b:.0f}" if a == a else "" for a, b in zip(table["steps"], table["of"], strict=True)]
    shown["split"] = table["split"]
    shown["success %"] = [with_interval(*span) for span in 100 * table[["success", "low", "high"]].to_numpy(float)]
    shown["n"] = [f"{row.games:.0f} x {row.passes:.0f}" if row.games == row.games else "" for row in table.itertuples()]
    return shown.fillna("").to_string(index=False)
