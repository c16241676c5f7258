"""Outcomes of evaluations as parquet, one file per kind, split and step: `<kind>.<split>.step_<step>.parquet`.

A file's metadata has the hash of the data that was played, where it is known.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from skill1.errors import RunError
from skill1.store.atomic import replacing

EVALUATION_SCHEMA = pa.schema(
    [
        ("variant", pa.string()),
        ("seed", pa.int64()),
        ("step", pa.int64()),
        ("split", pa.string()),
        ("game", pa.string()),
        ("category", pa.string()),
        ("pass", pa.int64()),
        ("won", pa.bool_()),
        ("score", pa.float64()),
        ("steps", pa.int64()),
        ("invalid_actions", pa.int64()),
        ("inadmissible_actions", pa.int64()),
        ("library", pa.string()),  # which skills were at hand, e.g. "checkpoint-40", "none"
    ]
)


_DATA = b"data_hash"  # key of a file's metadata


def write_outcomes(folder: Path, kind: str, frame: pd.DataFrame, data_hash: str = "") -> Path:
    """Store the outcomes of one (kind, split, step) in `folder`; returns the file.

    Args:
        kind: "validation" within training, or a name such as "evaluation"; a second write of it replaces the first.
        frame: the columns of EVALUATION_SCHEMA; one row per game and pass of one split at one step.
        data_hash: `VectorEnvironment.data_hash` of the split.

    Raises:
        RunError: other columns or types, several splits or steps, or a (game, pass) twice; or the disk does not take it
            (the message says where the outcomes are kept).
    """
    if set(frame.columns) != set(EVALUATION_SCHEMA.names):
        raise RunError(f"evaluation columns are {sorted(frame.columns)}, must be {sorted(EVALUATION_SCHEMA.names)}")
    if frame[["split", "step"]].drop_duplicates().shape[0] != 1:
        raise RunError("an evaluation file holds exactly one split at one step")
    if frame.duplicated(["game", "pass"]).any():
        raise RunError("an evaluation holds each (game, pass) once")
    try:
        table = pa.Table.from_pandas(frame[EVALUATION_SCHEMA.names], schema=EVALUATION_SCHEMA, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise RunError(f"evaluation column of the wrong type: {error}") from error
    table = table.replace_schema_metadata({_DATA: data_hash})
    path = folder / f"{kind}.{frame['split'].iloc[0]}.step_{int(frame['step'].iloc[0]):06d}.parquet"
    try:
        _write(table, path)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror or error}): {_rescued(table, path.name)}") from error
    return path


def _write(table: pa.Table, path: Path) -> None:
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def _rescued(table: pa.Table, name: str) -> str:
    """Keep outcomes elsewhere; returns where, and what they come to."""
    wins = f"{sum(table['won'].to_pylist())} of {len(table)} episodes were won"
    try:
        place = Path(mkdtemp(prefix="skill1-")) / name
        _write(table, place)
    except OSError:
        return f"{wins}; make room and play again"
    return f"{wins}, and are kept in {place}: make room and move it there"


def read_outcomes(folder: Path, kind: str, data_hash: str | None = None) -> pd.DataFrame:
    """Read all outcomes of a kind (or glob pattern, "evaluation*"), by step, split, game and pass; may be empty.

    Args:
        data_hash: only those that were played on this data.
    """
    files = sorted(folder.glob(f"{kind}.*.step_*.parquet"))
    tables = [pq.read_table(file) for file in files]
    if data_hash is not None:
        tables = [table for table in tables if (table.schema.metadata or {}).get(_DATA) == data_hash.encode()]
    table = pa.concat_tables([EVALUATION_SCHEMA.empty_table(), *(t.replace_schema_metadata(None) for t in tables)])
    return table.sort_by([(c, "ascending") for c in ("step", "split", "game", "pass")]).to_pandas()
