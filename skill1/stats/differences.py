"""Differences between variants, their tests, and what a study can detect."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from scipy.stats import permutation_test, ttest_ind, ttest_rel
from statsmodels.stats.power import NormalIndPower

from skill1.stats.estimates import LEVEL, RESAMPLES, Estimate, draws, mean_of, numbers, percentiles

SAME = 1e-9  # differences of rates closer than this are equal


def paired_difference(a: pd.Series, b: pd.Series, *, resamples: int = RESAMPLES) -> Estimate:
    """Mean of a - b over the same games: percentile bootstrap over games and a paired permutation p value.

    Passes (or training seeds) of a game are averaged first; the inference is over games, given the runs at hand. The
    p value is two-sided from exchanging a and b within games: all 2^G exchanges where they are at most `resamples`,
    else that many random ones. A single game has neither.

    Args:
        a: (M_a,) outcomes indexed by game, one entry per game and pass.
        b: (M_b,) the same for the other variant; the number of passes may differ.

    Raises:
        ValueError: empty or NaN values, or games that are not the same.
    """
    first, second = (pd.Series(numbers(x, name), x.index).groupby(level=0).mean() for x, name in ((a, "a"), (b, "b")))
    _check_same(first.index, second.index)
    means, p_value = (first - second).to_frame().T, np.nan
    if means.shape[1] > 1:
        test = permutation_test(
            (first.to_numpy(), second.to_numpy()),
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=resamples,
            rng=np.random.default_rng(0),
        )
        p_value = float(test.pvalue)
    return Estimate(mean_of(means), *percentiles(*draws([means], resamples)), means.shape[1], p_value)


def difference_over_seeds(a: pd.DataFrame, b: pd.DataFrame) -> Estimate:
    """Mean of a - b for new training seeds on new games: percentile bootstrap over both sides' seeds and the games.

    Each side's seeds are drawn on their own (seed 0 of one variant has nothing to do with seed 0 of another once they
    have diverged), the games together. Where seeds have games of their own, these sets of games are drawn, the same for
    both sides, and seeds within them. A side with one seed is taken as it is. Fewer than five seeds make the interval
    somewhat too narrow; a single game has none.

    Args:
        a: (S_a, G) per-game means, seeds down, games across; NaN for games that are not the seed's.
        b: (S_b, G) the same for the other variant.

    Raises:
        ValueError: games that are not the same, or seeds that share only a part of theirs.
    """
    _check_same(a.columns, b.columns)
    sides = [a, b[a.columns]]
    first, second = draws(sides)
    return Estimate(mean_of(sides[0]) - mean_of(sides[1]), *percentiles(first - second), a.shape[1])


def seed_difference(a: pd.Series, b: pd.Series, *, paired: bool) -> Estimate:
    """Mean of a - b with training seeds as the unit: t interval and p value, NaN for fewer than two seeds or no spread.

    Args:
        a, b: (S_a,), (S_b,) one mean per training seed; `n` of the estimate is their number.
        paired: each side's seeds are on the same worlds, in the same order; else Welch's test (variances may differ).
    """
    n, value = len(a) if paired else len(a) + len(b), float(a.mean() - b.mean())
    spread = np.ptp(a - b) if paired else max(np.ptp(a), np.ptp(b))
    if min(len(a), len(b)) < 2 or spread <= SAME:
        return Estimate(value, np.nan, np.nan, n, np.nan)
    with warnings.catch_warnings():  # of a side without spread scipy says that precision is lost; its variance is 0
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        test = ttest_rel(a, b) if paired else ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    return Estimate(value, float(low), float(high), n, float(test.pvalue))


def holm(p_values: pd.Series) -> pd.Series:
    """Adjust p values by Holm's step-down procedure over those that are not NaN; the others stay NaN."""
    ordered = p_values.dropna().sort_values()
    # statsmodels' multipletests collects garbage each time, half a second where torch is loaded
    adjusted = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1.0)
    return adjusted.reindex(p_values.index).astype(float)


def smallest_detectable_difference(n: int, p: float, power: float = 0.8, *, correlation: float = 0.5) -> float:
    """Smallest drop from rate `p` that a two-sided test of two arms on the same `n` games detects with `power`.

    Normal test on the arcsine scale (Cohen's h). Outcomes of paired arms that are correlated by `correlation` are worth
    n / (1 - correlation) independent games.

    Args:
        n: games per arm; passes over a game count as games only if they are independent.
        p: the better arm's rate.
        correlation: of the two arms' outcomes on a game, in [0, 1); 0.5 is a planning assumption, 0 are other games.

    Returns:
        The drop as a share (0.124 = 12.4 points); NaN where even a drop to 0 is not detected.
    """
    effect = NormalIndPower().solve_power(nobs1=n / (1 - correlation), alpha=1 - LEVEL, power=power)  # Cohen's h
    angle = np.arcsin(np.sqrt(p)) - effect / 2
    return np.nan if angle < 0 else float(p - np.sin(angle) ** 2)


def _check_same(a: pd.Index, b: pd.Index) -> None:
    different = a.symmetric_difference(b)
    if len(different):
        raise ValueError(f"a and b are not over the same games: {len(different)} differ, e.g. {different[0]!r}")
