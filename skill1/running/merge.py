"""Parts of one study, run on several machines or at several times, as one: their tables beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skill1.analysis.study import FILES, SKILLS, load
from skill1.errors import RunError
from skill1.running.collect import ORDER, write_study
from skill1.store.json_file import to_json

_OWN = ("name", "runs", "machines", "missing", "data_hash")  # of a manifest: what parts need not have in common


def merge_collected(parts: Sequence[Path], into: Path) -> list[Path]:
    """Write the tables of the collected studies `parts` as one study into the folder `into`; returns the files.

    A run that is in several parts counts once.

    Raises:
        RunError: a part is not collected, parts have other settings or data, or one run has two outcomes.
    """
    studies = [load(part) for part in parts]
    manifests = [dict(study.manifest) for study in studies]
    for part, manifest in zip(parts, manifests, strict=True):
        _check_settings(parts[0], manifests[0], part, manifest)
    evaluations, metrics = ([pq.read_table(part / name) for part in parts] for name in FILES[:2])
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    machines: list[dict[str, Any]] = []
    origin: dict[tuple[str, int], int] = {}  # the first part that has a run
    for number, manifest in enumerate(manifests):
        machines += [machine for machine in manifest["machines"] if machine not in machines]
        at = [machines.index(machine) for machine in manifest["machines"]]
        for run in manifest["runs"]:
            key = (run["variant"], run["seed"])
            if key not in runs:
                sessions = [session | {"machine": at[session["machine"]]} for session in run["sessions"]]
                runs[key], origin[key] = run | {"sessions": sessions}, number
            elif not _of(evaluations[number], key).equals(_of(evaluations[origin[key]], key)):
                raise RunError(
                    f"{key[0]} seed {key[1]} has other outcomes in {parts[number]} than in {parts[origin[key]]}: they are "
                    "two runs; give one of them"
                )
    asked: dict[str, set[int]] = {}
    for manifest in manifests:
        for variant, seeds in manifest["missing"].items():
            asked.setdefault(variant, set()).update(seeds)
    missing = {v: sorted(s for s in seeds if (v, s) not in runs) for v, seeds in sorted(asked.items())}
    merged = manifests[0] | {
        "name": into.resolve().name,
        "data_hash": {name: value for manifest in manifests for name, value in (manifest["data_hash"] or {}).items()},
        "missing": {variant: seeds for variant, seeds in missing.items() if seeds},
        "runs": [runs[key] for key in sorted(runs)],
        "machines": machines,
    }
    skills = [pa.Table.from_pandas(study.skills, schema=SKILLS, preserve_index=False) for study in studies]
    tables = [
        _once(rows, origin, order)
        for rows, order in ((evaluations, ORDER), (metrics, ORDER[:3]), (skills, ("variant", "seed", "skill")))
    ]
    into.mkdir(parents=True, exist_ok=True)
    return write_study(into, tables, f"{to_json(merged, indent=1)}\n")


def _check_settings(first: Path, there: Mapping[str, Any], part: Path, here: Mapping[str, Any]) -> None:
    names = [name for name in {**there, **here} if name not in _OWN and there.get(name) != here.get(name)]
    hashes = [there["data_hash"] or {}, here["data_hash"] or {}]
    names += [f"data_hash of {name}" for name in hashes[0].keys() & hashes[1] if hashes[0][name] != hashes[1][name]]
    if names:
        raise RunError(f"{part} is no part of the study {first}: they differ in {', '.join(names)}")


def _of(table: pa.Table, key: tuple[str, int]) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["variant"], key[0]), pc.equal(table["seed"], key[1])))


def _once(tables: Sequence[pa.Table], origin: Mapping[tuple[str, int], int], order: Sequence[str]) -> pa.Table:
    """All runs' rows, each run's from the part it is taken of; a column that a part has not logged is null there."""
    taken = [_of(tables[number], key) for key, number in origin.items()]
    whole = pa.concat_tables(taken, promote_options="default")
    return whole.sort_by([(name, "ascending") for name in order])
