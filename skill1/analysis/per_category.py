"""How training's gain divides over the categories, and how episodes were played."""

from __future__ import annotations

import pandas as pd

from skill1.analysis import arms
from skill1.analysis.ablations import compare, points_table
from skill1.analysis.arms import of_category
from skill1.analysis.published import OVERALL
from skill1.analysis.study import Study, cached_table
from skill1.analysis.tables import display_table, number, p_text, with_interval
from skill1.analysis.variants import REFERENCE, UNTRAINED, label
from skill1.stats import bootstrap_mean, holm


def headline(study: Study) -> list[str]:
    """Select full and the same training without a library, as far as they are there; all variants if neither is."""
    plain = [name for name in ("no_library", "grpo") if name in study.variants][:1]
    return [*([REFERENCE] if REFERENCE in study.variants else []), *plain] or study.variants


@cached_table
def gains(study: Study) -> pd.DataFrame:
    """Compute what training gained per category: `headline` variants against the untrained policy on the same games.

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
    tested = table["games_p"].where(table["category"] != OVERALL)
    return table.assign(games_holm=tested.groupby([table["split"], table["variant"]]).transform(holm))


def gain_table(study: Study) -> pd.DataFrame:
    """Format `gains` for display, Overall first, then the largest gain of a split and variant."""
    blocks = [part for _, part in gains(study).groupby(["split", "variant"], sort=False)]
    ordered = [pd.concat([part[:1], part[1:].sort_values("points", ascending=False, kind="stable")]) for part in blocks]
    return points_table(study, pd.concat(ordered), ["split", "variant", "category"])


@cached_table
def behaviour(study: Study) -> pd.DataFrame:
    """Measure how episodes were played: overall by all variants, per category by `headline` and the untrained policy.

    Returns:
        Columns split, variant, category; steps (actions per episode, a lost one counts all it took), steps_low,
        steps_high; steps_won (of won episodes alone, NaN if none); invalid (actions per episode that were ill-formed),
        invalid_low, invalid_high; invalid_share (% of actions); games, passes, seeds. Intervals as in `arms.rates`,
        NaN for a single game.
    """
    groups = dict(tuple(pd.concat([arms.own(study), arms.untrained(study)]).groupby(["split", "variant"])))
    tidy = pd.concat([arms.results(study, before=True), arms.results(study)])
    tidy = tidy[(tidy["category"] == OVERALL) | tidy["variant"].isin([UNTRAINED, *headline(study)])]
    tidy = tidy.sort_values("split", key=lambda split: split.map(study.splits.index), kind="stable", ignore_index=True)
    rows = []
    for row in tidy.itertuples():
        part = of_category(groups[row.split, row.variant], row.category)
        rows.append(
            _mean("steps", part["steps"], part, row.seeds)
            | _mean("invalid", part["invalid_actions"], part, row.seeds)
            | {"steps_won": part.loc[part["won"], "steps"].mean()}
            | {"invalid_share": 100 * part["invalid_actions"].sum() / part["steps"].sum()}
        )
    found = pd.DataFrame(rows)
    return tidy[["split", "variant", "category"]].join(found).join(tidy[["games", "passes", "seeds"]])


def _mean(name: str, values: pd.Series, part: pd.DataFrame, seeds: int) -> dict[str, float]:
    estimate = bootstrap_mean(values, part["game"], part["seed"] if seeds > 1 else None)
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
        points = with_interval(overall.points, overall.both_low, overall.both_high, "+.1f")
        lines.append(
            f"* {split}: {label(variant)} gained {points} points over the untrained policy ({arms.size(study, split)}, "
            f"{study.seed_count(variant)}); these runs gained significantly (Holm over {len(rest)} categories) in "
            f"{found or 'no category'}."
        )
    return "\n".join(lines)
