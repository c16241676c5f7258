"""A study of WebShop: its scores and ceiling beside its success, and no published value of ALFWorld near it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
import stand_ins
import synthetic_study
from nbformat.v4 import new_notebook
from shop_runs import make_shop, settings_of_shop
from synthetic_study import PRODUCTS, STEPS
from without_kernels import run_cells

from skill1.analysis import ablations, arms, dynamics, paper_tables, scores
from skill1.analysis.figures import signals
from skill1.analysis.figures import study as study_figures
from skill1.analysis.published import published
from skill1.analysis.study import Study, load
from skill1.envs.alfworld.spec import ALFWORLD
from skill1.envs.base import DataError
from skill1.envs.make import make_environment
from skill1.envs.spec import Ceiling
from skill1.envs.webshop.spec import WEBSHOP
from skill1.running.collect import collect
from skill1.store.run_directory import RunDirectory

ROOT = Path(__file__).resolve().parents[1]
RUNS = {"full": [0, 1], "no_library": [0], "grpo": [0]}


@pytest.fixture(scope="module")
def study() -> Study:
    sizes = {"valid_seen": 12}
    return synthetic_study.in_a_shop(synthetic_study.make(RUNS, splits=("valid_seen",), sizes=sizes))


def played(study: Study, scores: dict[str, list[float]]) -> Study:
    """Scores of the first goals of `full`'s and `grpo`'s own results, every pass alike; all others are 0."""
    frame = study.evaluations.copy()
    for variant, given in scores.items():
        chosen = (frame["variant"] == variant) & (frame["step"] == STEPS)
        of_goal = np.zeros(12)
        of_goal[: len(given)] = given
        frame.loc[chosen, "score"] = of_goal[frame.loc[chosen, "game"].str[-3:].astype(int)]
        frame.loc[chosen, "won"] = frame.loc[chosen, "score"] == 1.0
    return replace(study, evaluations=frame)


# --- Scores and Table 1, by hand -------------------------------------------------------------------------------------


def test_scores_by_hand(study: Study) -> None:
    made = played(study, {"full": [1.0, 1.0, 1.0, 0.5, 0.1]})
    own = arms.own(made).query("variant == 'full'")
    tidy = arms.rates(made, own, "score").set_index("category")
    assert tidy.loc["Overall", "value"] == pytest.approx(100 * 3.6 / 12)
    # goals 3 and 9 are of the fourth category, 4 and 10 of the fifth
    assert tidy.loc[PRODUCTS[3], "value"] == pytest.approx(25) and tidy.loc[PRODUCTS[4], "value"] == pytest.approx(5)
    overall = tidy.loc["Overall"]
    assert 0 < overall["low"] < overall["value"] < overall["high"] < 100
    alone = arms.rates(made, own[own["game"] == own["game"].iloc[0]], "score")
    assert alone["value"].eq(100).all() and alone[["low", "high"]].isna().all(axis=None)
    table = paper_tables.rate_table(made, "table2", "score")  # none is published
    assert table.columns.tolist() == ["Overall", *PRODUCTS, "passes", "seeds"]
    row = table.loc[("test", "Skill1")]
    assert row["Overall"].startswith("30.0 [") and row[PRODUCTS[3]].startswith("25.0 [") and row["seeds"] == "2 seeds"


def test_table_1_has_score_and_success(study: Study) -> None:
    made = played(study, {"full": [1.0, 1.0, 1.0, 0.5, 0.1], "grpo": [1.0, 0.2]})
    for measure, ours, theirs, difference in (
        ("score", "30.0 [", "89.7", "-59.7"),
        ("success", "25.0 [", "82.9", "-57.9"),
    ):
        table = paper_tables.rate_table(made, "table1", measure)
        skill1 = table.loc[("test", "Skill1"), "Overall"]
        assert skill1["ours"].startswith(ours) and (skill1["published"], skill1["difference"]) == (theirs, difference)
        assert list(dict.fromkeys(table.columns.get_level_values(0))) == ["Overall", *PRODUCTS, "passes", "seeds"]
        assert "published" not in table[PRODUCTS[0]]  # no category is
        assert table.loc[("test", "number of goals"), ("Overall", "ours")] == "n = 12"
        rest = table.loc[paper_tables.PUBLISHED_ONLY]
        assert len(rest) == 13 and table.index.names == ["goals of", "policy"]
    assert rest.loc["GiGPO", ("Overall", "published")] == "72.8"
    grpo = paper_tables.rate_table(made, "table1", "score").loc[("test", "GRPO"), "Overall"]
    assert grpo["ours"].startswith("10.0 [") and grpo["difference"] == "-69.3"


# --- Nothing of ALFWorld ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_published_values_are_those_of_webshop_alone(study: Study) -> None:
    quoted = published("table1", benchmark="webshop")
    for found in (
        *(paper_tables.rates(study, "table1", measure) for measure in ("success", "score")),
        paper_tables.rates(study, "table2"),
        paper_tables.cost(study),
    ):
        assert set(found["published"].dropna()) <= set(quoted["value"])
    effects = ablations.effects(study).set_index("variant")["published"]
    assert effects["grpo"] == -16.8 and math.isnan(effects["no_library"])  # Table 2 is of ALFWorld alone
    assert "published" not in dynamics.signal_table(study) and "published" not in paper_tables.table3(study)
    assert not any(dynamics.published_values(study, metric) for metric in dynamics.SIGNALS)
    claims = paper_tables.claims(study).set_index("variant")
    assert claims["published"].to_dict() == {"grpo": -16.8, "gigpo": -10.1, "retroagent_rl": -0.6, "skillrl": -10.2}


@pytest.mark.slow
def test_figures_show_product_categories_and_webshops_values(study: Study) -> None:
    def texts(draw) -> str:
        return "\n".join(text.get_text() for text in draw(study).findobj(matplotlib.text.Text))

    unquoted = (signals.training_signals, signals.similarity_dots, signals.u_hat_curves, study_figures.gain_dots)
    for draw in unquoted:
        assert "published" not in texts(draw), draw
    figure = study_figures.category_spread(study)
    [axes] = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == ["Overall", "beauty"] and axes.get_title() == "held-out goals"
    assert axes.get_xlabel().endswith(", 2 a category")
    hollow = [line.get_xdata().tolist() for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [x for x in hollow if x] == [[82.9], [82.3]]  # Skill1 and RetroAgent, overall


# --- Collected runs and a notebook -----------------------------------------------------------------------------------


def test_a_collected_study_says_its_benchmark_and_its_ceiling(tmp_path: Path) -> None:
    """Of goals that were played alone: the ceiling is counted on the shop, whose goals can all be met."""
    shop, folder = make_shop(tmp_path / "shop"), tmp_path / "study"
    fields = settings_of_shop(shop, tmp_path / "policy") | stand_ins_settings()
    home = folder / "full" / "seed0"
    home.mkdir(parents=True)
    stand_ins.train(str(home / "run"), "nano-webshop", "full", fields)
    run = RunDirectory.open(home / "run")
    goals = make_environment(run.config.environment).tasks("test")[:5]
    rows = pd.DataFrame({"game": [goal.game for goal in goals], "category": [goal.category for goal in goals]})
    frame = rows.assign(
        variant="full", seed=0, step=stand_ins.STEPS, split="test", won=False, score=0.25, steps=4,
        invalid_actions=0, inadmissible_actions=0, library="none",
    ).assign(**{"pass": 0})  # fmt: skip
    run.write_evaluation("evaluation_none", frame)
    for name in ("01_train", "02_evaluate"):
        node = new_notebook()
        node.metadata["skill1"] = {"source": "", "parameters": {}}
        nbformat.write(node, home / f"{name}.ipynb")
    settings = {"preset": "nano-webshop", "overrides": {}, "passes": 1, "splits": ["test"]}
    (folder / "sweep.json").write_text(json.dumps({"settings": settings, "runs": {"full": [0]}}))
    collect(folder)
    study = load(folder)
    assert study.environment is WEBSHOP and study.ceilings == {"test": Ceiling(goals=5, reachable=5)}
    assert scores.study_ceiling_note(study).startswith("* Ceiling, test: 5 of the 5 goals evaluated (100.0 %)")
    shop.rename(tmp_path / "gone")
    with pytest.raises(DataError):
        collect(folder)


def stand_ins_settings() -> dict[str, int]:
    return {"train.seed": 0, "train.steps": stand_ins.STEPS, "train.save_every": stand_ins.SAVE_EVERY}


def test_a_study_that_does_not_say_its_benchmark_is_of_alfworld() -> None:
    reference = load(ROOT / "results" / "reference" / "nano")
    assert reference.environment is ALFWORLD and reference.ceilings == {}


@pytest.mark.slow
def test_a_notebook_reads_a_study_of_webshop(tmp_path: Path) -> None:
    """06_paper, which has all tables; what 03 and 04 show is tested by its functions."""
    made = synthetic_study.make(
        {"full": [0, 1], "grpo": [0, 1]}, splits=("valid_seen",), passes=1, sizes={"valid_seen": 12}
    )
    study = synthetic_study.in_a_shop(made)
    folder = synthetic_study.write(study, tmp_path / "shop")
    text = run_cells(ROOT / "notebooks" / "06_paper.ipynb", {"study": str(folder), "env": "webshop"})
    assert "Ceiling, test: 11 of the 12 goals" in text
    assert "12 goals" in text and "12 games" not in text
    assert "89.7" in text and paper_tables.summary(study) in text
