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
    Estimate,
    bootstrap_mean,
    difference_over_seeds,
    holm,
    paired_difference,
    paired_t,
    smallest_detectable_difference,
    success_rate,
    wilson,
)

NAN = math.nan


def games(values: list[float], names: str = "abcdefghijklmnopqrst") -> pd.Series:
    return pd.Series(values, index=list(names[: len(values)]))


# --- Wilson ------------------------------------------------------------------------------------------------------


def test_wilson_published_example() -> None:
    e = wilson(121, 134)
    assert (round(e.value, 3), round(e.low, 3), round(e.high, 3)) == (0.903, 0.841, 0.942)
    assert (e.n, e.level, e.method, e.p_value) == (134, 0.95, "Wilson", None)


def test_wilson_written_out() -> None:
    z, n, p = norm.ppf(0.95), 20, 0.25
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    e = wilson(5, 20, level=0.9)
    assert (e.low, e.high) == pytest.approx((centre - half, centre + half), rel=1e-12)


@settings(deadline=None)
@given(st.integers(1, 500), st.data())
def test_wilson_laws(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    e, mirror = wilson(k, n), wilson(n - k, n)
    assert -1e-12 <= e.low <= e.value + 1e-12 and e.value - 1e-12 <= e.high <= 1 + 1e-12
    assert e.high - e.low > 0
    assert (mirror.low, mirror.high) == pytest.approx((1 - e.high, 1 - e.low), abs=1e-9)
    narrow = wilson(k, n, level=0.5)
    assert narrow.high - narrow.low < e.high - e.low


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_rejects(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {n}"):
        wilson(successes, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, NAN])
def test_levels_are_shares(level: float) -> None:
    with pytest.raises(ValueError, match="level = .*strictly between 0 and 1"):
        wilson(1, 2, level=level)
    with pytest.raises(ValueError, match="level = "):
        bootstrap_mean([0, 1], ["a", "b"], level=level)
    with pytest.raises(ValueError, match="level = "):
        paired_difference(games([0, 1]), games([1, 1]), level=level)


# --- Bootstrap ---------------------------------------------------------------------------------------------------


def test_bootstrap_agrees_with_scipy_on_game_means() -> None:
    draw = np.random.default_rng(0)
    means = draw.integers(0, 5, size=60) / 4
    passes = np.array([[1.0] * round(4 * m) + [0.0] * (4 - round(4 * m)) for m in means])
    e = bootstrap_mean(passes.ravel(), np.repeat(np.arange(60), 4), resamples=20_000)
    reference = bootstrap((means,), np.mean, method="percentile", n_resamples=20_000, rng=draw).confidence_interval
    assert e.value == pytest.approx(means.mean())
    assert (e.low, e.high) == pytest.approx((reference.low, reference.high), abs=0.005)
    assert (e.n, e.level, e.method) == (60, 0.95, "bootstrap over games")


def test_passes_over_a_game_are_no_new_evidence() -> None:
    once = bootstrap_mean([1, 0, 1, 1, 0, 1], list("abcdef"), seed=3)
    often = bootstrap_mean([1, 0, 1, 1, 0, 1] * 8, list("abcdef") * 8, seed=3)
    assert once == often


def test_every_game_counts_the_same_whatever_its_passes() -> None:
    assert bootstrap_mean([1, 0, 0, 0], ["a", "b", "b", "b"]).value == 0.5


def test_bootstrap_standard_deviation_over_two_games_by_hand() -> None:
    # Two games 0 and 1: the mean of a draw is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
    e = bootstrap_mean([0, 1], ["a", "b"], level=0.6)
    assert (e.value, e.low, e.high) == (0.5, 0.0, 1.0)
    e = bootstrap_mean([0, 1], ["a", "b"], level=0.4)
    assert (e.low, e.high) == (0.5, 0.5)


def test_two_levels_are_crossed() -> None:
    # Only seeds differ: the games add nothing, and the draws are those of two units.
    values, names, seeds = [0, 0, 0, 1, 1, 1], list("abc") * 2, [0, 0, 0, 1, 1, 1]
    e = bootstrap_mean(values, names, seeds, level=0.6)
    assert (e.value, e.low, e.high) == pytest.approx((0.5, 0.0, 1.0))
    assert (e.n, e.method) == (3, "bootstrap over seeds and games")
    # Only games differ: every seed sees the same drawn games, so more seeds do not narrow the interval.
    table = np.tile([0.0, 1.0], 5)
    e = bootstrap_mean(table, list("ab") * 5, np.repeat(np.arange(5), 2), level=0.6)
    assert (e.low, e.high) == pytest.approx((0.0, 1.0))


def test_games_of_their_own_are_drawn_within_their_seeds() -> None:
    # Worlds of two games: (0, 1) and (0, 1). Their draws are independent, so the mean of both varies half as much.
    values, names, seeds = [0, 1, 0, 1], list("abcd"), [0, 0, 1, 1]
    nested = bootstrap_mean(values, names, seeds, resamples=40_000)
    crossed = bootstrap_mean(values, list("abab"), seeds, resamples=40_000)
    assert nested.value == crossed.value == 0.5 and (nested.n, crossed.n) == (4, 2)
    assert (crossed.low, crossed.high) == (0.0, 1.0)  # P(all 0) = 1/4
    # nested: one world twice (1/2) or both; all 0 has 1/4 or 1/16: .156 > .025
    assert (nested.low, nested.high) == (0.0, 1.0)
    narrow = bootstrap_mean(values, names, seeds, level=1 - 2 * 0.2, resamples=40_000)  # below .25 of mass .156
    assert narrow.low == 0.25 and narrow.high == 0.75
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


def test_paired_t_by_hand() -> None:
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt 3, t(2) quantile 4.3027
    e = paired_t([2, 4, 6], [1, 2, 3])
    assert (e.value, e.low, e.high) == pytest.approx(
        (2, 2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4
    )
    assert e.p_value == pytest.approx(0.0742, abs=1e-4) and e.n == 3
    for a, b, message in (([1], [1], "needs the same two"), ([1, 2], [0, 1], "no spread"), ([1, 2], [1], "2 and 1")):
        with pytest.raises(ValueError, match=message):
            paired_t(a, b)


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
    for trial in range(200):
        rates = draw.beta(4, 2, size=100)  # games differ in difficulty; mean 2/3
        values = draw.random((2, 100)) < rates
        e = bootstrap_mean(values.ravel(), np.tile(np.arange(100), 2), resamples=500, seed=trial)
        hits += e.low <= 2 / 3 <= e.high
    assert 180 <= hits <= 199  # 190 expected, standard deviation 3


def test_bootstrap_is_deterministic_and_bounded() -> None:
    values, names = [1, 0, 1, 1, 1], list("abcde")
    assert bootstrap_mean(values, names) == bootstrap_mean(values, names, seed=0)
    e = bootstrap_mean([1, 1, 1], list("abc"))
    assert (e.value, e.low, e.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("values", "clusters", "seeds", "message"),
    [
        ([], [], None, "non-empty"),
        ([[1.0]], [["a"]], None, "non-empty 1-d"),
        ([1.0, NAN], ["a", "b"], None, "1 values that are not finite"),
        ([1.0, 0.0], ["a"], None, "one length"),
        ([1.0, 0.0], ["a", "b"], [0], "one length"),
        ([1.0, 0.0], ["a", "a"], None, "one single game"),
        ([1.0, 0.0], ["a", None], None, "cluster or seed is missing"),
        ([1.0, 0.0], ["a", "b"], [0, NAN], "cluster or seed is missing"),
        ([1.0, 0.0, 1.0], ["a", "b", "a"], [0, 0, 1], "seed 1 has no value for game 'b'"),
    ],
)
def test_bootstrap_rejects(values: list, clusters: list, seeds: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, clusters, seeds)


def test_resamples_must_be_positive() -> None:
    with pytest.raises(ValueError, match="resamples = 0"):
        bootstrap_mean([0, 1], ["a", "b"], resamples=0)


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
    assert (e.n, e.method) == (2, "bootstrap and permutation over games")


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
        (games([1]), games([0]), "one single game"),
        (pd.Series([1, 0], index=["x", None]), pd.Series([1], index=["x"]), "a has an entry without a game"),
    ],
)
def test_paired_difference_rejects(a: pd.Series, b: pd.Series, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(a, b)


# --- Holm and planning -------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1 and made monotone: .04, .06, .06, .06.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.02]), [0.02])


@pytest.mark.parametrize(
    ("p_values", "message"), [([], "non-empty"), ([0.1, NAN], "not finite"), ([0.1, 1.2], "must lie in")]
)
def test_holm_rejects(p_values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        holm(p_values)


def test_smallest_detectable_difference_published_example() -> None:
    assert smallest_detectable_difference(134, 0.9) == pytest.approx(0.124, abs=5e-4)
    assert smallest_detectable_difference(8 * 134, 0.9) == pytest.approx(0.04, abs=1e-3)


def test_smallest_detectable_difference_written_out() -> None:
    # Cohen's h that two arms of n detect: (1.96 + 0.8416) * sqrt(2 / n).
    h = (norm.ppf(0.975) + norm.ppf(0.8)) * math.sqrt(2 / 200)
    drop = smallest_detectable_difference(200, 0.8)
    assert 2 * math.asin(math.sqrt(0.8)) - 2 * math.asin(math.sqrt(0.8 - drop)) == pytest.approx(h, rel=1e-4)
    paired = smallest_detectable_difference(50, 0.8, paired=True, correlation=0.75)
    assert paired == pytest.approx(drop)
    assert smallest_detectable_difference(200, 0.8, power=0.9) > drop > smallest_detectable_difference(200, 0.8, 0.5)


def test_detectable_difference_is_detected_as_often_as_said() -> None:
    draw = np.random.default_rng(6)
    n, p, trials = 134, 0.9, 4000
    drop = smallest_detectable_difference(n, p)
    a, b = draw.binomial(n, p, trials) / n, draw.binomial(n, p - drop, trials) / n
    pooled = (a + b) / 2
    z = (a - b) / np.sqrt(pooled * (1 - pooled) * 2 / n)
    assert (z > norm.ppf(0.975)).mean() == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 1}, "expected n >= 2"),
        ({"p": 0.0}, "0 < p <= 1"),
        ({"p": NAN}, "0 < p <= 1"),
        ({"power": 1.0}, "power = 1.0"),
        ({"correlation": 1.0, "paired": True}, "correlation < 1"),
        ({"n": 5, "p": 0.3}, "cannot detect any drop"),
    ],
)
def test_smallest_detectable_difference_rejects(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smallest_detectable_difference(**{"n": 100, "p": 0.5, **changes})


def test_estimates_are_frozen() -> None:
    with pytest.raises(AttributeError):
        wilson(1, 2).value = 0.0  # type: ignore[misc]
    assert Estimate(0.5, 0.4, 0.6, 10, 0.95, "x").p_value is None


def test_success_rate_over_games_is_the_bootstrap_where_games_differ() -> None:
    won, games = [1, 1, 0, 1, 0, 0], ["a", "a", "b", "b", "c", "c"]
    assert success_rate(won, games) == bootstrap_mean(won, games)


@pytest.mark.parametrize("won, equivalent", [([0, 0, 0, 0], 0), ([1, 1, 1, 1], 2), ([1, 0, 0, 1], 1)])
def test_success_rate_of_equal_games_is_wilson_over_games(won: list[int], equivalent: int) -> None:
    """Two games, two passes: a resample could only repeat the same rate."""
    rate, expected = success_rate(won, ["a", "a", "b", "b"]), wilson(equivalent, 2)
    assert (rate.value, rate.low, rate.high, rate.n) == (expected.value, expected.low, expected.high, 2)
    assert rate.method == "Wilson over games"
