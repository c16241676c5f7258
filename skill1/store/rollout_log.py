"""Rollouts as parquet: the log that every figure and table is made from.

One file per training step, one row per episode, nested columns in the records' own shape, so that pandas, pyarrow or
duckdb read single columns (`outcome`, `task.category`) without this module. `read_rollouts` gives back exactly what
`write_rollouts` was given. Token ids and log-probs go from numpy to arrow and back without Python integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skill1.records import Rollout, Turn
from skill1.store.atomic import replacing

_ROLLOUTS_PER_ROW_GROUP = 32  # bounds memory: one row group of a 7B run is tens of MB
_PLAIN = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
_ARRAYS = {"prompt_ids": np.int32, "completion_ids": np.int32, "logprobs": np.float32}  # of a turn
_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


def rollout_schema(extra: type | None = None) -> pa.Schema:
    """List the columns of a log: a rollout's fields; the last only with `extra`, the dataclass that a method stores."""
    columns = _hints(Rollout) | {"extra": extra}
    return pa.schema([(name, _arrow(hint)) for name, hint in columns.items() if hint is not None])


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


def _arrow(kind: Any, name: str = "") -> pa.DataType:
    """The arrow type of a field: a plain value, a record, several of these, or one of these or None."""
    if is_dataclass(kind):
        return pa.struct([(name, _arrow(hint, name)) for name, hint in _hints(kind).items()])
    if kind is np.ndarray:
        return pa.list_(pa.from_numpy_dtype(_ARRAYS[name]))
    if get_origin(kind) is tuple:
        return pa.list_(_arrow(get_args(kind)[0]))
    return _PLAIN[kind] if kind in _PLAIN else _arrow(_present(kind))


def _present(kind: Any) -> Any:
    """The type of a field that may be None when it is not."""
    [kind] = [k for k in get_args(kind) if k is not NoneType] or [kind]
    return kind


def _row(value: Any) -> Any:
    """A record as arrow takes it, those in it included; arrays stay numpy's (`asdict` would copy them)."""
    if isinstance(value, tuple):
        return [_row(item) for item in value]
    if not is_dataclass(value):
        return value
    row = {f.name: _row(getattr(value, f.name)) for f in fields(value)}
    for name, dtype in _ARRAYS.items():
        if name in row and row[name].dtype != dtype:
            raise TypeError(f"Turn.{name} is {row[name].dtype}, must be {np.dtype(dtype)}")
    return row


def _record(kind: Any, value: Any) -> Any:
    """A field's value from what arrow made of it."""
    if isinstance(value, list):
        return tuple(_record(get_args(kind)[0], item) for item in value)
    if not isinstance(value, dict):
        return value
    kind = _present(kind)
    return kind(**{name: _record(_hints(kind)[name], part) for name, part in value.items()})


def _rollouts(table: pa.Table, extra: type | None) -> list[Rollout]:
    turns = table["turns"].combine_chunks()
    ends = turns.offsets.to_numpy()  # (rollouts + 1,)
    all_turns, hints = _turns(turns.values), _hints(Rollout) | {"extra": extra}
    return [
        Rollout(
            turns=tuple(all_turns[ends[i] : ends[i + 1]]),
            **{name: _record(hints[name], value) for name, value in row.items()},
        )
        for i, row in enumerate(table.drop_columns("turns").to_pylist())
    ]


def _turns(turns: pa.StructArray) -> list[Turn]:
    columns: dict[str, Sequence[Any]] = {}
    for i, leaf in enumerate(turns.type):
        column = turns.field(i)
        columns[leaf.name] = _arrays(column) if leaf.name in _ARRAYS else column.to_pylist()
    return [Turn(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def _arrays(column: pa.ListArray) -> list[np.ndarray]:
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    return [values[start:end] for start, end in itertools.pairwise(offsets)]
