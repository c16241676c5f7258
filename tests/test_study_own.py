"""A study of an environment and methods that this package does not know: nothing published, everything drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import synthetic_study
from figure_checks import assert_printable, texts
from test_study_figures import DRAWN

from skill1.analysis import ablations, arms, dynamics, paper_tables, per_category, variants
from skill1.analysis.study import Study

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SPEC = """
from skill1.envs.spec import EnvironmentSpec, PromptWords

WORDS = PromptWords("a plot", "a plot", "where to dig", "plots", ("dig",), ("dig",))
GARDEN = EnvironmentSpec("garden", None, {"valid_seen": "old beds"}, WORDS, task="plot", tasks="plots")
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    file = tmp_path_factory.mktemp("own") / "garden.py"
    file.write_text(SPEC)
    runs = {"another": [0, 1], "mine": [0, 1], "no_library": [0, 1], "full": [0, 1], "no_selection": [0, 1]}
    made = synthetic_study.make(runs, splits=("valid_seen",), sizes={"valid_seen": 12}, missing={"mine": [2]})
    return replace(made, manifest={**made.manifest, "benchmark": f"{file}:GARDEN"})


@pytest.mark.slow
def test_unknown_methods_follow_the_known_ones(study: Study) -> None:
    assert study.variants == ["full", "no_library", "no_selection", "another", "mine"]
    assert arms.overview(study).index.tolist() == study.variants and arms.keeps_skills(study) >= {"full", "mine"}
    assert set(arms.withheld(study)["variant"]) == {"full", "no_selection", "mine"}
    rows = ["number of plots", "untrained", "Skill1", "no library (GRPO)", "another", "mine"]
    assert paper_tables.rate_table(study, "table1").loc["valid_seen"].index.tolist() == rows
    assert paper_tables.rate_table(study, "table1").loc[("valid_seen", "mine"), "seeds"] == "2 of 3 seeds"
    effects = ablations.effects(study).set_index("variant")
    assert effects.loc[["another", "mine"], "kind"].eq(ablations.BASELINE).all()
    assert ablations.grpo_table(study).loc["valid_seen"].index.tolist() == ["Skill1", "another", "mine"]


@pytest.mark.slow
def test_nothing_published_stands_beside_it(study: Study) -> None:
    tables = (
        lambda study: paper_tables.rate_table(study, "table1"), lambda study: paper_tables.rate_table(study, "table2"),
        paper_tables.table3, paper_tables.stage_table, dynamics.signal_table,
        ablations.effect_table, ablations.grpo_table, per_category.gain_table, per_category.behaviour_table,
    )  # fmt: skip
    for table in tables:
        shown = table(study)
        assert shown.columns.nlevels == 1 and not shown.columns.str.contains("published|difference|game").any()
    assert paper_tables.claims(study).empty and paper_tables.claim_table(study).empty
    assert "of 0 published directions" in paper_tables.summary(study)
    assert "n = 12 plots" in ablations.summary(study) and "n = 12 plots" in per_category.summary(study)


@pytest.mark.parametrize("name", DRAWN)
def test_figures_have_its_words_and_colours(name: str, study: Study) -> None:
    assert_printable(figure := DRAWN[name](study))  # of one split: mostly one column
    text = texts(figure)
    assert "published" not in text and "game" not in text
    if name in ("ablations", "effects"):
        colours = {line.get_color() for line in figure.axes[0].lines}
        assert {variants.colours(study.variants)["mine"], variants.colours(study.variants)["another"]} <= colours
        assert "mine, 2 of 3 seeds" in text and "old beds" in text and "n = 12 plots" in text
