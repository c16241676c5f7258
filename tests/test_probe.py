"""The probe of skill following: its arms, its gate, and policies that follow skills blindly."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nano_runs import configure, environment, load_policy
from shop_runs import configure_shop, make_shop, make_shopper

from skill1.envs.base import DataError
from skill1.envs.make import make_environment
from skill1.generation.calls import Completion
from skill1.nano.alfworld.facts import draw_arms, followed, taught
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.alfworld.reading import home
from skill1.nano.probe import Injected, judge, nano_arms, probe
from skill1.nano.prompts import Fact
from skill1.nano.webshop import facts as shop_facts
from skill1.nano.webshop.prompts import CompactShopPrompts
from skill1.nano.webshop.reading import read_wish
from skill1.play import Job, play

PROMPTS = CompactPrompts()
ARMS = ("none", "relevant", "irrelevant", "other_object", "other_home", "stale", "conflicting")


class Follower:
    """Goes first to the place its skill names, then looks around."""

    prompts = PROMPTS

    def generate(self, texts, seeds, *, temperature, max_new_tokens):
        answers = []
        for text in texts:
            place = text.partition("<skill> ")[2].removesuffix(" <write>").partition(" in ")[2]
            answers.append(f"go_to {place}" if "<step> 0 " in text and place else "look")
        none = np.zeros(0, np.int32)
        return [Completion(none, none, np.zeros(0, np.float32), answer) for answer in answers]


def test_walkthroughs_teach_where_the_target_was(world, warm):
    env = environment(configure(world, warm))
    tasks = env.tasks("train")
    known = taught(env, tasks)
    assert len(known) == len(tasks)
    for task, fact, start in zip(tasks, known, env.reset(tasks), strict=True):
        taken = next(c for c in env.games.game(task.game).walkthrough if c.startswith(f"take {fact.about} "))
        assert taken.endswith(f" from {fact.found.replace('_', ' ')}")
        assert PROMPTS.write_skill(fact) == f"{fact.about} {home(start)} in {fact.found}"


def test_the_arms_are_what_they_are_called(world, warm):
    env = environment(configure(world, warm))
    train = env.tasks("train")
    known = taught(env, train)
    assert len({fact.about for fact in known}) > 2 and len({fact.home for fact in known}) > 1
    tasks, drawn = draw_arms(env, train, train, 5, random.Random(0))
    topics = [PROMPTS.fact(start, "").topic for start in env.reset(tasks)] * 5
    assert tasks == list(train) and len(drawn) == len(topics)
    expected = {"relevant": (True, True), "irrelevant": (False, False), "other_object": (False, True),
                "other_home": (True, False)}  # fmt: skip
    for (target, at), draw in zip(topics, drawn, strict=True):
        assert tuple(draw) == ARMS and draw["none"] is None
        [relevant], [stale] = draw["relevant"], draw["stale"]
        assert stale.topic == relevant.topic and stale.found != relevant.found
        assert set(draw["conflicting"]) == {relevant, stale}
        shown = {arm: facts[0] for arm, facts in draw.items() if arm in expected and facts is not None}
        assert {"relevant", "irrelevant"} <= set(shown) and set(shown.values()) <= set(known)
        assert {arm: (fact.about == target, fact.home == at) for arm, fact in shown.items()} == {
            arm: expected[arm] for arm in shown
        }


def test_a_policy_that_follows_blindly_is_seen_to(world, warm):
    config = configure(world, warm)
    report = probe(
        Follower(), environment(config), config, nano_arms(config.environment.name), split="valid_seen", passes=2
    )
    assert set(report.arms) == set(ARMS) and report.frame["pass"].nunique() == 2
    followed = {arm: values["followed"].value for arm, values in report.arms.items()}
    assert followed["relevant"] == 1.0 and followed["none"] == 0.0
    assert report.gate["following: relevant - none"].value == 1.0
    assert report.gate["following an irrelevant skill: irrelevant - none"].value == 1.0
    assert report.gate["success: relevant - none"].value == 0.0 and not report.passed
    json.dumps(report.to_json())


def test_a_real_policy_can_be_probed(world, warm):
    config = configure(world, warm)
    first, second = (
        probe(
            load_policy(config),
            environment(config),
            config,
            nano_arms(config.environment.name),
            split="valid_seen",
            passes=1,
        ).frame
        for _ in range(2)
    )
    pd.testing.assert_frame_equal(first, second)
    assert first.groupby("arm").size().nunique() == 1


def test_homes_without_train_games_cannot_be_probed(world, warm):
    config = configure(world, warm)
    with pytest.raises(DataError, match="no game of valid_unseen has a train game"):
        probe(
            Follower(), environment(config), config, nano_arms(config.environment.name), split="valid_unseen", passes=1
        )
    env = environment(config)
    one = [task for task, fact in zip(env.tasks("train"), taught(env, env.tasks("train")), strict=True)][:1]
    with pytest.raises(DataError, match="both another home and another object: probe a larger world"):
        draw_arms(env, one, one, 1, random.Random(0))


@pytest.mark.slow
def test_the_gate_wants_following_and_gain():
    def frame(follow: float, gain: float, irrelevant: float) -> pd.DataFrame:
        rows = []
        for game in range(50):
            for arm in ARMS:
                u = game / 50
                win = {"none": 0.3, "relevant": 0.3 + gain, "irrelevant": 0.3 + irrelevant}.get(arm, 0.3)
                rows.append(
                    {"arm": arm, "game": f"g{game}", "pass": 0, "won": float(u < win), "steps": 5,
                     "followed": float(arm == "relevant" and u < follow), "followed_irrelevant": 0.0}
                )  # fmt: skip
        return pd.DataFrame(rows)

    assert judge(frame(0.9, 0.4, 0.0)).passed
    assert not judge(frame(0.1, 0.4, 0.0)).passed
    assert not judge(frame(0.9, 0.0, 0.0)).passed
    assert not judge(frame(0.9, 0.4, 0.4)).passed  # any skill helps as much: its content does not
    report = judge(frame(0.9, 0.4, 0.1))
    assert report.gate["success: relevant - irrelevant"].value == pytest.approx(0.3)
    assert report.arms["relevant"]["success"].value == pytest.approx(0.7)


def test_a_skill_is_followed_if_the_first_move_goes_to_its_place(world, warm):
    config = configure(world, warm)
    env = environment(config)
    tasks = env.tasks("valid_seen")[:2]
    shown = Injected({(tasks[0], 0): "mug in shelf_1", (tasks[1], 0): ""})
    moved, stayed = play([Job(task, 0) for task in tasks], Follower(), env, shown, config)
    there, elsewhere = Fact("mug", "shelf_1"), Fact("mug", "shelf_2")
    assert followed(there, moved) and not followed(elsewhere, moved) and not followed(there, stayed)


# -- WebShop ----------------------------------------------------------------------------------------------------------


class Searcher:
    """Searches for the brand that its skill names, else for "none"."""

    prompts = CompactShopPrompts()

    def generate(self, texts, seeds, *, temperature, max_new_tokens):
        shown = [text.partition("<skill> ")[2].removesuffix(" <write>").split() for text in texts]
        brands = [words[words.index(":") + 1 :] if ":" in words else ["none"] for words in shown]
        answers = [f"search {' '.join(brand)}" for brand in brands]
        ids = np.zeros(1, np.int32)
        return [Completion(ids, ids, np.zeros(1, np.float32), answer) for answer in answers]


def test_a_policy_that_follows_its_skill_in_a_shop_is_seen_to(tmp_path: Path):
    shop, shopper = make_shop(tmp_path / "shop"), make_shopper(tmp_path / "shopper")
    config = configure_shop(shop, shopper)
    environment = make_environment(config.environment)
    train, tasks = environment.tasks("train"), environment.tasks("test")
    probed, drawn = shop_facts.draw_arms(environment, train, tasks, 1, random.Random(0))
    assert probed == list(tasks)
    for task, own, draw in zip(tasks, shop_facts.taught(environment, tasks), drawn, strict=True):
        [irrelevant], [stale] = draw["irrelevant"], draw["stale"]
        assert draw["none"] is None and draw["relevant"] == [own]
        assert irrelevant in shop_facts.taught(environment, train)
        assert irrelevant.about != own.about and irrelevant.found != own.found
        assert (stale.about, stale.found) == (own.about, irrelevant.found) and set(draw["conflicting"]) == {own, stale}
        assert own.about == " ".join(read_wish(environment.goal(task).text).terms)
    report = probe(Searcher(), environment, config, nano_arms(config.environment.name), split="test", passes=2)
    assert tuple(report.frame["arm"].unique()) == ("none", "relevant", "irrelevant", "stale", "conflicting")
    assert len(report.frame) == 5 * 2 * 12
    followed = {arm: values["followed"].value for arm, values in report.arms.items()}
    assert {arm: followed[arm] for arm in ARMS[:3]} == {"none": 0.0, "relevant": 1.0, "irrelevant": 1.0}
    assert followed["stale"] == 1.0
    assert report.gate["following an irrelevant skill: irrelevant - none"].value == 1.0 and not report.passed
    assert all("score" in values for values in report.arms.values())
    with pytest.raises(DataError, match="no training goal wishes another product"):
        shop_facts.draw_arms(environment, tasks[:1], tasks[:1], 1, random.Random(0))
