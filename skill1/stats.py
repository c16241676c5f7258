"""Intervals and tests for success rates, on scipy and statsmodels.

Which function for which question:
    one run, one split, one pass              `wilson`
    several passes, or several training seeds `success_rate` (0/1 outcomes), `bootstrap_mean` (any)
    an evaluation, per category               `summarise`
    two variants on the same games            `paired_difference`
    the same for new training seeds           `difference_over_seeds` (bootstrap), `welch` (t over seeds)
    several comparisons                       `holm` on their p values
    planning                                  `smallest_detectable_difference`

Rates are shares in [0, 1]. Everything is deterministic: what draws takes a `seed`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import permutation_test, ttest_ind, ttest_rel
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint


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


def wilson(successes: float, n: int, level: float = 0.95) -> Estimate:
    """Success rate of `n` independent episodes with the Wilson score interval.

    Raises:
        ValueError: n < 1, `successes` outside 0..n, or `level` outside (0, 1).
    """
    _check_share(level, "level")
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected n >= 1 and 0 <= successes <= n")
    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    rate = float(successes / n)
    # rounding puts the bound of 0 of n at 3e-17 and of n of n as much below 1
    return Estimate(rate, min(float(low), rate), max(float(high), rate), int(n), level, "Wilson")


def bootstrap_mean(
    values: ArrayLike,
    clusters: ArrayLike,
    seeds: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Mean over games of the games' means, with a percentile interval from resampling whole games.

    Passes over one game are repeats, not new evidence: a game is drawn with all of its passes. With `seeds`, training
    seeds and games are drawn too: independently and crossed where every seed plays the same games, games within seeds where
    every seed has games of its own. So the interval covers a new seed on new games. Fewer than five seeds make it somewhat
    too narrow.

    Args:
        values: (M,) outcomes, one per episode.
        clusters: (M,) game of each.
        seeds: (M,) training seed of each, or None for a single run.
        level: coverage.
        resamples: bootstrap draws.
        seed: of the draws.

    Raises:
        ValueError: empty or NaN values, a missing game or seed, lengths that differ, one single game, or seeds that
            share only a part of their games.
    """
    _check_share(level, "level")
    numbers = _numbers(values, "values")  # (M,)
    columns = {"value": numbers, "game": np.asarray(clusters), "seed": np.zeros(len(numbers))}
    if seeds is not None:
        columns["seed"] = np.asarray(seeds)
    lengths = {name: column.shape for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"values, clusters and seeds must be 1-d of one length, got {lengths}")
    if pd.isna(columns["game"]).any() or pd.isna(columns["seed"]).any():
        raise ValueError("a cluster or seed is missing (None or nan): name the game and seed of every value")
    means = pd.DataFrame(columns).pivot_table(index="seed", columns="game", values="value", aggfunc="mean")
    method = "bootstrap over games" if seeds is None else "bootstrap over seeds and games"
    return _bootstrap(means, level, resamples, seed, method)


def success_rate(won: ArrayLike, games: ArrayLike, seeds: ArrayLike | None = None, *, level: float = 0.95) -> Estimate:
    """Mean success over games with its interval: `bootstrap_mean`, or Wilson over games where resampling is blind.

    Resampling games that all have the same rate (all lost, all won, or a single game) gives an interval of width 0;
    Wilson's, with each game as one observation, says what so few games can say.

    Args:
        won: (M,) outcomes 0 or 1, one per episode.
        games, seeds: see `bootstrap_mean`.

    Raises:
        ValueError: see `bootstrap_mean`.
    """
    outcomes = pd.Series(_numbers(won, "won"))
    rates = outcomes.groupby(np.asarray(games)).mean()
    if rates.nunique() > 1:
        return bootstrap_mean(outcomes, games, seeds, level=level)
    over_games = wilson(rates.sum(), len(rates), level)
    return replace(over_games, method="Wilson over games")


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


def paired_difference(
    a: pd.Series, b: pd.Series, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean of a - b over the same games: percentile bootstrap over games and a paired permutation p value.

    Passes (or training seeds) of a game are averaged first; the inference is over games, given the runs at hand. The
    p value is two-sided from exchanging a and b within games: all 2^G exchanges where they are at most `resamples`,
    else that many random ones.

    Args:
        a: (M_a,) outcomes indexed by game, one entry per game and pass.
        b: (M_b,) the same for the other variant; the number of passes may differ.

    Raises:
        ValueError: empty or NaN values, one single game, or games that are not the same.
    """
    _check_share(level, "level")
    first, second = (_by_game(x, name) for x, name in ((a, "a"), (b, "b")))
    _check_same_games(first, second)
    estimate = _bootstrap((first - second).to_frame().T, level, resamples, seed, "")
    test = permutation_test(
        (first.to_numpy(), second.to_numpy()),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
    )
    method = "bootstrap and permutation over games"
    return Estimate(estimate.value, estimate.low, estimate.high, estimate.n, level, method, float(test.pvalue))


def difference_over_seeds(
    a: pd.DataFrame, b: pd.DataFrame, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean of a - b for new training seeds on new games: percentile bootstrap over both sides' seeds and the games.

    Each side's seeds are drawn on their own (seed 0 of one variant has nothing to do with seed 0 of another once they
    have diverged), the games together. Where seeds have games of their own, these sets of games are drawn, the same for
    both sides, and seeds within them. A side with one seed is taken as it is. Fewer than five seeds make the interval
    somewhat too narrow.

    Args:
        a: (S_a, G) per-game means, seeds down, games across; NaN for games that are not the seed's.
        b: (S_b, G) the same for the other variant.

    Raises:
        ValueError: an empty table, one single game, games that are not the same, or seeds that share only a part of theirs.
    """
    _check_share(level, "level")
    _check_same_games(a.T, b.T)
    sides = [a, b[a.columns]]
    first, second = _draws(sides, resamples, seed)
    low, high = np.quantile(first - second, [(1 - level) / 2, (1 + level) / 2])
    value = _mean(sides[0]) - _mean(sides[1])
    return Estimate(value, float(low), float(high), a.shape[1], level, "bootstrap over seeds and games")


def paired_t(a: Sequence[float], b: Sequence[float], *, level: float = 0.95) -> Estimate:
    """Mean of a - b with training seeds as the unit, each side's seeds on the same worlds: paired t interval and p value.

    Args:
        a, b: (S,) one mean per seed, in the same order; `n` of the estimate is S.

    Raises:
        ValueError: fewer than two seeds, numbers that differ, NaN values, or no spread of the differences.
    """
    _check_share(level, "level")
    first, second = _numbers(a, "a"), _numbers(b, "b")
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"{len(first)} and {len(second)} seeds: a paired interval needs the same two or more")
    if np.ptp(first - second) == 0:
        raise ValueError("no spread of the differences: a t interval says nothing")
    test = ttest_rel(first, second)
    low, high = test.confidence_interval(level)
    value = float((first - second).mean())
    return Estimate(value, float(low), float(high), len(first), level, "paired t over seeds", float(test.pvalue))


def welch(a: Sequence[float], b: Sequence[float], *, level: float = 0.95) -> Estimate:
    """Mean of a - b with training seeds as the unit: Welch's t interval and p value (variances may differ).

    Args:
        a, b: (S_a,), (S_b,) one mean per training seed; `n` of the estimate is S_a + S_b.

    Raises:
        ValueError: fewer than two seeds on a side, NaN values, or no spread over seeds on either side.
    """
    _check_share(level, "level")
    first, second = _numbers(a, "a"), _numbers(b, "b")
    if min(len(first), len(second)) < 2:
        raise ValueError(f"{len(first)} and {len(second)} seeds: a t interval needs at least two on each side")
    if np.ptp(first) == np.ptp(second) == 0:
        raise ValueError("no spread over seeds on either side: a t interval says nothing")
    with warnings.catch_warnings():  # of a side without spread scipy says that precision is lost; its variance is 0
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        test = ttest_ind(first, second, equal_var=False)
    low, high = test.confidence_interval(level)
    value = float(first.mean() - second.mean())
    seeds = len(first) + len(second)
    return Estimate(value, float(low), float(high), seeds, level, "Welch over seeds", float(test.pvalue))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjustment of k p values, in their order. Returns (k,).

    Raises:
        ValueError: no p values, or one outside [0, 1].
    """
    numbers = _numbers(p_values, "p_values")
    if not ((numbers >= 0) & (numbers <= 1)).all():
        raise ValueError(f"p values {list(p_values)} must lie in [0, 1]")
    return multipletests(numbers, method="holm")[1]


def smallest_detectable_difference(
    n: int, p: float, power: float = 0.8, paired: bool = False, *, correlation: float = 0.5, level: float = 0.95
) -> float:
    """Smallest drop from rate `p` that a two-sided test of two arms of `n` games each detects with `power`.

    Normal test on the arcsine scale (Cohen's h). Paired arms play the same games; outcomes correlated by `correlation`
    are worth n / (1 - correlation) independent games.

    Args:
        n: games per arm; passes over a game count as games only if they are independent.
        p: the better arm's rate, in (0, 1].
        paired: both arms play the same games.
        correlation: of the two arms' outcomes on a game, in [0, 1); only for `paired`, 0.5 is a planning assumption.

    Returns:
        The drop as a share (0.124 = 12.4 points).

    Raises:
        ValueError: arguments out of range, or `n` so small that even a drop to 0 is not detected.
    """
    for share, name in ((power, "power"), (level, "level")):
        _check_share(share, name)
    if n < 2 or not 0 < p <= 1 or not 0 <= correlation < 1:
        raise ValueError(f"n={n}, p={p}, correlation={correlation}: expected n >= 2, 0 < p <= 1, 0 <= correlation < 1")
    effective = n / (1 - correlation) if paired else n
    effect = NormalIndPower().solve_power(nobs1=effective, alpha=1 - level, power=power)  # Cohen's h
    angle = np.arcsin(np.sqrt(p)) - effect / 2
    if angle < 0:
        raise ValueError(f"{n} games per arm cannot detect any drop from {p} at power {power}: use more games")
    return float(p - np.sin(angle) ** 2)


def _bootstrap(means: pd.DataFrame, level: float, resamples: int, seed: int, method: str) -> Estimate:
    """Percentile interval of the mean of a (S, G) table of seeds by games, as `_draws` draws it."""
    [drawn] = _draws([means], resamples, seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(_mean(means), float(low), float(high), means.shape[1], level, method)


def _mean(means: pd.DataFrame) -> float:
    """Mean over seeds of the mean over their games."""
    return float(means.mean(axis=1).mean())


def _draws(sides: Sequence[pd.DataFrame], resamples: int, seed: int) -> list[np.ndarray]:
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


def _numbers(values: ArrayLike, name: str) -> np.ndarray:
    numbers = np.asarray(values, dtype=float)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"{name} must be a non-empty 1-d array, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(numbers)).sum())} values that are not finite")
    return numbers


def _by_game(values: pd.Series, name: str) -> pd.Series:
    """Per-game means, sorted by game."""
    numbers = pd.Series(_numbers(values, name), index=values.index)
    if numbers.index.hasnans:
        raise ValueError(f"{name} has an entry without a game in its index")
    return numbers.groupby(level=0).mean()


def _check_same_games(a: pd.Series, b: pd.Series) -> None:
    different = a.index.symmetric_difference(b.index)
    if len(different):
        raise ValueError(f"a and b are not over the same games: {len(different)} differ, e.g. {different[0]!r}")


def _check_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} = {value}: expected a share strictly between 0 and 1")
