"""The native engine against a room worked out by hand, its laws, and every walkthrough of the published games."""

from __future__ import annotations

import copy
import json
import tarfile

import pytest
from alfworld_room import INIT, LOOK_GOAL, TWO_GOAL, room
from hypothesis import given, settings
from hypothesis import strategies as st

from skill1.envs.alfworld.engine import NOTHING, RunningGame
from skill1.envs.alfworld.game import Game, GameGoal
from skill1.envs.base import DataError


def play(episode: RunningGame, *commands: str) -> str:
    for command in commands:
        assert command in episode.admissible, command
        episode.step(command)
    return episode.text


def test_game_is_parsed_as_written():
    game = Game.parse(room())
    assert game.instruction == "put a hot apple in fridge."
    assert game.text_version == "2.1.2"
    assert len(game.walkthrough) == 7
    # Sorted ids, numbered downwards: Apple_bar_1 is the first of two apples, so it is apple 2.
    assert [item.name for item in game.items] == ["apple 2", "apple 1", "desklamp 1", "knife 1"]
    assert [r.name for r in game.receptacles] == ["countertop 1", "fridge 1", "microwave 1", "sinkbasin 1"]
    assert game.locations == ("loc 4", "loc 3", "loc 2", "loc 1")
    assert game.goal == GameGoal("place", "apple", "fridge", "heat")
    assert Game.parse(room(goal=TWO_GOAL)).goal == GameGoal("two", "apple", "fridge", None)
    assert Game.parse(room(goal=LOOK_GOAL)).goal == GameGoal("look", "apple", "desklamp", None)


def test_reset_shows_the_room_and_the_task():
    episode = RunningGame(Game.parse(room()))
    assert episode.text == (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see "
        "a countertop 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\nYour task is to: put a hot apple in fridge."
    )
    assert episode.admissible == (
        "go to countertop 1", "go to fridge 1", "go to microwave 1", "go to sinkbasin 1", "help", "inventory", "look",
    )  # fmt: skip
    assert play(episode, "look").endswith("you see nothing.")
    assert play(episode, "inventory") == "You are not carrying anything."
    assert play(episode, "help").startswith("Available commands:\n  look: ")


def test_walkthrough_in_current_text():
    episode = RunningGame(Game.parse(room()))
    said = [episode.step(command) for command in episode.game.walkthrough]
    assert said == [
        "You arrive at countertop 1. On the countertop 1, you see a apple 1, a desklamp 1, and a knife 1.",
        "You pick up the apple 1 from the countertop 1.",
        "You arrive at microwave 1. The microwave 1 is closed.",
        "You heat the apple 1 using the microwave 1.",
        "You arrive at fridge 1. The fridge 1 is closed.",
        "You open the fridge 1. The fridge 1 is open. In it, you see a apple 2.",
        "You move the apple 1 to the fridge 1.",
    ]
    assert episode.won


def test_walkthrough_in_the_old_text():
    episode = RunningGame(Game.parse(room("2.1.1")))
    assert "help" not in episode.admissible
    assert play(episode, *episode.game.walkthrough) == "You put the apple 1 in/on the fridge 1."
    assert episode.won
    assert episode.step("help") == episode.step("move apple 1 to fridge 1") == NOTHING
    assert play(episode, "go to countertop 1") == (
        "You arrive at loc 3. On the countertop 1, you see a desklamp 1, and a knife 1."
    )


def test_receptacles_that_share_a_place():
    episode = RunningGame(Game.parse(room()))
    play(episode, "go to countertop 1", "take apple 1 from countertop 1")
    assert episode.step("go to sinkbasin 1") == NOTHING  # already there, yet it can be used
    assert play(episode, "clean apple 1 with sinkbasin 1") == "You clean the apple 1 using the sinkbasin 1."
    assert play(episode, "look") == "You are facing the countertop 1, and sinkbasin 1. Next to it, you see nothing."
    play(episode, "move apple 1 to sinkbasin 1")
    assert play(episode, "look").endswith("Next to it, you see a apple 1.")
    assert play(episode, "examine sinkbasin 1") == "On the sinkbasin 1, you see a apple 1."


def test_objects_change_state():
    episode = RunningGame(Game.parse(room()))
    play(episode, "go to fridge 1", "open fridge 1", "take apple 2 from fridge 1")
    assert play(episode, "examine apple 2") == "This is a cold apple 2."
    assert play(episode, "close fridge 1") == "You close the fridge 1."
    play(episode, "go to microwave 1", "heat apple 2 with microwave 1")
    assert play(episode, "examine apple 2") == "This is a hot apple 2."
    play(episode, "go to sinkbasin 1", "clean apple 2 with sinkbasin 1")
    assert play(episode, "examine apple 2") == "This is a hot and clean apple 2."
    play(episode, "go to fridge 1", "cool apple 2 with fridge 1")  # closed, and it works
    assert play(episode, "examine apple 2") == "This is a cool and clean apple 2."
    assert play(episode, "inventory") == "You are carrying: a apple 2."
    play(episode, "go to countertop 1", "move apple 2 to countertop 1", "take knife 1 from countertop 1")
    assert play(episode, "slice apple 2 with knife 1") == "You sliced the apple 2 with the knife 1."
    assert play(episode, "examine knife 1") == "There's nothing special about knife 1."
    play(episode, "slice apple 1 with knife 1", "move knife 1 to countertop 1", "take apple 1 from countertop 1")
    assert play(episode, "examine apple 1") == "This is a sliced apple 1."
    play(episode, "move apple 1 to countertop 1", "take apple 2 from countertop 1")
    assert play(episode, "examine apple 2") == "This is a cool and clean sliced apple 2."


def test_what_is_not_admissible():
    episode = RunningGame(Game.parse(room()))
    for command in ("", "open fridge 1", "go to fridge", "GO TO FRIDGE 1", "go to fridge 2", "use desklamp 1"):
        assert episode.step(command) == NOTHING
    assert episode.step("  go to fridge 1\n").startswith("You arrive at fridge 1.")  # surrounding blanks are dropped
    assert "take apple 2 from fridge 1" not in episode.admissible  # closed
    play(episode, "open fridge 1", "take apple 2 from fridge 1", "go to countertop 1")
    assert "take apple 1 from countertop 1" not in episode.admissible  # hands full
    assert "examine apple 1" not in episode.admissible  # not held
    play(episode, "move apple 2 to countertop 1", "take knife 1 from countertop 1", "go to fridge 1")
    assert "move knife 1 to fridge 1" not in episode.admissible  # a fridge takes no knife


def test_goal_of_two_and_of_look():
    two = RunningGame(Game.parse(room(goal=TWO_GOAL)))
    play(two, "go to countertop 1", "take apple 1 from countertop 1", "go to fridge 1", "open fridge 1")
    assert not two.won
    play(two, "move apple 1 to fridge 1")
    assert two.won
    look = RunningGame(Game.parse(room(goal=LOOK_GOAL)))
    play(look, "go to countertop 1", "take apple 1 from countertop 1")
    assert not look.won
    assert play(look, "use desklamp 1") == "You turn on the desklamp 1."
    assert look.won
    play(look, "go to fridge 1")
    assert not look.won  # the lamp is elsewhere


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_games_of_one_room_are_apart_and_repeat_exactly(data):
    game = Game.parse(room())
    episode, beside = RunningGame(game), RunningGame(game)
    trail: list[str] = []
    for _ in range(data.draw(st.integers(1, 25))):
        if data.draw(st.booleans()):
            before = (episode.text, episode.admissible, episode.won)
            beside.step(data.draw(st.sampled_from(beside.admissible)))
            assert (episode.text, episode.admissible, episode.won) == before
        trail.append(data.draw(st.sampled_from(episode.admissible)))
        episode.step(trail[-1])
    again = RunningGame(game)
    assert [again.step(command) for command in trail][-1] == episode.text
    assert (again.admissible, again.won) == (episode.admissible, episode.won)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_only_admissible_commands_do_anything(data):
    game = Game.parse(room())
    names = [thing.name for thing in (*game.receptacles, *game.items)]
    pairs = [(a, b) for a in names for b in names]
    every = [
        *game.everywhere, *(f"{verb} {name}" for verb in ("open", "close", "examine", "use") for name in names),
        *(shape.format(a, b) for a, b in pairs for shape in (
            "take {} from {}", "move {} to {}", "clean {} with {}", "heat {} with {}", "cool {} with {}",
            "slice {} with {}",
        )),
    ]  # fmt: skip
    episode = RunningGame(game)
    for _ in range(data.draw(st.integers(0, 15))):
        episode.step(data.draw(st.sampled_from(episode.admissible)))
        assert set(episode.admissible) <= set(every)
        assert list(episode.admissible) == sorted(set(episode.admissible))
    before = (episode.admissible, episode.won)
    for command in every:
        probe = copy.deepcopy(episode, {id(game): game})
        assert (probe.step(command) == NOTHING) == (command not in before[0]), command
        if command not in before[0]:
            assert (probe.admissible, probe.won) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pddl_problem": None}, "no text under the key 'pddl_problem'"),
        ({"grammar": "nothing"}, "Your task is to"),
        ({"grammar": '"Your task is to: x."'}, "neither text version"),
        ({"pddl_problem": "(:init )"}, "no \\(:init"),
        ({"walkthrough": "look"}, "walkthrough"),
        (room(init=INIT.replace("(atLocation agent1 loc_bar_9)", "")), "place the agent once"),
        (room(init=INIT + "(flies Apple_bar_1)"), "'flies', which the rules do not know"),
        (room(init=INIT + "(openable Fridge_bar_1 Fridge_bar_1)"), "does not have 1 arguments"),
        (room(init=INIT + "(inReceptacle Pear_bar_1 Fridge_bar_1)"), "lacks .* 'pear_bar_1'"),
        (room(init=INIT.replace("(receptacleType Fridge_bar_1 FridgeType)", "")), "lacks .* 'fridge_bar_1'"),
        (room(goal="(and (isSliced ?o))"), "none of the six task types' \\(it mentions issliced\\)"),
        (room(goal=TWO_GOAL.replace("?o2 AppleType", "?o2 KnifeType")), "two kinds"),
    ],
)
def test_corrupt_games_say_what_is_wrong(tmp_path, change, message):
    path = tmp_path / "game.tw-pddl"
    path.write_text(json.dumps(room() | change))
    with pytest.raises(DataError, match=message) as caught:
        Game.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", '{"pddl_domain": "x', "[1, 2]"])
def test_unreadable_games_name_the_path(tmp_path, content):
    path = tmp_path / "game.tw-pddl"
    path.write_text(content)
    with pytest.raises(DataError, match="game.tw-pddl"):
        Game.load(path)
    with pytest.raises(DataError, match="cannot read the game .*absent"):
        Game.load(tmp_path / "absent")


@pytest.mark.slow
@pytest.mark.parametrize(("archive", "count", "every"), [("train", 3553, 5), ("valid_seen", 140, 1)])
def test_published_walkthroughs_win(shared_data, archive, count, every):
    """All of valid_seen, and every fifth game of train; `benchmarks/parity.py` replays whole recordings."""
    games = 0
    with tarfile.open(shared_data / "alfworld" / f"{archive}.tar.xz") as tar:
        for member in tar:
            if not member.name.endswith("game.tw-pddl"):
                continue
            games += 1
            if games % every:
                continue
            game = Game.parse(json.loads(tar.extractfile(member).read()))
            episode = RunningGame(game)
            for number, command in enumerate(game.walkthrough, start=1):
                assert command in episode.admissible, (member.name, command)
                episode.step(command)
                assert episode.won == (number == len(game.walkthrough)), (member.name, command)
    assert games == count
