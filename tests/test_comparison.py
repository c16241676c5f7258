"""Evaluations side by side: tables, differences and readings against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from skill1.analysis import comparison
from skill1.config import load_config
from skill1.envs.alfworld.spec import ALFWORLD
from skill1.stats import wilson
from skill1.store.run_directory import RunDirectory


def outcomes(won: str, *, step: int, library: str, split: str = "valid_seen") -> pd.DataFrame:
    """One row per character ("1" = won), two passes over len(won) / 2 games."""
    games = len(won) // 2
    return pd.DataFrame(
        {
            "variant": "full",
            "seed": 3,
            "step": step,
            "split": split,
            "game": [f"g{i % games}" for i in range(len(won))],
            "category": "Pick",
            "pass": [i // games for i in range(len(won))],
            "won": [letter == "1" for letter in won],
            "score": 0.0,
            "steps": [4, 6] * games,
            "invalid_actions": 0,
            "inadmissible_actions": 0,
            "library": library,
        }
    )


@pytest.fixture
def frames() -> dict[str, pd.DataFrame]:
    return {
        comparison.BEFORE: outcomes("00000000", step=0, library="step0"),
        comparison.WITH_LIBRARY: outcomes("11101100", step=5, library="step5"),  # games won 2, 2, 1, 0 times
        comparison.WITHHELD: outcomes("10101000", step=5, library="none"),  # 2, 0, 1, 0
    }


def test_success_table_by_hand(frames: dict[str, pd.DataFrame]) -> None:
    table = comparison.success_table(frames, ALFWORLD).set_index("evaluation")
    assert table["success %"].to_dict() == {
        comparison.BEFORE: 0.0,
        comparison.WITH_LIBRARY: 62.5,
        comparison.WITHHELD: 37.5,
    }
    assert set(table["n"]) == {8} and set(table["games"]) == {4} and set(table["passes"]) == {2}
    assert set(table["seed"]) == {3} and set(table["steps"]) == {5.0}
    expected = wilson(5, 8)
    assert (
        table.loc[comparison.WITH_LIBRARY, "Wilson, 95 %"] == f"[{100 * expected.low:.1f}, {100 * expected.high:.1f}]"
    )
    nothing = wilson(0, 4)  # no game was won: resampling games would say [0, 0]
    assert table.loc[comparison.BEFORE, "over games, 95 %"] == f"[0.0, {100 * nothing.high:.1f}]"


def test_differences_are_paired_by_game(frames: dict[str, pd.DataFrame]) -> None:
    table = comparison.differences(frames)
    assert table["against"].tolist() == [comparison.WITHHELD, comparison.BEFORE]
    withheld, before = (row for _, row in table.iterrows())
    # per game 0, 1, 0, 0: mean 25 points; exchanging within the one differing game gives +-25, so p = 1
    assert (withheld["points"], withheld["low"], withheld["games"], withheld["p"]) == (25.0, 0.0, 4, 1.0)
    # per game 1, 1, 0.5, 0: of 8 sign changes 2 are as extreme
    assert before["points"] == 62.5 and before["p"] == pytest.approx(0.25)


def test_a_split_at_a_time(frames: dict[str, pd.DataFrame]) -> None:
    two = {
        label: pd.concat([frame, frame.assign(split="valid_unseen", won=~frame["won"])])
        for label, frame in frames.items()
    }
    table = comparison.differences(two)
    assert table["split"].tolist() == ["valid_seen"] * 2 + ["valid_unseen"] * 2
    assert table["points"].tolist() == [25.0, 62.5, -25.0, -62.5]


def test_reading_says_what_the_interval_says(frames: dict[str, pd.DataFrame]) -> None:
    text = comparison.read_evaluation(frames, ALFWORLD)
    assert "+25.0 points" in text and "not told apart" in text
    same = {comparison.BEFORE: frames[comparison.BEFORE], comparison.WITHOUT: frames[comparison.BEFORE]}
    assert "over 4 games: no game came out differently" in comparison.read_evaluation(same, ALFWORLD)
    certain = {
        comparison.BEFORE: outcomes("0" * 16, step=0, library="none"),
        comparison.WITHOUT: outcomes("1" * 12 + "0" * 4, step=5, library="none"),
    }
    assert "zero lies outside" in comparison.read_evaluation(certain, ALFWORLD)
    assert "nothing to compare" in comparison.read_evaluation({comparison.BEFORE: frames[comparison.BEFORE]}, ALFWORLD)


def test_summary_is_plain_json(frames: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", load_config("nano", overrides={"train.seed": 3}), "hash")
    file = comparison.write_summary(run.path, frames)
    summary = json.loads(file.read_text())
    assert file.name == "summary.json" and summary["variant"] == "full" and summary["seed"] == 3
    assert summary["evaluations"][comparison.WITH_LIBRARY]["valid_seen"]["success"] == 0.625
    assert summary["differences"][0]["points"] == 25.0


def test_training_reading_names_steps_rates_and_skills(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", load_config("nano", overrides={"train.steps": 2}), "hash")
    skills = {"library/size": 7, "library/mean_utility": 0.4, "selection/selected_share": 1.0, "ndcg/mean": 0.9}
    chosen = {"selection/utility_retrieved": 0.5, "selection/utility_selected": 0.6}
    run.log(1, {"reward": 0.25, **skills, **chosen})
    run.log(2, {"reward": 0.5, **skills, **chosen})
    run.write_evaluation("validation", outcomes("1000", step=0, library="step0"))
    run.write_evaluation("validation", outcomes("1110", step=2, library="step2"))
    text = comparison.read_training(run)
    assert "2 of 2 steps of 64 episodes" in text and "first 1 won 25.0 %" in text and "last 1 won 50.0 %" in text
    assert "25.0 % [4.6, 69.9] at step 0" in text and "75.0 % [30.1, 95.4] at step 2" in text
    assert "holds 7 skills; 100 %" in text and "0.40 over the library, 0.50" in text
