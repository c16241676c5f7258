"""Goals: texts, bounds and order by hand; splits."""

from __future__ import annotations

import random

import pytest
from webshop_shop import ATTRIBUTES, LAMP, PRODUCTS, choices, open_shop, product, write_files

from skill1.envs.base import DataError
from skill1.envs.webshop.goals import split_goals


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("data"))


def test_goals_are_drawn_as_the_original_draws_them(folder):
    shop = open_shop(folder, seed=3)
    rng = random.Random(3)  # first the prices within ranges, then the bounds, both in file order
    price = rng.uniform(19.99, 27.99)
    assert shop.prices[:4].tolist() == [12.5, price, 100.0, 12.5]
    lamp = max(rng.sample([20.0, 30.0, 40.0, 50.0], 2))
    oak = max(rng.sample([bound for bound in (20.0, 30.0, 40.0, 50.0, 60.0) if bound > price][:4], 2))
    with_options = "Find me easy clean table lamps with color: {}, and size: {}, and price lower than {:.2f} dollars"
    expected = [
        with_options.format(colour, size, lamp)
        for colour in ("navy blue", "white")
        for size in ("10 | 12 in", "x-large")
    ] + [f"Find me oak lamps, and price lower than {oak:.2f} dollars"]
    random.Random(233).shuffle(expected)
    assert [goal.text for goal in shop.goals] == expected


def test_synthetic_goals_hold_pairs(folder):
    goals = {goal.text.split(", and price")[0]: goal for goal in open_shop(folder).goals}
    goal = goals["Find me easy clean table lamps with color: white, and size: x-large"]
    assert goal.options == (("color", "white"), ("size", "x-large"))
    assert (goal.product, goal.asin, goal.query, goal.attributes) == (
        0, "B000000001", "table lamps", ("easy clean", "bright light"),
    )  # fmt: skip
    assert goals["Find me oak lamps"].options == ()


def test_human_goals_hold_values(folder):
    goals = sorted(open_shop(folder, "human").goals, key=lambda goal: goal.product)
    assert [goal.text.split(", and price")[0] for goal in goals] == ["i want a lamp", "any lamp"]
    assert [goal.options for goal in goals] == [("white",), ()]


def test_no_bound_near_the_dearest_and_no_goal_without_values(tmp_path):
    products = [LAMP | {"pricing": "$981"}, product("B000000005", "x", customization_options={"Size": []}), PRODUCTS[1]]
    instruction = ATTRIBUTES["B000000002"]
    shop = open_shop(write_files(tmp_path, products, {p["asin"]: instruction for p in products}))
    assert len(shop.goals) == 4 + 0 + 1
    (dear, *_) = [goal for goal in shop.goals if goal.product == 0]
    assert dear.price_upper == 1_000_000 and "price" not in dear.text


def test_out_of_range(folder):
    goals = open_shop(folder).goals
    for number in (-1, 5):
        with pytest.raises(IndexError, match=f"goal {number} is out of range: there are 5 synthetic goals"):
            goals[number]


def test_splits(tmp_path):
    products = [product(f"B2000000{n:02d}", "x", customization_options={"S": choices("a", "b")}) for n in range(12)]
    shop = open_shop(write_files(tmp_path, products, {p["asin"]: ATTRIBUTES["B000000002"] for p in products}))
    by_goal = split_goals(shop.goals, 7, "goal")
    assert by_goal.nonzero()[0].tolist() == list(range(7))
    by_product = split_goals(shop.goals, 7, "product")
    owners = shop.goals.products
    assert by_product.sum() == 8  # four products with two goals each
    assert not set(owners[by_product]) & set(owners[~by_product])
    assert set(owners[by_goal]) & set(owners[~by_goal])
    for by in ("goal", "product"):
        with pytest.raises(DataError, match=f"24 goals \\(by {by}\\) leaves none of the 24 synthetic goals"):
            split_goals(shop.goals, 24, by)
