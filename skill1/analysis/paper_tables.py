"""Tables 1 to 3 of a study and, where the paper has them on its benchmark, the published values and differences beside.

The published policy is Qwen2.5-7B on the benchmark's own games. A difference from it says what another policy did on
other games: it is no replication gap. What two policies may share is the direction of an effect (`claims`), and where a
variant does not differ significantly from full, a study has resolved no direction.

Differs from the paper in: rates have 95 % intervals; the games behind Tables 1 and 2 are not named there, so every
split has rows of its own; Table 3 is at steps 20, 60 and 100 there, and over the first, middle and last tenth of
training here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from skill1.analysis import ablations, arms, dynamics, variants
from skill1.analysis.published import LABEL, published
from skill1.analysis.study import Study
from skill1.analysis.tables import display_table, interval, number, p_value, plural, with_interval
from skill1.analysis.variants import PLAIN, REFERENCE, label

OURS, DIFFERENCE = "ours", "difference"
PUBLISHED_ONLY = "published only"  # stands where a split does for what the study has not run
MOMENTS = {"start": 20, "middle": 60, "end": 100}  # moment of training -> the step of the published Table 3
STEP_TIME, SIZE = "seconds per step", "library size"
COUNTS = {"policy calls per step": "cost/calls", "tokens written per step": "cost/tokens"}  # name -> metric
STAGES = {  # stages of a step -> metric; the first five are parts of the rollout
    name: f"time/{name}"
    for name in ("query", "retrieve", "rerank", "act", "distill", "rollout", "credit_and_learn", "update")
}
SUPPORTED, CONTRADICTED, UNRESOLVED, UNTESTED = "supported", "contradicted", "not resolved", "not in this study"
_PUBLISHED_COST = {"step_time": STEP_TIME, "library_size": SIZE}
_SIZES = ("library/size", "bank/size")  # a run has one of them, or none


# -- Tables 1 and 2 ---------------------------------------------------------------------------------------------------


def rates(study: Study, table: str, measure: str = "success") -> pd.DataFrame:
    """Tabulate Table 1 or 2, tidy: what the study has of it, per split, then what is published only.

    Table 1 has the untrained policy (where it was evaluated), full and every method, Table 2 full and the ablations.

    Args:
        table: "table1" or "table2".
        measure: "success" or "score" (100 times the mean reward).

    Returns:
        Columns split ("published only" where the study has no run of it), policy (for readers), variant ("" for a
        published method that is none of ours), category; ours, low, high (95 % interval), published, difference (ours -
        published), in percent or points; games, passes, seeds. NaN where there is none.

    Raises:
        RunError: see `arms.own`, and for Table 1 `arms.untrained`.
    """
    ours = arms.results(study, measure)
    ablated = set(study.as_run(published("table2"))["variant"])
    if table == "table1":
        ours = ours[~ours["variant"].isin(ablated - {REFERENCE, *PLAIN})]
        if (study.evaluations["step"] == 0).any():
            ours = pd.concat([arms.results(study, measure, before=True), ours])
    else:
        ours = ours[ours["variant"].isin(ablated)]
    theirs = study.published(table, metric=measure)[["method", "variant", "category", "value"]]
    theirs = theirs.rename(columns={"value": LABEL})
    here = theirs["variant"].isin(ours["variant"])
    found = ours.rename(columns={"value": OURS}).merge(theirs[here], "left", ["variant", "category"])
    found = pd.concat([found, theirs[~here].assign(split=PUBLISHED_ONLY)], ignore_index=True)
    found["policy"] = [label(row.variant) if row.variant else row.method for row in found.itertuples()]
    columns = ["split", "policy", "variant", "category", OURS, "low", "high", LABEL, DIFFERENCE]
    return _with_difference(_by_split(study, found))[[*columns, "games", "passes", "seeds"]]


def rate_table(study: Study, table: str, measure: str = "success") -> pd.DataFrame:
    """Format `rates` for display: a block per split, the number of games first; Overall first, then the categories."""
    tidy, rows = rates(study, table, measure), {}
    for split, block in tidy.groupby("split", sort=False):
        if split != PUBLISHED_ONLY:
            games = block.groupby("category")["games"].first()
            rows[split, f"number of {study.environment.tasks}"] = {
                (name, OURS): f"n = {games[name]:.0f}" for name in games.index
            }
        for policy, part in block.groupby("policy", sort=False):
            first = part.iloc[0]
            seeds = study.seed_count(first["variant"]) if first["seeds"] > 0 else ""
            rows[split, policy] = {("passes", ""): number(first["passes"], ".0f"), ("seeds", ""): seeds}
            for row in part.itertuples():
                rows[split, policy] |= {
                    (row.category, OURS): with_interval(row.ours, row.low, row.high),
                    (row.category, LABEL): number(row.published),
                    (row.category, DIFFERENCE): number(row.difference, "+.1f"),
                }
    return _display(rows, [f"{study.environment.tasks} of", "policy"], arms.categories(study, tidy))


# -- Table 3 ----------------------------------------------------------------------------------------------------------


def windows(study: Study) -> dict[str, tuple[int, int]]:
    """Find the first, middle and last tenth of training: moment -> its first and last step."""
    steps, width = int(study.metrics["step"].max()), dynamics.window(study)
    firsts = (1, (steps - width) // 2 + 1, steps - width + 1)
    return {moment: (first, first + width - 1) for moment, first in zip(MOMENTS, firsts, strict=True)}


def cost(study: Study) -> pd.DataFrame:
    """Tabulate what a training step cost at three moments, beside the published Table 3.

    Ours is, per seed, the mean over the moment's steps (library size: its last step), then the median over the seeds.
    A step is `time/collect` + `time/update` of the first process.

    Returns:
        Columns policy (for readers), variant, quantity ("seconds per step", "library size", those of `COUNTS`, and the
        stages, in seconds), moment, ours, published, difference (ours - published), seeds (with a value; 0 if none).
        NaN where there is none.
    """
    quantities, keys = _quantities(study), ["variant", "quantity", "moment"]
    wide = study.metrics[["variant", "seed", "step"]].join(quantities)
    logged = wide.melt(["variant", "seed", "step"], var_name="quantity")
    parts = []
    for moment, (first, last) in windows(study).items():
        start = np.where(logged["quantity"] == SIZE, last, first)
        parts.append(logged[logged["step"].between(start, last)].assign(moment=moment))
    of_seeds = pd.concat(parts).groupby([*keys, "seed"])["value"].mean()
    ours = of_seeds.groupby(keys).agg(**{OURS: "median", "seeds": "count"}).reset_index()
    theirs = study.published("table3")
    moments = {step: moment for moment, step in MOMENTS.items()}
    theirs = theirs.assign(quantity=theirs["metric"].map(_PUBLISHED_COST), moment=theirs["step"].map(moments))
    theirs = theirs[[*keys, "method", "value"]].rename(columns={"value": LABEL})
    table = ours.merge(theirs, on=keys, how="outer").fillna({"seeds": 0, "method": ""})
    table["policy"] = [label(row.variant) or row.method for row in table.itertuples()]
    orders = {
        "variant": [*variants.order(set(table["variant"]) - {""}), ""],
        "quantity": [*quantities],
        "moment": [*MOMENTS],
    }
    table = table.sort_values(keys, key=lambda column: column.map(orders[column.name].index), ignore_index=True)
    return _with_difference(table.astype({"seeds": int}))[["policy", *keys, OURS, LABEL, DIFFERENCE, "seeds"]]


def table3(study: Study) -> pd.DataFrame:
    """Format Table 3 for display: rows (policy, quantity), columns (moment, ours or published or difference)."""
    return _cost_table(study, [STEP_TIME, SIZE, *COUNTS])


def stage_table(study: Study) -> pd.DataFrame:
    """Format seconds of each stage of a step for display; none are published. Empty: no such stage, or not logged."""
    return _cost_table(study, [*STAGES])


# -- claims -----------------------------------------------------------------------------------------------------------


def claims(study: Study) -> pd.DataFrame:
    """Judge each published difference from full: does the study support its direction, contradict or not resolve it?

    Supported or contradicted needs `ablations.significant`; the size of a difference plays no part.

    Returns:
        Columns table (that the claim is from), split ("published only" if not tested), variant, published, ours,
        difference (ours - published), low, high (ours; new runs, new games), all in points; p (over seeds, adjusted),
        seeds, reference_seeds, verdict. No rows where nothing is published.

    Raises:
        RunError: see `ablations.effects`.
    """
    effects = ablations.effects(study)
    effects["significant"] = [ablations.significant(row) for row in effects.itertuples()]
    names = {"points": OURS, "both_low": "low", "both_high": "high", "seeds_holm": "p"}
    effects = effects.drop(columns=LABEL).rename(columns=names)
    theirs = ablations.published_points(study).rename(columns={"points": LABEL})
    table = _by_split(study, theirs.merge(effects, "left", on="variant").fillna({"split": PUBLISHED_ONLY}))
    table["verdict"] = [_verdict(row) for row in table.itertuples()]
    columns = ["table", "split", "variant", LABEL, OURS, DIFFERENCE, "low", "high", "p", "seeds", "reference_seeds"]
    return _with_difference(table)[[*columns, "verdict"]]


def claim_table(study: Study) -> pd.DataFrame:
    """Format `claims` for display."""
    tidy = claims(study)
    tidy["claim"] = [
        f"{label(row.variant)} {'below' if row.published < 0 else 'above'} {label(REFERENCE)}"
        for row in tidy.itertuples()
    ]
    cells = {
        "claim of": lambda row: row.table.replace("table", "Table "),
        f"{LABEL}, points": lambda row: number(row.published, "+.1f"),
        f"{OURS}, points": lambda row: number(row.ours, "+.1f"),
        f"{OURS}, new runs and {study.environment.tasks}": lambda row: interval(row.low, row.high),
        f"{OURS}, p (Holm), seeds": lambda row: p_value(row.p),
        f"{OURS}, seeds": lambda row: (
            "" if np.isnan(row.seeds) else f"{row.seeds:.0f} against {row.reference_seeds:.0f}"
        ),
        DIFFERENCE: lambda row: number(row.difference, "+.1f"),
        "verdict": lambda row: row.verdict,
    }
    return display_table(tidy, ["split", "claim"], cells)


def summary(study: Study) -> str:
    """Say per split, in a sentence of Markdown, which published directions the study supports."""
    tidy, lines = claims(study), []
    for split in study.splits:
        part = tidy[tidy["split"] == split]
        counts = [
            f"{verdict} {len(names)}" + (f" ({', '.join(names)})" if len(names) else "")
            for verdict in (SUPPORTED, CONTRADICTED, UNRESOLVED)
            for names in [part.loc[part["verdict"] == verdict, "variant"].map(label)]
        ]
        lines.append(
            f"* {split} ({arms.size(study, split)}, {study.seed_count(REFERENCE)}): of "
            f"{plural(len(part), 'published direction')} against {label(REFERENCE)}, {', '.join(counts)}."
        )
    return "\n".join(lines)


# -- parts ------------------------------------------------------------------------------------------------------------


def _verdict(row: Any) -> str:
    if row.split == PUBLISHED_ONLY:
        return UNTESTED
    if not row.significant:
        return UNRESOLVED
    return SUPPORTED if np.sign(row.ours) == np.sign(row.published) else CONTRADICTED


def _by_split(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    order = [*study.splits, PUBLISHED_ONLY]
    return table.sort_values("split", key=lambda split: split.map(order.index), kind="stable", ignore_index=True)


def _with_difference(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{DIFFERENCE: table[OURS] - table[LABEL]})


def _quantities(study: Study) -> pd.DataFrame:
    """The quantities of Table 3 at every row of the study's metrics; NaN where one is not logged."""
    logged = study.metrics.reindex(columns=["time/collect", *_SIZES, *COUNTS.values(), *STAGES.values()])
    sums = {STEP_TIME: logged["time/collect"] + logged["time/update"], SIZE: logged[[*_SIZES]].bfill(axis=1).iloc[:, 0]}
    return pd.DataFrame(sums | {name: logged[metric] for name, metric in (COUNTS | STAGES).items()})


def _cost_table(study: Study, quantities: list[str]) -> pd.DataFrame:
    rows: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    tidy = cost(study)
    for row in tidy[tidy["quantity"].isin(quantities)].itertuples():
        digits = ".0f" if row.quantity in (SIZE, *COUNTS) else ".2f"
        rows.setdefault((row.policy, row.quantity), {("seeds", ""): str(row.seeds or "")}).update(
            {
                (row.moment, OURS): number(row.ours, digits),
                (row.moment, LABEL): number(row.published, "g"),
                (row.moment, DIFFERENCE): number(row.difference, f"+{digits}"),
            }
        )
    return _display(rows, ["policy", "quantity"], [*MOMENTS])


def _display(rows: Mapping[Any, Mapping[tuple[str, str], str]], index: list[str], names: list[str]) -> pd.DataFrame:
    """Put cells under (name, ours or published or difference), without empty columns, nor that level if all is ours."""
    shown = pd.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis(index=index)
    order = [(name, kind) for name in names for kind in (OURS, LABEL, DIFFERENCE)] + [("passes", ""), ("seeds", "")]
    columns = [column for column in order if column in shown and shown[column].any()]
    shown = shown[columns]
    return shown if LABEL in shown.columns.get_level_values(1) else shown.droplevel(1, axis=1)
