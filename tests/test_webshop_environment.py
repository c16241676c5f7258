"""WebShop behind the vector protocol: splits, graded rewards, steps, finished episodes, exact restarts."""

from __future__ import annotations

import random

import pytest
from webshop_shop import open_shop, write_files

from skill1.envs.base import DataError
from skill1.envs.webshop.environment import SEARCH_ACTION, WebshopEnvironment, quoted
from skill1.records import Task

BUY = ["search[brass]", "click[b000000001]", "click[white]", "click[x-large]", "click[Buy Now]"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return open_shop(write_files(tmp_path_factory.mktemp("data")))


@pytest.fixture
def environment(shop):
    return WebshopEnvironment(shop, max_steps=6, held_out=2)


@pytest.fixture
def lamp(shop, environment):
    """The task of a white, x-large brass lamp."""
    number = next(n for n, goal in enumerate(shop.goals) if "white, and size: x-large" in goal.text)
    return Task("webshop", "train", f"synthetic/{number:08d}", "garden")


def test_tasks_of_the_splits(shop, environment):
    assert environment.tasks("test") == tuple(
        Task("webshop", "test", f"synthetic/{number:08d}", "garden") for number in (0, 1)
    )
    assert [task.game for task in environment.tasks("train")] == [f"synthetic/{number:08d}" for number in (2, 3, 4)]
    by_product = WebshopEnvironment(shop, held_out=1, split_by="product")
    products = [
        {shop.goals[int(task.game[-8:])].product for task in by_product.tasks(split)} for split in ("train", "test")
    ]
    assert products in ([{0}, {1}], [{1}, {0}])
    with pytest.raises(DataError, match="no split 'valid_seen'; it has train and test"):
        environment.tasks("valid_seen")


def test_a_purchase_is_graded_and_finishes(environment, lamp):
    (first,) = environment.reset([lamp])
    assert first.admissible == (SEARCH_ACTION,) and first.instruction in first.text
    steps = [environment.step([action])[0] for action in BUY]
    assert [step.reward for step in steps] == [0.0] * 4 + [1.0]
    assert [step.won for step in steps] == [step.done for step in steps] == [False] * 4 + [True]
    assert all(step.admissible and step.observation.instruction == first.instruction for step in steps)
    assert steps[0].observation.admissible == ("click[back to search]", "click[next >]", "click[b000000001]")
    with pytest.raises(ValueError, match="episode 0 is finished; pass None instead of the action 'x'"):
        environment.step(["x"])
    assert environment.step([None]) == [None]


def test_a_poor_purchase_is_no_win(environment, lamp):
    environment.reset([lamp])
    for action in ("search[oak]", "click[b000000002]"):
        environment.step([action])
    (step,) = environment.step(["click[buy now]"])
    assert step.done and not step.won
    # type: same query; attributes 1 of 2; options 0 of 2; the price is what the bound says
    assert step.reward in (pytest.approx(1 / 5), pytest.approx(2 / 5))


def test_the_step_limit_is_no_purchase(environment, lamp):
    (before,) = environment.reset([lamp])
    for number in range(1, 7):
        (step,) = environment.step(["dance"])
        assert (step.observation, step.reward, step.won, step.admissible) == (before, 0.0, False, False)
        assert step.done == (number == 6)


def test_admissible_means_offered(environment, lamp):
    environment.reset([lamp])
    seen = []
    for action in ("click[search]", "search[]", "search[oak]", "search[lamp]", "click[NEXT >]", "click[b000000001]"):
        seen.append(environment.step([action])[0].admissible)
    assert seen == [False, False, True, False, True, False]  # the search bar is on the index page only


def test_observations(shop, lamp):
    plain, rich, quotes = (
        WebshopEnvironment(shop, observation=mode, held_out=1).reset([lamp])[0].text
        for mode in ("text", "text_rich", "quoted")
    )
    goal = shop.goals[int(lamp.game[-8:])].text
    assert plain == f"WebShop [SEP] Instruction: [SEP] {goal} [SEP] Search"
    assert rich.endswith("[button] Search [button_]\n") and quotes == "'Search'"
    assert quoted(f"Instruction: [SEP] {goal} [SEP] A [SEP] B's", goal) == "'A' [SEP] 'B's'"
    assert quoted("Thank you! [SEP] Reward", goal) == "Thank you! [SEP] Reward"


def test_episodes_are_apart_and_an_error_moves_none(environment, lamp):
    environment.reset([lamp] * 2)
    for action in BUY:
        _, step = environment.step([None, action])
    assert step.won
    with pytest.raises(ValueError, match="episode 1 is finished"):
        environment.step(["search[oak]", "x"])
    with pytest.raises(ValueError, match="1 actions for 2 running episodes"):
        environment.step(["x"])
    (first, second) = environment.step(["search[oak]", None])
    assert second is None and first.admissible
    assert environment.reset([]) == environment.step([]) == []


def test_restarts_are_exact_whatever_runs_beside(environment, lamp):
    def play(width: int) -> list:
        rng = random.Random(3)
        log = [environment.reset([lamp] * width)[0]]
        for _ in range(4):
            action = rng.choice(log[-1].admissible).replace("<your query>", "lamp")
            log.append(environment.step([action] + ["search[oak]"] * (width - 1))[0].observation)
        return log

    assert play(1) == play(4) == play(1)


@pytest.mark.parametrize("game", ["synthetic/00000005", "synthetic/-1", "human/00000000", "7", "synthetic/x", ""])
def test_unknown_goals_are_named(environment, game):
    with pytest.raises(
        DataError, match=f"{game!r} is no goal of this shop: it has synthetic/00000000 to .*5 synthetic goals"
    ):
        environment.reset([Task("webshop", "train", game, "garden")])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"max_steps": 0}, "max_steps must be at least 1, not 0"),
        ({"observation": "html"}, "observation 'html' must be one of text, text_rich, quoted"),
        ({"held_out": 0}, "held_out 0 at least 1"),
        ({"split_by": "asin"}, "split_by 'asin' must be goal or product"),
    ],
)
def test_settings_are_checked(shop, settings, message):
    with pytest.raises(ValueError, match=message):
        WebshopEnvironment(shop, **settings)


def test_a_split_that_leaves_nothing(shop):
    with pytest.raises(DataError, match="a test split of 500 goals \\(by goal\\) leaves none of the 5 synthetic goals"):
        WebshopEnvironment(shop)
