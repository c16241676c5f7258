"""Resampling of seeds and games, and checks of what is given to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its two-sided interval [low, high]; p_value only where a test belongs to it."""

    value: float
    low: float
    high: float
    n: int  # independent units: episodes for `wilson`, games otherwise
    level: float  # coverage, e.g. 0.95
    method: str
    p_value: float | None = None


def bootstrap(means: pd.DataFrame, level: float, resamples: int, seed: int, method: str) -> Estimate:
    """Percentile interval of the mean of a (S, G) table of seeds by games, as `draws` draws it."""
    [drawn] = draws([means], resamples, seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean_of(means), float(low), float(high), means.shape[1], level, method)


def mean_of(means: pd.DataFrame) -> float:
    """Mean over seeds of the mean over their games."""
    return float(means.mean(axis=1).mean())


def draws(sides: Sequence[pd.DataFrame], resamples: int, seed: int) -> list[np.ndarray]:
    """Means of (S, G) tables of seeds by games in bootstrap draws, (B,) each; NaN: not a game of that seed.

    Worlds, which are sets of games that some seeds have in common, are drawn with their games, the same ones for all sides;
    then each side's seeds within them. One world, or one seed, is never redrawn.
    """
    if sides[0].shape[1] < 2:
        raise ValueError("one single game: an interval over games needs at least two")
    if resamples < 1:
        raise ValueError(f"resamples = {resamples}: expected at least 1")
    worlds = [_worlds(side) for side in sides]
    if len({frozenset(of) for of in worlds}) > 1:
        raise ValueError("the two sides' seeds do not have the same sets of games")
    generator = np.random.default_rng(seed)
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


def check_same_games(a: pd.Series, b: pd.Series) -> None:
    different = a.index.symmetric_difference(b.index)
    if len(different):
        raise ValueError(f"a and b are not over the same games: {len(different)} differ, e.g. {different[0]!r}")


def check_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} = {value}: expected a share strictly between 0 and 1")
