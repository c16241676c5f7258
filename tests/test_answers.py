"""The answers of demonstrations: what is written is what the parsers read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_prompts import START

from skill1.prompts import make_prompts
from skill1.prompts.answers import one_line
from skill1.records import Lesson

WINDOW, CHAT = make_prompts("full", "alfworld"), make_prompts("full", "alfworld", "conversation")
BOTH = pytest.mark.parametrize("prompts", [WINDOW, CHAT], ids=["window", "conversation"])
LESSON = Lesson("When a clean mug is wanted.", "Actions: Rinse the mug. Navigation: Mugs stand on shelf 2.")

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>"), min_size=1, max_size=80)
lines = words.map(one_line).filter(bool)


def test_answers_of_the_window() -> None:
    assert WINDOW.write_query("where are\nmugs") == "<query>where are mugs</query>"
    assert WINDOW.write_ranking([1, 0, 2]) == "<rank>2,1,3</rank>"
    assert WINDOW.write_action("go to shelf 2") == "<action>go to shelf 2</action>"
    assert WINDOW.write_action("look", "Mugs are\nnear.") == "<think>Mugs are\nnear.</think><action>look</action>"
    assert json.loads(WINDOW.write_lesson(LESSON, won=False)) == {
        "task_success": False,
        "action_lesson": "Rinse the mug.",
        "navigation_lesson": "Mugs stand on shelf 2.",
        "description_head": "When a clean mug is wanted.",
    }


def test_answers_of_a_conversation() -> None:
    assert CHAT.write_query("where are\nmugs") == "where are mugs"
    assert CHAT.write_ranking([1, 0, 2]) == "2,1,3"
    assert CHAT.write_action("go to shelf 2") == "go to shelf 2"
    assert CHAT.write_action("look", "Mugs are\nnear.") == "Thought: Mugs are near.\nlook"
    assert CHAT.write_lesson(LESSON, won=False) == f"When: {LESSON.desc}\nDo: {LESSON.strategy}"


@BOTH
@given(lines)
def test_a_query_is_read_as_written(prompts, line: str) -> None:
    parsed = prompts.parse_query(prompts.write_query(line), START)
    assert (parsed.value, parsed.well_formed) == (line, True)


@BOTH
@given(st.integers(1, 12).flatmap(lambda count: st.permutations(range(count))))
def test_a_ranking_is_read_as_written(prompts, order: list[int]) -> None:
    assert prompts.parse_rerank(prompts.write_ranking(order), len(order)) == (tuple(order), True)


@BOTH
@given(lines.filter(lambda line: not line.startswith("Thought:")), st.just("") | lines)
def test_an_action_is_read_as_written(prompts, command: str, thought: str) -> None:
    parsed = prompts.parse_action(prompts.write_action(command, thought), ("look", command))
    assert (parsed.value, parsed.well_formed) == (command, True)


@BOTH
@given(lines, lines.filter(lambda line: len(line) > 5), lines.filter(lambda line: len(line) > 5), st.booleans())
def test_a_lesson_is_read_as_written(prompts, desc: str, actions: str, navigation: str, won: bool) -> None:
    for strategy in (
        f"Actions: {actions}",
        f"Navigation: {navigation}",
        f"Actions: {actions} Navigation: {navigation}",
    ):
        assert prompts.parse_distill(prompts.write_lesson(Lesson(desc, strategy), won), START) == Lesson(desc, strategy)


def test_a_lesson_without_labels_is_one_about_actions_in_the_window() -> None:
    plain = Lesson("a mug", "Rinse the mug first.")
    assert WINDOW.parse_distill(WINDOW.write_lesson(plain, True), START).strategy == "Actions: Rinse the mug first."
    assert CHAT.parse_distill(CHAT.write_lesson(plain, True), START) == plain


@BOTH
@pytest.mark.parametrize("name, given", [
    ("write_query", [" \n"]), ("write_ranking", [[]]), ("write_ranking", [[0, 2]]), ("write_ranking", [[1, 1]]),
    ("write_action", [""]), ("write_lesson", [Lesson("", "Rinse the mug."), True]), ("write_lesson", [Lesson("a", ""), True]),
])  # fmt: skip
def test_what_cannot_be_read_is_not_written(prompts, name: str, given: list) -> None:
    with pytest.raises(ValueError, match="would be read as"):
        getattr(prompts, name)(*given)


@pytest.mark.parametrize(
    "write",
    [
        lambda: WINDOW.write_query("mugs</query>"),
        lambda: WINDOW.write_action("look", "<action>no</action>"),
        lambda: WINDOW.write_lesson(Lesson("a mug", "Rinse"), True),  # too short a lesson
        lambda: CHAT.write_action("Thought: look"),
        lambda: CHAT.write_query("m" * 501),
    ],
)
def test_what_the_form_does_not_allow_is_not_written(write) -> None:
    with pytest.raises(ValueError, match="would be read as"):
        write()
