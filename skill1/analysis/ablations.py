"""What each part of the method contributes: Table 2 of a study, and every variant against full on the same games.

The claim "without this part the method is worse" is about training runs, so its unit is the training seed. Each effect
has three intervals, from the narrowest question to the widest:

    games    these very runs on new games          paired bootstrap over games, permutation p
    seeds    new runs on these games               Welch's t over the seeds' means, as in the paper; needs two seeds
    both     new runs on new games                 two-level bootstrap; with few seeds somewhat too narrow

p values are adjusted by Holm within a split: over Table 2's ablations, and apart from them over the baselines.

Differs from the paper in: Table 2 has no intervals there; here every rate has one, with its games, passes and seeds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.power import TTestIndPower

from skill1.analysis import arms
from skill1.analysis.arms import REFERENCE, by_seed
from skill1.analysis.published import LABEL, OVERALL, published
from skill1.analysis.study import Study
from skill1.analysis.tables import block, interval, p_text, plural, points_table, wide, with_interval
from skill1.analysis.wording import worded
from skill1.envs.spec import EnvironmentSpec
from skill1.stats import (
    Estimate,
    bootstrap_mean,
    difference_over_seeds,
    holm,
    mcnemar_exact,
    paired_difference,
    smallest_detectable_difference,
    welch,
)
from skill1.store.run_directory import RunError

ABLATION, BASELINE = "ablation", "baseline"  # kinds of variants that are compared with full
PLAIN = ("grpo", "no_library")  # two names of plain GRPO
_POWER = 0.8
_LEVEL = 0.95
_SAME = 1e-9  # differences of rates closer than this are equal


# -- success ----------------------------------------------------------------------------------------------------------


def success(study: Study) -> pd.DataFrame:
    """Our Table 2, tidy: `arms.rates` of every variant's own result. Raises RunError, see `arms.own`."""
    return _success(study).copy()


@lru_cache(maxsize=4)
def _success(study: Study) -> pd.DataFrame:
    return arms.rates(study, arms.own(study))


def published_success(study: Study) -> pd.DataFrame:
    """The published Table 2 on the study's benchmark: columns variant, category, success (%), label ("published").

    There are rows for ALFWorld alone, on which the paper has its ablations.
    """
    frame = published("table2", benchmark=study.environment.benchmark, metric="success")
    return frame.rename(columns={"value": "success"})[["variant", "category", "success", "label"]]


def table2(study: Study) -> pd.DataFrame:
    """Our Table 2 for the eye, a block per split, and below it the published one, if there is one on the benchmark.

    Rows (games of, from, variant): success % [95 % interval] per category, passes, seeds, and seeds that are missing.
    The first row of a block has the number of games of each category. The published block names no split: its source
    does not.
    """
    tidy = success(study)
    names = arms.categories(study, tidy)
    ours = {}
    for split, part in tidy.groupby("split", sort=False):
        rows = block(part, names)
        rows["missing seeds"] = [", ".join(map(str, study.missing.get(name, ()))) for name in rows.index]
        ours[split, "this study"] = rows
    if len(quoted := published_success(study)):
        ours["not named", LABEL] = wide(quoted, names, lambda row: f"{row.success:.1f}")
    return worded(pd.concat(ours, names=["games of", "from", "variant"]).fillna(""), study.environment)


# -- effects ----------------------------------------------------------------------------------------------------------


def compare(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, float]:
    """One arm against another on the same games, in points.

    Args:
        a, b: outcomes of one variant, split and category each (rows of `arms.own`, `untrained` or `withheld`).

    Returns:
        points; games_low, games_high, games_p (these runs); seeds_low, seeds_high, seeds_p (Welch; NaN with fewer than
        two seeds on a side or without any spread); both_low, both_high; games, seeds, reference_seeds. Where all games
        differ alike, or there is one, resampling games is blind and their intervals are NaN.

    Raises:
        ValueError: games that are not the same.
    """
    first, second = by_seed(a), by_seed(b)
    means = [table.mean(axis=1) for table in (first, second)]
    found = {"points": 100 * (means[0].mean() - means[1].mean())}
    games = first.shape[1]
    of_games = paired_difference(*(table.stack().droplevel("seed") for table in (first, second))) if games > 1 else None
    blind = np.ptp(first.mean() - second.mean()) < _SAME
    of_both = None if blind else difference_over_seeds(first, second)
    enough = min(map(len, means)) > 1 and max(np.ptp(part) for part in means) > _SAME
    of_seeds = welch(*means) if enough else None
    for name, estimate in (("games", of_games), ("seeds", of_seeds), ("both", of_both)):
        found |= _bounds(name, estimate)
    if blind:
        found["games_low"] = found["games_high"] = np.nan
    return found | {"games": games, "seeds": len(first), "reference_seeds": len(second)}


def effects(study: Study, reference: str = REFERENCE) -> pd.DataFrame:
    """Every variant against full, or every method against another one, on the same games, overall, in points (`compare`).

    Args:
        reference: "full", or the method (plain GRPO) that full and the baselines are compared with; ablations are not.

    Returns:
        Columns split, variant, kind, those of `compare`, games_holm and seeds_holm (p adjusted within split and kind),
        published (points, NaN if not published).

    Raises:
        RunError: there is no full, or nothing else; otherwise see `arms.own`.
    """
    return _effects(study, reference).copy()


@lru_cache(maxsize=4)
def _effects(study: Study, reference: str) -> pd.DataFrame:
    frame = arms.own(study)
    others = _compared(study) if reference == REFERENCE else _methods(study, reference)
    rows = []
    for split in arms.splits(study):
        part = dict(tuple(frame[frame["split"] == split].groupby("variant")))
        for variant in others:
            keys = {"split": split, "variant": variant, "kind": kind(variant) if reference == REFERENCE else BASELINE}
            rows.append(keys | compare(part[variant], part[reference]))
    table = pd.DataFrame(rows)
    for name in ("games", "seeds"):
        table[f"{name}_holm"] = table.groupby(["split", "kind"])[f"{name}_p"].transform(_holm)
    overall = published_success(study).query("category == @OVERALL").set_index("variant")["success"]
    table["published"] = (table["variant"].map(overall) - overall.get(reference, np.nan)).round(1)
    return table


def told_apart(row: Any) -> bool:
    """Whether a row of `effects` tells the variant apart from full.

    It does if Welch's p over the seeds, adjusted, is below 5 % and the two-level interval excludes 0.
    """
    return bool(row.seeds_holm < 1 - _LEVEL and not row.both_low <= 0 <= row.both_high)


def effect_table(study: Study, reference: str = REFERENCE) -> pd.DataFrame:
    """`effects` for the eye."""
    rows = [
        {
            "split": row.split,
            "variant": row.variant,
            "points": f"{row.points:+.1f}",
            "these runs, new games": interval(row.games_low, row.games_high),
            "p (Holm)": p_text(row.games_holm),
            "new runs, these games (Welch)": interval(row.seeds_low, row.seeds_high),
            "p (Holm), seeds": p_text(row.seeds_holm),
            "new runs, new games": interval(row.both_low, row.both_high),
            "games": row.games,
            "seeds": f"{row.seeds} against {row.reference_seeds}",
            f"{LABEL}, points": "" if np.isnan(row.published) else f"{row.published:+.1f}",
        }
        for row in effects(study, reference).itertuples()
    ]
    return worded(pd.DataFrame(rows).set_index(["split", "variant"]), study.environment)


def grpo_table(study: Study) -> pd.DataFrame | None:
    """full and the baselines against plain GRPO, for the eye; None in a study without GRPO or without other baselines."""
    plain = next((name for name in PLAIN if name in study.variants), None)
    return None if plain is None or len(_methods(study, plain)) < 2 else effect_table(study, plain)


def library_share(study: Study) -> pd.DataFrame:
    """Each trained policy with its library against the same policy with it withheld, in points. This is no ablation.

    Returns:
        Columns split, variant, points; games_low, games_high, games_p (these runs); both_low, both_high (bootstrap over
        games and over the seeds, which are the same policies on both sides); games, seeds.

    Raises:
        RunError: nothing was played with the library withheld.
    """
    keys = ["split", "variant", "seed", "game"]
    played = {
        name: frame.assign(won=frame["won"].astype(float)).groupby(keys, sort=False)["won"].mean()
        for name, frame in (("with", arms.own(study)), ("without", arms.withheld(study)))
    }
    both = dict(tuple(pd.DataFrame(played).dropna().reset_index().groupby(["split", "variant"])))
    rows = []
    for split, variant in ((split, variant) for split in arms.splits(study) for variant in arms.variants(study)):
        if (split, variant) not in both:
            continue
        part = both[split, variant]
        per_game = paired_difference(*(part.set_index("game")[name] for name in ("with", "without")))
        seeds = part["seed"].nunique()
        of_both = bootstrap_mean(part["with"] - part["without"], part["game"], part["seed"] if seeds > 1 else None)
        bounds = _bounds("games", per_game) | _bounds("both", of_both)
        points = {"points": 100 * per_game.value}
        rows.append({"split": split, "variant": variant} | points | bounds | {"games": per_game.n, "seeds": seeds})
    if not rows:
        raise RunError(f"{study.path} has no evaluation with the library withheld: make one with 02_evaluate")
    return pd.DataFrame(rows)


def share_table(study: Study) -> pd.DataFrame:
    """`library_share` for the eye."""
    return worded(points_table(library_share(study), ["split", "variant"]), study.environment)


def mcnemar(study: Study) -> pd.DataFrame:
    """Exact McNemar p of every variant against full, seed by seed, where every game was played once.

    Returns:
        Columns split, variant, seed, only_full (games that only full won), only_variant, p; no rows for several passes.
    """
    frame, others = arms.own(study), _compared(study)
    columns = ["split", "variant", "seed", "only_full", "only_variant", "p"]
    if frame["pass"].nunique() > 1:
        return pd.DataFrame(columns=columns)
    runs = {key: part.set_index("game")["won"].astype(int) for key, part in frame.groupby(["split", "variant", "seed"])}
    rows = []
    for split in arms.splits(study):
        for variant in others:
            for seed in sorted({*study.seeds(variant)} & {*study.seeds(REFERENCE)}):
                one, full = runs[split, variant, seed], runs[split, REFERENCE, seed]
                change = one.sub(full)
                rows.append((split, variant, seed, (change < 0).sum(), (change > 0).sum(), mcnemar_exact(one, full)))
    return pd.DataFrame(rows, columns=columns)


def resolution(study: Study) -> pd.DataFrame:
    """The smallest drop from full's success that this study detects in 80 % of the cases (two-sided test at 5 %).

    Returns:
        One row per split: games, passes, seeds (of full), success of full (%), seed_std (points, pooled
        over the variants with at least two seeds), and the drop in points on paired games if every episode were
        independent (if_episodes, too hopeful), if the repeats of a game said nothing new (if_games), and with the runs
        as the unit (if_runs: the one for claims about a method). NaN: not even a drop to 0 is detected, or too few
        seeds.
    """
    tidy = success(study)
    tidy = tidy[tidy["category"] == OVERALL]
    rows = []
    for split, part in tidy.groupby("split", sort=False):
        full = part[part["variant"] == _reference(study)].iloc[0]
        seeds = int(full["seeds"])
        spread = part["seed_std"] ** 2 * (part["seeds"] - 1)
        enough = part["seeds"] > 1
        pooled = float(np.sqrt(spread[enough].sum() / (part["seeds"] - 1)[enough].sum())) if enough.any() else np.nan
        games = int(full["games"])
        rows.append(
            {
                "split": split,
                "games": games,
                "passes": int(full["passes"]),
                "seeds": seeds,
                "success of full": full["success"],
                "seed_std": pooled,
                "if_episodes": _drop(games * int(full["passes"]) * seeds, full["success"] / 100),
                "if_games": _drop(games, full["success"] / 100),
                "if_runs": _drop_over_seeds(seeds, pooled),
            }
        )
    return pd.DataFrame(rows).set_index("split")


# -- reading ----------------------------------------------------------------------------------------------------------


def reading(study: Study) -> str:
    """What the numbers say, as Markdown, made from them alone.

    A variant is called told apart from full only if it is by `told_apart`.
    """
    lines = [_missing(study)]
    table, limits, tidy = effects(study), resolution(study), success(study)
    overall = tidy[tidy["category"] == OVERALL]
    words = study.environment
    for split in arms.splits(study):
        full = overall[(overall["split"] == split) & (overall["variant"] == REFERENCE)].iloc[0]
        part = table[table["split"] == split]
        lines.append(
            f"{split}: full wins {with_interval(full)} % of {full['games']} {words.tasks} ({full['passes']} passes, "
            f"{plural(full['seeds'], 'seed')})."
        )
        lines += [f"{split}: {_verdict(row, words)}" for row in part.sort_values("points").itertuples()]
        lines.append(f"{split}: {_limits(limits.loc[split])}")
    if not len(mcnemar(study)):
        lines.append(f"No McNemar test: every {words.task} was played several times.")
    return "\n".join(f"* {line}" for line in lines)


def _missing(study: Study) -> str:
    gaps = [f"{variant} seed {', '.join(map(str, seeds))}" for variant, seeds in study.missing.items()]
    listed = f"Missing: {'; '.join(gaps)}" if gaps else "No seed that was asked for is missing"
    return f"{arms.setting(study)} {listed}."


def _verdict(row: Any, words: EnvironmentSpec) -> str:
    lead = f"{row.variant} against full {row.points:+.1f} points"
    spread = interval(row.games_low, row.games_high) or f"alike in every {words.task}"
    over_games = f"these runs {spread}, Holm p {p_text(row.games_holm)}"
    if np.isnan(row.seeds_holm):
        few = min(row.seeds, row.reference_seeds)
        why = f"{plural(few, 'seed')} on a side" if few < 2 else "no spread over seeds"
        return f"{lead}: {over_games}; {why}, so nothing is said about new training runs."
    told = "told apart" if told_apart(row) else "not told apart"
    return (
        f"{lead}: {told}; new runs and {words.tasks} {interval(row.both_low, row.both_high)}, new runs "
        f"{interval(row.seeds_low, row.seeds_high)}, Holm p "
        f"{p_text(row.seeds_holm)} with {row.seeds} against {row.reference_seeds} seeds; {over_games}."
    )


def _limits(row: pd.Series) -> str:
    if np.isnan(row["if_runs"]):
        return f"{plural(int(row['seeds']), 'seed')} of full: what new training runs would do is not resolved at all."
    return (
        f"with {int(row['seeds'])} seeds whose rates spread by {row['seed_std']:.1f} points, a difference between two "
        f"variants below {row['if_runs']:.1f} points is missed more than one time in five."
    )


# -- parts ------------------------------------------------------------------------------------------------------------


def kind(variant: str) -> str:
    """Whether Table 2 has the variant."""
    return ABLATION if variant in set(published("table2")["variant"]) else BASELINE


def _reference(study: Study) -> str:
    if REFERENCE not in study.variants:
        there = ", ".join(arms.variants(study))
        raise RunError(
            f"the study {study.path} has no finished run of {REFERENCE} to compare with (it has {there}): "
            f"add it with `skill1 sweep --name {study.name} --variants {REFERENCE}` and the study's other settings"
        )
    return REFERENCE


def _compared(study: Study) -> list[str]:
    others = [variant for variant in arms.variants(study) if variant != _reference(study)]
    if not others:
        raise RunError(
            f"the study {study.path} has {REFERENCE} alone: add variants to compare it with, e.g. "
            f"`skill1 sweep --name {study.name} --variants no_library` and the study's other settings"
        )
    return others


def _methods(study: Study, reference: str) -> list[str]:
    """full and the baselines of the study, without the reference."""
    methods = [name for name in arms.variants(study) if name == REFERENCE or kind(name) == BASELINE]
    return [name for name in methods if name not in (reference, *PLAIN)]


def _bounds(name: str, estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return dict.fromkeys((f"{name}_low", f"{name}_high", f"{name}_p"), np.nan)
    bounds = {f"{name}_low": 100 * estimate.low, f"{name}_high": 100 * estimate.high}
    return bounds if estimate.p_value is None else bounds | {f"{name}_p": estimate.p_value}


def _holm(p_values: pd.Series) -> pd.Series:
    """Adjusted p of those that there are."""
    known = p_values.dropna()
    return pd.Series(holm(known) if len(known) else [], index=known.index, dtype=float).reindex(p_values.index)


def _drop(n: int, rate: float) -> float:
    try:
        return 100 * smallest_detectable_difference(n, rate, _POWER, paired=True, level=_LEVEL)
    except ValueError:  # full won nothing, or so few games that no drop is large enough
        return np.nan


def _drop_over_seeds(seeds: int, std: float) -> float:
    if seeds < 2 or np.isnan(std):
        return np.nan
    return std * TTestIndPower().solve_power(nobs1=seeds, alpha=1 - _LEVEL, power=_POWER)
