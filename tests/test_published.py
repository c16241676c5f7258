"""The published numbers: complete, sourced, consistent where they claim to be."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tarfile
from collections import Counter

import pandas as pd
import pytest
from scipy.stats import ttest_ind_from_stats

from skill1.analysis.published import _GAMES, COLUMNS, OVERALL, inconsistencies, published
from skill1.envs.alfworld.data import CATEGORIES
from skill1.presets import variants as known_variants
from skill1.store.resources import resource

EVERYTHING = [OVERALL, *CATEGORIES.values()]

TABLES = ("table1", "table2", "table3", "text", "retroagent", "skillrl")


def value(*names: str, **where: str) -> float:
    return published(*names, **where)["value"].item()


def test_every_value_is_sourced_typed_and_there_once() -> None:
    frame = published(*TABLES)
    assert list(frame) == [*COLUMNS, "label"] and set(frame["label"]) == {"published"}
    assert set(frame["table"]) == set(TABLES) == {file.stem for file in resource("data/paper").glob("*.csv")}
    assert frame["value"].notna().all() and frame["unit"].str.len().all() and frame["metric"].str.len().all()
    papers = {"retroagent": "2603.08561", "skillrl": "2602.08234"}
    for table, sources in frame.groupby("table")["source"]:
        assert sources.str.startswith(f"arXiv {papers.get(table, '2605.06130')}").all()
    numbered = frame["table"].str.match(r"table\d")
    titles = frame["table"].str.replace("table", "Table ")
    assert all(title in source for title, source in zip(titles[numbered], frame["source"][numbered], strict=True))
    assert not frame.duplicated(["table", "method", "variant", "benchmark", "category", "metric", "step"]).any()
    assert set(frame["variant"]) <= {"", *known_variants()} and set(frame["category"]) <= {"", *EVERYTHING}
    assert set(frame["benchmark"]) == {"alfworld", "webshop"}
    assert frame.loc[frame["unit"] == "%", "value"].between(0, 100).all()


def test_tables_are_complete() -> None:
    counts = Counter(zip(published("table1")["method"], published("table1")["metric"], strict=True))
    assert len(counts) == 30 and all(n == {"success": 8, "score": 1}[metric] for (_, metric), n in counts.items())
    for name, group in published("table2").groupby("variant"):
        assert sorted(group["category"]) == sorted(EVERYTHING), name
    others = ("grpo", "gigpo", "skillrl", "retroagent", "plus")
    assert set(published("table2")["variant"]) == {name for name in known_variants() if not name.startswith(others)}
    cost = published("table3")
    assert set(cost["step"]) == {20, 60, 100} and Counter(cost["metric"]) == {"step_time": 15, "library_size": 12}
    assert cost.loc[cost["metric"] == "library_size", "value"].max() == 5000


def test_full_of_table_2_is_skill1_of_table_1() -> None:
    first = published("table1", method="Skill1", benchmark="alfworld").set_index("category")["value"]
    second = published("table2", variant="full").set_index("category")["value"]
    pd.testing.assert_series_equal(first.sort_index(), second.sort_index())


def test_the_same_value_in_two_places_is_the_same() -> None:
    for method in ("Skill1", "RetroAgent"):
        table = value("table1", method=method, benchmark="alfworld", category=OVERALL)
        assert value("text", method=method, metric="success") == table
    assert value("skillrl", metric="success", benchmark="alfworld") == 89.9
    for benchmark, gain in (("alfworld", 18.3), ("webshop", 15.4)):
        own = {m: value("retroagent", metric="success", benchmark=benchmark, method=m)
               for m in ("GRPO", "RetroAgent (RL-trained)")}  # fmt: skip
        assert own["RetroAgent (RL-trained)"] - own["GRPO"] == pytest.approx(gain)
        assert value("retroagent", metric="gain_over_grpo", benchmark=benchmark) == gain


def test_no_overall_rate_is_an_average_of_its_categories() -> None:
    """As data/paper/README.md says: neither over the 140 games of valid_seen nor over the categories."""
    frame = published("table1", "table2", benchmark="alfworld", metric="success")
    wide = frame.pivot(index=["table", "method", "variant"], columns="category", values="value")
    averages = pd.DataFrame({"categories": wide[list(_GAMES)].mean(axis=1)})
    averages["games"] = (wide[list(_GAMES)] * pd.Series(_GAMES)).sum(axis=1) / 140
    skill1 = averages.loc[("table1", "Skill1", "full")]
    assert skill1["categories"] == pytest.approx((100 + 98.6 + 97.3 + 99.2 + 96.1 + 96) / 6)
    assert len(wide) == 22 and skill1["games"] == pytest.approx(97.876, abs=1e-3)
    assert averages.sub(wide[OVERALL], axis=0).abs().min(axis=None) > 0.1


def test_weights_are_the_games_of_valid_seen(shared_data) -> None:
    with tarfile.open(shared_data / "alfworld" / "valid_seen.tar.xz") as archive:
        listing = archive.getnames()
    games = [name.split("/") for name in listing if name.endswith("game.tw-pddl")]
    kinds = [CATEGORIES[kind] for *_, task, _, _ in games if (kind := task.partition("-")[0]) in CATEGORIES]
    assert Counter(kinds) == _GAMES


def test_inconsistencies_are_found_by_arithmetic() -> None:
    found = inconsistencies().set_index(["claim", "how"])["difference"]
    assert found.to_dict() == {
        ("gain over GiGPO in the text", "Table 1: Skill1 - GiGPO"): pytest.approx(0.2),
        ("Skill1 overall", "its six categories, weighted by valid_seen's games"): pytest.approx(0.38),
        ("Skill1 overall", "its six categories, unweighted"): pytest.approx(0.37),
        ("GRPO, Table 1", "Table 2: no library, which is plain GRPO"): pytest.approx(3.3),
    }


def test_the_published_p_value_is_within_rounding() -> None:
    deviations = [value("text", method=m, metric="success_std") for m in ("Skill1", "RetroAgent")]
    means = [value("text", method=m, metric="success") for m in ("Skill1", "RetroAgent")]
    seeds = int(value("text", method="Skill1", metric="seeds"))
    corners = [
        ttest_ind_from_stats(
            means[0] + a, deviations[0] + b, seeds, means[1] - a, deviations[1] + c, seeds, equal_var=False
        ).pvalue
        for a, b, c in itertools.product((-0.05, 0.05), repeat=3)
    ]
    assert min(corners) < value("text", metric="welch_p_over_retroagent") < max(corners)


def test_frames_are_the_callers_own() -> None:
    frame = published("table2")
    frame["value"] = 0.0
    assert value("table2", variant="full", category=OVERALL) == 97.5


def test_found_from_any_folder(tmp_path) -> None:
    code = "from skill1.analysis.published import published; print(len(published('table2')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["49"]
