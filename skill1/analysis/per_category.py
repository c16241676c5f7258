"""How training's gain divides over the categories, and how episodes were played."""

from __future__ import annotations

import numpy as np
import pandas as pd

from skill1.analysis import arms
from skill1.analysis.ablations import compare, points_table
from skill1.analysis.arms import of_category
from skill1.analysis.published import OVERALL
from skill1.analysis.study import Study, remembered
from skill1.analysis.tables import display_table, number, p_text, with_interval
from skill1.analysis.variants import REFERENCE, UNTRAINED, label
from skill1.stats import bootstrap_mean, holm


def headline(study: Study) -> list[str]:
    """Full and the same training without a library, as far as they are there; all variants if neither is."""
    plain = [name for name in ("no_library", "grpo") if name in study.variants][:1]
    return [*([REFERENCE] if REFERENCE in study.variants else []), *plain] or study.variants


@remembered
def gains(study: Study) -> pd.DataFrame:
    """What training gained per category: the `headline` variants against the untrained policy on the same games.

    Returns:
        Columns split, variant, category, those of `ablations.compare` that apply (points; games_*: these runs;
        both_*: new runs on new games), and games_holm: p adjusted over the categories of a variant and split.
    """
    after, before = arms.own(study), arms.untrained(study)
    rows = []
    for split in study.splits:
        start = before[before["split"] == split]
        for variant in headline(study):
            end = after[(after["split"] == split) & (after["variant"] == variant)]
            for category in arms.categories(study, end):
                found = compare(of_category(end, category), of_category(start, category))
                rows.append({"split": split, "variant": variant, "category": category} | found)
    table = pd.DataFrame(rows).drop(columns=["seeds_low", "seeds_high", "seeds_p", "reference_seeds"])
    table["games_holm"] = np.nan
    tested = table[(table["category"] != OVERALL) & table["games_p"].notna()]
    for _, part in tested.groupby(["split", "variant"]):
        table.loc[part.index, "games_holm"] = holm(part["games_p"])
    return table


def gain_table(study: Study) -> pd.DataFrame:
    """Format `gains` for display, Overall first, then the largest gain of a split and variant."""
    blocks = [part for _, part in gains(study).groupby(["split", "variant"], sort=False)]
    ordered = [pd.concat([part[:1], part[1:].sort_values("points", ascending=False, kind="stable")]) for part in blocks]
    return points_table(study, pd.concat(ordered), ["split", "variant", "category"])


@remembered
def behaviour(study: Study) -> pd.DataFrame:
    """How episodes were played, overall by every variant, per category by `headline` ones and the untrained policy.

    Returns:
        Columns split, variant, category; steps (actions per episode, a lost one counts all it took), steps_low,
        steps_high; steps_won (of won episodes alone, NaN if none); invalid (actions per episode that were ill-formed),
        invalid_low, invalid_high; invalid_share (% of actions); games, passes, seeds. Intervals as in `arms.rates`,
        NaN for a single game.
    """
    groups = dict(tuple(pd.concat([arms.own(study), arms.untrained(study)]).groupby(["split", "variant"])))
    tidy = pd.concat([arms.results(study, before=True), arms.results(study)])
    chosen = (tidy["category"] == OVERALL) | tidy["variant"].isin([UNTRAINED, *headline(study)])
    rows = []
    for row in tidy[chosen].itertuples():
        part = of_category(groups[row.split, row.variant], row.category)
        found = {"split": row.split, "variant": row.variant, "category": row.category}
        for name, column in (("steps", "steps"), ("invalid", "invalid_actions")):
            found |= _mean(name, part, column, row.seeds)
        found["steps_won"] = part.loc[part["won"], "steps"].mean()
        found["invalid_share"] = 100 * part["invalid_actions"].sum() / part["steps"].sum()
        rows.append(found | {"games": row.games, "passes": row.passes, "seeds": row.seeds})
    order = pd.Series(range(len(study.splits)), index=study.splits)
    return pd.DataFrame(rows).sort_values("split", key=lambda split: split.map(order), kind="stable", ignore_index=True)


def _mean(name: str, part: pd.DataFrame, column: str, seeds: int) -> dict[str, float]:
    if part["game"].nunique() < 2:
        return {name: float(part[column].mean()), f"{name}_low": np.nan, f"{name}_high": np.nan}
    estimate = bootstrap_mean(part[column], part["game"], part["seed"] if seeds > 1 else None)
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def behaviour_table(study: Study) -> pd.DataFrame:
    """Format `behaviour` for display."""
    tidy = behaviour(study)
    cells = {
        "steps": lambda row: with_interval(row.steps, row.steps_low, row.steps_high),
        "steps when won": lambda row: number(row.steps_won),
        "invalid actions": lambda row: with_interval(row.invalid, row.invalid_low, row.invalid_high),
        "invalid, % of actions": lambda row: number(row.invalid_share),
        study.environment.tasks: lambda row: row.games,
        "seeds": lambda row: row.seeds or "",
    }
    return display_table(tidy.assign(variant=tidy["variant"].map(label)), ["split", "variant", "category"], cells)


def summary(study: Study) -> str:
    """Say per split, in a sentence of Markdown, what the first `headline` variant gained, and in which categories."""
    table, variant = gains(study), headline(study)[0]
    lines = []
    for split in study.splits:
        overall, *rest = table[(table["split"] == split) & (table["variant"] == variant)].itertuples()
        found = ", ".join(
            f"{row.category} {with_interval(row.points, row.both_low, row.both_high, '+.1f')} (n = {row.games}, "
            f"{p_text(row.games_holm)})"
            for row in sorted(rest, key=lambda row: -row.points)
            if row.games_holm < 0.05
        )
        lines.append(
            f"* {split}: {label(variant)} gained {with_interval(overall.points, overall.both_low, overall.both_high, '+.1f')} "
            f"points over the untrained policy ({arms.size(study, split)}, {study.seed_count(variant)}); these runs gained significantly "
            f"(Holm over {len(rest)} categories) in {found or 'no category'}."
        )
    return "\n".join(lines)
