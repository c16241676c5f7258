"""The paper's tables beside a study's, against numbers worked out by hand; notebook 06 runs strictly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import synthetic_study
from synthetic_study import STEPS

from skill1.analysis import ablations, arms, paper_tables
from skill1.analysis.paper_tables import CONTRADICTED, PUBLISHED_ONLY, STAGES, SUPPORTED, UNRESOLVED, UNTESTED
from skill1.analysis.published import published
from skill1.analysis.study import Study
from skill1.errors import RunError
from skill1.running.batch import run_notebook

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "06_paper.ipynb"
SIZES = {"valid_seen": 12, "valid_unseen": 6}


def timed(study: Study) -> Study:
    """Seconds: collecting takes as many as the step and the seed, updating half of one; ten skills a step."""
    frame = study.metrics
    shared = {
        "time/collect": frame["step"] + frame["seed"], "time/update": 0.5, "time/act": 0.1 * frame["step"],
        "cost/calls": 100.0 * frame["step"], "cost/tokens": 300.0 * frame["step"],
    }  # fmt: skip
    skilled = frame["variant"].isin(["full", "no_selection", "no_distillation"])
    own = {"library/size": 10.0 * frame["step"], "time/rerank": 0.25}
    wanted = {name: pd.Series(values, frame.index).where(skilled) for name, values in own.items()}
    return replace(study, metrics=frame.assign(**shared, **wanted))


def played(won: Mapping[tuple[str, int], str]) -> Study:
    """(variant, seed) -> one letter per game of valid_seen after training, "1" = won; one pass."""
    runs: dict[str, list[int]] = {}
    for variant, seed in won:
        runs.setdefault(variant, []).append(seed)
    size = len(next(iter(won.values())))
    made = synthetic_study.make(runs, passes=1, splits=("valid_seen",), sizes={"valid_seen": size})
    frame = made.evaluations.copy()
    for (variant, seed), letters in won.items():
        chosen = (frame["variant"] == variant) & (frame["seed"] == seed) & (frame["step"] == STEPS)
        games = frame.loc[chosen, "game"].str[-3:].astype(int)
        frame.loc[chosen, "won"] = [letters[game] == "1" for game in games]
    return replace(made, evaluations=frame)


@pytest.fixture(scope="module")
def study() -> Study:
    runs = {"full": [0, 1, 5], "grpo": [0], "no_selection": [0, 1], "lambda1_0": [0]}
    return timed(synthetic_study.make(runs, missing={"no_selection": [2]}, sizes=SIZES))


# --- Tables 1 and 2 --------------------------------------------------------------------------------------------------


def test_rates_by_hand() -> None:
    made = played({("full", 0): "110111", ("grpo", 0): "100000"})  # a game of each category, in the paper's order
    tidy = paper_tables.rates(made, "table1").set_index(["variant", "category"])
    overall = tidy.loc[("full", "Overall")]
    assert (overall["published"], overall["ours"]) == (97.5, pytest.approx(500 / 6))
    assert overall["difference"] == pytest.approx(500 / 6 - 97.5)
    assert tidy.loc[("grpo", "Overall"), "difference"] == pytest.approx(100 / 6 - 77.6)
    assert overall["games"] == 6 and overall["seeds"] == 1 and overall["split"] == "valid_seen"
    ablated = paper_tables.rates(made, "table2").set_index(["variant", "category"])
    assert ablated.loc[("full", "Clean"), "difference"] == pytest.approx(0 - 97.3)
    table = paper_tables.rate_table(made, "table1")
    row = table.loc[("valid_seen", "Skill1")]
    assert row["Overall", "published"] == "97.5" and row["Overall", "difference"] == "-14.2"
    assert row["Overall", "ours"].startswith("83.3 [") and row["Clean", "difference"] == "-97.3"
    assert row["passes", ""] == "1" and row["seeds", ""] == "1 seed"
    assert table.loc[("valid_seen", "number of games"), ("Overall", "ours")] == "n = 6"
    names = list(dict.fromkeys(table.columns.get_level_values(0)))
    assert names == ["Overall", "Pick", "Look", "Clean", "Heat", "Cool", "Pick2", "passes", "seeds"]


def test_table_1_has_the_untrained_policy_and_every_method(study: Study) -> None:
    table = paper_tables.rate_table(study, "table1")
    rows = ["number of games", "untrained", "Skill1", "GRPO"]
    assert table.loc["valid_unseen"].index.tolist() == rows
    before = study.evaluations.query("step == 0 and split == 'valid_unseen'")
    untrained = table.loc[("valid_unseen", "untrained")]
    assert (
        untrained["Overall", "ours"].startswith(f"{100 * before['won'].mean():.1f} [") and untrained["seeds", ""] == ""
    )
    rest = table.loc[PUBLISHED_ONLY]
    assert (
        len(rest) == 13
        and "GiGPO" in rest.index
        and rest.loc["RetroAgent (RL-trained)", ("Overall", "published")] == "94.9"
    )
    assert (rest.loc[:, [column for column in rest if column[1] != "published"]] == "").all(axis=None)
    without = replace(study, evaluations=study.evaluations.query("step > 0"))  # nobody evaluated it
    assert paper_tables.rate_table(without, "table1").loc["valid_unseen"].index.tolist() == [rows[0], *rows[2:]]


def test_table_2_has_full_and_the_ablations(study: Study) -> None:
    table = paper_tables.rate_table(study, "table2")
    names = ["Skill1", "no selection", "no rerank loss (λ1 = 0)", "GRPO"]
    assert table.loc["valid_seen"].index.tolist() == ["number of games", *names]
    ours = arms.results(study).query("split == 'valid_seen' and variant == 'full' and category == 'Pick'")
    [cell] = [f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]" for row in ours.itertuples()]
    full = table.loc[("valid_seen", "Skill1")]
    assert full["Pick", "ours"] == cell and full["seeds", ""] == "3 seeds"
    assert table.loc[("valid_seen", "no selection"), ("seeds", "")] == "2 of 3 seeds"
    assert table.loc[PUBLISHED_ONLY].index.tolist() == [
        "no distillation",
        "no distill loss (λ2 = 0)",
        "neither loss (λ1 = λ2 = 0)",
    ]


@pytest.mark.slow
def test_differences_are_ours_minus_published(study: Study) -> None:
    parts = [paper_tables.rates(study, table) for table in ("table1", "table2")]
    for found in (*parts, paper_tables.cost(study), paper_tables.claims(study)):
        pd.testing.assert_series_equal(found["difference"], found["ours"] - found["published"], check_names=False)
        assert found["difference"].notna().any() and found["published"].notna().any()
    quoted = published("table1", "table2", benchmark="alfworld", metric="success")
    once = pd.concat(parts).query("split in ('valid_seen', @PUBLISHED_ONLY)")["published"].dropna()
    assert sorted(once) == sorted(quoted["value"])  # nothing is lost


# --- Table 3 ---------------------------------------------------------------------------------------------------------


def test_cost_by_hand(study: Study) -> None:
    assert paper_tables.windows(study) == {"start": (1, 3), "middle": (14, 16), "end": (28, 30)}
    tidy = paper_tables.cost(study).set_index(["variant", "quantity", "moment"]).sort_index(level=[0, 1])
    tidy = tidy.reindex(["start", "middle", "end"], level="moment")
    # means of steps 1-3, 14-16, 28-30 and half a second; seeds 0, 1 and 5: their median adds 1
    steps = tidy.loc[("full", "seconds per step")]
    assert steps["ours"].tolist() == pytest.approx([3.5, 16.5, 30.5])
    assert steps["published"].tolist() == [387, 444, 494]
    assert steps["difference"].tolist() == pytest.approx([-383.5, -427.5, -463.5])
    assert steps["seeds"].tolist() == [3, 3, 3]
    sizes = tidy.loc[("full", "library size")]
    assert sizes["ours"].tolist() == [30, 160, 300] and sizes["difference"].tolist() == [-885, -3739, -4700]
    assert tidy.loc[("grpo", "seconds per step"), "difference"].tolist() == pytest.approx([-298.5, -258.5, -267.5])
    assert tidy.loc[("full", "act"), "ours"].tolist() == pytest.approx([0.2, 1.5, 2.9])
    assert tidy.loc[("full", "act"), "published"].isna().all()
    assert tidy.loc[("skillrl", "library size", "end"), ["published", "seeds", "policy"]].tolist() == [83, 0, "SkillRL"]


def test_skillrls_bank_stands_beside_its_published_size() -> None:
    made = synthetic_study.make({"full": [0], "skillrl": [0]}, sizes=SIZES)
    frame = made.metrics
    sizes = {"full": "library/size", "skillrl": "bank/size"}
    logged = {name: (2.0 * frame["step"]).where(frame["variant"] == variant) for variant, name in sizes.items()}
    table = paper_tables.table3(replace(made, metrics=frame.assign(**logged)))
    assert table.loc[("SkillRL", "library size"), "end"].tolist() == ["60", "83", "-23"]
    assert table.loc[("Skill1", "library size"), "end"].tolist() == ["60", "5000", "-4940"]


@pytest.mark.parametrize("name", ["grpo", "no_library"])
def test_plain_grpo_has_its_published_values_by_either_name(name: str) -> None:
    made = played({("full", 0): "110111", (name, 0): "100000"})
    tidy = [paper_tables.rates(made, table).set_index(["variant", "category"]) for table in ("table1", "table2")]
    found = [table.loc[(name, "Overall"), "difference"] for table in tidy]
    assert found == [pytest.approx(100 / 6 - 77.6), pytest.approx(100 / 6 - 80.9)]
    claimed = paper_tables.claims(made).query("split != @PUBLISHED_ONLY")
    assert claimed[["table", "variant"]].to_numpy().tolist() == [["table2", name]]  # once, of the two


def test_table_3_by_policy(study: Study) -> None:
    table = paper_tables.table3(study)
    policies = table.index.get_level_values("policy")
    assert list(dict.fromkeys(policies)) == [
        "Skill1", "no selection", "no distillation", "no rerank loss (λ1 = 0)", "GRPO", "SkillRL"
    ]  # fmt: skip
    assert table.loc[("Skill1", "seconds per step"), "start"].tolist() == ["3.50", "387", "-383.50"]
    assert table.loc[("Skill1", "library size"), "end"].tolist() == ["300", "5000", "-4700"]
    assert table.loc[("no distillation", "library size"), "start"].tolist() == ["", "2212", ""]  # not run
    assert table.loc[("GRPO", "library size"), ("end", "ours")] == ""  # it has none
    assert table.loc[("Skill1", "policy calls per step"), "end"].tolist() == ["2900", "", ""]
    assert table.loc[("GRPO", "tokens written per step"), "start"].tolist() == ["600", "", ""]
    assert table.loc[("no selection", "seconds per step"), ("seeds", "")] == "2"


def test_what_was_not_logged_is_empty(study: Study) -> None:
    table = paper_tables.stage_table(study)
    assert set(table.index.get_level_values("quantity")) == set(STAGES) and table.columns.nlevels == 1
    assert table.loc[("Skill1", "rerank"), "end"] == "0.25"
    assert table.loc[("GRPO", "rerank"), "end"] == table.loc[("Skill1", "rollout"), "end"] == ""
    old = synthetic_study.make({"full": [0], "no_selection": [0]}, sizes=SIZES)  # no time at all
    assert paper_tables.table3(old).loc[("Skill1", "seconds per step")].tolist() == ["387", "444", "494"]
    assert paper_tables.cost(old).query("variant == 'full'")["seeds"].eq(0).all()
    assert paper_tables.stage_table(old).shape[1] == 0


# --- Claims --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_claims_are_supported_contradicted_unresolved_or_untested() -> None:
    three = range(3)
    made = played(
        {("full", seed): "1" * 5 + "10"[seed % 2] + "0" * 6 for seed in three}
        | {("no_library", seed): "10"[seed % 2] + "0" * 11 for seed in three}
        | {("no_selection", seed): "1" * 11 + "10"[seed % 2] for seed in three}
        | {("lambda1_0", seed): "1" * 5 + "01"[seed % 2] + "0" * 6 for seed in three}
        | {("grpo", 0): "0" * 12}
    )
    table = paper_tables.claims(made).set_index(["table", "variant"])
    verdicts = table["verdict"]
    assert verdicts["table2", "no_library"] == SUPPORTED and verdicts["table2", "no_selection"] == CONTRADICTED
    assert verdicts["table2", "lambda1_0"] == UNRESOLVED
    assert verdicts["table1", "grpo"] == UNRESOLVED  # far below, but a single seed
    assert verdicts["table1", "gigpo"] == verdicts["table2", "lambda2_0"] == UNTESTED
    row = table.loc[("table2", "no_library")]
    assert row["published"] == -16.6 and row["ours"] == pytest.approx(100 * (2 / 36 - 17 / 36))
    assert table.loc[("table1", "gigpo"), "published"] == -6.7 and math.isnan(table.loc[("table1", "gigpo"), "ours"])
    assert len(table) == 10  # six ablations and four baselines
    shown = paper_tables.claim_table(made).loc[("valid_seen", "no library (GRPO) below Skill1")]
    assert shown["published, points"] == "-16.6" and shown["ours, points"] == "-41.7"
    assert shown["difference"] == "-25.1" and shown["ours, seeds"] == "3 against 3"
    [line] = paper_tables.summary(made).splitlines()
    counts = "supported 1 (no library (GRPO)), contradicted 1 (no selection), not resolved 2 "
    assert "(n = 12 games, 1 pass, 3 seeds): of 4 published directions against Skill1, " + counts in line


def test_the_verdict_is_the_rule_of_the_ablations(study: Study) -> None:
    told = {(row.split, row.variant): ablations.significant(row) for row in ablations.effects(study).itertuples()}
    tested = paper_tables.claims(study).query("split != @PUBLISHED_ONLY")
    assert len(tested) == len(told) == 6  # three variants on two splits
    for row in tested.itertuples():
        assert (row.verdict != UNRESOLVED) == told[row.split, row.variant]


def test_seeds_that_differ_by_rounding_alone_are_no_spread() -> None:
    """Thirds that are summed in another order: to Welch's test any difference would be significant."""
    wins = {("full", 0): "222211", ("full", 1): "221221", ("no_library", 0): "111122", ("no_library", 1): "112211"}
    runs, seen = {"full": [0, 1], "no_library": [0, 1]}, ("valid_seen",)
    made = synthetic_study.make(runs, passes=3, splits=seen, sizes={"valid_seen": 6})
    frame = made.evaluations
    of_three = [int(wins[row.variant, row.seed][int(row.game[-3:])]) for row in frame.itertuples()]
    made = replace(made, evaluations=frame.assign(won=frame["pass"] < of_three))
    full = arms.by_seed(arms.own(made).query("variant == 'full'")).mean(axis=1)
    assert full[0] != full[1] and full[0] == pytest.approx(full[1])
    table = paper_tables.claims(made).set_index("variant")
    assert math.isnan(table.loc["no_library", "p"]) and table.loc["no_library", "verdict"] == UNRESOLVED


def test_without_full_there_is_nothing_to_claim() -> None:
    plain = synthetic_study.make({"no_library": [0], "grpo": [0]}, sizes=SIZES)
    assert len(paper_tables.rate_table(plain, "table1")) and len(paper_tables.table3(plain))  # tables need no full
    with pytest.raises(RunError, match="no finished run of full"):
        paper_tables.claims(plain)


# --- The notebook, by the strict runner ------------------------------------------------------------------------------


@pytest.mark.slow
def test_notebook_06_reads_a_committed_study(study: Study, tmp_path: Path) -> None:
    folder = synthetic_study.write(study, tmp_path / "reference")
    done = run_notebook(NOTEBOOK, tmp_path / "06.ipynb", {"study": str(folder)})
    cells = [cell for cell in nbformat.read(done, as_version=4).cells if cell.cell_type == "code"]
    data = [output.get("data", {}) for cell in cells for output in cell.outputs]
    text = "\n".join(part for found in data for kind, part in found.items() if kind.startswith("text/"))
    assert paper_tables.summary(study) in text and "GRPO, Table 1" in text
    assert "published" in text and "difference" in text and "-383.50" in text and "WebShop" not in text
    names = ("category_spread", "library_map", "similarity", "training_signals", "u_hat")
    there = sorted(path.name for path in (folder / "figures").iterdir())
    assert there == [f"{name}.{kind}" for name in names for kind in ("pdf", "png")]
    kept = sorted(path.name for path in (folder / "tables").iterdir())
    assert kept == [f"table{number}.{kind}" for number in (1, 2, 3) for kind in ("csv", "tex")]
