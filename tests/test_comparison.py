"""Evaluations side by side: tables, differences and readings against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from skill1.analysis import comparison
from skill1.config import load_config
from skill1.envs.alfworld.spec import ALFWORLD
from skill1.envs.webshop.spec import WEBSHOP
from skill1.errors import RunError
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


def test_differences_are_shown_with_their_p(frames: dict[str, pd.DataFrame]) -> None:
    shown = comparison.difference_table(frames, WEBSHOP).loc["valid_seen"]
    assert shown["goals"].tolist() == [4, 4] and shown["passes"].tolist() == [2, 2]
    assert shown["p"].tolist() == ["1.000", ".250"] and shown["points"].iloc[0].startswith("+25.0 [+0.0, +")


def test_the_summary_says_what_training_gained(frames: dict[str, pd.DataFrame]) -> None:
    [line] = comparison.summary(frames, ALFWORLD).splitlines()
    assert "*after, with library* against *before* +62.5 [" in line
    assert "p = .250 (n = 4 games, 2 passes, one training seed)" in line
    certain = {
        comparison.BEFORE: outcomes("0" * 40, step=0, library="none"),
        comparison.WITHOUT: outcomes("1" * 32 + "0" * 8, step=5, library="none"),
    }
    assert "p < .001" in comparison.summary(certain, ALFWORLD)
    del frames[comparison.BEFORE]
    assert "against *after, library withheld* +25.0 [" in comparison.summary(frames, ALFWORLD)
    assert "nothing to compare" in comparison.summary({comparison.WITHHELD: frames[comparison.WITHHELD]}, ALFWORLD)


def test_folders_of_one_name_are_named_by_more_of_their_path(tmp_path: Path) -> None:
    paths = [tmp_path / seed / "run" for seed in ("seed0", "seed1")]
    for path in paths:
        run = RunDirectory.create(path, load_config("nano"), "hash")
        run.write_evaluation("evaluation_none", outcomes("10", step=5, library="none"))
    assert list(comparison.stored_arms(paths)) == [f"{seed}/run: step 5, library none" for seed in ("seed0", "seed1")]
    assert list(comparison.stored_arms(paths[:1])) == ["run: step 5, library none"]
    with pytest.raises(RunError, match="seed0/run is given twice"):
        comparison.stored_arms([paths[0], tmp_path / "seed0" / ".." / "seed0" / "run"])
    RunDirectory.create(tmp_path / "new", load_config("nano"), "hash")
    with pytest.raises(RunError, match="new has no evaluations: make them with"):
        comparison.stored_arms([tmp_path / "new"])


def test_summary_is_plain_json(frames: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", load_config("nano", overrides={"train.seed": 3}), "hash")
    file = comparison.write_summary(run.path, frames, run.path)
    summary = json.loads(file.read_text())
    assert file.name == "summary.json" and summary["variant"] == "full" and summary["seed"] == 3
    assert summary["evaluations"][comparison.WITH_LIBRARY]["valid_seen"]["success"] == 0.625
    assert summary["differences"][0]["points"] == 25.0


def test_the_training_summary_names_steps_and_rates(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", load_config("nano", overrides={"train.steps": 2}), "hash")
    run.log(1, {"reward": 0.25})
    run.log(2, {"reward": 0.5})
    assert len(comparison.training_summary(run).splitlines()) == 1
    run.write_evaluation("validation", outcomes("1000", step=0, library="step0"))
    run.write_evaluation("validation", outcomes("1110", step=2, library="step2"))
    trained, validated = comparison.training_summary(run).splitlines()
    assert "2 of 2 steps of 64 episodes are done: the first 1 won 25.0 %" in trained and "last 1 won 50.0 %" in trained
    assert "on 4 games: 25.0 % [4.6, 69.9] at step 0, 75.0 % [30.1, 95.4] at step 2" in validated
