"""Differences between variants, their tests, and what a study can detect."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import permutation_test, ttest_ind, ttest_rel
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower

from skill1.stats.resampling import Estimate, bootstrap, check_same_games, check_share, draws, mean_of, numbers


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
    check_share(level, "level")
    first, second = (_by_game(x, name) for x, name in ((a, "a"), (b, "b")))
    check_same_games(first, second)
    estimate = bootstrap((first - second).to_frame().T, level, resamples, seed, "")
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
    check_share(level, "level")
    check_same_games(a.T, b.T)
    sides = [a, b[a.columns]]
    first, second = draws(sides, resamples, seed)
    low, high = np.quantile(first - second, [(1 - level) / 2, (1 + level) / 2])
    value = mean_of(sides[0]) - mean_of(sides[1])
    return Estimate(value, float(low), float(high), a.shape[1], level, "bootstrap over seeds and games")


def paired_t(a: Sequence[float], b: Sequence[float], *, level: float = 0.95) -> Estimate:
    """Mean of a - b with training seeds as the unit, each side's seeds on the same worlds: paired t interval and p value.

    Args:
        a, b: (S,) one mean per seed, in the same order; `n` of the estimate is S.

    Raises:
        ValueError: fewer than two seeds, numbers that differ, NaN values, or no spread of the differences.
    """
    check_share(level, "level")
    first, second = numbers(a, "a"), numbers(b, "b")
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
    check_share(level, "level")
    first, second = numbers(a, "a"), numbers(b, "b")
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
    given = numbers(p_values, "p_values")
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"p values {list(p_values)} must lie in [0, 1]")
    return multipletests(given, method="holm")[1]


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
        check_share(share, name)
    if n < 2 or not 0 < p <= 1 or not 0 <= correlation < 1:
        raise ValueError(f"n={n}, p={p}, correlation={correlation}: expected n >= 2, 0 < p <= 1, 0 <= correlation < 1")
    effective = n / (1 - correlation) if paired else n
    effect = NormalIndPower().solve_power(nobs1=effective, alpha=1 - level, power=power)  # Cohen's h
    angle = np.arcsin(np.sqrt(p)) - effect / 2
    if angle < 0:
        raise ValueError(f"{n} games per arm cannot detect any drop from {p} at power {power}: use more games")
    return float(p - np.sin(angle) ** 2)


def _by_game(values: pd.Series, name: str) -> pd.Series:
    """Per-game means, sorted by game."""
    outcomes = pd.Series(numbers(values, name), index=values.index)
    if outcomes.index.hasnans:
        raise ValueError(f"{name} has an entry without a game in its index")
    return outcomes.groupby(level=0).mean()
