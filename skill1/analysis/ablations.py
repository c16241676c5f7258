"""What each part of the method contributes: every variant against full on the same games.

The claim "without this part the method is worse" is about training runs, so its unit is the training seed. Each effect
has three intervals, from the narrowest question to the widest:

    games    these very runs on new games          paired bootstrap over games, permutation p
    seeds    new runs on these games               Welch's t over the seeds' means, as in the paper; needs two seeds. Where
                                                   every seed has a world of its own, a paired t: new runs in new worlds
    both     new runs on new games                 two-level bootstrap; with few seeds somewhat too narrow

p values are adjusted by Holm within a split: over Table 2's ablations, and apart from them over all other variants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.power import TTestIndPower

from skill1.analysis import arms
from skill1.analysis.arms import by_seed
from skill1.analysis.published import LABEL, OVERALL, published
from skill1.analysis.study import Study, cached_table
from skill1.analysis.tables import display_table, interval, number, p_text, p_value, plural, with_interval
from skill1.analysis.variants import PLAIN, REFERENCE, label
from skill1.errors import RunError
from skill1.stats import (
    LEVEL,
    SAME,
    Estimate,
    bootstrap_mean,
    difference_over_seeds,
    holm,
    paired_difference,
    seed_difference,
    smallest_detectable_difference,
)

ABLATION, BASELINE = "ablation", "baseline"  # kinds of variants that are compared with full
_POWER = 0.8


# -- effects ----------------------------------------------------------------------------------------------------------


def compare(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, float]:
    """Compare one arm with another on the same games, in points.

    Args:
        a, b: outcomes of one variant, split and category each (rows of `arms.own`, `untrained` or `withheld`). A seed
            whose world the other side has not played yet is left out.

    Returns:
        points; games_low, games_high, games_p (these runs); seeds_low, seeds_high, seeds_p (Welch, or where seeds have
        worlds of their own a paired t; NaN with fewer than two seeds on a side or without any spread); both_low, both_high;
        games, seeds, reference_seeds. Where all games differ alike, or there is one, resampling games is blind and their
        intervals are NaN.

    Raises:
        ValueError: games that are not the same.
    """
    first, second = by_seed(a), by_seed(b)
    first, second = arms.in_shared_worlds(first, second), arms.in_shared_worlds(second, first)
    means = [table.mean(axis=1) for table in (first, second)]
    found = {"points": 100 * (means[0].mean() - means[1].mean())}
    found |= _bounds(
        "games", paired_difference(*(table.stack().dropna().droplevel("seed") for table in (first, second)))
    )
    found |= _bounds("seeds", seed_difference(*means, paired=bool(first.isna().to_numpy().any())))
    found |= _bounds("both", difference_over_seeds(first, second))
    if np.ptp(first.mean() - second.mean()) < SAME:
        found |= dict.fromkeys(("games_low", "games_high", "both_low", "both_high"), np.nan)
    return found | {"games": first.shape[1], "seeds": len(first), "reference_seeds": len(second)}


@cached_table
def effects(study: Study, reference: str = REFERENCE) -> pd.DataFrame:
    """Compare every variant with full, or every method with another one, on the same games, overall, in points.

    Args:
        reference: "full", or the method (plain GRPO) that full and the baselines are compared with; ablations are not.

    Returns:
        Columns split, variant, kind, those of `compare`, games_holm and seeds_holm (p adjusted within split and kind),
        published (points, NaN if not published).

    Raises:
        RunError: there is no full, or nothing else; otherwise see `arms.own`.
    """
    frame = arms.own(study)
    others = _compared(study) if reference == REFERENCE else _methods(study, reference)
    rows = []
    for split in study.splits:
        part = dict(tuple(frame[frame["split"] == split].groupby("variant")))
        for variant in others:
            keys = {"split": split, "variant": variant, "kind": kind(variant) if reference == REFERENCE else BASELINE}
            rows.append(keys | compare(part[variant], part[reference]))
    table = pd.DataFrame(rows)
    for name in ("games", "seeds"):
        table[f"{name}_holm"] = table.groupby(["split", "kind"])[f"{name}_p"].transform(holm)
    theirs = published_points(study, reference).set_index("variant")["points"]
    return table.assign(published=table["variant"].map(theirs).astype(float))


def published_points(study: Study, reference: str = REFERENCE) -> pd.DataFrame:
    """List published differences in overall success from a variant, each within its table: table, variant, points.

    Once per variant: Table 2's ablations, then Table 1's methods.
    """
    theirs = study.published("table2", "table1", metric="success", category=OVERALL).query("variant != ''")
    own = theirs["table"].map(theirs[theirs["variant"] == reference].set_index("table")["value"]).astype(float)
    points = theirs.assign(points=(theirs["value"] - own).round(1)).dropna(subset="points")
    return points[points["variant"] != reference].drop_duplicates("variant")[["table", "variant", "points"]]


def significant(row: Any) -> bool:
    """Tell whether a row of `effects` differs significantly.

    It does if Welch's p over the seeds, adjusted, is below 5 % and the two-level interval excludes 0.
    """
    return bool(row.seeds_holm < 1 - LEVEL and not row.both_low <= 0 <= row.both_high)


def effect_table(study: Study, reference: str = REFERENCE) -> pd.DataFrame:
    """Format `effects` for display."""
    return points_table(study, effects(study, reference), ["split", "variant"])


def grpo_table(study: Study) -> pd.DataFrame | None:
    """Format full and the baselines against plain GRPO; None in a study without GRPO or without other baselines."""
    plain = next((name for name in PLAIN if name in study.variants), None)
    return None if plain is None or len(_methods(study, plain)) < 2 else effect_table(study, plain)


def points_table(study: Study, tidy: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Format differences in points for display: `effects`, `library_share` or `per_category.gains`."""
    tasks = study.environment.tasks
    over_seeds = "new runs (paired t)" if study.own_worlds else f"new runs, these {tasks} (Welch)"
    p, heading = ("games_holm", "p (Holm)") if "games_holm" in tidy else ("games_p", "p")
    cells: dict[str, Callable[[Any], Any]] = {
        "points": lambda row: number(row.points, "+.1f"),
        f"these runs, new {tasks}": lambda row: interval(row.games_low, row.games_high),
        heading: lambda row: p_value(getattr(row, p)),
        over_seeds: lambda row: interval(row.seeds_low, row.seeds_high),
        "p (Holm), seeds": lambda row: p_value(row.seeds_holm),
        f"new runs, new {tasks}": lambda row: interval(row.both_low, row.both_high),
        tasks: lambda row: row.games,
        "seeds": lambda row: f"{row.seeds} against {row.reference_seeds}",
        f"{LABEL}, points": lambda row: number(row.published, "+.1f"),
    }
    if "seeds_holm" not in tidy:
        del cells[over_seeds], cells["p (Holm), seeds"]
        cells["seeds"] = lambda row: row.seeds
    if "published" not in tidy or tidy["published"].isna().all():
        del cells[f"{LABEL}, points"]
    return display_table(tidy.assign(variant=tidy["variant"].map(label)), keys, cells)


# -- the library's share ----------------------------------------------------------------------------------------------


def library_share(study: Study) -> pd.DataFrame:
    """Compare each trained policy with its library with the same policy without it, in points. This is no ablation.

    Returns:
        Columns split, variant, points; games_low, games_high, games_p (these runs); both_low, both_high (bootstrap over
        games and over the seeds, which are the same policies on both sides); games, seeds.

    Raises:
        RunError: nothing was played with the library withheld.
    """
    keys = ["split", "variant"]
    own, without = (dict(tuple(frame.groupby(keys))) for frame in (arms.own(study), arms.withheld(study)))
    rows = []
    for split, variant in ((split, variant) for split in study.splits for variant in study.variants):
        if (split, variant) not in without:
            continue
        both = [by_seed(found[split, variant]).stack() for found in (own, without)]  # by seed and game
        change = (both[0] - both[1]).dropna()
        games, seeds = (change.index.get_level_values(name) for name in ("game", "seed"))
        per_game = paired_difference(*(part.loc[change.index].droplevel("seed") for part in both))
        of_both = bootstrap_mean(change, games, seeds if seeds.nunique() > 1 else None)
        bounds = _bounds("games", per_game) | _bounds("both", of_both)
        found = {"points": 100 * per_game.value} | bounds | {"games": per_game.n, "seeds": seeds.nunique()}
        rows.append({"split": split, "variant": variant} | found)
    if not rows:
        raise RunError(f"{study.path} has no evaluation with the library withheld: make one with 02_evaluate")
    return pd.DataFrame(rows)


# -- limits -----------------------------------------------------------------------------------------------------------


def resolution(study: Study) -> pd.DataFrame:
    """Compute the smallest drop from full's success that is detected in 80 % of such studies (two-sided test at 5 %).

    Returns:
        One row per split: games, passes, seeds (of full), success of full (%), seed_std (points, pooled
        over the variants with at least two seeds), and the drop in points on paired games if every episode were
        independent (if_episodes, too hopeful), if the repeats of a game said nothing new (if_games), and with the runs
        as the unit (if_runs: the one for claims about a method). NaN: not even a drop to 0 is detected, or too few
        seeds.
    """
    tidy = arms.results(study).query("category == @OVERALL")
    tidy["freedom"] = tidy["seeds"] - 1
    tidy["squares"] = tidy["freedom"] * tidy["seed_std"] ** 2
    pooled = tidy[tidy["seeds"] > 1].groupby("split")[["squares", "freedom"]].sum()
    full = tidy[tidy["variant"] == _reference(study)].set_index("split").rename(columns={"value": "success of full"})
    full["seed_std"] = np.sqrt(pooled["squares"] / pooled["freedom"])
    rates, episodes = full["success of full"] / 100, full[["games", "passes", "seeds"]].prod(axis=1)
    limits = {
        "if_episodes": map(smallest_detectable_difference, episodes, rates),
        "if_games": map(smallest_detectable_difference, full["games"], rates),
    }
    full = full.assign(**{name: [100 * drop for drop in drops] for name, drops in limits.items()})
    full["if_runs"] = list(map(_drop_over_seeds, full["seeds"], full["seed_std"]))
    return full[["games", "passes", "seeds", "success of full", "seed_std", *limits, "if_runs"]]


def summary(study: Study) -> str:
    """Say per split, in a sentence of Markdown, which variants differ significantly from full."""
    table, limits, tidy = effects(study), resolution(study), arms.results(study)
    lines = []
    for split in study.splits:
        full = tidy[(tidy["split"] == split) & (tidy["variant"] == REFERENCE) & (tidy["category"] == OVERALL)].iloc[0]
        part = table[table["split"] == split]
        sure = [row for row in part.itertuples() if significant(row)]
        found = "; ".join(
            f"{label(row.variant)} {with_interval(row.points, row.both_low, row.both_high, '+.1f')} points, Holm "
            f"{p_text(row.seeds_holm)}, {row.seeds} against {row.reference_seeds} seeds"
            for row in sure
        )
        least = limits.loc[split, "if_runs"]
        unseen = "" if np.isnan(least) else f" (differences below {least:.1f} points are mostly missed)"
        lines.append(
            f"* {split}: {label(REFERENCE)} wins {with_interval(full['value'], full['low'], full['high'])} % "
            f"({arms.size(study, split)}, {study.seed_count(REFERENCE)}); {len(sure)} of "
            f"{plural(len(part), 'variant')} differ significantly from it over new runs{unseen}"
            f"{f': {found}' if found else ''}."
        )
    return "\n".join(lines)


# -- parts ------------------------------------------------------------------------------------------------------------


def kind(variant: str) -> str:
    """Tell whether Table 2 has the variant."""
    return ABLATION if variant in set(published("table2")["variant"]) else BASELINE


def _reference(study: Study) -> str:
    if REFERENCE not in study.variants:
        there = f"no finished run of {REFERENCE} to compare with (it has {', '.join(study.variants)}): add it"
        raise RunError(f"the study {study.path} has {there} with {_sweep(study, REFERENCE)}")
    return REFERENCE


def _compared(study: Study) -> list[str]:
    others = [variant for variant in study.variants if variant != _reference(study)]
    if not others:
        there = f"{REFERENCE} alone: add variants to compare it with, e.g."
        raise RunError(f"the study {study.path} has {there} {_sweep(study, 'no_library')}")
    return others


def _sweep(study: Study, variant: str) -> str:
    return f"`skill1 sweep --name {study.name} --variants {variant}` and the study's other settings"


def _methods(study: Study, reference: str) -> list[str]:
    """Full and the baselines of the study, without the reference."""
    methods = [name for name in study.variants if name == REFERENCE or kind(name) == BASELINE]
    return [name for name in methods if name not in (reference, *PLAIN)]


def _bounds(name: str, estimate: Estimate) -> dict[str, float]:
    bounds = {f"{name}_low": 100 * estimate.low, f"{name}_high": 100 * estimate.high}
    return bounds if estimate.p_value is None else bounds | {f"{name}_p": estimate.p_value}


def _drop_over_seeds(seeds: int, std: float) -> float:
    if seeds < 2 or np.isnan(std):
        return np.nan
    return std * TTestIndPower().solve_power(nobs1=seeds, alpha=1 - LEVEL, power=_POWER)
