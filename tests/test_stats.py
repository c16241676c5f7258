"""Intervals and tests against published and hand-computed numbers, scipy, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, norm

from skill1.stats import (
    bootstrap_mean,
    difference_over_seeds,
    holm,
    paired_difference,
    seed_difference,
    smallest_detectable_difference,
    success_rate,
    wilson,
)
from skill1.stats.estimates import draws

NAN = math.nan


def games(values: list[float], names: str = "abcdefghijklmnopqrst") -> pd.Series:
    return pd.Series(values, index=list(names[: len(values)]))


# --- Wilson ------------------------------------------------------------------------------------------------------


def test_wilson_published_example() -> None:
    e = wilson(121, 134)
    assert (round(e.value, 3), round(e.low, 3), round(e.high, 3)) == (0.903, 0.841, 0.942)
    assert (e.n, e.p_value) == (134, None)


def test_wilson_written_out() -> None:
    z, n, p = norm.ppf(0.975), 20, 0.25
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    e = wilson(5, 20)
    assert (e.low, e.high) == pytest.approx((centre - half, centre + half), rel=1e-12)


@settings(deadline=None)
@given(st.integers(1, 500), st.data())
def test_wilson_laws(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    e, mirror = wilson(k, n), wilson(n - k, n)
    assert -1e-12 <= e.low <= e.value + 1e-12 and e.value - 1e-12 <= e.high <= 1 + 1e-12
    assert e.high - e.low > 0
    assert (mirror.low, mirror.high) == pytest.approx((1 - e.high, 1 - e.low), abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_rejects(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {n}"):
        wilson(successes, n)


# --- Bootstrap ---------------------------------------------------------------------------------------------------


def test_bootstrap_agrees_with_scipy_on_game_means() -> None:
    draw = np.random.default_rng(0)
    means = draw.integers(0, 5, size=60) / 4
    passes = np.array([[1.0] * round(4 * m) + [0.0] * (4 - round(4 * m)) for m in means])
    e = bootstrap_mean(passes.ravel(), np.repeat(np.arange(60), 4), resamples=20_000)
    reference = bootstrap((means,), np.mean, method="percentile", n_resamples=20_000, rng=draw).confidence_interval
    assert e.value == pytest.approx(means.mean())
    assert (e.low, e.high) == pytest.approx((reference.low, reference.high), abs=0.005)
    assert e.n == 60


def test_passes_over_a_game_are_no_new_evidence() -> None:
    once = bootstrap_mean([1, 0, 1, 1, 0, 1], list("abcdef"))
    often = bootstrap_mean([1, 0, 1, 1, 0, 1] * 8, list("abcdef") * 8)
    assert once == often


def test_every_game_counts_the_same_whatever_its_passes() -> None:
    assert bootstrap_mean([1, 0, 0, 0], ["a", "b", "b", "b"]).value == 0.5


def test_bootstrap_standard_deviation_over_two_games_by_hand() -> None:
    # Two games 0 and 1: the mean of a draw is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
    assert quantiles([[0.0, 1.0]]) == [0.0, 0.5, 0.5, 0.5, 1.0]
    e = bootstrap_mean([0, 1], ["a", "b"])
    assert (e.value, e.low, e.high) == (0.5, 0.0, 1.0)


def quantiles(table: list[list[float]]) -> list[float]:
    """Quantiles of 20, 30, 50, 70 and 80 % of the bootstrap draws of a (seeds, games) table."""
    [drawn] = draws([pd.DataFrame(table)], 40_000)
    return [float(q) for q in np.quantile(drawn, [0.2, 0.3, 0.5, 0.7, 0.8])]


def test_two_levels_are_crossed() -> None:
    # Only seeds differ: the games add nothing, and the draws are those of two units.
    assert quantiles([[0.0] * 3, [1.0] * 3]) == pytest.approx([0.0, 0.5, 0.5, 0.5, 1.0])
    e = bootstrap_mean([0, 0, 0, 1, 1, 1], list("abc") * 2, [0, 0, 0, 1, 1, 1])
    assert (e.value, e.low, e.high) == pytest.approx((0.5, 0.0, 1.0)) and e.n == 3
    # Only games differ: every seed sees the same drawn games, so more seeds do not narrow the interval.
    assert quantiles([[0.0, 1.0]] * 5) == pytest.approx([0.0, 0.5, 0.5, 0.5, 1.0])


def test_games_of_their_own_are_drawn_within_their_seeds() -> None:
    # Worlds of two games: (0, 1) and (0, 1). Their draws are independent, so the mean of both varies half as much.
    values, names, seeds = [0, 1, 0, 1], list("abcd"), [0, 0, 1, 1]
    nested = bootstrap_mean(values, names, seeds)
    crossed = bootstrap_mean(values, list("abab"), seeds)
    assert nested.value == crossed.value == 0.5 and (nested.n, crossed.n) == (4, 2)
    assert (crossed.low, crossed.high) == (0.0, 1.0)  # P(all 0) = 1/4
    # nested: one world twice (1/2) or both; all 0 has 1/4 or 1/16: .156 > .025, and .2 is above that
    assert (nested.low, nested.high) == (0.0, 1.0)
    low, *_, high = quantiles([[0.0, 1.0, NAN, NAN], [NAN, NAN, 0.0, 1.0]])
    assert (low, high) == (0.25, 0.75)
    with pytest.raises(ValueError, match="seed 0 has no value for game 'c'"):
        bootstrap_mean(values, list("abbc"), seeds)


def test_a_difference_between_worlds_drops_out() -> None:
    # In world 0 all is won, in world 1 nothing; b is .1 below in each: the difference does not vary with the worlds.
    nan = math.nan
    a = pd.DataFrame([[1.0, 1.0, nan, nan], [nan, nan, 0.2, 0.2]], columns=list("wxyz"))
    e = difference_over_seeds(a, a - 0.1)
    assert (e.value, e.low, e.high) == pytest.approx((0.1, 0.1, 0.1)) and e.n == 4
    with pytest.raises(ValueError, match="do not have the same sets of games"):
        difference_over_seeds(a, pd.DataFrame([[1.0, 1.0, 1.0, 1.0]], columns=list("wxyz")))


def test_paired_seeds_by_hand() -> None:
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt 3, t(2) quantile 4.3027
    e = seed_difference(pd.Series([2, 4, 6]), pd.Series([1, 2, 3]), paired=True)
    assert (e.value, e.low, e.high) == pytest.approx(
        (2, 2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4
    )
    assert e.p_value == pytest.approx(0.0742, abs=1e-4) and e.n == 3


@pytest.mark.parametrize(
    ("a", "b", "paired"), [([1], [1], True), ([1, 2], [0, 1], True), ([1, 2], [1], False), ([1, 1], [0, 0], False)]
)
def test_one_seed_or_no_spread_says_nothing(a: list[float], b: list[float], paired: bool) -> None:
    e = seed_difference(pd.Series(a), pd.Series(b), paired=paired)
    assert np.isnan([e.low, e.high, e.p_value]).all() and e.value == np.mean(a) - np.mean(b)


def test_two_level_variance_is_the_sum_of_both() -> None:
    draw = np.random.default_rng(1)
    by_seed, by_game = draw.normal(size=8), draw.normal(size=30)
    table = by_seed[:, None] + by_game  # (8, 30), no interaction
    e = bootstrap_mean(table.ravel(), np.tile(np.arange(30), 8), np.repeat(np.arange(8), 30), resamples=40_000)
    spread = math.sqrt(by_seed.var() / 8 + by_game.var() / 30)
    assert e.high - e.low == pytest.approx(2 * norm.ppf(0.975) * spread, rel=0.04)


def test_bootstrap_covers() -> None:
    draw = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        rates = draw.beta(4, 2, size=100)  # games differ in difficulty; mean 2/3
        values = draw.random((2, 100)) < rates
        e = bootstrap_mean(values.ravel(), np.tile(np.arange(100), 2), resamples=500)
        hits += e.low <= 2 / 3 <= e.high
    assert 180 <= hits <= 199  # 190 expected, standard deviation 3


def test_bootstrap_is_deterministic_and_bounded() -> None:
    values, names = [1, 0, 1, 1, 1], list("abcde")
    assert bootstrap_mean(values, names) == bootstrap_mean(values, names)
    e = bootstrap_mean([1, 1, 1], list("abc"))
    assert (e.value, e.low, e.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("values", "clusters", "seeds", "message"),
    [
        ([], [], None, "non-empty"),
        ([[1.0]], [["a"]], None, "non-empty 1-d"),
        ([1.0, NAN], ["a", "b"], None, "1 values that are not finite"),
        ([1.0, 0.0], ["a"], None, "same length"),
        ([1.0, 0.0], ["a", "b"], [0], "same length"),
        ([1.0, 0.0, 1.0], ["a", "b", "a"], [0, 0, 1], "seed 1 has no value for game 'b'"),
    ],
)
def test_bootstrap_rejects(values: list, clusters: list, seeds: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, clusters, seeds)


def test_a_single_game_has_no_interval() -> None:
    e = bootstrap_mean([1.0, 0.0], ["a", "a"])
    assert (e.value, e.n) == (0.5, 1) and np.isnan([e.low, e.high]).all()
    e = paired_difference(games([1]), games([0]))
    assert (e.value, e.n) == (1.0, 1) and np.isnan([e.low, e.high, e.p_value]).all()


# --- Paired ------------------------------------------------------------------------------------------------------


def test_paired_difference_by_hand() -> None:
    # Four games won only by a: 2 of the 2^4 exchanges are as extreme.
    e = paired_difference(games([1, 1, 1, 1]), games([0, 0, 0, 0]))
    assert (e.value, e.low, e.high, e.n) == (1.0, 1.0, 1.0, 4)
    assert e.p_value == pytest.approx(2 / 16)


def test_paired_difference_averages_passes_and_aligns_by_name() -> None:
    a = pd.Series([1, 0, 1, 1], index=["x", "x", "y", "y"])  # x 0.5, y 1
    b = pd.Series([0, 1], index=["y", "x"])
    e = paired_difference(a, b)
    assert e.value == pytest.approx((-0.5 + 1) / 2)
    assert e.n == 2


def test_paired_permutation_equals_mcnemar_for_one_pass() -> None:
    a, b = games([1] * 9 + [0] * 3), games([0] * 7 + [1] * 2 + [1] + [0] * 2)
    assert paired_difference(a, b).p_value == pytest.approx(binomtest(7, 8).pvalue)  # 7 games only a, 1 only b


def test_pairing_removes_what_games_share() -> None:
    draw = np.random.default_rng(4)
    base = np.linspace(0.1, 0.9, 50)
    a, b = (pd.Series(base + shift + draw.normal(0, 0.02, 50)) for shift in (0.05, 0.0))
    e = paired_difference(a, b)
    assert 0.03 < e.low < 0.05 < e.high < 0.07
    assert e.p_value < 0.001
    swapped = paired_difference(b, a)
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((-e.value, -e.high, -e.low), abs=1e-3)


def test_permutation_p_is_uniform_without_a_difference() -> None:
    draw = np.random.default_rng(5)
    p = [paired_difference(*(pd.Series(draw.random(30)) for _ in "ab"), resamples=300).p_value for _ in range(200)]
    assert 2 <= sum(x <= 0.05 for x in p) <= 20  # 10 expected, standard deviation 3
    assert 0.43 < np.mean(p) < 0.57


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (games([]), games([]), "a must be a non-empty"),
        (games([1, NAN]), games([1, 1]), "a holds 1 values that are not finite"),
        (games([1, 1, 0]), games([1, 1]), "not over the same games: 1 differ, e.g. 'c'"),
    ],
)
def test_paired_difference_rejects(a: pd.Series, b: pd.Series, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(a, b)


# --- Holm and planning -------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1 and made monotone: .04, .06, .06, .06.
    np.testing.assert_allclose(holm(pd.Series([0.03, 0.01, 0.04, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(pd.Series([0.6, 0.7])), [1.0, 1.0])
    np.testing.assert_allclose(holm(pd.Series([0.02])), [0.02])
    assert holm(pd.Series([0.1, NAN, 0.3], index=list("abc"))).dropna().to_dict() == {"a": 0.2, "c": 0.3}
    assert holm(pd.Series([], dtype=float)).empty


def test_smallest_detectable_difference_published_example() -> None:
    assert smallest_detectable_difference(134, 0.9, correlation=0) == pytest.approx(0.124, abs=5e-4)
    assert smallest_detectable_difference(8 * 134, 0.9, correlation=0) == pytest.approx(0.04, abs=1e-3)


def test_smallest_detectable_difference_written_out() -> None:
    # Cohen's h that two arms of n detect: (1.96 + 0.8416) * sqrt(2 / n).
    h = (norm.ppf(0.975) + norm.ppf(0.8)) * math.sqrt(2 / 200)
    drop = smallest_detectable_difference(200, 0.8, correlation=0)
    assert 2 * math.asin(math.sqrt(0.8)) - 2 * math.asin(math.sqrt(0.8 - drop)) == pytest.approx(h, rel=1e-4)
    assert smallest_detectable_difference(50, 0.8, correlation=0.75) == pytest.approx(drop)
    more, less = (smallest_detectable_difference(200, 0.8, power, correlation=0) for power in (0.9, 0.5))
    assert more > drop > less


def test_detectable_difference_is_detected_as_often_as_said() -> None:
    draw = np.random.default_rng(6)
    n, p, trials = 134, 0.9, 4000
    drop = smallest_detectable_difference(n, p, correlation=0)
    a, b = draw.binomial(n, p, trials) / n, draw.binomial(n, p - drop, trials) / n
    pooled = (a + b) / 2
    z = (a - b) / np.sqrt(pooled * (1 - pooled) * 2 / n)
    assert (z > norm.ppf(0.975)).mean() == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (100, 0.0), (5, 0.1)])
def test_no_drop_is_large_enough(n: int, p: float) -> None:
    assert math.isnan(smallest_detectable_difference(n, p))


def test_success_rate_over_games_is_the_bootstrap_where_games_differ() -> None:
    won, games = [1, 1, 0, 1, 0, 0], ["a", "a", "b", "b", "c", "c"]
    assert success_rate(won, games) == bootstrap_mean(won, games)


@pytest.mark.parametrize("won, equivalent", [([0, 0, 0, 0], 0), ([1, 1, 1, 1], 2), ([1, 0, 0, 1], 1)])
def test_success_rate_of_equal_games_is_wilson_over_games(won: list[int], equivalent: int) -> None:
    """Two games, two passes: a resample could only repeat the same rate."""
    rate, expected = success_rate(won, ["a", "a", "b", "b"]), wilson(equivalent, 2)
    assert (rate.value, rate.low, rate.high, rate.n) == (expected.value, expected.low, expected.high, 2)
