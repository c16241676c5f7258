"""Planned contrasts: the model by hand, blocks that cancel, clusters, Holm of many, power against the t distribution."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_study
from scipy import stats

from skill1.analysis.contrasts import PLANNED, Contrast, answered, contrast_table, estimates, fit, power, rejected
from skill1.envs.alfworld.spec import ALFWORLD
from skill1.errors import RunError
from skill1.stats import holm

TABLE_2 = ("full", "no_library", "no_selection", "no_distillation", "lambda1_0", "lambda2_0", "lambdas_0")


def test_the_model_by_hand() -> None:
    """Three blocks that differ by 20 points, two variants by 6 on average: 4, 6, 8."""
    rates = pd.DataFrame(
        [("a", b, 40 + 20 * b + gap) for b, gap in enumerate((4, 6, 8))] + [("b", b, 40 + 20 * b) for b in range(3)],
        columns=["variant", "seed", "won"],
    ).astype({"won": float})
    model = fit(rates)
    found = model.t_test([{"variant[a]": 1.0, "variant[b]": -1.0}.get(name, 0.0) for name in model.params.index])
    assert found.effect[0] == pytest.approx(6) and model.df_resid == 2
    paired = stats.ttest_rel([44, 66, 88], [40, 60, 80])  # of two variants it is the paired t test
    assert float(found.pvalue) == pytest.approx(paired.pvalue)


@pytest.mark.slow
def test_every_planned_contrast_is_estimated_where_its_variants_are() -> None:
    study = synthetic_study.make(dict.fromkeys(TABLE_2, (0, 1, 2)))
    table = estimates(study)
    assert [c.question for c in answered(TABLE_2)] == table[table["split"] == "valid_seen"]["question"].tolist()
    assert [c for c in PLANNED if c not in answered(TABLE_2)] == [c for c in PLANNED if "plus" in " ".join(c.weights)]
    assert set(table["freedom"]) == {(7 - 1) * (3 - 1)} and set(table["blocks"]) == {3}
    means = study.evaluations.query(
        "step == 30 and split == 'valid_seen' and (library == 'step30' or variant == 'no_library')"
    )
    rates = means.groupby("variant")["won"].mean() * 100
    for row in table[table["split"] == "valid_seen"].itertuples():
        weights = next(c.weights for c in PLANNED if c.question == row.question)
        assert row.points == pytest.approx(sum(w * rates[v] for v, w in weights.items()))
        assert row.low < row.points < row.high and row.drawn_low <= row.points <= row.drawn_high
    for split, part in table.groupby("split"):
        assert part["holm"].tolist() == pytest.approx(holm(part["p"]).tolist()), split
    assert contrast_table(study).shape == (len(table), 5)


def test_worlds_may_differ_between_blocks_but_not_within() -> None:
    study = synthetic_study.make({"full": (0, 1), "no_library": (0, 1)})
    frame = study.evaluations
    other = frame["seed"] == 1
    frame.loc[other, "game"] = "another/" + frame.loc[other, "game"]
    table = estimates(study)
    assert table["question"].tolist() == ["skills against none"] * 2 and set(table["freedom"]) == {1}
    frame.loc[other & (frame["variant"] == "full"), "game"] += " too"
    with pytest.raises(RunError, match="variants of seed 1 played different games of valid_seen"):
        estimates.__wrapped__(study)


def test_the_plan_is_written_down() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "study.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert [row[0].removeprefix("| ") for row in rows] == [contrast.question for contrast in PLANNED]
    for row, contrast in zip(rows, PLANNED, strict=True):
        assert set(re.findall(r"`(\w+)`", row[1])) == set(contrast.weights)


def test_what_cannot_be_answered_is_said() -> None:
    with pytest.raises(RunError, match="answers no planned contrast: it has full, gigpo"):
        estimates(synthetic_study.make({"full": (0, 1), "gigpo": (0, 1)}))
    with pytest.raises(RunError, match=r"has one block \(seed\)"):
        estimates(synthetic_study.make({"full": (0,), "no_library": (0,)}))
    with pytest.raises(ValueError, match="must sum to 0"):
        Contrast("wrong", {"full": 1, "no_library": -0.5})


def test_games_of_a_home_are_one_cluster() -> None:
    names = [
        f"valid_seen/pick_and_place_simple-Mug-None-Desk-{home}/trial_{n}" for n, home in enumerate((308, 308, 12))
    ]
    assert [ALFWORLD.cluster(name) for name in names] == ["308", "308", "12"]


def test_many_families_are_adjusted_as_one_is() -> None:
    p = np.random.default_rng(0).uniform(size=(12, 5)) ** 3  # few: statsmodels collects garbage at every call
    np.testing.assert_array_equal(rejected(p), np.array([holm(pd.Series(row)) < 0.05 for row in p]))


def test_the_simulated_power_is_that_of_the_t_test() -> None:
    """One contrast of two variants: nothing to adjust, and the noncentral t says how often it is found."""
    contrast = Contrast("one", {"a": 1, "b": -1})
    [found] = power(5.0, [contrast], blocks=8, effect=6.0, draws=4000)
    shift = 6.0 / (5.0 * np.sqrt(2 / 8))
    bound = stats.t.ppf(0.975, 7)
    expected = stats.nct.sf(bound, 7, shift) + stats.nct.cdf(-bound, 7, shift)
    assert found == pytest.approx(expected, abs=0.03)
    [nothing] = power(5.0, [contrast], blocks=8, effect=0.0, draws=4000)
    assert nothing == pytest.approx(0.05, abs=0.015)


def test_a_block_without_a_variant_counts_for_the_others_alone() -> None:
    study = synthetic_study.make({"full": (0, 1, 2), "no_library": (0, 1, 2), "no_selection": (0,)})
    table = estimates(study).query("split == 'valid_seen'").set_index("question")
    assert table["drawn_low"].notna().tolist() == [True, False]  # one block has no_selection
    assert set(table["freedom"]) == {7 - 3 - 2}  # runs, less variants, less blocks beyond the first
