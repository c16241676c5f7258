"""The selection study: which candidate each arm shows, which arms there are, and the comparison by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from nano_runs import configure, success
from scripted import LESSONS, PROMPTS, paper, play, taught, walker

from skill1.analysis.library.select_study import Ordered, arms_of
from skill1.analysis.library.selection import FLOORS, KEYS, ORDERS, OWN, Arm, compare, latest, open_seeds
from skill1.config import ConfigError, load_config
from skill1.errors import RunError
from skill1.store.run_directory import RunDirectory


def test_every_order_shows_another_candidate(world):
    config = paper(world)
    scripted = walker(config)
    method = taught(config, 3)
    candidates = {c.skill: c for c in method.skills.retrieve(["look for a mug"], "greedy")[0]}
    ids = list(candidates)  # as retrieved: s000001 is what the query asks for
    assert ids[0] == "s000001"
    used = [[ids[1]] * 1, [ids[2]] * 4]  # the second wins once, the third loses four times
    for skills, won in zip(used, (1.0, 0.0), strict=True):
        seen = [replace(success(*LESSONS[0]), candidates=(candidates[s],), outcome=won, lesson=None) for s in skills]
        method.skills.learn(seen, 2)
    library = method.skills.frozen()

    def selected(arm: Arm) -> list[str]:
        rollouts = play(config, scripted, Ordered(arm, config, library, right), seed=(7, 1))
        for r in rollouts:
            asked = [t.stage for t in r.turns if t.stage != "act"]
            assert asked == ["query"] * (arm.key == "query") + ["rerank"] * (arm.order == "policy")
            assert r.query == ("look for a mug" if arm.key == "query" else r.instruction)
            assert r.skill == PROMPTS.skill_block([library[r.selected].strategy])
        return [r.selected for r in rollouts]

    tasks = [r.task for r in play(config, scripted, Ordered(Arm("none"), config, library, {}))]
    right = {tasks[0]: library[ids[2]].strategy, tasks[1]: None}
    found = [library.retrieve(["look for a mug"], "greedy")[0]] * 2
    order = [c.skill for c in found[0]]  # utilities count in retrieval too
    assert selected(Arm("policy")) == [order[1]] * 2  # the script ranks the second first
    assert selected(Arm("similarity")) == ["s000001"] * 2
    assert selected(Arm("utility")) == [ids[1]] * 2
    assert selected(Arm("count")) == [ids[2]] * 2
    assert selected(Arm("oracle")) == [ids[2], order[0]]  # none is right in the second task: as retrieved
    assert selected(Arm("random")) == selected(Arm("random"))
    assert set(selected(Arm("random", "task"))) <= set(ids)


def test_an_arm_without_a_skill_asks_for_none(world):
    config = paper(world)
    scripted = walker(config)
    for r in play(config, scripted, Ordered(Arm("none", "task"), config, taught(config, 3).skills.frozen(), {})):
        assert {t.stage for t in r.turns} == {"act"} and (r.candidates, r.selected, r.skill) == ((), None, "")


def test_arms_are_all_that_differ():
    floored = load_config("nano", overrides={"library.similarity_floor": 0.4})
    arms = arms_of(floored)
    assert len({arm.name for arm in arms}) == len(arms) == (len(ORDERS) - 1) * len(KEYS) * len(FLOORS) + 1
    assert OWN in arms and [arm.order for arm in arms].count("none") == 1
    assert {arm.floor for arm in arms_of(load_config("nano"))} == {"run"}
    assert arms_of(floored, ["utility"], ["task"], ["none"]) == [Arm("utility", "task", "none")]
    assert not any(arm.order == "oracle" for arm in arms_of(load_config("mini")))  # nobody knows what is right there
    with pytest.raises(RunError, match="no nano world that knows what is right: leave oracle out"):
        arms_of(load_config("mini"), ["oracle"])
    with pytest.raises(ConfigError, match="unknown order 'utilty'; did you mean 'utility'"):
        arms_of(floored, ["utilty"])


def played(order: str, won: list[int], right: float = np.nan, seed: int = 0) -> pd.DataFrame:
    """Two passes over four games."""
    games = [f"game{i // 2}" for i in range(8)]
    return pd.DataFrame({
        "order": order, "key": "query", "floor": "run", "library": f"{order}-query-run", "seed": seed, "step": 4,
        "split": "valid_seen", "game": games, "pass": [0, 1] * 4, "won": won, "right": right, "offered": right,
    })  # fmt: skip


def test_the_comparison_by_hand():
    frame = pd.concat([played("policy", [1, 0, 0, 0, 1, 1, 0, 0]), played("utility", [1, 1, 1, 1, 1, 1, 0, 1], 0.5)])
    table = compare(frame)
    assert list(table.index) == [("policy", "query", "run"), ("utility", "query", "run")]
    own, other = table.loc["policy"].iloc[0], table.loc["utility"].iloc[0]
    assert (own["n"], own["success"], other["success"], other["right"]) == (8, 3 / 8, 7 / 8, 0.5)
    assert np.isnan(own["difference"]) and other["difference"] == pytest.approx(0.5)
    assert other["p"] == pytest.approx(2 / 8)  # games differ by .5, 1, 0, .5: two of the eight exchanges are as far
    elsewhere = played("policy", [0] * 8).assign(split="valid_unseen", step=4)
    assert latest(pd.concat([frame, frame.assign(step=2), elsewhere])).equals(frame)


def test_several_runs_are_compared_by_run():
    gains = {0: 2, 1: 1, 2: 3}  # episodes of eight
    parts = [played("policy", [1] * 2 + [0] * 6, seed=seed) for seed in gains]
    parts += [played("utility", [1] * (2 + more) + [0] * (6 - more), seed=seed) for seed, more in gains.items()]
    other = compare(pd.concat(parts)).loc["utility"].iloc[0]
    assert (other["n"], other["success"], other["difference"]) == (24, 0.5, pytest.approx(0.25))
    # the runs differ by 2/8, 1/8, 3/8: t = .25 / (.125 / sqrt(3)) = 3.46 on two degrees of freedom
    t = 0.25 / (0.125 / np.sqrt(3))
    assert other["p"] == pytest.approx(1 - t / np.sqrt(t**2 + 2))  # of Student's t with two degrees of freedom
    assert other["difference_low"] < 0.25 < other["difference_high"]


def test_two_runs_of_one_seed_are_refused(world, nano, tmp_path):
    for name in ("one", "two"):
        RunDirectory.create(tmp_path / name, configure(world, nano), "")
    with pytest.raises(RunError, match="one and .*two both have seed 0: name runs of one seed each"):
        open_seeds([tmp_path / "one", tmp_path / "two"])
    assert [run.path.name for run in open_seeds([tmp_path / "two"])] == ["two"]
