"""What the published credit cannot learn and Skill1+ can, in worlds of one softmax (`skill1.analysis.tabular`)."""

from __future__ import annotations

import numpy as np
import pytest

from skill1.analysis.tabular import RIGHT, WRONG, distil, experiments, rank, table, unread, utility_gap

SEEDS = range(3)


@pytest.mark.slow
def test_only_use_tells_a_good_lesson_from_a_bad_one() -> None:
    assert np.mean([distil("outcome", seed) for seed in SEEDS]) == pytest.approx(0.5, abs=0.12)
    assert min(distil("use", seed) for seed in SEEDS) > 0.75


@pytest.mark.slow
def test_where_unreadable_text_earns_nothing_losing_teaches_it() -> None:
    assert unread("zero", 0) > 0.9 and unread("lost", 0) < 0.2


def test_only_the_picks_utility_tells_candidates_apart_that_are_retrieved_together() -> None:
    assert [utility_gap("candidates", seed) for seed in SEEDS] == [0.0] * len(SEEDS)  # to the last bit
    gaps = [utility_gap("selected", seed) for seed in SEEDS]
    assert np.mean(gaps) == pytest.approx(RIGHT - WRONG, abs=0.12) and min(gaps) > 0.15


@pytest.mark.slow
def test_only_the_picks_outcome_teaches_a_ranking_what_utilities_do_not_know() -> None:
    assert np.mean([rank("loss", "batch_mean", seed) for seed in SEEDS]) == pytest.approx(0.5, abs=0.1)
    assert min(rank("pick", "batch_mean", seed) for seed in SEEDS) > 0.9
    plain = [rank("loss", "none", seed) for seed in SEEDS]
    assert np.std(plain) > 0.1  # whatever was sampled first is reinforced


@pytest.mark.slow
def test_the_table_has_every_experiment_with_its_runs() -> None:
    found = experiments(runs=2)
    assert found.groupby("experiment").size().to_dict() == {
        "lessons": 2, "rankings": 3, "readability": 2, "utilities": 2,
    }  # fmt: skip
    assert len(table(found)) == len(found) and (found["low"] <= found["high"]).all()
