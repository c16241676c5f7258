"""Which rows enter which update, micro-batch and rank: pure numpy, no torch (Skill1 Table 6, mini-batch).

A training step has any number of rows of any length. Rows that continue one another are one sequence, which is never
split. Sequences become

    step -> updates        a random split by (seed, step) into parts of `rows_per_update` rows each, on average; or of
                           like lengths (`pool`), where a small update would leave ranks waiting for the longest
    update -> micro-batches  sequences of like length together, under a budget of padded tokens
    micro-batch -> ranks   dealt like cards, so that all ranks do about the same work

The result is a function of the lengths, the seed and the step alone. How an update is cut into micro-batches and
ranks changes neither its loss nor its gradient, only the floating-point order in which they are summed.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skill1.records import Row


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward and backward. A rank whose tuple is empty has nothing to do but take part in collectives."""

    ranks: tuple[tuple[int, ...], ...]  # sequence indices of each rank
    tokens: int  # completion tokens over all ranks


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step. `size` is the denominator of the mean over rows: it counts the skipped rows too."""

    size: int
    micro_batches: tuple[MicroBatch, ...]

    @property
    def tokens(self) -> int:
        """Completion tokens of the rows it trains, on all ranks."""
        return sum(micro.tokens for micro in self.micro_batches)


@dataclass(frozen=True, slots=True)
class Shape:
    """Lengths of the sequences of a step, in tokens."""

    prompts: np.ndarray  # (N,) int64, what is read
    completions: np.ndarray  # (N,) int64, what was written and is trained
    rows: np.ndarray  # (N,) int64 >= 1, rows of each sequence

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Shape:
        """Measure a step's rows. Raises ValueError on a row with an empty prompt or completion: it has no token to condition or train on."""
        prompts = np.array([len(row.prompt_ids) for row in rows], dtype=np.int64)
        completions = np.array([len(row.completion_ids) for row in rows], dtype=np.int64)
        for name, lengths in (("prompt", prompts), ("completion", completions)):
            if (lengths == 0).any():
                row = rows[int(np.argmin(lengths))]
                where = f"{row.stage} row of rollout {row.rollout}, turn {row.turn}"
                raise ValueError(f"the {where} has an empty {name}: leave such calls out of the rows")
        sequences = sequences_of(rows)
        first = [sequence.start for sequence in sequences]
        if first:
            prompts, completions = (np.add.reduceat(lengths, first) for lengths in (prompts, completions))
        return cls(prompts, completions, np.array([len(sequence) for sequence in sequences], dtype=np.int64))

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each sequence."""
        return self.prompts + self.completions


def sequences_of(rows: Sequence[Row]) -> list[range]:
    """Cut rows into sequences: a row that continues belongs to the one before. Raises ValueError if there is none."""
    starts = [i for i, row in enumerate(rows) if not row.continues]
    if rows and (not starts or starts[0]):
        raise ValueError("the first row continues another one, which is missing")
    return [range(start, end) for start, end in itertools.pairwise([*starts, len(rows)])]


def folded_advantages(rows: Sequence[Row]) -> np.ndarray:
    """Return (N,) advantage * weight. Raises ValueError on a negative weight or a value that is not finite."""
    folded = np.array([row.advantage * row.weight for row in rows], dtype=np.float64)
    weights = np.array([row.weight for row in rows])
    for index in np.flatnonzero(~np.isfinite(folded) | (weights < 0)).tolist():
        row = rows[index]
        raise ValueError(
            f"row {index} ({row.stage}, rollout {row.rollout}, turn {row.turn}) has advantage {row.advantage} and "
            f"weight {row.weight}: both must be finite and the weight >= 0"
        )
    return folded


def checksum(rows: Sequence[Row]) -> int:
    """CRC-32 of everything about the rows that enters the loss, to compare ranks."""
    crc = 0
    for row in rows:
        for part in (row.prompt_ids, row.completion_ids, np.array([row.advantage, row.weight, row.continues])):
            crc = zlib.crc32(np.ascontiguousarray(part).data, crc)
    return crc


def plan_updates(
    shape: Shape,
    trained: np.ndarray,  # (N,) bool: sequences with a gradient; the others count in Update.size only
    unmoved: np.ndarray,  # (N,) bool: the same, for the first update alone
    *,
    world: int,
    rows_per_update: int | None,
    rows_per_micro_batch: int,
    tokens_per_micro_batch: int,
    seed: int,
    step: int,
    pool: int = 1,
) -> tuple[Update, ...]:
    """Plan one training step.

    Args:
        world: number of ranks.
        rows_per_update: most rows of an update, None = one update with all rows.
        rows_per_micro_batch: most sequences a rank takes at once.
        tokens_per_micro_batch: most tokens, padding included, a rank takes at once; a single longer sequence goes alone.
        pool: of how many updates the sequences are drawn together and dealt by length, 1 = none.

    Returns:
        The updates that train at least one row: an update without gradient is no update.
    """
    rows = int(shape.rows.sum())
    parts = 1 if rows_per_update is None else max(1, math.ceil(rows / rows_per_update))
    random = np.random.default_rng([seed, step])
    drawn = np.array_split(random.permutation(len(shape.rows)), parts)
    if pool > 1:
        drawn = [part for first in range(0, parts, pool) for part in _alike(shape, drawn[first : first + pool])]
        drawn = [drawn[place] for place in random.permutation(parts)]
    updates: list[Update] = []
    for part in drawn:
        active = part[(trained if updates else unmoved)[part]]
        if len(active):
            cut = _cut(shape, active, world, rows_per_micro_batch, tokens_per_micro_batch)
            updates.append(Update(int(shape.rows[part].sum()), cut))
    return tuple(updates)


def _alike(shape: Shape, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The sequences of the parts as that many parts, each of like lengths."""
    together = np.concatenate(parts)
    return np.array_split(together[np.argsort(shape.lengths[together], kind="stable")], len(parts))


def _cut(shape: Shape, rows: np.ndarray, world: int, most_rows: int, most_tokens: int) -> tuple[MicroBatch, ...]:
    """Longest sequences first, so that a lack of memory shows at once and the small rest fills the ranks evenly."""
    rows = rows[np.lexsort((rows, -shape.lengths[rows]))]
    lengths = shape.lengths[rows]
    micro_batches = []
    start = 0
    while start < len(rows):
        share = int(np.clip(most_tokens // lengths[start], 1, most_rows))  # rows of each rank
        chunk = rows[start : start + share * world]
        ranks = tuple(tuple(chunk[rank::world].tolist()) for rank in range(world))
        micro_batches.append(MicroBatch(ranks, int(shape.completions[chunk].sum())))
        start += len(chunk)
    return tuple(micro_batches)


def padding_waste(shape: Shape, updates: Sequence[Update]) -> float:
    """Share of the tokens put through the model that are padding, in [0, 1); 0 when there is nothing to train."""
    real = padded = 0
    for update in updates:
        for micro_batch in update.micro_batches:
            for rank in micro_batch.ranks:
                lengths = shape.lengths[list(rank)]
                real += int(lengths.sum())
                padded += len(rank) * int(lengths.max(initial=0))
    return 1.0 - real / padded if padded else 0.0
