"""The paper's tables beside a study's: published, ours, and ours minus published.

The published policy is Qwen2.5-7B on the games of the study's benchmark, ALFWorld or WebShop; what the paper has on
ALFWorld alone (Tables 2 and 3, the values in its text) does not stand beside a study of WebShop. A difference from it
says what another policy did on other games: it is no replication gap. What two policies may share is the direction of
an effect (`claims`), and a study that does not tell a variant apart from full has resolved no direction.

Differs from the paper in: the games behind Tables 1 and 2 are not named there, so every split has rows of its own;
Table 3 is at steps 20, 60 and 100 there, and over the first, middle and last tenth of training here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from skill1.analysis import ablations, arms, dynamics
from skill1.analysis.arms import REFERENCE
from skill1.analysis.published import LABEL, OVERALL, inconsistencies, published
from skill1.analysis.scores import in_words
from skill1.analysis.study import Study
from skill1.analysis.tables import interval, p_text, plural
from skill1.analysis.wording import worded
from skill1.presets import variants as known_variants

OURS, DIFFERENCE = "ours", "difference"
LABELS = (LABEL, OURS, DIFFERENCE)
PUBLISHED_ONLY = "published only"  # stands where a split does for what the study has not run
MOMENTS = {"start": 20, "middle": 60, "end": 100}  # moment of training -> the step of the published Table 3
STEP_TIME, SIZE = "seconds per step", "library size"
COUNTS = {"policy calls per step": "cost/calls", "tokens written per step": "cost/tokens"}  # name -> metric
STAGES = {  # stages of a step -> metric; the first five are parts of the rollout
    name: f"time/{name}"
    for name in ("query", "retrieve", "rerank", "act", "distill", "rollout", "credit_and_learn", "update")
}
SUPPORTED, CONTRADICTED, UNRESOLVED, UNTESTED = "supported", "contradicted", "not resolved", "not in this study"
_TIMES = ("time/collect", "time/update")  # what a training step consists of
_PUBLISHED_COST = {"step_time": STEP_TIME, "library_size": SIZE}
_SIZE_METRICS = ("library/size", "bank/size")  # a run has one of them, or none
_OPTIONAL = ("query", "retrieve", "rerank", "distill")  # stages that some variants do not have
_WEBSHOP = {"score": "WebShop score", "success": "WebShop success"}  # metric -> column of Table 1
_NOT_LOGGED, _NO_LIBRARY = "not logged", "no library"


# -- Tables 1 and 2 ---------------------------------------------------------------------------------------------------


def success(study: Study) -> pd.DataFrame:
    """Every published success rate on the study's benchmark beside the study's, per split.

    Returns:
        Columns table, split ("published only" where the study has no run of the variant), method, variant, category;
        published, ours, low, high (95 % interval of ours), difference (ours - published), in percent or points; games,
        passes, seeds (of ours). NaN where there is none.

    Raises:
        RunError: see `arms.own`.
    """
    ours = ablations.success(study).drop(columns="method").rename(columns={"success": OURS})  # how its interval is made
    theirs = _as_run(study, published("table1", "table2", benchmark=study.environment.benchmark, metric="success"))
    theirs = theirs[["table", "method", "variant", "category", "value"]].rename(columns={"value": LABEL})
    return _beside(study, theirs, ours)


def webshop_rates(study: Study) -> pd.DataFrame:
    """Table 1's columns on WebShop beside a study of WebShop: as `success`, category "WebShop score" or "... success".

    Scores are points of 100. Raises RunError, see `arms.own`.
    """
    played = ablations.success(study).query("category == @OVERALL").drop(columns=["category", "method"])
    scores = arms.scores(study, arms.own(study)).query("category == @OVERALL").drop(columns="category")
    graded = played[["split", "variant", "games", "passes", "seeds"]].merge(scores, on=["split", "variant"])
    ours = pd.concat(
        [
            graded.rename(columns={"score": OURS}).assign(category=_WEBSHOP["score"]),
            played.rename(columns={"success": OURS}).assign(category=_WEBSHOP["success"]),
        ]
    )
    theirs = _as_run(study, published("table1", benchmark="webshop"))
    theirs = theirs.assign(category=theirs["metric"].map(_WEBSHOP))
    theirs = theirs[["table", "method", "variant", "category", "value"]].rename(columns={"value": LABEL})
    return _beside(study, theirs, ours)


def table1(study: Study) -> pd.DataFrame:
    """Table 1's columns on the study's benchmark for the eye: published, ours [95 % interval] and the difference.

    On ALFWorld success per category, on WebShop score and success over all goals. Rows (games of, method): those the
    study has run, per split with the number of games first, then the others.
    """
    if study.environment.benchmark == "webshop":
        return worded(_rate_table(webshop_rates(study), "method", list(_WEBSHOP.values())), study.environment)
    return _by_category(study, success(study).query("table == 'table1'"), "method")


def table2(study: Study) -> pd.DataFrame:
    """Table 2 for the eye, like `table1`, by variant; on WebShop, where none is published, `ablations.table2`."""
    if study.environment.benchmark == "webshop":
        return ablations.table2(study)
    return _by_category(study, success(study).query("table == 'table2'"), "variant")


def webshop() -> pd.DataFrame:
    """Table 1's columns on WebShop, published ones alone: columns (WebShop score or success, "published")."""
    frame = published("table1", benchmark="webshop")
    table = frame.pivot(index="method", columns="metric", values="value").loc[frame["method"].unique()]
    return pd.DataFrame({(title, LABEL): table[name] for name, title in _WEBSHOP.items()})


# -- Table 3 ----------------------------------------------------------------------------------------------------------


def windows(study: Study) -> dict[str, tuple[int, int]]:
    """Moment of training -> its first and last step: the first, middle and last tenth of training."""
    steps, width = int(study.metrics["step"].max()), dynamics.window(study)
    firsts = (1, (steps - width) // 2 + 1, steps - width + 1)
    return {moment: (first, first + width - 1) for moment, first in zip(MOMENTS, firsts, strict=True)}


def cost(study: Study) -> pd.DataFrame:
    """What a training step cost at three moments, beside the published Table 3.

    Ours is, per seed, the mean over the moment's steps (library size: its last step), then the median over the seeds.
    A step is `time/collect` + `time/update` of the first process.

    Returns:
        Columns variant ("" for a published method that is none of ours), method, quantity ("seconds per step",
        "library size", those of `COUNTS`, and the stages, in seconds), moment, published, ours, difference (ours -
        published), seeds (with a value; 0 if none). NaN where there is none.
    """
    rows = []
    for quantity, values in _quantities(study).items():
        frame = study.metrics[["variant", "seed", "step"]].assign(value=values)
        for moment, (first, last) in windows(study).items():
            start = last if quantity == SIZE else first
            of_seeds = frame[frame["step"].between(start, last)].groupby(["variant", "seed"])["value"].mean()
            for variant, part in of_seeds.groupby("variant"):
                rows.append((variant, quantity, moment, part.median(), part.count()))
    keys = ["variant", "quantity", "moment"]
    ours = pd.DataFrame(rows, columns=[*keys, OURS, "seeds"])
    theirs = _as_run(study, published("table3", benchmark=study.environment.benchmark))
    moments = {step: moment for moment, step in MOMENTS.items()}
    theirs = theirs.assign(quantity=theirs["metric"].map(_PUBLISHED_COST), moment=theirs["step"].map(moments))
    theirs = theirs[[*keys, "method", "value"]].rename(columns={"value": LABEL})
    table = ours.merge(theirs, on=keys, how="outer").fillna({"seeds": 0, "method": ""})
    orders = {"variant": [*known_variants(), ""], "quantity": list(_quantities(study)), "moment": list(MOMENTS)}
    table = table.sort_values(keys, key=lambda column: column.map(orders[column.name].index), ignore_index=True)
    return _with_difference(table.astype({"seeds": int}))[["variant", "method", *keys[1:], *LABELS, "seeds"]]


def table3(study: Study) -> pd.DataFrame:
    """Table 3 for the eye: rows (policy, quantity), columns (moment, published or ours or difference)."""
    tidy = cost(study)
    return _cost_table(study, tidy[tidy["quantity"].isin([STEP_TIME, SIZE, *COUNTS])], LABELS)


def stage_table(study: Study) -> pd.DataFrame:
    """Seconds of each stage of a step, for the eye; none are published. Empty: the variant has no such stage."""
    tidy = cost(study)
    return _cost_table(study, tidy[tidy["quantity"].isin(STAGES)], [OURS])


# -- Figures 3 to 5 ---------------------------------------------------------------------------------------------------


def signals(study: Study) -> pd.DataFrame:
    """The values that the text quotes for full, beside full's here: mean over seeds at a checkpoint of `dynamics`.

    On WebShop, for which the text quotes none, full's alone.

    Returns:
        Columns signal, published at, ours at (what step), published, ours, difference (ours - published).

    Raises:
        RunError: the study has no full, or does not log a signal.
    """
    [full] = dynamics.shown(study, [REFERENCE])
    steps = dynamics.checkpoints(study)
    rows = []
    for metric, title in dynamics.SIGNALS.items():
        own = dynamics.at_checkpoints(study, metric, [full]).groupby("step")["value"].mean()
        if metric == dynamics.SIMILARITY:
            quoted = dynamics.published_similarity(study) or (np.nan, np.nan)
            pairs = list(zip(("first checkpoint", "last checkpoint"), quoted, (steps[0], steps[-1]), strict=True))
        elif (quoted := dynamics.published_value(study, metric)) is not None:
            pairs = [(f"step {quoted[0]}", quoted[1], steps[-1])]
        else:
            pairs = [("", np.nan, steps[-1])]
        rows += [(title, at, f"step {step}", value, own[step]) for at, value, step in pairs]
    return _with_difference(pd.DataFrame(rows, columns=["signal", "published at", "ours at", LABEL, OURS]))


# -- claims -----------------------------------------------------------------------------------------------------------


def claims(study: Study) -> pd.DataFrame:
    """Each published difference from full: does the study support its direction, contradict it, or not resolve it?

    Supported or contradicted needs `ablations.told_apart`; the size of a difference plays no part.

    Returns:
        Columns table (that the claim is from), split ("published only" if not tested), variant, published, ours,
        difference (ours - published), low, high (ours; new runs, new games), all in points; p (over seeds, adjusted),
        seeds, reference_seeds, verdict.

    Raises:
        RunError: see `ablations.effects`.
    """
    overall = published("table1", "table2", benchmark=study.environment.benchmark, category=OVERALL, metric="success")
    overall = _as_run(study, overall)
    parts = []
    for name, part in overall[overall["variant"] != ""].groupby("table"):
        values = part.set_index("variant")["value"]
        points = (values.drop(REFERENCE) - values[REFERENCE]).round(1)
        parts.append(points.rename(LABEL).reset_index().assign(table=name))
    theirs = pd.concat(parts).sort_values("table", ascending=False, kind="stable")  # the ablations first
    theirs = theirs.drop_duplicates("variant")  # both tables have plain GRPO
    effects = ablations.effects(study)
    effects["told_apart"] = [ablations.told_apart(row) for row in effects.itertuples()]
    names = {"points": OURS, "both_low": "low", "both_high": "high", "seeds_holm": "p"}
    table = _per_split(study, theirs, effects.drop(columns="published").rename(columns=names), ["variant"])
    table["verdict"] = [_verdict(row) for row in table.itertuples()]
    columns = ["table", "split", "variant", *LABELS, "low", "high", "p", "seeds", "reference_seeds", "verdict"]
    return _with_difference(table)[columns]


def claim_table(study: Study) -> pd.DataFrame:
    """`claims` for the eye."""
    rows = [
        {
            "split": row.split,
            "claim": f"{row.variant} {'below' if row.published < 0 else 'above'} full",
            "claim of": row.table.replace("table", "Table "),
            f"{LABEL}, points": f"{row.published:+.1f}",
            f"{OURS}, points": _text(row.ours, "{:+.1f}"),
            f"{OURS}, new runs and games": interval(row.low, row.high),
            f"{OURS}, p (Holm), seeds": p_text(row.p),
            f"{OURS}, seeds": "" if np.isnan(row.seeds) else f"{row.seeds:.0f} against {row.reference_seeds:.0f}",
            DIFFERENCE: _text(row.difference, "{:+.1f}"),
            "verdict": row.verdict,
        }
        for row in claims(study).itertuples()
    ]
    return worded(pd.DataFrame(rows).set_index(["split", "claim"]), study.environment)


# -- reading ----------------------------------------------------------------------------------------------------------


def reading(study: Study) -> str:
    """What the tables say, as Markdown, made from them alone."""
    lines = [arms.setting(study)]
    verdicts = claims(study)
    for split in arms.splits(study):
        part = verdicts[verdicts["split"] == split]
        counts = [
            f"{verdict} {len(names)}" + (f" ({', '.join(names)})" if len(names) else "")
            for verdict in (SUPPORTED, CONTRADICTED, UNRESOLVED)
            for names in [part.loc[part["verdict"] == verdict, "variant"]]
        ]
        lines.append(f"{split}: of {plural(len(part), 'published direction')} against full, {', '.join(counts)}.")
    if len(absent := verdicts.loc[verdicts["verdict"] == UNTESTED, "variant"]):
        lines.append(f"Published, but {UNTESTED}: {', '.join(absent)}.")
    rates = success(study).query("table == 'table1' and variant == @REFERENCE and category == @OVERALL")
    lines += [
        f"{row.split}: full wins {row.ours:.1f} % [{row.low:.1f}, {row.high:.1f}] here, {row.published:.1f} % as "
        f"published; {row.difference:+.1f} points between two policies on different {study.environment.tasks}, which is no replication "
        "gap."
        for row in rates.itertuples()
    ]
    if study.environment.benchmark == "webshop":
        graded = webshop_rates(study).query("variant == @REFERENCE and category == @_WEBSHOP['score']")
        lines += [
            f"{row.split}: full scores {row.ours:.1f} [{row.low:.1f}, {row.high:.1f}] of 100 here, {row.published:.1f} "
            f"as published ({row.difference:+.1f}). Ceiling: {in_words(study.ceilings[row.split], study.environment)}"
            for row in graded.itertuples()
        ]
    lines += [_growth(study, STEP_TIME, "{:.2f} s"), _growth(study, SIZE, "{:.0f} skills")]
    if study.environment.benchmark == "alfworld":  # whose numbers these are
        wrong = inconsistencies()["claim"]
        names = "; ".join(dict.fromkeys(wrong))
        lines.append(f"{plural(len(wrong), 'comparison')} of published numbers with each other failed: {names}.")
    return "\n".join(f"* {line}" for line in lines)


def _growth(study: Study, quantity: str, show: str) -> str:
    """How a cost of full changed from the start to the end of training."""
    table = cost(study)
    own = table[(table["variant"] == REFERENCE) & (table["quantity"] == quantity)].set_index("moment")
    quoted = [f"{own[LABEL][moment]:g} at step {MOMENTS[moment]}" for moment in ("start", "end")]
    theirs = f" ({LABEL}: {', '.join(quoted)})" if own[LABEL].notna().all() else ""
    if not own.loc[["start", "end"], "seeds"].all():
        return f"full, {quantity}: {_NOT_LOGGED}{theirs}."
    start, end = (show.format(own[OURS][moment]) for moment in ("start", "end"))
    count = plural(int(own["seeds"].min()), "seed")
    return f"full, {quantity}: {start} at the start of training, {end} at its end, median of {count}{theirs}."


# -- parts ------------------------------------------------------------------------------------------------------------


def _as_run(study: Study, theirs: pd.DataFrame) -> pd.DataFrame:
    """Published rows, those of plain GRPO under the name by which the study ran it, if it did by one of them."""
    ran = [name for name in ablations.PLAIN if name in study.variants]
    return theirs if len(ran) != 1 else theirs.replace({"variant": dict.fromkeys(ablations.PLAIN, ran[0])})


def _per_split(study: Study, theirs: pd.DataFrame, ours: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Published rows with ours beside them, once per split; those of variants that the study lacks once, at the end."""
    here = theirs["variant"].isin(ours["variant"])
    parts = [theirs[here].assign(split=split) for split in arms.splits(study)]
    joined = pd.concat(parts).merge(ours, on=["split", *keys], how="left")
    return pd.concat([joined, theirs[~here].assign(split=PUBLISHED_ONLY)], ignore_index=True)


def _beside(study: Study, theirs: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """The columns of `success`, of published rates and the study's."""
    table = _per_split(study, theirs, ours, ["variant", "category"])
    columns = ["table", "split", "method", "variant", "category", LABEL, OURS, "low", "high", DIFFERENCE]
    return _with_difference(table)[[*columns, "games", "passes", "seeds"]]


def _verdict(row: Any) -> str:
    if row.split == PUBLISHED_ONLY:
        return UNTESTED
    if not row.told_apart:
        return UNRESOLVED
    return SUPPORTED if np.sign(row.ours) == np.sign(row.published) else CONTRADICTED


def _with_difference(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{DIFFERENCE: table[OURS] - table[LABEL]})


def _quantities(study: Study) -> Mapping[str, pd.Series]:
    """Quantity of Table 3 -> its values, aligned with the study's metrics; NaN throughout where it is not logged."""
    frame = study.metrics
    named = COUNTS | STAGES
    sources = {*_TIMES, *_SIZE_METRICS, *named.values()}
    of = {name: frame[name] if name in frame else frame["step"] * np.nan for name in sources}
    sums = {STEP_TIME: of[_TIMES[0]] + of[_TIMES[1]], SIZE: of[_SIZE_METRICS[0]].fillna(of[_SIZE_METRICS[1]])}
    return sums | {name: of[metric] for name, metric in named.items()}


def _by_category(study: Study, tidy: pd.DataFrame, rows: str) -> pd.DataFrame:
    names = [*arms.categories(study, tidy)[1:], OVERALL]
    return _rate_table(tidy, rows, names).rename(columns={OVERALL: "All"}, level=0)


def _rate_table(tidy: pd.DataFrame, rows: str, names: Sequence[str]) -> pd.DataFrame:
    """Rows of `success` for the eye, categories `names` across, a block per split."""
    cells = tidy.assign(
        **{
            LABEL: tidy[LABEL].map("{:.1f}".format),
            OURS: [
                "" if np.isnan(row.ours) else f"{row.ours:.1f} [{row.low:.1f}, {row.high:.1f}]"
                for row in tidy.itertuples()
            ],
            DIFFERENCE: [_text(value, "{:+.1f}") for value in tidy[DIFFERENCE]],
        }
    )
    blocks = {}
    for split, part in cells.groupby("split", sort=False):
        table = _pivot(part, [rows], "category", names, LABELS)
        for count in ("passes", "seeds"):
            table[count, OURS] = part.groupby(rows)[count].first().map(lambda value: _text(value, "{:.0f}"))
        if split != PUBLISHED_ONLY:
            games = part.groupby("category")["games"].first()
            first = {(name, OURS): _text(games[name], "n = {:.0f}") for name in names}
            table = pd.concat([pd.DataFrame(first, index=["number of games"]), table])[table.columns]
        blocks[split] = table
    return pd.concat(blocks, names=["games of", rows]).fillna("")


def _cost_table(study: Study, tidy: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    shown = tidy.assign(policy=np.where(tidy["variant"] == "", tidy["method"], tidy["variant"]))
    shown[LABEL] = [_text(value, "{:g}") for value in tidy[LABEL]]
    for label, sign in ((OURS, ""), (DIFFERENCE, "+")):
        shown[label] = [
            _text(value, f"{{:{sign}.{0 if quantity in (SIZE, *COUNTS) else 2}f}}")
            for value, quantity in zip(tidy[label], tidy["quantity"], strict=True)
        ]
    staged = _staged(study)
    empty = tidy[OURS].isna() & tidy["variant"].isin(study.variants)
    shown.loc[empty, OURS] = [_absent(row.variant, row.quantity, staged) for row in tidy[empty].itertuples()]
    keys = ["policy", "quantity"]
    table = _pivot(shown, keys, "moment", list(MOMENTS), labels).fillna("")
    table["seeds", OURS] = shown.groupby(keys)["seeds"].min().map(lambda count: str(count) if count else "")
    return table


def _staged(study: Study) -> set[str]:
    """Variants whose runs log the stages of the rollout: all of those that they have."""
    acting = _quantities(study)["act"].notna()
    return set(study.metrics.loc[acting, "variant"])


def _absent(variant: str, quantity: str, staged: set[str]) -> str:
    """What stands where a variant of the study has no value."""
    if quantity == SIZE and not arms.has_library(variant):
        return _NO_LIBRARY
    return "" if quantity in _OPTIONAL and variant in staged else _NOT_LOGGED


def _pivot(
    cells: pd.DataFrame, rows: list[str], across: str, names: Sequence[str], labels: Sequence[str]
) -> pd.DataFrame:
    """`rows` down in their order; `names` across, and under each the `labels`."""
    table = cells.pivot(index=rows, columns=across, values=list(labels)).swaplevel(axis=1)
    order = cells[rows].drop_duplicates().itertuples(index=False, name=None)
    index = [key if len(rows) > 1 else key[0] for key in order]
    columns = pd.MultiIndex.from_product([names, labels])
    return table.loc[index].reindex(columns=columns)


def _text(value: float, show: str) -> str:
    return "" if np.isnan(value) else show.format(value)
