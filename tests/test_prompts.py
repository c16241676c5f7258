"""The templates and parsers of the four stages, full and compact."""

from __future__ import annotations

import json
import lzma
import re
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from skill1.config import ConfigError
from skill1.envs.alfworld.homes import NAMES
from skill1.envs.alfworld.spec import ALFWORLD, plain
from skill1.envs.base import Observation
from skill1.nano.alfworld.prompts import MARKS, CompactPrompts
from skill1.nano.alfworld.reading import compact, home, room
from skill1.nano.model import nano_tokenizer
from skill1.nano.prompts import Fact
from skill1.nano.world import compact_prompts
from skill1.prompts import ActContext, history_of, make_prompts
from skill1.prompts.full import FullPrompts
from skill1.records import Lesson

FULL, COMPACT = FullPrompts(ALFWORLD.words), CompactPrompts()
TASK = "put a clean mug in fridge."
ROOM = (
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 2, a cabinet 1, a fridge 1, "
    "a shelf 3, a shelf 2, and a shelf 1."
)
FIRST = f"-= Welcome to TextWorld, ALFRED! =-\n\n{ROOM}\n\nYour task is to: {TASK}"
START = Observation(FIRST, ("go to cabinet 1", "go to fridge 1", "inventory", "look"), TASK)
AT_SHELF = Observation(
    "You arrive at shelf 2. On the shelf 2, you see a cup 1, and a mug 3.",
    ("examine shelf 2", "go to fridge 1", "inventory", "look", "take cup 1 from shelf 2", "take mug 3 from shelf 2"),
    TASK,
)
HOME = home(START)
PAIRS = ((FIRST, "go to cabinet 1"), ("You arrive at cabinet 1. The cabinet 1 is closed.", "open cabinet 1"))


# -- full: parsers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, value, well_formed",
    [
        ("<query>where mugs are kept</query>", "where mugs are kept", True),
        ("Sure.\n<query>\n where mugs\nare kept </query> bye", "where mugs\nare kept", True),
        ("<query>first</query><query>second</query>", "first", True),
        (" where mugs are kept ", "where mugs are kept", False),
        ("<query>unclosed", "<query>unclosed", False),
        ("<query>  </query>", TASK, False),
        ("", TASK, False),
        (" \n", TASK, False),
    ],
)
def test_full_query(text, value, well_formed):
    parsed = FULL.parse_query(text, START)
    assert (parsed.value, parsed.well_formed) == (value, well_formed)


RANKINGS = [
    ("2,1,3", (1, 0, 2), True),
    (" 3 ,2 , 1 ", (2, 1, 0), True),
    ("2,2,1,2", (1, 0, 2), True),
    ("3", (2, 0, 1), True),
    ("9,2,0,3", (1, 2, 0), True),
    ("2 1", (1, 0, 2), True),
    ("4,5", (0, 1, 2), False),
    ("", (0, 1, 2), False),
    ("best first", (0, 1, 2), False),
    ("1" * 5000, (0, 1, 2), False),
    ("²", (0, 1, 2), False),
]
STRICT = [
    ("2 > 1;3,", (1, 0, 2), True),
    ("2,1,-3", (0, 1, 2), False),
    ("first 2, then 1", (0, 1, 2), False),
    ("2 and 1", (0, 1, 2), False),
]


@pytest.mark.parametrize("text, ranking, parsed", RANKINGS + STRICT)
def test_full_rerank(text, ranking, parsed):
    assert FULL.parse_rerank(f"I think <rank>{text}</rank>", 3) == (ranking, parsed)


def test_a_full_ranking_without_its_tag_is_not_parsed():
    assert FULL.parse_rerank("2,1,3", 3) == ((0, 1, 2), False)
    assert FULL.parse_rerank("<rank>2,1,3", 3) == ((0, 1, 2), False)


@pytest.mark.parametrize("text, ranking, parsed", RANKINGS)
def test_compact_rerank(text, ranking, parsed):
    assert COMPACT.parse_rerank(text.replace(",", " , "), 3) == (ranking, parsed)


@given(st.text(), st.integers(2, 7))
def test_any_ranking_is_a_permutation_that_starts_with_what_was_written(text, count):
    for prompts, written in ((FULL, f"<rank>{text}</rank>"), (COMPACT, text)):
        ranking, parsed = prompts.parse_rerank(written, count)
        assert sorted(ranking) == list(range(count))
        assert parsed or ranking == tuple(range(count))


@given(st.permutations(range(5)), st.integers(0, 5))
def test_a_partial_ranking_is_completed_in_retrieval_order(order, written):
    text = ",".join(str(i + 1) for i in order[:written])
    expected = tuple(order[:written]) + tuple(sorted(order[written:]))
    assert FULL.parse_rerank(f"<rank>{text}</rank>", 5) == (expected, written > 0)
    assert COMPACT.parse_rerank(text, 5) == (expected, written > 0)


@pytest.mark.parametrize(
    "text, value, well_formed",
    [
        ("<think>mugs</think><action>take mug 3 from shelf 2</action>", "take mug 3 from shelf 2", True),
        ("<action>\n look \n</action>", "look", True),
        ("<action>fly away</action>", "fly away", True),  # the form is checked, not the admissible list
        ("<action>Take Mug 3 from Shelf 2</action>", "take mug 3 from shelf 2", True),  # as the list spells it
        ("<action>Fly Away</action>", "Fly Away", True),
        ("<action>look</action> or <action>inventory</action>", "look", True),
        ("take mug 3 from shelf 2", "take mug 3 from shelf 2", False),
        ("<action>look", "<action>look", False),
        ("<action></action>", "", False),
        ("", "", False),
    ],
)
def test_full_action(text, value, well_formed):
    parsed = FULL.parse_action(text, AT_SHELF.admissible)
    assert (parsed.value, parsed.well_formed) == (value, well_formed)


def lesson(**changed) -> str:
    fields = {
        "task_success": True,
        "action_lesson": "Rinse the mug before storing it.",
        "navigation_lesson": "Mugs stand on shelf 2.",
        "description_head": "When a clean mug is wanted.",
    }
    return json.dumps({name: value for name, value in (fields | changed).items() if value is not ...})


BOTH = "Actions: Rinse the mug before storing it. Navigation: Mugs stand on shelf 2."


@pytest.mark.parametrize(
    "text, strategy",
    [
        (lesson(), BOTH),
        (f"Here is what I learned:\n```json\n{lesson()}\n```\nGood luck!", BOTH),
        (lesson(navigation_lesson=...), "Actions: Rinse the mug before storing it."),
        (lesson(navigation_lesson="short"), "Actions: Rinse the mug before storing it."),  # 5 characters
        (lesson(action_lesson="none"), "Navigation: Mugs stand on shelf 2."),
        (lesson(action_lesson="  no   ", navigation_lesson=" sixsix "), "Navigation: sixsix"),
        (lesson(action_lesson=None), "Navigation: Mugs stand on shelf 2."),
        (lesson(action_lesson=["a list of things"]), "Navigation: Mugs stand on shelf 2."),
        (lesson(task_success=...), BOTH),
        (lesson(extra={"nested": "{}"}), BOTH),
    ],
)
def test_full_distill(text, strategy):
    found = FULL.parse_distill(text, START)
    assert (found.desc, found.strategy) == ("When a clean mug is wanted.", strategy)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Rinse the mug.",
        lesson()[:-1],
        f"[{lesson()[1:]}",
        lesson(action_lesson="short", navigation_lesson=""),
        lesson(action_lesson=..., navigation_lesson=...),
        lesson(description_head=...),
        lesson(description_head="  "),
        lesson(description_head=7),
        f"{lesson()} and {lesson()}",
        lesson(description_head="half a pair \ud83d"),  # cannot be written to any file
        '{"action_lesson": ' + "[" * 100_000 + "}",
        "{}",
    ],
)
def test_full_distill_failures(text):
    assert FULL.parse_distill(text, START) is None


@given(st.text())
def test_parsers_of_any_text_return(text):
    for prompts in (FULL, COMPACT):
        assert prompts.parse_query(text, START).value
        assert isinstance(prompts.parse_action(text, AT_SHELF.admissible).value, str)
        prompts.parse_distill(text, START)


# -- full: prompts ----------------------------------------------------------------------------------------------------


def test_the_full_act_prompt():
    block = FULL.skill_block(["Mugs stand on shelves.", "Rinse first."])
    trajectory = [*PAIRS, ("You open the cabinet 1. In it, you see nothing.", "go to shelf 2")]
    now = replace(AT_SHELF, admissible=("look", "take mug 3 from shelf 2"))
    prompt = FULL.act(ActContext(START, block, 3, history_of(trajectory, 2), now))
    assert (
        prompt
        == """\
You are an agent solving a household task in a text environment. Think step by step between <think> and </think>, then \
give exactly one admissible action between <action> and </action>.

Skill from earlier experience (it may be outdated or from another situation: check it against what you see):
Mugs stand on shelves.
Rinse first.

Task: put a clean mug in fridge.

Actions taken so far: 3. The most recent ones:
[2] Observation: You arrive at cabinet 1. The cabinet 1 is closed.
    Action: open cabinet 1
[3] Observation: You open the cabinet 1. In it, you see nothing.
    Action: go to shelf 2
Current observation: You arrive at shelf 2. On the shelf 2, you see a cup 1, and a mug 3.
Admissible actions: ['look', 'take mug 3 from shelf 2']
Your thought and your action:"""
    )


def test_the_act_prompts_of_an_episode_begin_alike():
    block = FULL.skill_block(["Mugs stand on shelves."])
    first = FULL.act(ActContext(START, block, 0, (), START))
    later = FULL.act(ActContext(START, block, 12, tuple(PAIRS), AT_SHELF))
    for prompt, steps in ((first, 0), (later, 12)):
        head, found, rest = prompt.partition(f"Actions taken so far: {steps}.")
        assert found and block in head and head == first.partition("Actions")[0]
        assert prompt.count(TASK) == 1 and "Welcome" not in prompt


def test_the_first_full_act_prompt_has_neither_skill_nor_history():
    prompt = FULL.act(ActContext(START, FULL.skill_block([]), 0, (), START))
    assert FULL.skill_block([]) == "" and "Skill from" not in prompt
    assert f"Task: {TASK}\n\nActions taken so far: 0.\nCurrent observation: {ROOM}\n" in prompt


def test_full_query_and_rerank_prompts():
    query = FULL.query(START)
    assert f"Task: {TASK}" in query and ROOM in query and "<query>" in query
    rerank = FULL.rerank(START, ["Mugs stand on {shelves}.", "Rinse first."])
    assert "1. Mugs stand on {shelves}.\n2. Rinse first." in rerank and ROOM in rerank and "<rank>" in rerank


@pytest.mark.parametrize("won, outcome, other", [(True, "success", "failed"), (False, "failure", "successful")])
def test_the_full_distill_prompt(won, outcome, other):
    prompt = FULL.distill(START, won, PAIRS, None)
    assert f"Outcome: {outcome}\n" in prompt and "comparison" not in prompt
    assert "[1] Observation: " in prompt and "    Action: go to cabinet 1\n[2] Observation: " in prompt
    for key in ("task_success", "action_lesson", "navigation_lesson", "description_head"):
        assert f'"{key}"' in prompt
    compared = FULL.distill(START, won, PAIRS[:1], PAIRS[1:])
    assert f"an earlier {other} attempt:\n[1] Observation: {PAIRS[1][0]}\n    Action: open cabinet 1" in compared


def test_prompts_show_observations_without_banner_and_task(shared_data):
    with lzma.open(shared_data / "alfworld" / "transcripts_seen.jsonl.xz", "rt") as lines:
        for game in map(json.loads, islice(lines, 5)):
            first = game["reset"]["observation"]
            task = first.partition("Your task is to: ")[2]
            room = plain(first, task)
            assert room.startswith("You are in the middle of a room.") and room.endswith(".") and task not in room
            assert all(plain(step["observation"], task) == step["observation"] for step in game["steps"])


def test_a_full_call_is_one_user_message():
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(FULL.encode(tokenizer, "take mug")) == "<user> take mug <end> <assistant>"


def test_raw_lessons_are_the_trajectory_keyed_by_the_task():
    raw = FULL.raw_lesson(START, PAIRS)
    assert raw.desc == TASK
    assert raw.strategy.startswith("[1] Observation: You are in") and raw.strategy.endswith("Action: open cabinet 1")
    raw = COMPACT.raw_lesson(START, PAIRS)
    assert (raw.desc, raw.strategy) == (
        f"put clean mug fridge {HOME}",
        f"put clean mug fridge {HOME} : go_to cabinet_1 ; open cabinet_1",
    )


@pytest.mark.parametrize("window, expected", [(0, ()), (1, PAIRS[1:]), (2, PAIRS), (5, PAIRS)])
def test_history_is_the_last_pairs(window, expected):
    assert history_of(PAIRS, window) == expected


def test_prompt_sets_by_name():
    assert isinstance(make_prompts("full", "alfworld"), FullPrompts)
    assert isinstance(make_prompts("compact", "alfworld"), CompactPrompts)
    with pytest.raises(ConfigError, match="unknown prompt 'terse' .known: compact, full"):
        make_prompts("terse", "alfworld")
    with pytest.raises(ConfigError, match="alfworld has no nano world: name one in its EnvironmentSpec.nano"):
        compact_prompts(replace(ALFWORLD, nano=None), "window")
    with pytest.raises(
        ConfigError, match="compact has no words for rollout.context=conversation: set rollout.context=w"
    ):
        make_prompts("compact", "alfworld", "conversation")


# -- compact ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, words",
    [
        ("You arrive at desk 1. On the desk 1, you see a cd 2, and a pen 1.", "desk_1 cd_2 pen_1"),
        ("You arrive at drawer 11. The drawer 11 is closed.", "drawer_11 closed"),
        ("You open the safe 1. The safe 1 is open. In it, you see nothing.", "open safe_1 open nothing"),
        ("You pick up the mug 3 from the shelf 2.", "pick mug_3 shelf_2"),
        ("You move the mug 3 to the shelf 2.", "move mug_3 shelf_2"),
        ("You put the mug 3 in/on the shelf 2.", "put mug_3 shelf_2"),
        ("You are carrying: a mug 3.", "mug_3"),
        ("Nothing happens.", "nothing happens"),
        ("go to garbagecan 1", "go_to garbagecan_1"),
        ("look at alarmclock under the desklamp.", "look alarmclock desklamp"),
        ("heat some apple and put it in fridge.", "heat apple put fridge"),
    ],
)
def test_compact_keeps_the_content_words(text, words):
    assert compact(text) == words


def test_a_home_is_called_as_its_task_says():
    said = replace(START, instruction=f"{START.instruction} in the walnut house")
    assert home(said) == "walnut"
    assert COMPACT.query(said) == COMPACT.query(START), "prompts say here, whatever the name"


def test_a_home_without_a_name_is_known_by_its_receptacles():
    assert room(START) == ["cabinet_2", "cabinet_1", "fridge_1", "shelf_3", "shelf_2", "shelf_1"]
    turned = replace(START, text=START.text.replace("a cabinet 2, a cabinet 1", "a cabinet 1, a cabinet 2"))
    other = replace(START, text=START.text.replace("a cabinet 2, ", ""))
    assert turned.text != START.text != other.text
    assert home(START) == home(turned) != home(other)
    assert home(START) in NAMES and len(set(NAMES)) == len(NAMES)
    assert not set(NAMES) & set(nano_tokenizer("alfworld").get_vocab()), "a name is no word of a game"


def test_homes_are_named_in_the_library_and_pointed_at_in_prompts():
    there = replace(START, text=START.text.replace("a cabinet 2, ", ""))
    skills = [COMPACT.write_skill(Fact("mug", "shelf_2", home(start))) for start in (START, there)]
    assert skills == [f"mug {home(START)} in shelf_2", f"mug {home(there)} in shelf_2"]
    shown = "<cand> this here in shelf_2 : 1 ; this elsewhere in shelf_2 : 2 <"
    assert shown in COMPACT.rerank(START, skills)
    assert "<skill> this here in shelf_2 <" in COMPACT.act(ActContext(START, skills[0], 0, (), START))
    written = COMPACT.parse_distill("this here | this here in shelf_2", START)
    assert written == Lesson(f"mug {HOME}", f"mug {HOME} in shelf_2"), "what the policy calls this is kept by its name"
    assert "<skill> this elsewhere in shelf_2 <" in COMPACT.act(ActContext(there, skills[0], 0, (), there))


def sections(prompt: str) -> dict[str, str]:
    """<mark> -> the text up to the next mark; the order of the sections is free."""
    words = re.split(r"(<[a-z]+>)", prompt)
    return {mark: text.strip() for mark, text in zip(words[1::2], words[2::2], strict=True)}


def test_the_compact_act_prompt_has_all_its_parts():
    trajectory = [*PAIRS, ("You open the cabinet 1. The cabinet 1 is open. In it, you see nothing.", "go to shelf 2")]
    skill = COMPACT.skill_block(["mug in shelf_2", "cup in shelf_1"])
    prompt = COMPACT.act(ActContext(START, skill, 3, history_of(trajectory, 2), AT_SHELF))
    parts = sections(prompt)
    assert prompt.startswith("<act>") and prompt.endswith("<write>")
    assert parts["<skill>"] == "this in shelf_2 ; cup in shelf_1"
    assert parts["<hist>"] == "cabinet_1 closed > open cabinet_1 ; open cabinet_1 open nothing > go_to shelf_2"
    assert (parts["<step>"], parts["<at>"], parts["<hold>"]) == ("3", "shelf_2", "none")
    assert parts["<obs>"] == "shelf_2 cup_1 mug_3"
    assert sorted(parts["<room>"].split()) == sorted(room(START))
    can = parts["<can>"].split(" ; ")
    assert "take mug_3 shelf_2" in can and "take cup_1 shelf_2" not in can
    assert "put clean mug fridge" in prompt
    first = sections(COMPACT.act(ActContext(START, "", 0, (), START)))
    assert [first[mark] for mark in ("<hist>", "<step>", "<at>", "<hold>", "<obs>", "<skill>")] == [
        "none", "0", "none", "none", "start", "none",
    ]  # fmt: skip


def test_what_is_held_and_what_can_be_done_with_it():
    now = Observation(
        "You arrive at sinkbasin 1.",
        ("clean mug 3 with sinkbasin 1", "examine mug 3", "examine shelf 1", "move mug 3 to shelf 1"),
        TASK,
    )
    parts = sections(COMPACT.act(ActContext(START, "", 9, (), now)))
    assert (parts["<at>"], parts["<hold>"]) == ("shelf_1", "mug_3")
    assert parts["<can>"] == "clean mug_3 sinkbasin_1 ; move mug_3 shelf_1"


def test_the_other_compact_prompts():
    query, rerank = COMPACT.query(START), COMPACT.rerank(START, ["mug in shelf_1", "cup in shelf_2"])
    won, lost = COMPACT.distill(START, True, PAIRS, None), COMPACT.distill(START, False, PAIRS, PAIRS[:1])
    for stage, prompt in (("query", query), ("rerank", rerank), ("distill", won), ("distill", lost)):
        assert prompt.startswith(f"<{stage}>") and prompt.endswith("<write>")
        assert "put clean mug fridge" in prompt
        assert set(sections(prompt)) <= set(MARKS)
    assert "this in shelf_1 : 1 ; cup in shelf_2 : 2" in rerank and sections(rerank)["<room>"].split() == room(START)
    assert "go_to cabinet_1 ; open cabinet_1" in won and "<ref>" not in won
    assert "success" in won.split() and "failure" not in won.split()
    assert "failure" in lost.split() and "success" not in lost.split()
    assert sections(lost)["<ref>"] == "go_to cabinet_1"


@pytest.mark.parametrize(
    "text, value, well_formed",
    [
        ("go_to shelf_12", "go to shelf 12", True),
        ("take mug_3 shelf_2", "take mug 3 from shelf 2", True),
        ("move mug_3 shelf_2", "move mug 3 to shelf 2", True),
        ("put mug_3 shelf_2", "put mug 3 in/on shelf 2", True),
        ("clean mug_3 sinkbasin_1", "clean mug 3 with sinkbasin 1", True),
        ("heat mug_3 microwave_1", "heat mug 3 with microwave 1", True),
        ("cool mug_3 fridge_1", "cool mug 3 with fridge 1", True),
        ("slice apple_1 knife_2", "slice apple 1 with knife 2", True),
        ("use desklamp_1", "use desklamp 1", True),
        ("open safe_1", "open safe 1", True),
        ("close safe_1", "close safe 1", True),
        ("examine safe_1", "examine safe 1", True),
        ("look", "look", True),
        ("inventory", "inventory", True),
        ("look shelf_1", "look shelf_1", False),
        ("go_to", "go_to", False),
        ("go_to shelf_1 shelf_2", "go_to shelf_1 shelf_2", False),
        ("take mug_3", "take mug_3", False),
        ("open", "open", False),
        ("mug_3", "mug_3", False),
        ("", "", False),
    ],
)
def test_compact_action(text, value, well_formed):
    parsed = COMPACT.parse_action(text, ())
    assert (parsed.value, parsed.well_formed) == (value, well_formed)


def test_games_of_the_older_text_version_are_answered_with_put():
    older = ("go to fridge 1", "put mug 3 in/on shelf 2")
    assert COMPACT.parse_action("move mug_3 shelf_2", older).value == "put mug 3 in/on shelf 2"
    assert COMPACT.parse_action("move mug_3 shelf_1", older).value == "move mug 3 to shelf 1"
    assert COMPACT.parse_action(compact("put mug 3 in/on shelf 2"), older).value == "put mug 3 in/on shelf 2"


@pytest.mark.parametrize(
    "text, found",
    [
        ("mug here | mug here in shelf_2", (f"mug {HOME}", f"mug {HOME} in shelf_2")),
        ("mug | mug in shelf_2", ("mug", "mug in shelf_2")),
        ("none", None),
        ("", None),
        ("mug | ", None),
        (" | mug in shelf_2", None),
        ("mug | shelf_2 | shelf_3", None),
    ],
)
def test_compact_distill(text, found):
    parsed = COMPACT.parse_distill(text, START)
    assert (parsed and (parsed.desc, parsed.strategy)) == found


def test_compact_query():
    parsed = COMPACT.parse_query(" mug here ", START)
    assert (parsed.value, parsed.well_formed) == (f"mug {HOME}", True)
    parsed = COMPACT.parse_query(" ", START)
    assert (parsed.value, parsed.well_formed) == (f"put clean mug fridge {HOME}", False)


def test_what_the_warm_start_teaches_is_what_the_parsers_read():
    fact = COMPACT.fact(START, "shelf_2")
    assert fact == Fact("mug", "shelf_2", HOME) and COMPACT.write_principle(fact) == "mug in shelf"
    found = COMPACT.parse_distill(COMPACT.write_lesson(fact), START)
    assert found.desc == COMPACT.parse_query(COMPACT.write_query(fact), START).value == f"mug {HOME}"
    assert found.strategy == COMPACT.write_skill(fact)


def test_every_command_of_recorded_games_survives_compaction(shared_data):
    with lzma.open(shared_data / "alfworld" / "transcripts_seen.jsonl.xz", "rt") as lines:
        games = [json.loads(line) for line in islice(lines, 0, 140, 7)]
    commands = 0
    for shown in (shown for game in games for shown in (game["reset"], *game["steps"])):
        for command in set(shown["admissible"]) - {"help"}:
            parsed = COMPACT.parse_action(compact(command), shown["admissible"])
            assert (parsed.value, parsed.well_formed) == (command, True)
            commands += 1
    assert commands > 5000


def test_recorded_observations_keep_what_they_name(shared_data):
    with lzma.open(shared_data / "alfworld" / "transcripts_seen.jsonl.xz", "rt") as lines:
        games = [json.loads(line) for line in islice(lines, 0, 140, 7)]
    named = 0
    for shown in (shown for game in games for shown in game["steps"]):
        words = compact(shown["observation"]).split()
        assert (words and "the" not in words and "you" not in words) or "commands" in words
        for command in shown["admissible"]:
            item, _, place = command.removeprefix("take ").partition(" from ")
            here = f" {place}." in shown["observation"]  # one can also reach what stands close by
            if command.startswith("take ") and here and shown["observation"].startswith("You arrive"):
                assert {item.replace(" ", "_"), place.replace(" ", "_")} <= set(words)
                named += 1
    assert named > 100
