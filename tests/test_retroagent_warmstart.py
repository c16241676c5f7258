"""The warm start with reflections: what it teaches is true of the episode and reads as the prompts' parser reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from skill1.config import ConfigError, WarmStartConfig
from skill1.envs.base import Observation
from skill1.prompts import CompactPrompts
from skill1.prompts.compact_reflection import read_reflection
from skill1.warmstart import demonstrations, nano_tokenizer, warm_start

SMALL = WarmStartConfig(games=40, games_per_world=8, receptacles_high=12)
ROOM = "You are in the middle of a room. Looking quickly around you, you see a shelf 1, and a fridge 1.\n"
WALK = ("go to shelf 1", "take mug 1 from shelf 1", "go to fridge 1", "cool mug 1 with fridge 1", "move mug 1 to shelf 1")


def written(task: str, commands: tuple[str, ...], won: bool) -> str:
    start = Observation(ROOM, (), task)
    return CompactPrompts.write_reflection(start, won, [("", command) for command in commands])


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
    rows = [row for row in demonstrations(replace(SMALL, reflect_share=1.0)) if row.kind.startswith("reflect")]
    tokenizer, outcomes = nano_tokenizer(), Counter()
    for row in rows:
        assert row.stage == "distill" and tokenizer.unk_token_id not in tokenizer.encode(f"{row.prompt} {row.answer}")
        reflection, _ = read_reflection(row.answer, ("go_to", "take", "use", "move"))
        told = row.prompt.partition(" <task>")[0].split()[-1]
        assert told == ("none" if row.kind == "reflect, judged" else row.answer.split()[0])
        assert reflection.success == (reflection.completed == reflection.listed) or not reflection.success
        outcomes[row.kind, reflection.success, "<ref>" in row.prompt] += 1
    assert outcomes["reflect, told", True, True] > 5 and outcomes["reflect, told", False, True] > 5
    assert outcomes["reflect, judged", True, False] > 20 and outcomes["reflect, judged", False, False] > 20
    assert not any(shown for kind, _, shown in outcomes if kind == "reflect, judged")


def test_a_shop_has_no_such_demonstrations(tmp_path):
    with pytest.raises(ConfigError, match="warm_start.reflect_share=0.5: only ALFWorld's"):
        warm_start(replace(SMALL, reflect_share=0.5), tmp_path, "webshop")
