"""Success rates and other means with their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from statsmodels.stats.proportion import proportion_confint

from skill1.stats.resampling import LEVEL, RESAMPLES, Estimate, draws, mean_of, numbers, percentiles


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
    means = frame.pivot_table(index="seed", columns="game", values="value", aggfunc="mean")
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
