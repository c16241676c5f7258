"""The score by hand, its quirks, and the ceiling they put on a catalogue."""

from __future__ import annotations

import json

import pytest
from webshop_shop import LAMP, RANGE, choices, open_shop, write_files

from skill1.envs.webshop.catalogue import Product
from skill1.envs.webshop.ceiling import Ceiling, best_purchase, ceiling
from skill1.envs.webshop.goals import Goal
from skill1.envs.webshop.nouns import content_words, words
from skill1.envs.webshop.reward import COLOURS, alike, option_text, score


def goal(**changes):
    return Goal(**{
        "text": "", "product": 0, "asin": "A", "category": "garden", "query": "table lamps", "name": "Brass Desk Lamp",
        "breadcrumb": "Home › Lighting › Table Lamps", "attributes": ("easy clean", "bright light"),
        "options": (("color", "navy blue"),), "price_upper": 30.0, 
    } | changes)  # fmt: skip


def bought(**changes):
    return Product(**{
        "asin": "A", "name": "Brass Desk Lamp", "category": "garden", "query": "table lamps",
        "breadcrumb": "Home › Lighting › Table Lamps", "description": "", "bullets": (), "prices": (12.5,),
        "options": {"color": ("navy blue", "red")}, "attributes": ("easy clean", "bright light"),
    } | changes)  # fmt: skip


def rate(product, options, wanted, price=12.5):
    return score(product, price, options, wanted, words)


def test_the_right_purchase():
    outcome = rate(bought(), {"color": "navy blue"}, goal())
    assert (outcome.score, outcome.type, outcome.attributes, outcome.options) == (1.0, 1.0, 1.0, 1.0)
    assert outcome.price and outcome.same_query and outcome.same_category and outcome.title == 1.0


@pytest.mark.parametrize(
    "product, options, wanted, price, expected",
    [
        (bought(), {}, goal(), 12.5, 3 / 4),  # no option
        (bought(), {"color": "red"}, goal(), 12.5, 3 / 4),
        (bought(), {"color": "navy blue"}, goal(), 30.01, 3 / 4),  # too dear
        (bought(), {"color": "navy blue"}, goal(), 30.0, 1.0),  # the bound itself is fine
        (bought(attributes=("easy to clean",)), {"color": "navy blue"}, goal(), 12.5, 3 / 4),
        (bought(attributes=(), bullets=("Gives BRIGHT", "light. Easy clean.")), {}, goal(), 12.5, 3 / 4),  # joined
        (bought(attributes=(), description="Bright light"), {}, goal(options=()), 12.5, 2 / 3),
        (bought(attributes=()), {}, goal(attributes=("Desk",), options=()), 12.5, 1 / 2),  # case of the goal is kept
        (bought(), {"color": "royal blue"}, goal(), 12.5, 1.0),  # the first colour word decides
    ],
)  # fmt: skip
def test_parts_by_hand(product, options, wanted, price, expected):
    assert rate(product, options, wanted, price).score == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "changes, wanted, kind",
    [
        ({"query": "x"}, {}, 1.0),  # two common breadcrumbs
        ({"query": "x", "breadcrumb": "Home ›  Lighting"}, {}, 1.0),
        ({"query": "x", "breadcrumb": "Home"}, {}, 1.0),  # the titles are the same
        ({"query": "x", "breadcrumb": "Home", "name": "Lamp"}, {"name": "Brass Desk Lamp With Cord"}, 0.5),  # 1 of 5
        ({"name": "lamp"}, {"name": "lamp " + "a b c d e f g h i j"}, 0.1),  # 1 of 11, whatever matches
        ({"name": "sofa"}, {}, 0.0),  # no common noun, whatever matches
        ({"query": "x", "breadcrumb": ""}, {"name": "12 34"}, 0.5),  # no noun at all counts as .2
        ({}, {"name": "12 34"}, 1.0),
    ],
)
def test_types(changes, wanted, kind):
    assert rate(bought(**changes), {}, goal(**wanted)).type == kind


def test_title_scores_count_repeats_once_on_one_side():
    assert rate(bought(name="lamp lamp"), {}, goal(name="lamp lamp lamp desk")).title == 1 / 4


def test_alike_rounds_to_whole_percent_and_drops_latin_1():
    assert alike("easy clean", "Easy-Clean!") and alike("café", "caf") and not alike("", "")
    assert not alike("easy to clean", "easily cleaned")


def test_option_texts():
    assert [option_text(o) for o in ("dark navy", "large", ("color", "navy"), ("color", "dark navy"))] == [
        "dark", "large", "navy", "('color', 'dark navy')",
    ]  # fmt: skip
    assert len(COLOURS) == 102 == len(set(COLOURS)) and COLOURS == sorted(COLOURS)


def test_the_colours_are_webshops(shared_data):
    path = shared_data / "webshop" / "colors.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    assert json.loads(path.read_text()) == COLOURS


def test_the_ceiling_counts_goals_that_no_purchase_meets(tmp_path):
    options = {"Shape": choices("Rectangular", "Round"), "Color": choices("Red")}
    shop = open_shop(write_files(tmp_path, [LAMP | {"customization_options": options}, RANGE]))
    reached = {goal.options: best_purchase(shop, goal) for goal in shop.goals}
    assert reached == {
        (("color", "red"), ("shape", "rectangular")): None,  # taken for "tan"
        (("color", "red"), ("shape", "round")): {"color": "red", "shape": "round"},
        (): {},
    }
    assert ceiling(shop) == Ceiling(3, 2) and ceiling(shop).share == 2 / 3
    assert ceiling(shop, [n for n, g in enumerate(shop.goals) if "rectangular" in g.text]) == Ceiling(1, 0)


def test_the_ceiling_of_the_published_small_set(shared_data):
    folder = shared_data / "webshop"
    if not (folder / "items_shuffle_1000.json").is_file():
        pytest.skip(f"WebShop's small set is not in {folder}")
    assert ceiling(open_shop(folder)) == Ceiling(6910, 6452)


def test_noun_functions():
    assert content_words("Set of 2 Women's Lamps for a Desk") == ["set", "women", "lamps", "desk"]
