"""The tables of a study: the runs of a sweep, collected into files small enough to be committed.

    evaluations.parquet   one row per variant, seed, step, split, game, pass and library
    metrics.parquet       one row per variant, seed and training step
    manifest.json         what was asked, what is there, and what each run depends on and cost

Analyses read these alone (`load`), so they work without the run directories. Equal runs give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from skill1.analysis.scores import ceiling_of
from skill1.envs.webshop.ceiling import Ceiling
from skill1.running.batch import stamp_of
from skill1.running.experiment import EVALUATE, TRAIN, config_hash
from skill1.store.journal import replace_file
from skill1.store.run_directory import EVALUATION_SCHEMA, RunDirectory, RunError

SWEEP = "sweep.json"  # what a sweep was asked for (skill1.running.sweep)
SECONDS = "seconds.json"  # beside a run: what it cost so far
PHASES = ("train", "evaluate")  # its keys; "evaluate" is all that follows the last training step
_FORMAT = 1  # of the three files; raise when what they hold changes
_EVALUATIONS, _METRICS, _MANIFEST = "evaluations.parquet", "metrics.parquet", "manifest.json"
EVALUATIONS = pa.schema([field for field in EVALUATION_SCHEMA if field.name != "inadmissible_actions"])
_KEYS = pa.schema([EVALUATION_SCHEMA.field(name) for name in ("variant", "seed", "step")])  # of the metrics
_ORDER = ("variant", "seed", "step", "library", "split", "game", "pass")


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A collected study."""

    path: Path
    evaluations: pd.DataFrame  # columns of EVALUATIONS; step 0 = before training, library "none" = withheld or without
    metrics: pd.DataFrame  # variant, seed, step, then every logged metric; NaN where a step or variant has none
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def benchmark(self) -> str:
        """ "alfworld" or "webshop"; a study that does not say it was collected before there were studies of WebShop."""
        return self.manifest.get("benchmark", "alfworld")

    @property
    def ceilings(self) -> dict[str, Ceiling]:
        """Split -> how many of its evaluated goals can be met at all; empty where nothing is graded."""
        return {split: Ceiling(**counts) for split, counts in self.manifest.get("ceiling", {}).items()}

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(run["variant"] for run in self.manifest["runs"]))

    def seeds(self, variant: str) -> list[int]:
        """Seeds whose run of that variant is in the tables."""
        return [run["seed"] for run in self.manifest["runs"] if run["variant"] == variant]

    @property
    def missing(self) -> dict[str, list[int]]:
        """Variant -> seeds that were asked for and are not in the tables."""
        return self.manifest["missing"]

    @property
    def run_directories(self) -> dict[tuple[str, int], Path]:
        """(variant, seed) -> run directory, as far as they are there: a committed study has none."""
        keys = [(run["variant"], run["seed"]) for run in self.manifest["runs"]]
        places = {key: home(self.path, *key) / "run" for key in keys}
        return {key: place for key, place in places.items() if (place / "config.json").is_file()}

    def run(self, variant: str, seed: int) -> RunDirectory:
        """Raises RunError when the run is not in the study, not in this folder, or of another version."""
        if (variant, seed) not in self.run_directories:
            there = ", ".join(f"{v} seed {s}" for v, s in self.run_directories) or "none"
            raise RunError(f"{self.path} has no run directory of {variant} seed {seed} (it has {there})")
        return RunDirectory.open(self.run_directories[variant, seed])


def home(folder: Path, variant: str, seed: int) -> Path:
    """Where a study keeps a run and its notebooks."""
    return folder / variant / f"seed{seed}"


def read_asked(folder: Path) -> dict[str, Any] | None:
    """What the sweep in `folder` was asked for; None if there was none. Raises RunError when the file is damaged."""
    try:
        return json.loads((folder / SWEEP).read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise RunError(f"{folder / SWEEP} is damaged ({error}): restore it, or choose another name") from None


def finished(folder: Path, asked: Mapping[str, Any]) -> Iterator[tuple[str, int, Path]]:
    """(variant, seed, home) of the asked runs whose notebooks are both executed; variants and seeds sorted."""
    for variant, seeds in sorted(asked["runs"].items()):
        for seed in sorted(seeds):
            place = home(folder, variant, seed)
            if all(stamp_of(place / name) is not None for name in (TRAIN, EVALUATE)):
                yield variant, seed, place


def collect(folder: Path) -> list[Path]:
    """Write the tables of the finished runs of the sweep in `folder`; returns the three files.

    Raises:
        RunError: no sweep there, no finished run, a run that is damaged or of another version.
        DataError: the shop of a study of WebShop, which has the ceiling, is not there any more or is another one.
    """
    asked = read_asked(folder)
    if asked is None:
        raise RunError(f"{folder} holds no study ({SWEEP} is missing): make one with `skill1 sweep`")
    done = list(finished(folder, asked))
    if not done:
        raise RunError(f"the study {folder} is empty: none of its runs is finished; continue it with `skill1 sweep`")
    runs = {(variant, seed): RunDirectory.open(place / "run") for variant, seed, place in done}
    evaluations = _evaluations(runs)
    manifest = _manifest(folder, asked, runs) | _benchmark(runs, evaluations)
    contents = {
        _EVALUATIONS: _to_bytes(evaluations),
        _METRICS: _to_bytes(_metrics(runs)),
        _MANIFEST: f"{json.dumps(manifest, indent=1)}\n".encode(),
    }
    for name, data in contents.items():
        replace_file(folder / name, data)
    return [folder / name for name in contents]


def copy_collected(folder: Path, into: Path) -> list[Path]:
    """Copy the tables and the figures of a collected study, without its runs: what is worth committing.

    Files of the same names in `into` are replaced. Returns the copies.

    Raises:
        RunError: `load` does not read the study, or `into` is the study itself.
    """
    load(folder)
    if into.resolve() == folder.resolve():
        raise RunError(f"{into} is the study itself: name another folder to copy its tables and figures to")
    names = [_EVALUATIONS, _METRICS, _MANIFEST, *(str(p.relative_to(folder)) for p in sorted(folder.glob("figures/*")))]
    for name in names:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(into / name, (folder / name).read_bytes())
    return [into / name for name in names]


def load(folder: Path) -> Study:
    """Read a collected study; the run directories need not be there.

    Raises:
        RunError: no study there, not collected, empty, damaged, or written by another version.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except FileNotFoundError:
        if (folder / SWEEP).exists():
            raise RunError(f"{folder} is not collected yet: run `skill1 collect {folder}`") from None
        there = ", ".join(sorted(p.parent.name for p in folder.parent.glob(f"*/{_MANIFEST}"))) or "none"
        raise RunError(f"there is no study at {folder} (studies in {folder.parent}: {there})") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{folder / _MANIFEST} is damaged ({error}): {_advice(folder)}") from None
    if manifest.get("format") != _FORMAT:
        raise RunError(
            f"{folder} has format {manifest.get('format')!r}, this version of skill1 reads {_FORMAT}: {_advice(folder)}"
        )
    evaluations, metrics = _read(folder / _EVALUATIONS, EVALUATIONS), _read(folder / _METRICS, _KEYS)
    return Study(folder, evaluations, metrics, manifest)


# -- tables -----------------------------------------------------------------------------------------------------------


def _evaluations(runs: Mapping[tuple[str, int], RunDirectory]) -> pa.Table:
    frames = []
    for run in runs.values():
        frame = run.evaluations("evaluation_*")
        if frame.empty:
            raise RunError(f"{run.path} is finished but has no evaluations: remove {run.path.parent} to repeat it")
        frames.append(frame)
    frame = pd.concat(frames)[EVALUATIONS.names].sort_values(list(_ORDER))
    return pa.Table.from_pandas(frame, schema=EVALUATIONS, preserve_index=False)


def _metrics(runs: Mapping[tuple[str, int], RunDirectory]) -> pa.Table:
    frames = [run.metrics().assign(variant=variant, seed=seed) for (variant, seed), run in runs.items()]
    frame = pd.concat(frames).sort_values(_KEYS.names)
    logged = sorted(set(frame.columns) - set(_KEYS.names))
    schema = pa.schema([*_KEYS, *((name, pa.float64()) for name in logged)])
    frame[logged] = frame[logged].astype(float)  # a column that is null throughout has no type of its own
    return pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)


def _manifest(folder: Path, asked: Mapping[str, Any], runs: Mapping[tuple[str, int], RunDirectory]) -> dict[str, Any]:
    machines: list[dict[str, Any]] = []  # distinct ones; runs name them by number
    entries = []
    for (variant, seed), run in runs.items():
        sessions = run.manifest()["sessions"]
        used = [{k: v for k, v in s.items() if k not in ("from_step", "started", "command")} for s in sessions]
        for machine in used:
            if machine not in machines:
                machines.append(machine)
        entries.append(
            {
                "variant": variant,
                "seed": seed,
                "steps": len(run.metrics()),
                "seconds": read_seconds(run.path.parent),
                "config_hash": config_hash(run.config),
                "sessions": [
                    {"from_step": session["from_step"], "machine": machines.index(machine)}
                    for session, machine in zip(sessions, used, strict=True)
                ],
            }
        )
    missing = {v: [s for s in sorted(seeds) if (v, s) not in runs] for v, seeds in asked["runs"].items()}
    return {
        "format": _FORMAT,
        "name": folder.resolve().name,
        **asked["settings"],
        "missing": {variant: seeds for variant, seeds in sorted(missing.items()) if seeds},
        "runs": entries,
        "machines": machines,
    }


def _benchmark(runs: Mapping[tuple[str, int], RunDirectory], evaluations: pa.Table) -> dict[str, Any]:
    """What the runs were played on; where purchases are graded, also what could have been reached, per split."""
    environment = next(iter(runs.values())).config.environment
    if environment.name != "webshop":
        return {"benchmark": environment.name}
    played = evaluations.select(["split", "game"]).to_pandas().groupby("split")["game"]
    return {
        "benchmark": environment.name,
        "ceiling": {split: asdict(ceiling_of(environment, games)) for split, games in played},
    }


def read_seconds(place: Path) -> dict[str, float]:
    """Wall-clock seconds that a run cost so far, by PHASES; empty before it started."""
    file = place / SECONDS
    return json.loads(file.read_text()) if file.exists() else {}


def _to_bytes(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pq.write_table(table.replace_schema_metadata(None), buffer, compression="zstd")
    return buffer.getvalue()


def _read(file: Path, wanted: pa.Schema) -> pd.DataFrame:
    """A table that has at least the `wanted` columns, and rows."""
    try:
        table = pq.read_table(file)
    except FileNotFoundError:
        raise RunError(f"{file} is missing: {_advice(file.parent)}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise RunError(f"{file} is corrupt ({error}): {_advice(file.parent)}") from None
    if missing := [field.name for field in wanted if field not in table.schema]:
        columns = ", ".join(missing)
        raise RunError(f"{file} lacks the columns {columns}, or they have other types: {_advice(file.parent)}")
    if not table.num_rows:
        raise RunError(f"{file} is empty: {_advice(file.parent)}")
    return table.to_pandas()


def _advice(folder: Path) -> str:
    return f"`skill1 collect {folder}` writes it anew where the runs are, else restore the file"
