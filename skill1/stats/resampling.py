"""Resampling of seeds and games, and checks of what is given to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

LEVEL = 0.95  # coverage of every interval
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its two-sided 95 % interval [low, high], NaN where there is none; p_value where a test belongs to it."""

    value: float
    low: float
    high: float
    n: int  # independent units: episodes for `wilson`, games otherwise
    p_value: float | None = None


def percentiles(drawn: np.ndarray) -> tuple[float, float]:
    """Interval that holds the middle 95 % of (B,) draws."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_of(means: pd.DataFrame) -> float:
    """Mean over seeds of the mean over their games."""
    return float(means.mean(axis=1).mean())


def draws(sides: Sequence[pd.DataFrame], resamples: int = RESAMPLES) -> list[np.ndarray]:
    """Means of (S, G) tables of seeds by games in bootstrap draws, (B,) each; NaN: not a game of that seed.

    Worlds, which are sets of games that some seeds have in common, are drawn with their games, the same ones for all sides;
    then each side's seeds within them. One world, or one seed, is never redrawn; of a single game all draws are NaN.
    """
    if sides[0].shape[1] < 2:
        return [np.full(resamples, np.nan)] * len(sides)
    worlds = [_worlds(side) for side in sides]
    if len({frozenset(of) for of in worlds}) > 1:
        raise ValueError("the two sides' seeds do not have the same sets of games")
    generator = np.random.default_rng(0)
    one = np.ones((resamples, 1))
    times = _shares(generator, len(worlds[0]), resamples) if len(worlds[0]) > 1 else one  # (B, worlds)
    total, weight = (np.zeros((len(sides), resamples)) for _ in range(2))
    for world, games in enumerate(worlds[0]):
        columns = _shares(generator, len(games), resamples)  # (B, games), the same for all sides
        for number, side in enumerate(sides):
            means = side.iloc[worlds[number][games]][list(games)].to_numpy()
            rows = _shares(generator, len(means), resamples) if len(means) > 1 else one
            share = times[:, world] * len(means)
            total[number] += share * ((rows @ means) * columns).sum(axis=1)
            weight[number] += share
    return list(total / weight)


def _worlds(means: pd.DataFrame) -> dict[tuple[Any, ...], list[int]]:
    """Sets of games -> the rows of the seeds that played them. Raises ValueError for seeds that share a part of theirs."""
    there = means.notna().to_numpy()
    found: dict[tuple[Any, ...], list[int]] = {}
    for row, played in enumerate(there):
        found.setdefault(tuple(means.columns[played]), []).append(row)
    for row, column in np.argwhere(~there):
        others = there[there[:, column]]
        if not len(others) or (others & there[row]).any():
            raise ValueError(f"seed {means.index[row]} has no value for game {means.columns[column]!r}")
    return found


def _shares(generator: np.random.Generator, count: int, resamples: int) -> np.ndarray:
    """(resamples, count) weights of `count` units in bootstrap draws; a row sums to 1."""
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples) / count


def numbers(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must be a non-empty 1-d array, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite")
    return array
