"""The words of a conversation, and how its answers are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_prompts import AT_SHELF, FIRST, PAIRS, ROOM, START, TASK
from tiny import CHATML, byte_tokenizer

from skill1.envs.webshop.spec import WEBSHOP
from skill1.prompts import ActContext, make_prompts
from skill1.prompts.conversation import ConversationPrompts
from skill1.records import Lesson

CHAT = make_prompts("full", "alfworld", "conversation")
SHOP = ConversationPrompts(WEBSHOP.words)


# -- what is asked ----------------------------------------------------------------------------------------------------


def test_the_texts_of_a_rollout() -> None:
    block = CHAT.skill_block(["Mugs stand on shelf 2."])
    said = [
        CHAT.opening(START),
        CHAT.query(START),
        CHAT.rerank(START, ["Mugs stand on shelf 2.", "Rinse first.", "Cups too."]),
        CHAT.act(ActContext(START, block, 0, (), START)),
        CHAT.act(ActContext(START, "", 1, (), AT_SHELF)),
        CHAT.distill(START, True, PAIRS, None),
    ]
    assert said == [
        f"Task: {TASK}\n{ROOM}",
        "Write a query for your library of skills: one line that says what the situation is and what kind of skill would "
        "help.",
        "The library has these skills:\n1. Mugs stand on shelf 2.\n2. Rinse first.\n3. Cups too.\n"
        "Rank them, the most useful first: their numbers alone, like 2,1,3.",
        "A skill from earlier experience (check it against what you see):\nMugs stand on shelf 2.\n\n"
        "Act: one action a message, the command alone.",
        AT_SHELF.text,
        "Outcome: success.\nWrite what is worth remembering for similar tasks, in two lines:\n"
        "When: one sentence that says when it helps\n"
        "Do: what to do or to avoid, and where things are and how to search",
    ]


def test_the_system_message_has_the_forms_of_actions() -> None:
    tokenizer = byte_tokenizer(CHATML)
    text = tokenizer.decode(CHAT.encode(tokenizer, "Hi"))
    assert text.startswith(
        "<|im_start|>system\nYou are an agent that solves a household task in a text environment. Your"
    )
    assert "take X from Y" in text and text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert "search[words]" in tokenizer.decode(SHOP.encode(tokenizer, "Hi"))
    following = tokenizer.decode(CHAT.encode_next(tokenizer, "Go"))
    assert following == "<|im_end|>\n<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n"


def test_nothing_is_said_twice() -> None:
    later = CHAT.act(ActContext(START, "", 3, tuple(PAIRS), AT_SHELF))
    assert later == AT_SHELF.text  # no history, no task, no list of admissible actions
    assert FIRST not in CHAT.opening(START) and CHAT.opening(START).count(TASK) == 1
    assert CHAT.skill_block([]) == ""


def test_a_skill_that_is_shown_later_stands_before_the_observation() -> None:
    text = CHAT.act(ActContext(START, "Rinse first.", 2, (), AT_SHELF))
    assert text == f"Rinse first.\n\n{AT_SHELF.text}"


def test_two_candidates_and_a_reference() -> None:
    assert CHAT.rerank(START, ["a", "b"]).endswith("like 2,1.")
    compared = CHAT.distill(START, False, PAIRS, PAIRS[1:])
    assert "Outcome: failure.\nFor comparison, an earlier successful attempt at this task:\n" in compared
    assert f"{PAIRS[1][0]}\n> open cabinet 1\nWrite" in compared and ROOM not in compared


# -- how answers are read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, value, well_formed",
    [
        ("where are mugs kept", "where are mugs kept", True),
        (" where are mugs kept\n", "where are mugs kept", True),
        ("where are mugs\nand where is the sink", "where are mugs", False),
        ("m" * 500, "m" * 500, True),
        ("m" * 501, "m" * 501, False),
        (" \n", TASK, False),
    ],
)
def test_a_query_is_one_line(text: str, value: str, well_formed: bool) -> None:
    parsed = CHAT.parse_query(text, START)
    assert (parsed.value, parsed.well_formed) == (value, well_formed)


@pytest.mark.parametrize(
    "text, ranking, parsed",
    [
        ("2,1,3", (1, 0, 2), True),
        (" 3 > 1\n", (2, 0, 1), True),
        ("9, 2", (1, 0, 2), True),
        ("9", (0, 1, 2), False),
        ("2,1,3.", (0, 1, 2), False),
        ("The best is 2", (0, 1, 2), False),
        ("", (0, 1, 2), False),
    ],
)
def test_a_ranking_is_numbers_alone(text: str, ranking: tuple[int, ...], parsed: bool) -> None:
    assert CHAT.parse_rerank(text, 3) == (ranking, parsed)


@pytest.mark.parametrize(
    "text, value, well_formed",
    [
        ("go to fridge 1", "go to fridge 1", True),
        ("Go to Fridge 1\n", "go to fridge 1", True),  # as the list spells it
        ("Fly away", "Fly away", True),  # the form is checked, not the list
        ("Thought: mugs are cold.\nThey must be.\n\ngo to fridge 1", "go to fridge 1", True),
        ("I go.\ngo to fridge 1", "go to fridge 1", False),
        ("Thought: mugs are cold.", "Thought: mugs are cold.", False),
        ("go to fridge 1\nThought: mugs are cold.", "Thought: mugs are cold.", False),
        ("", "", False),
    ],
)
def test_an_action_is_the_last_line(text: str, value: str, well_formed: bool) -> None:
    parsed = CHAT.parse_action(text, AT_SHELF.admissible)
    assert (parsed.value, parsed.well_formed) == (value, well_formed)


def test_actions_in_a_shop_are_read_in_lower_case_where_the_list_does_not_spell_them() -> None:
    assert SHOP.parse_action("Search[Red Shoes]", ("search[<your query>]",)).value == "search[red shoes]"
    assert SHOP.parse_action("click[buy now]", ("click[Buy Now]",)).value == "click[Buy Now]"


@pytest.mark.parametrize(
    "text, lesson",
    [
        ("When: a clean mug is wanted.\nDo: rinse it.", Lesson("a clean mug is wanted.", "rinse it.")),
        ("\nWhen:a mug\n\nDo:  rinse: it \n", Lesson("a mug", "rinse: it")),
        ("When: a mug\nDo:", None),
        ("When:\nDo: rinse it.", None),
        ("Do: rinse it.\nWhen: a mug", None),
        ("When: a mug\nDo: rinse it.\nGood luck!", None),
        ("Here it is:\nWhen: a mug\nDo: rinse it.", None),
        ("when: a mug\ndo: rinse it.", None),
        ("", None),
    ],
)
def test_a_lesson_is_two_lines(text: str, lesson: Lesson | None) -> None:
    assert CHAT.parse_distill(text, START) == lesson


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert CHAT.parse_query(text, START).value.strip()
    assert sorted(CHAT.parse_rerank(text, 3)[0]) == [0, 1, 2]
    action = CHAT.parse_action(text, AT_SHELF.admissible)
    assert action.well_formed <= bool(action.value) and "\n" not in action.value
    lesson = CHAT.parse_distill(text, START)
    assert lesson is None or (lesson.desc and lesson.strategy)
