"""RetroAgent's reflection: what each prompt set tells and asks, and what its parser takes (arXiv 2603.08561)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_prompts import HOME, PAIRS, START, TASK

from skill1.envs.alfworld.spec import ALFWORLD
from skill1.envs.base import Observation
from skill1.envs.webshop.spec import WEBSHOP
from skill1.methods.retroagent.equations import Reflection
from skill1.methods.retroagent.prompts import FullReflections
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.model import nano_tokenizer
from skill1.nano.webshop.prompts import CompactShopPrompts
from skill1.prompts.full import FullPrompts
from skill1.records import Lesson

FULL, SHOP, COMPACT, COMPACT_SHOP = (
    FullReflections(FullPrompts(ALFWORLD.words)),
    FullReflections(FullPrompts(WEBSHOP.words)),
    CompactPrompts(),
    CompactShopPrompts(),
)
WISH = "Find me slim fit men's shirts with color: teal, and price lower than 40.00 dollars"
SHOP_START = Observation(f"WebShop [SEP] Instruction: [SEP] {WISH} [SEP] Search", ("search[<your query>]",), WISH)
EARLIER = (("You are in a kitchen.", "go to shelf 9"),)


# -- full -------------------------------------------------------------------------------------------------------------


def test_full_tells_the_outcome_and_shows_the_other():
    lost, won = (FULL.reflect(START, outcome, PAIRS, EARLIER) for outcome in (False, True))
    assert "Outcome: the task was not accomplished.\n" in lost and "Outcome: the task was accomplished.\n" in won
    assert "an earlier successful attempt" in lost and "an earlier failed attempt" in won
    for text in (lost, won):
        assert f"Task: {TASK}\n" in text and "go to shelf 9" in text and all(action in text for _, action in PAIRS)
        assert '"pick up", "navigate", "use appliance", "place"' in text and "judge" not in text
    assert "earlier" not in FULL.reflect(START, False, PAIRS, None)


def test_full_that_must_judge_is_told_nothing():
    text = FULL.reflect(START, None, PAIRS, None)
    assert "Outcome" not in text and "earlier" not in text and "judge, by what the trajectory shows" in text
    assert '"locate", "acquire", "modify state", "place"' in text
    for outcome in (None, True):
        asked = SHOP.reflect(SHOP_START, outcome, (("a page", "click[buy now]"),), None)
        assert '"search", "filter", "select", "purchase"' in asked and "shopping task" in asked


def answer(statuses=("completed", "completed", "incomplete", "n/a"), success=False, **changed) -> str:
    subtasks = [{"name": "a", "description": "b", "status": status} for status in statuses]
    fields = {
        "subtasks": subtasks,
        "task_success": success,
        "action_lesson": "take it first",
        "navigation_lesson": None,
    }
    return json.dumps(fields | changed)


@pytest.mark.parametrize(
    "text, reflection",
    [
        (answer(), Reflection(False, 2, 3)),
        (answer((" Completed ", "N/A", "failed", "not completed"), success=True), Reflection(True, 1, 3)),
        (f"I think:\n```json\n{answer()}\n```\nso {{there}}", Reflection(False, 2, 3)),
        (f"Sure: {answer()} Bye.", Reflection(False, 2, 3)),
        (answer(subtasks=[]), Reflection(False, 0, 0)),
        (answer(subtasks="all"), Reflection(False, 0, 0)),
        (answer(subtasks=["search", {"status": 1}, {"status": "completed"}]), Reflection(False, 1, 3)),
    ],
)
def test_full_reads_the_judgement(text, reflection):
    found = FULL.parse_reflect(text, START)
    assert found.reflection == reflection and found.lesson == Lesson(TASK, "Actions: take it first")


@pytest.mark.parametrize(
    "text",
    ["", "won", "[1]", "{}", "{'task_success': true}", answer()[:-1], answer(success="true"), answer(success=None),
     answer(success=1), answer(action_lesson="\ud800 lesson"), "{" * 100_000 + "}"],
)  # fmt: skip
def test_full_refuses_what_does_not_judge(text):
    assert FULL.parse_reflect(text, START) is None


def test_full_joins_the_lessons_that_say_something():
    both = FULL.parse_reflect(answer(navigation_lesson=" look in the shelves "), START)
    assert both.lesson == Lesson(TASK, "Actions: take it first Navigation: look in the shelves")
    assert FULL.parse_reflect(answer(action_lesson="short"), START).lesson is None
    assert FULL.parse_reflect(answer(action_lesson=["a list of words"]), START).lesson is None


# -- compact ----------------------------------------------------------------------------------------------------------


def test_compact_asks_in_words_that_the_nano_policies_know():
    told = COMPACT.reflect(START, False, PAIRS, EARLIER)
    assert told == (
        "<distill> <can> go_to ; take ; use ; move <ref> go_to shelf_9 <traj> go_to cabinet_1 ; open cabinet_1 failure "
        "<task> put clean mug fridge here <write>"
    )
    asked = COMPACT.reflect(START, None, PAIRS, None)
    assert " none <task>" in asked and "failure" not in asked and "success" not in asked and "<ref>" not in asked
    tokenizer = nano_tokenizer("alfworld")
    for text in (told, asked, "failure go_to take : move | mug here in cabinet_3", "success : use | none"):
        assert tokenizer.unk_token_id not in COMPACT.encode(tokenizer, text)
    shop = COMPACT_SHOP.reflect(SHOP_START, None, ((SHOP_START.text, "search[slim fit men's shirts]"),), None)
    asked = "<distill> <left> search ; open ; choose ; buy <want> teal <traj> search slim_fit men's_shirts none <task>"
    assert shop.startswith(asked)
    assert set(shop.split()) | {"failure", ":", "|", *COMPACT_SHOP.subtasks} <= set(CompactShopPrompts().vocabulary())


@pytest.mark.parametrize(
    "text, reflection, lesson",
    [
        ("failure go_to take : move | mug here in cabinet_3", Reflection(False, 2, 3), f"mug {HOME} in cabinet_3"),
        ("success go_to take use move : | mug here in shelf_1", Reflection(True, 4, 4), f"mug {HOME} in shelf_1"),
        ("failure : take | none", Reflection(False, 0, 1), None),
        ("success : | ", Reflection(True, 0, 0), None),
    ],
)
def test_compact_reads_the_judgement(text, reflection, lesson):
    found = COMPACT.parse_reflect(text, START)
    assert found.reflection == reflection
    assert found.lesson == (lesson and Lesson(TASK, lesson))


@pytest.mark.parametrize(
    "text",
    ["", "mug here | mug here in shelf_2", "failure take | mug", "failure take : move", "maybe take : move | mug",
     "failure take : take | mug", "failure buy : | mug", "failure : : | mug", "failure : | mug | egg", ": | mug"],
)  # fmt: skip
def test_compact_refuses_what_does_not_judge(text):
    assert COMPACT.parse_reflect(text, START) is None


def test_compact_in_a_shop_puts_the_wish_before_the_brand():
    found = COMPACT_SHOP.parse_reflect("failure search open : choose buy | ~ber +den", SHOP_START)
    assert found.reflection == Reflection(False, 2, 4)
    assert found.lesson == Lesson(WISH, "slim fit men's shirts : berden")
    assert COMPACT_SHOP.parse_reflect("success search open choose buy : | none", SHOP_START).lesson is None
    assert COMPACT_SHOP.parse_reflect("failure take : | ~ber", SHOP_START) is None


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for prompts, start in ((FULL, START), (SHOP, SHOP_START), (COMPACT, START), (COMPACT_SHOP, SHOP_START)):
        found = prompts.parse_reflect(text, start)
        if found is not None:
            assert 0 <= found.reflection.completed <= found.reflection.listed
            assert found.lesson is None or found.lesson.desc == start.instruction
