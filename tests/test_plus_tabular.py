"""What the published credit cannot learn and Skill1+ can, in worlds of one softmax (`skill1.analysis.tabular`)."""

from __future__ import annotations

import pandas as pd
import pytest

from skill1.analysis.tabular import RIGHT, WRONG, experiments, table

RUNS = 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return experiments(runs=RUNS)


def arms(found: pd.DataFrame, experiment: str) -> list[pd.Series]:
    return [arm for _, arm in found[found["experiment"] == experiment].iterrows()]


def test_only_use_tells_a_good_lesson_from_a_bad_one(found: pd.DataFrame) -> None:
    outcome, use = arms(found, "lessons")
    assert outcome["mean"] == pytest.approx(0.5, abs=0.12) and use["low"] > 0.75


def test_where_unreadable_text_earns_nothing_losing_teaches_it(found: pd.DataFrame) -> None:
    zero, lost = arms(found, "readability")
    assert zero["low"] > 0.9 and lost["high"] < 0.2


def test_only_the_picks_utility_tells_candidates_apart_that_are_retrieved_together(found: pd.DataFrame) -> None:
    together, alone = arms(found, "utilities")
    assert together["low"] == together["high"] == 0.0  # to the last bit
    assert alone["mean"] == pytest.approx(RIGHT - WRONG, abs=0.12) and alone["low"] > 0.15


def test_only_the_picks_outcome_teaches_a_ranking_what_utilities_do_not_know(found: pd.DataFrame) -> None:
    plain, centred, pick = arms(found, "rankings")
    assert plain["deviation"] > 0.1  # whatever was sampled first is reinforced
    assert centred["mean"] == pytest.approx(0.5, abs=0.1) and pick["low"] > 0.9


def test_the_table_has_every_experiment_with_its_runs(found: pd.DataFrame) -> None:
    assert found.groupby("experiment").size().to_dict() == {
        "lessons": 2, "rankings": 3, "readability": 2, "utilities": 2,
    }  # fmt: skip
    assert set(found["runs"]) == {RUNS}
    assert len(table(found)) == len(found) and (found["low"] <= found["high"]).all()
