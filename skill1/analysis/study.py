"""A collected study: the runs of a sweep as files small enough to be committed (`skill1.running.collect` writes them).

    evaluations.parquet   one row per variant, seed, step, split, game, pass and library
    metrics.parquet       one row per variant, seed and training step
    manifest.json         what was asked, what is there, and what each run depends on and cost
    skills.parquet        one row per skill that a run held at its end; studies collected before it existed have none

Analyses read these alone, so they work without the run directories.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from skill1.analysis import variants
from skill1.analysis.published import published
from skill1.analysis.tables import plural
from skill1.envs.make import environment_spec
from skill1.envs.spec import Ceiling, EnvironmentSpec
from skill1.errors import RunError
from skill1.store.json_file import DamagedFile, read_json
from skill1.store.outcomes import EVALUATION_SCHEMA

SWEEP = "sweep.json"  # what a sweep was asked for (skill1.running.sweep)
SEED = "{seed}"  # stands for a run's seed in the games folder of a study whose world varies with it
FORMAT = 1  # of the three files; raise when what they hold changes
FILES = ("evaluations.parquet", "metrics.parquet", "manifest.json")
SKILLS_FILE = "skills.parquet"
EVALUATIONS = pa.schema([field for field in EVALUATION_SCHEMA if field.name != "inadmissible_actions"])
METRIC_KEYS = pa.schema([EVALUATION_SCHEMA.field(name) for name in ("variant", "seed", "step")])
SKILLS = pa.schema(
    [
        *METRIC_KEYS.remove(2),
        *((name, pa.string()) for name in ("encoder", "skill", "desc", "strategy")),
        ("utility", pa.float64()),
        ("count", pa.int64()),
    ]
)
_MANIFEST = FILES[2]


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A collected study."""

    path: Path
    evaluations: pd.DataFrame  # columns of EVALUATIONS; step 0 = before training, library "none" = withheld or without
    metrics: pd.DataFrame  # variant, seed, step, then every logged metric; NaN where a step or variant has none
    manifest: Mapping[str, Any]
    skills: pd.DataFrame  # columns of SKILLS

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def environment(self) -> EnvironmentSpec:
        """What was played; a study that does not say it was collected before there were others than ALFWorld.

        Raises ConfigError where this environment is not installed.
        """
        return environment_spec(self.manifest.get("benchmark", "alfworld"))

    @property
    def ceilings(self) -> dict[str, Ceiling]:
        """Split -> how many of its evaluated tasks can be met at all; empty where nothing is graded."""
        return {split: Ceiling(**counts) for split, counts in self.manifest.get("ceiling", {}).items()}

    @property
    def variants(self) -> list[str]:
        """Those with a finished run, in the order of tables and figures."""
        return variants.order(run["variant"] for run in self.manifest["runs"])

    @property
    def splits(self) -> list[str]:
        """The evaluated splits, in the environment's order."""
        return self.environment.ordered_splits(self.evaluations["split"].unique())

    @property
    def own_worlds(self) -> bool:
        """Whether every seed played games of its own world: their names begin with the seed."""
        return SEED in (self.manifest.get("data") or "")

    def seeds(self, variant: str) -> list[int]:
        """List the seeds whose run of that variant is in the tables."""
        return [run["seed"] for run in self.manifest["runs"] if run["variant"] == variant]

    @property
    def missing(self) -> dict[str, list[int]]:
        """Variant -> seeds that were asked for and are not in the tables."""
        return self.manifest["missing"]

    def seed_count(self, variant: str) -> str:
        """Say "3 seeds", or "2 of 3 seeds" where one is missing."""
        there, missing = len(self.seeds(variant)), len(self.missing.get(variant, ()))
        return f"{there} of {plural(there + missing, 'seed')}" if missing else plural(there, "seed")

    def published(self, name: str, *others: str, **where: str) -> pd.DataFrame:
        """Select published values on the study's benchmark, `as_run`; no rows where nothing is published on it.

        Args:
            name, others, where: as of `published.published`.
        """
        frame = published(name, *others, **where)
        return self.as_run(frame[frame["benchmark"].isin([self.environment.benchmark])])

    def as_run(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rename plain GRPO in published rows as the study ran it, if it did by one of the two names."""
        ran = [name for name in variants.PLAIN if name in self.variants]
        return frame.replace({"variant": dict.fromkeys(variants.PLAIN, ran[0])}) if len(ran) == 1 else frame


def cached_table(table: Callable[..., pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    """Compute a table of a study once per arguments, and hand out copies: several tables and figures rest on it."""
    kept = lru_cache(maxsize=8)(table)

    @wraps(table)
    def copied(*args: Hashable, **kwargs: Hashable) -> pd.DataFrame:
        return kept(*args, **kwargs).copy()

    return copied


def home(folder: Path, variant: str, seed: int) -> Path:
    """Return where a study keeps a run and its notebooks."""
    return folder / variant / f"seed{seed}"


def load(folder: Path) -> Study:
    """Read a collected study; the run directories need not be there.

    Raises:
        RunError: no study there, not collected, empty, damaged, or written by another version.
    """
    try:
        manifest = read_json(folder / _MANIFEST)
    except FileNotFoundError:
        if (folder / SWEEP).exists():
            raise RunError(f"{folder} is not collected yet: run `skill1 collect {folder}`") from None
        there = ", ".join(sorted(p.parent.name for p in folder.parent.glob(f"*/{_MANIFEST}"))) or "none"
        raise RunError(f"there is no study at {folder} (studies in {folder.parent}: {there})") from None
    except DamagedFile as error:
        raise RunError(f"{folder / _MANIFEST} is damaged ({error.reason}): {_advice(folder)}") from None
    if manifest.get("format") != FORMAT:
        raise RunError(
            f"{folder} has format {manifest.get('format')!r}, this version of skill1 reads {FORMAT}: {_advice(folder)}"
        )
    evaluations, metrics = _read(folder / FILES[0], EVALUATIONS), _read(folder / FILES[1], METRIC_KEYS)
    kept = folder / SKILLS_FILE
    skills = _read(kept, SKILLS) if kept.exists() else SKILLS.empty_table().to_pandas()
    study = Study(folder, evaluations, metrics, manifest, skills)
    if study.own_worlds:  # worlds may use the same names
        evaluations["game"] = evaluations["seed"].astype(str) + ":" + evaluations["game"]
    return study


def _read(file: Path, wanted: pa.Schema) -> pd.DataFrame:
    """Read a table that has at least the `wanted` columns; all but that of skills must have rows."""
    try:
        table = pq.read_table(file)
    except FileNotFoundError:
        raise RunError(f"{file} is missing: {_advice(file.parent)}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise RunError(f"{file} is corrupt ({error}): {_advice(file.parent)}") from None
    if missing := [field.name for field in wanted if field not in table.schema]:
        columns = ", ".join(missing)
        raise RunError(f"{file} lacks the columns {columns}, or they have other types: {_advice(file.parent)}")
    if not table.num_rows and wanted is not SKILLS:
        raise RunError(f"{file} is empty: {_advice(file.parent)}")
    return table.to_pandas()


def _advice(folder: Path) -> str:
    return f"`skill1 collect {folder}` writes it again where the runs are, else restore the file"
