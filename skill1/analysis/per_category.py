"""How success divides over the categories: Table 1's columns for a study, gains, and how episodes were played.

Differs from the paper in: rates have 95 % intervals; the rows before training are this study's own policy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from skill1.analysis import ablations, arms
from skill1.analysis.ablations import compare
from skill1.analysis.arms import REFERENCE, UNTRAINED
from skill1.analysis.published import LABEL, OVERALL, published
from skill1.analysis.study import Study
from skill1.analysis.tables import block, interval, points_table, wide, with_bounds
from skill1.analysis.wording import worded
from skill1.stats import bootstrap_mean, holm

_PLAIN = ("no_library", "grpo")  # two names of one thing: the same training without a library


def success(study: Study) -> pd.DataFrame:
    """`arms.rates` of the untrained policy and of every variant's own result. Raises RunError, see `arms.untrained`."""
    return _success(study).copy()


@lru_cache(maxsize=4)
def _success(study: Study) -> pd.DataFrame:
    tidy = pd.concat([arms.rates(study, arms.untrained(study)), ablations.success(study)], ignore_index=True)
    order = arms.splits(study)
    return tidy.sort_values("split", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def published_success(study: Study) -> pd.DataFrame:
    """The published Table 1 on the study's benchmark: columns method, category, success (%), label ("published").

    On WebShop it has no categories: Overall alone.
    """
    frame = published("table1", benchmark=study.environment.benchmark, metric="success")
    return frame.rename(columns={"value": "success"})[["method", "category", "success", "label"]]


def table1(study: Study) -> pd.DataFrame:
    """Table 1's columns for the eye: a block per split with the untrained policy and every variant, then the published.

    Rows (games of, from, policy): success % [95 % interval] per category, "All" last as in the paper. The first row of
    a block has the number of games of each category. The published block names no split: its source does not.
    """
    tidy = success(study)
    names = arms.categories(study, tidy)
    blocks = {}
    for split, part in tidy.groupby("split", sort=False):
        blocks[split, "this study"] = block(part, names)
    theirs = wide(published_success(study), names, lambda row: f"{row.success:.1f}", rows="method")
    table = pd.concat(blocks | {("not named", LABEL): theirs}, names=["games of", "from", "policy"]).fillna("")
    shown = table[[*names[1:], OVERALL, "passes", "seeds"]].rename(columns={OVERALL: "All"})
    return worded(shown, study.environment)


def headline(study: Study) -> list[str]:
    """full and the same training without a library, as far as they are there; all variants if neither is."""
    plain = [variant for variant in _PLAIN if variant in study.variants][:1]
    return [*([REFERENCE] if REFERENCE in study.variants else []), *plain] or arms.variants(study)


def gains(study: Study) -> pd.DataFrame:
    """What training gained per category: the `headline` variants against the untrained policy on the same games.

    Returns:
        Columns split, variant, category, those of `ablations.compare` that apply (points; games_*: these runs;
        both_*: new runs on new games), and games_holm: p adjusted over the categories of a variant and split.
    """
    return _gains(study).copy()


@lru_cache(maxsize=4)
def _gains(study: Study) -> pd.DataFrame:
    after, before = arms.own(study), arms.untrained(study)
    rows = []
    for split in arms.splits(study):
        start = before[before["split"] == split]
        for variant in headline(study):
            end = after[(after["split"] == split) & (after["variant"] == variant)]
            for category in arms.categories(study, end):
                a, b = (part if category == OVERALL else part[part["category"] == category] for part in (end, start))
                rows.append({"split": split, "variant": variant, "category": category} | compare(a, b))
    table = pd.DataFrame(rows).drop(columns=["seeds_low", "seeds_high", "seeds_p", "reference_seeds"])
    table["games_holm"] = np.nan
    tested = table[(table["category"] != OVERALL) & table["games_p"].notna()]
    for _, part in tested.groupby(["split", "variant"]):
        table.loc[part.index, "games_holm"] = holm(part["games_p"])
    return table


def gain_table(study: Study) -> pd.DataFrame:
    """`gains` for the eye, the largest gain of a split and variant first."""
    table = gains(study)
    blocks = table.groupby(["split", "variant"], sort=False)
    table = pd.concat(part.sort_values("points", ascending=False, kind="stable") for _, part in blocks)
    return worded(points_table(table, ["split", "variant", "category"]), study.environment)


def behaviour(study: Study) -> pd.DataFrame:
    """How episodes were played, overall by every variant, per category by `headline` ones and the untrained policy.

    Returns:
        Columns split, variant, category; steps (actions per episode, a lost one counts all it took), steps_low,
        steps_high; steps_won (of won episodes alone, NaN if none); invalid (actions per episode that were ill-formed),
        invalid_low, invalid_high; invalid_share (% of actions); games, passes, seeds. Intervals as in `arms.rates`,
        NaN for a single game.
    """
    return _behaviour(study).copy()


@lru_cache(maxsize=4)
def _behaviour(study: Study) -> pd.DataFrame:
    frame = pd.concat([arms.own(study), arms.untrained(study)])
    keys = ["split", "variant", "category"]
    groups = dict(tuple(frame.groupby(keys)))
    groups |= {(*key, OVERALL): part for key, part in frame.groupby(keys[:2])}
    tidy = success(study)
    chosen = (tidy["category"] == OVERALL) | tidy["variant"].isin([UNTRAINED, *headline(study)])
    rows = []
    for row in tidy[chosen].itertuples():
        part = groups[row.split, row.variant, row.category]
        found = {"split": row.split, "variant": row.variant, "category": row.category}
        for name, column in (("steps", "steps"), ("invalid", "invalid_actions")):
            found |= _mean(name, part, column, row.seeds)
        found["steps_won"] = part.loc[part["won"], "steps"].mean()
        found["invalid_share"] = 100 * part["invalid_actions"].sum() / part["steps"].sum()
        rows.append(found | {"games": row.games, "passes": row.passes, "seeds": row.seeds})
    return pd.DataFrame(rows)


def _mean(name: str, part: pd.DataFrame, column: str, seeds: int) -> dict[str, float]:
    if part["game"].nunique() < 2:
        return {name: float(part[column].mean()), f"{name}_low": np.nan, f"{name}_high": np.nan}
    estimate = bootstrap_mean(part[column], part["game"], part["seed"] if seeds > 1 else None)
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def behaviour_table(study: Study) -> pd.DataFrame:
    """`behaviour` for the eye."""
    table = behaviour(study)
    shown = pd.DataFrame(
        {
            "split": table["split"],
            "variant": table["variant"],
            "category": table["category"],
            "steps": _with_bounds(table, "steps"),
            "steps when won": table["steps_won"].map(lambda value: "" if np.isnan(value) else f"{value:.1f}"),
            "invalid actions": _with_bounds(table, "invalid"),
            "invalid, % of actions": table["invalid_share"].map("{:.1f}".format),
            "games": table["games"],
            "seeds": table["seeds"],
        }
    ).set_index(["split", "variant", "category"])
    return worded(shown, study.environment)


def reading(study: Study) -> str:
    """What the numbers say, as Markdown, made from them alone."""
    lines = [arms.setting(study)]
    table, played = gains(study), behaviour(study).set_index(["split", "variant", "category"])
    for (split, variant), part in table.groupby(["split", "variant"], sort=False):
        overall = part[part["category"] == OVERALL].iloc[0]
        by_category = part[part["category"] != OVERALL].sort_values("points", ascending=False)
        sure = by_category[by_category["games_holm"] < 0.05]["category"]
        lines.append(
            f"{split}, {variant} against the untrained policy: {overall['points']:+.1f} points "
            f"{interval(overall['both_low'], overall['both_high'])} overall. Most in {_gain(study, by_category.iloc[0])}, "
            f"least in {_gain(study, by_category.iloc[-1])}; these runs differ from it (Holm over {len(by_category)} "
            f"categories) in {', '.join(sure) or 'no category'}."
        )
        after, before = (played.loc[(split, name, OVERALL)] for name in (variant, UNTRAINED))
        lines.append(
            f"{split}, {variant}: {after['steps']:.1f} steps an episode ({before['steps']:.1f} untrained), "
            f"{after['invalid_share']:.1f} % of its actions invalid ({before['invalid_share']:.1f} % untrained)."
        )
    return "\n".join(f"* {line}" for line in lines)


def _gain(study: Study, row: pd.Series) -> str:
    span = interval(row["both_low"], row["both_high"])
    return f"{row['category']} ({row['points']:+.1f}{f' {span}' if span else ''}, n = {row['games']} {study.environment.tasks})"


def _with_bounds(table: pd.DataFrame, name: str) -> list[str]:
    columns = (table[name], table[f"{name}_low"], table[f"{name}_high"])
    return [with_bounds(*row) for row in zip(*columns, strict=True)]
