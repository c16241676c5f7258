"""Success rates and other means with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from statsmodels.stats.proportion import proportion_confint

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


def wilson(successes: float, n: int) -> Estimate:
    """Success rate of `n` independent episodes with the Wilson score interval.

    Raises:
        ValueError: n < 1, or `successes` outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected n >= 1 and 0 <= successes <= n")
    low, high = proportion_confint(successes, n, alpha=1 - LEVEL, method="wilson")
    rate = float(successes / n)
    # rounding puts the bound of 0 of n at 3e-17 and of n of n as much below 1
    return Estimate(rate, min(float(low), rate), max(float(high), rate), int(n))


def bootstrap_mean(
    values: ArrayLike, games: ArrayLike, seeds: ArrayLike | None = None, *, resamples: int = RESAMPLES
) -> Estimate:
    """Mean over games of the games' means, with a percentile interval from resampling whole games.

    Passes over one game are repeats, not new evidence: a game is drawn with all of its passes. With `seeds`, training
    seeds and games are drawn too: independently and crossed where every seed plays the same games, games within seeds where
    every seed has games of its own. So the interval covers a new seed on new games. Fewer than five seeds make it somewhat
    too narrow. A single game has none.

    Args:
        values: (M,) outcomes, one per episode.
        games: (M,) game of each.
        seeds: (M,) training seed of each, or None for a single run.
        resamples: bootstrap draws.

    Raises:
        ValueError: empty or NaN values, lengths that differ, or seeds that share only a part of their games.
    """
    of_seeds = 0 if seeds is None else np.asarray(seeds)
    frame = pd.DataFrame({"value": numbers(values, "values"), "game": np.asarray(games), "seed": of_seeds})
    means = frame.groupby(["seed", "game"])["value"].mean().unstack("game")
    return Estimate(mean_of(means), *percentiles(*draws([means], resamples)), means.shape[1])


def success_rate(won: ArrayLike, games: ArrayLike, seeds: ArrayLike | None = None) -> Estimate:
    """Mean success over games with its interval: `bootstrap_mean`, or Wilson over games where resampling is blind.

    Resampling games that all have the same rate (all lost, all won, or a single game) gives an interval of width 0;
    Wilson's, with each game as one observation, says what so few games can say.

    Args:
        won: (M,) outcomes 0 or 1, one per episode.
        games, seeds: see `bootstrap_mean`.

    Raises:
        ValueError: see `bootstrap_mean`.
    """
    outcomes = pd.Series(numbers(won, "won"))
    rates = outcomes.groupby(np.asarray(games)).mean()
    return bootstrap_mean(outcomes, games, seeds) if rates.nunique() > 1 else wilson(rates.sum(), len(rates))


def summarise(frame: pd.DataFrame) -> dict[str, Any]:
    """Success of one evaluation: rate, n, Wilson and game-bootstrap 95 % intervals, overall and per category.

    Overall also the mean score and steps, and the shares of the actions that were "ill_formed" and "inadmissible".

    "interval" is the one over games (`success_rate`; passes of a game are not independent); "wilson" treats every
    episode as independent and is the narrower one when games differ in difficulty.
    """

    def rate(part: pd.DataFrame) -> dict[str, Any]:
        naive = wilson(int(part["won"].sum()), len(part))
        over_games = success_rate(part["won"], part["game"])
        return {
            "success": naive.value,
            "n": len(part),
            "games": over_games.n,
            "wilson": [naive.low, naive.high],
            "interval": [over_games.low, over_games.high],
        }

    overall = rate(frame) | {
        "passes": int(frame["pass"].nunique()),
        "score": float(frame["score"].mean()),
        "steps": float(frame["steps"].mean()),
        "ill_formed": float(frame["invalid_actions"].sum() / frame["steps"].sum()),
        "inadmissible": float(frame["inadmissible_actions"].sum() / frame["steps"].sum()),
    }
    overall["categories"] = {name: rate(part) for name, part in frame.groupby("category")}
    return overall


# -- resampling of seeds and games -----------------------------------------------------------------------------------


def percentiles(drawn: np.ndarray) -> tuple[float, float]:
    """Return the interval that holds the middle 95 % of (B,) draws."""
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
    seeds = tuple(tuple(len(of[games]) for of in worlds) for games in worlds[0])
    times, weights = _weights(seeds, tuple(map(len, worlds[0])), resamples)
    total, weight = (np.zeros((len(sides), resamples)) for _ in range(2))
    for world, (games, (columns, *of_sides)) in enumerate(zip(worlds[0], weights, strict=True)):
        for number, (side, rows) in enumerate(zip(sides, of_sides, strict=True)):
            means = side.iloc[worlds[number][games]][list(games)].to_numpy()
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


@lru_cache(maxsize=4)  # most arms of a study have the same numbers of seeds and games: the draws are most of the time
def _weights(
    seeds: tuple[tuple[int, ...], ...], games: tuple[int, ...], resamples: int
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Weights in bootstrap draws: of the worlds, (B, worlds); in each world of its games, (B, games), and each side's seeds."""
    generator = np.random.default_rng(0)

    def drawn(count: int) -> np.ndarray:
        """(B, count); a row sums to 1. One is never redrawn."""
        if count == 1:
            return np.ones((resamples, 1))
        return generator.multinomial(count, np.full(count, 1 / count), size=resamples) / count

    times = drawn(len(games))
    return times, [[drawn(count), *map(drawn, of_sides)] for count, of_sides in zip(games, seeds, strict=True)]


def numbers(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must be a non-empty 1-d array, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite")
    return array
