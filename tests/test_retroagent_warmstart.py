"""The warm start with reflections: what it teaches is true of the episode and reads as the prompts' parser reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from skill1.envs.base import Observation
from skill1.nano.alfworld import NANO as HOMES
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.model import nano_tokenizer
from skill1.nano.options import WarmStartConfig
from skill1.nano.prompts import read_reflection
from skill1.nano.webshop import NANO as SHOP
from skill1.nano.webshop.prompts import CompactShopPrompts

SMALL = WarmStartConfig(games=40, games_per_world=8, receptacles_high=12)
ROOM = "You are in the middle of a room. Looking quickly around you, you see a shelf 1, and a fridge 1.\n"
WALK = (
    "go to shelf 1",
    "take mug 1 from shelf 1",
    "go to fridge 1",
    "cool mug 1 with fridge 1",
    "move mug 1 to shelf 1",
)


def written(task: str, commands: tuple[str, ...], won: bool) -> str:
    start = Observation(ROOM, (), task)
    return CompactPrompts().write_reflection(start, won, [("", command) for command in commands])


@pytest.mark.parametrize(
    "task, commands, won, text",
    [
        ("put a cool mug in shelf.", WALK, True, "success go_to take use move : | mug here in shelf_1"),
        ("put a cool mug in shelf.", WALK[:3], False, "failure go_to take : use move | mug here in shelf_1"),
        ("put a cool mug in shelf.", WALK[:1], False, "failure go_to : take use move | none"),
        ("put a mug in shelf.", WALK[:2], False, "failure go_to take : move | mug here in shelf_1"),
        ("put two mug in shelf.", WALK[:2], False, "failure go_to : take move | mug here in shelf_1"),
        ("put a apple in shelf.", WALK[:2], False, "failure go_to : take move | none"),
        ("look at mug under the desklamp.", (*WALK[:2], "use desklamp 1"), True,
         "success go_to take use : | mug here in shelf_1"),
    ],
)  # fmt: skip
def test_a_reflection_says_what_the_commands_did(task, commands, won, text):
    assert written(task, commands, won) == text


def test_reflections_are_taught_whole_and_cut_told_and_to_be_judged():
    rows = [
        row
        for row in HOMES.demonstrator(replace(SMALL, reflect_share=1.0)).demonstrations()
        if row.kind.startswith("reflect")
    ]
    tokenizer, outcomes = nano_tokenizer("alfworld"), Counter()
    for row in rows:
        assert row.stage == "distill" and tokenizer.unk_token_id not in tokenizer.encode(f"{row.prompt} {row.answer}")
        reflection, _ = read_reflection(row.answer, CompactPrompts.subtasks)
        told = row.prompt.partition(" <task>")[0].split()[-1]
        assert told == ("none" if row.kind == "reflect, judged" else row.answer.split()[0])
        assert reflection.success == (reflection.completed == reflection.listed) or not reflection.success
        outcomes[row.kind, reflection.success, "<ref>" in row.prompt] += 1
    assert outcomes["reflect, told", True, True] > 5 and outcomes["reflect, told", False, True] > 5
    assert outcomes["reflect, judged", True, False] > 20 and outcomes["reflect, judged", False, False] > 20
    assert not any(shown for kind, _, shown in outcomes if kind == "reflect, judged")


# -- WebShop ----------------------------------------------------------------------------------------------------------

WISH = "Find me slim fit men's shirts with color: teal, and size: large, and price lower than 40.00 dollars"
PLAIN = "Find me slim fit men's shirts, and price lower than 40.00 dollars"
INDEX = "WebShop [SEP] Instruction: [SEP] it [SEP] Search"
RESULTS = "Back to Search [SEP] Next > [SEP] B01 [SEP] Berden Shirt [SEP] $9.0 [SEP] B02 [SEP] Kelwes Shirt [SEP] $8.0"
SEARCH, FIRST, SECOND = (INDEX, "search[slim fit]"), (RESULTS, "click[b01]"), (RESULTS, "click[b02]")
TEAL, LARGE, BUY = ("page", "click[teal]"), ("page", "click[large]"), ("page", "click[buy now]")


@pytest.mark.parametrize(
    "task, pairs, won, text",
    [
        (WISH, (SEARCH, FIRST, TEAL, LARGE, BUY), True, "success search open choose buy : | ~ber +den"),
        (WISH, (SEARCH, FIRST, TEAL, LARGE, BUY), False, "failure search open choose : buy | none"),
        (WISH, (SEARCH, FIRST, TEAL, BUY), False, "failure search open : choose buy | none"),
        # chosen of one product is not chosen of another
        (WISH, (SEARCH, FIRST, TEAL, ("page", "click[< prev]"), SECOND, LARGE), False,
         "failure search open : choose buy | none"),
        (WISH, (SEARCH, FIRST, ("page", "click[< prev]"), SECOND, TEAL, LARGE, BUY), True,
         "success search open choose buy : | ~kel +wes"),
        (WISH, (SEARCH,), False, "failure search : open choose buy | none"),
        (PLAIN, (SEARCH, FIRST), False, "failure search open : buy | none"),
        (PLAIN, ((INDEX, "click[b01]"),), False, "failure : search open buy | none"),  # nothing to open there
    ],
)  # fmt: skip
def test_a_reflection_in_a_shop_says_what_the_commands_did(task, pairs, won, text):
    assert CompactShopPrompts().write_reflection(Observation(INDEX, (), task), won, pairs) == text


def test_a_shops_reflections_are_taught_whole_and_cut_told_and_to_be_judged():
    config = replace(SMALL, games_per_world=40, max_steps=12, reflect_share=1.0)
    rows = [row for row in SHOP.demonstrator(config).demonstrations() if row.kind.startswith("reflect")]
    tokenizer, outcomes, lessons = nano_tokenizer("webshop"), Counter(), 0
    for row in rows:
        assert row.stage == "distill" and tokenizer.unk_token_id not in tokenizer.encode(f"{row.prompt} {row.answer}")
        reflection, lesson = read_reflection(row.answer, CompactShopPrompts.subtasks)
        told = row.prompt.partition(" <task>")[0].split()[-1]
        assert told == ("none" if row.kind == "reflect, judged" else row.answer.split()[0])
        assert reflection.success == (reflection.completed == reflection.listed)
        wanted = row.prompt.partition("<want> ")[2].partition(" <")[0]
        assert ("choose" in row.answer.split()) == (wanted != "none")
        assert bool(lesson) == reflection.success  # the brand bought, which the trajectory names
        assert not lesson or f"open {' '.join(lesson)}" in row.prompt
        lessons += bool(lesson)
        outcomes[row.kind, reflection.success, "<ref>" in row.prompt] += 1
    assert outcomes["reflect, told", True, True] > 5 and outcomes["reflect, told", False, True] > 5
    assert outcomes["reflect, judged", True, False] > 10 and outcomes["reflect, judged", False, False] > 20
    assert not any(shown for kind, _, shown in outcomes if kind == "reflect, judged")
    assert lessons > 20
