"""Rollouts as parquet: the log that every figure and table is made from.

One file per training step, one row per episode, nested columns in the records' own shape, so that pandas, pyarrow or
duckdb read single columns (`outcome`, `task.category`) without this module. `read_rollouts` gives back exactly what
`write_rollouts` was given. Token ids and log-probs go from numpy to arrow and back without Python integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skill1.records import Candidate, Lesson, Rollout, Task, Turn
from skill1.store.atomic import replacing

_ROLLOUTS_PER_ROW_GROUP = 32  # bounds memory: one row group of a 7B run is tens of MB
_TOKENS = pa.list_(pa.int32())
_TASK = pa.struct(
    [
        ("environment", pa.string()),
        ("split", pa.string()),
        ("game", pa.string()),
        ("category", pa.string()),
        ("seed", pa.int64()),
    ]
)
_TURN = pa.struct(
    [
        ("stage", pa.string()),
        ("prompt_ids", _TOKENS),
        ("completion_ids", _TOKENS),
        ("logprobs", pa.list_(pa.float32())),
        ("text", pa.string()),
        ("value", pa.string()),
        ("well_formed", pa.bool_()),
        ("admissible", pa.bool_()),
        ("observation", pa.string()),
        ("continues", pa.bool_()),
    ]
)
_CANDIDATE = pa.struct(
    [("skill", pa.string()), ("utility", pa.float64()), ("similarity", pa.float64()), ("score", pa.float64())]
)
_SCHEMA = pa.schema(
    [
        ("task", _TASK),
        ("instruction", pa.string()),
        ("group", pa.int64()),
        ("index", pa.int64()),
        ("query", pa.string()),
        ("turns", pa.list_(_TURN)),
        ("candidates", pa.list_(_CANDIDATE)),
        ("ranking", pa.list_(pa.int64())),
        ("ranking_parsed", pa.bool_()),
        ("selected", pa.string()),
        ("skill", pa.string()),
        ("skill_similarity", pa.float64()),
        ("outcome", pa.float64()),
        ("score", pa.float64()),
        ("steps", pa.int64()),
        ("lesson", pa.struct([("desc", pa.string()), ("strategy", pa.string())])),
        ("cut", pa.bool_()),
    ]
)
_PLAIN = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
_ARRAYS = {"prompt_ids": np.int32, "completion_ids": np.int32, "logprobs": np.float32}


def rollout_schema(extra: type | None = None) -> pa.Schema:
    """The columns of a log; with `extra`, a dataclass that a method stores on rollouts, also the struct `extra`."""
    return _SCHEMA if extra is None else _SCHEMA.append(pa.field("extra", _arrow(extra)))


def write_rollouts(path: Path, rollouts: Sequence[Rollout], extra: type | None = None) -> None:
    """Write `path` atomically: it is absent or whole at any instant. Raises TypeError for arrays of another dtype."""
    schema = rollout_schema(extra)
    with replacing(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for start in range(0, len(rollouts), _ROLLOUTS_PER_ROW_GROUP):
            rows = [_row(rollout) for rollout in rollouts[start : start + _ROLLOUTS_PER_ROW_GROUP]]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def read_rollouts(path: Path, extra: type | None = None) -> list[Rollout]:
    """Read all rollouts of a step, in the order written. Token arrays are read-only views of the file's columns."""
    file = pq.ParquetFile(path)
    return [r for group in range(file.num_row_groups) for r in _rollouts(file.read_row_group(group), extra)]


def _arrow(kind: Any) -> pa.DataType:
    """The arrow type of a field: a plain value, a dataclass of such, or one of these or None."""
    if is_dataclass(kind):
        return pa.struct([(name, _arrow(hint)) for name, hint in get_type_hints(kind).items()])
    [kind] = [k for k in get_args(kind) if k is not type(None)] or [kind]
    return _PLAIN[kind] if kind in _PLAIN else _arrow(kind)


def _revived(kind: Any, value: Any) -> Any:
    """A dataclass from what arrow made of it, nested ones included."""
    if not isinstance(value, dict):
        return value
    [kind] = [k for k in get_args(kind) if k is not type(None)] or [kind]
    return kind(**{name: _revived(hint, value[name]) for name, hint in get_type_hints(kind).items()})


def _row(rollout: Rollout) -> dict[str, Any]:
    row = _shallow(rollout)
    row["task"] = _shallow(rollout.task)
    row["turns"] = [_turn_row(turn) for turn in rollout.turns]
    row["candidates"] = [_shallow(candidate) for candidate in rollout.candidates]
    row["lesson"] = None if row["lesson"] is None else _shallow(row["lesson"])
    row["extra"] = None if row["extra"] is None else asdict(row["extra"])
    return row


def _turn_row(turn: Turn) -> dict[str, Any]:
    row = _shallow(turn)
    for name, dtype in _ARRAYS.items():
        if row[name].dtype != dtype:
            raise TypeError(f"Turn.{name} is {row[name].dtype}, must be {np.dtype(dtype)}")
    return row


def _shallow(record: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)}


def _rollouts(table: pa.Table, extra: type | None) -> list[Rollout]:
    turns = table["turns"].combine_chunks()
    ends = turns.offsets.to_numpy()  # (rollouts + 1,)
    all_turns = _turns(turns.values)
    result = []
    for i, row in enumerate(table.drop_columns("turns").to_pylist()):
        row["task"] = Task(**row["task"])
        row["turns"] = tuple(all_turns[ends[i] : ends[i + 1]])
        row["candidates"] = tuple(Candidate(**c) for c in row["candidates"])
        row["ranking"] = tuple(row["ranking"])
        row["lesson"] = None if row["lesson"] is None else Lesson(**row["lesson"])
        row["extra"] = _revived(extra, row.get("extra"))
        result.append(Rollout(**row))
    return result


def _turns(turns: pa.StructArray) -> list[Turn]:
    columns: dict[str, Sequence[Any]] = {}
    for i, leaf in enumerate(turns.type):
        column = turns.field(i)
        columns[leaf.name] = _arrays(column) if leaf.name in _ARRAYS else column.to_pylist()
    return [Turn(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def _arrays(column: pa.ListArray) -> list[np.ndarray]:
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    return [values[start:end] for start, end in itertools.pairwise(offsets)]
