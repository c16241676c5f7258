"""The tables of a sweep's finished runs, small enough to be committed; `skill1.analysis.study` reads them.

Equal runs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from skill1.analysis.study import EVALUATIONS, FILES, FORMAT, METRIC_KEYS, SKILLS, SKILLS_FILE, SWEEP, home, load
from skill1.config import Config, flatten
from skill1.envs.make import environment_spec
from skill1.errors import RunError
from skill1.running.batch import stamp_of
from skill1.running.experiment import EVALUATE, TRAIN
from skill1.store.atomic import replace_file
from skill1.store.journal import SNAPSHOT_FILE, read_snapshot
from skill1.store.json_file import DamagedFile, read_json, to_json
from skill1.store.run_directory import RunDirectory

SECONDS = "seconds.json"  # beside a run: what it cost so far
PHASES = ("train", "evaluate")  # its keys; "evaluate" is all that follows the last training step
ORDER = ("variant", "seed", "step", "library", "split", "game", "pass")  # of the rows; of the metrics, the first three


def read_asked(folder: Path) -> dict[str, Any] | None:
    """Read what the sweep in `folder` was asked for; None if there was none. Raises RunError for a damaged file."""
    try:
        return read_json(folder / SWEEP)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        raise RunError(f"{folder / SWEEP} is damaged ({error.reason}): restore it, or choose another name") from None


def finished(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """Yield (variant, seed, home) of the runs whose notebooks are both executed; variants and seeds sorted."""
    for variant, seeds in sorted((read_asked(folder) or {"runs": {}})["runs"].items()):
        for seed in sorted(seeds):
            place = home(folder, variant, seed)
            if all(stamp_of(place / name) is not None for name in (TRAIN, EVALUATE)):
                yield variant, seed, place


def collect(folder: Path) -> list[Path]:
    """Write the tables of the finished runs of the sweep in `folder`; returns the files.

    Raises:
        RunError: no sweep there, no finished run, a run that is damaged or of another version.
        DataError: the games, which say what could be reached, are not there any more or are others.
    """
    asked = read_asked(folder)
    if asked is None:
        raise RunError(f"{folder} holds no study ({SWEEP} is missing): make one with `skill1 sweep`")
    done = list(finished(folder))
    if not done:
        raise RunError(f"the study {folder} is empty: none of its runs is finished; continue it with `skill1 sweep`")
    runs = {(variant, seed): RunDirectory.open(place / "run") for variant, seed, place in done}
    evaluations = _evaluations(runs)
    manifest = _manifest(folder, asked, runs) | _benchmark(runs, evaluations)
    text = f"{to_json(manifest, indent=1)}\n"
    return write_study(folder, (evaluations, _metrics(runs), _skills(runs)), text)


def write_study(folder: Path, tables: Sequence[pa.Table], manifest: str) -> list[Path]:
    """Write the files of a collected study, `tables` being its evaluations, metrics and skills; returns their paths."""
    contents = dict(zip((*FILES[:2], SKILLS_FILE), map(_to_bytes, tables), strict=True)) | {FILES[2]: manifest.encode()}
    for name, data in contents.items():
        replace_file(folder / name, data)
    return [folder / name for name in contents]


def copy_collected(folder: Path, into: Path) -> list[Path]:
    """Copy the data, tables and figures of a collected study, without its runs: what is worth committing.

    Files of the same names in `into` are replaced. Returns the copies.

    Raises:
        RunError: `load` does not read the study, or `into` is the study itself.
    """
    load(folder)
    if into.resolve() == folder.resolve():
        raise RunError(f"{into} is the study itself: name another folder to copy its tables and figures to")
    names = [
        *FILES,
        SKILLS_FILE,
        *(str(p.relative_to(folder)) for p in sorted([*folder.glob("figures/*"), *folder.glob("tables/*")])),
    ]
    for name in names:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(into / name, (folder / name).read_bytes())
    return [into / name for name in names]


# -- tables -----------------------------------------------------------------------------------------------------------


def _evaluations(runs: Mapping[tuple[str, int], RunDirectory]) -> pa.Table:
    frames = []
    for run in runs.values():
        frame = run.evaluations("evaluation_*")
        if frame.empty:
            raise RunError(f"{run.path} is finished but has no evaluations: remove {run.path.parent} to repeat it")
        frames.append(frame)
    frame = pd.concat(frames)[EVALUATIONS.names].sort_values(list(ORDER))
    return pa.Table.from_pandas(frame, schema=EVALUATIONS, preserve_index=False)


def _metrics(runs: Mapping[tuple[str, int], RunDirectory]) -> pa.Table:
    frames = [run.metrics().assign(variant=variant, seed=seed) for (variant, seed), run in runs.items()]
    frame = pd.concat(frames).sort_values(METRIC_KEYS.names)
    logged = sorted(set(frame.columns) - set(METRIC_KEYS.names))
    schema = pa.schema([*METRIC_KEYS, *((name, pa.float64()) for name in logged)])
    frame[logged] = frame[logged].astype(float)  # a column that is null throughout has no type of its own
    return pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)


def _skills(runs: Mapping[tuple[str, int], RunDirectory]) -> pa.Table:
    rows = []
    for (variant, seed), run in runs.items():
        latest, library = run.latest_checkpoint(), run.config.library
        if latest is None or library is None or not (latest.path / "library" / SNAPSHOT_FILE).is_file():
            continue  # nothing kept, or in another form: a bank
        skills = read_snapshot(latest.path / "library").skills
        about = {"variant": variant, "seed": seed, "encoder": library.encoder}
        rows += [about | {"skill": s.id} | {name: getattr(s, name) for name in SKILLS.names[4:]} for s in skills]
    return pa.Table.from_pylist(rows, schema=SKILLS)


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
                "config_hash": _config_hash(run.config),
                "sessions": [
                    {"from_step": session["from_step"], "machine": machines.index(machine)}
                    for session, machine in zip(sessions, used, strict=True)
                ],
            }
        )
    missing = {v: [s for s in sorted(seeds) if (v, s) not in runs] for v, seeds in asked["runs"].items()}
    return {
        "format": FORMAT,
        "name": folder.resolve().name,
        **asked["settings"],
        "missing": {variant: seeds for variant, seeds in sorted(missing.items()) if seeds},
        "runs": entries,
        "machines": machines,
    }


def _benchmark(runs: Mapping[tuple[str, int], RunDirectory], evaluations: pa.Table) -> dict[str, Any]:
    """What the runs were played on; where purchases are graded, also what could have been reached, per split."""
    environment = next(iter(runs.values())).config.environment
    spec = environment_spec(environment.name)
    if spec.ceiling is None:
        return {"benchmark": environment.name}
    played = evaluations.select(["split", "game"]).to_pandas().groupby("split")["game"]
    return {
        "benchmark": environment.name,
        "ceiling": {split: asdict(spec.ceiling(environment, games)) for split, games in played},
    }


def read_seconds(place: Path) -> dict[str, float]:
    """Read the wall-clock seconds that a run has cost so far, by PHASES; empty before it started."""
    file = place / SECONDS
    return read_json(file) if file.exists() else {}


def _config_hash(config: Config) -> str:
    """Of every field's value but the data's place."""
    values = {name: value for name, value in flatten(config).items() if name != "environment.data"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _to_bytes(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pq.write_table(table.replace_schema_metadata(None), buffer, compression="zstd")
    return buffer.getvalue()
