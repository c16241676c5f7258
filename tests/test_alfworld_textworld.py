"""The native engine step by step beside the real package, in both text versions."""

from __future__ import annotations

import importlib
import json
import random
import sys
import tarfile

import pytest
from alfworld_room import write_game

from skill1.envs.alfworld.data import GameTree
from skill1.envs.alfworld.engine import RunningGame
from skill1.envs.alfworld.options import ALFWorldConfig
from skill1.envs.base import DataError
from skill1.envs.make import make_environment

# Small rooms, one of each task type and one more: the package needs 0.5 s (bedroom) to 2 s (kitchen) to start one.
GAMES = (
    "train/look_at_obj_in_light-Pillow-None-DeskLamp-316/trial_T20190908_232351_848868",
    "train/pick_and_place_simple-CreditCard-None-ArmChair-202/trial_T20190909_011645_748929",
    "train/pick_clean_then_place_in_recep-Cloth-None-Toilet-406/trial_T20190908_102552_835735",
    "train/pick_cool_then_place_in_recep-Apple-None-SideTable-21/trial_T20190907_180711_700359",
    "train/pick_heat_then_place_in_recep-Mug-None-Cabinet-21/trial_T20190909_063813_353229",
    "train/pick_two_obj_and_place-KeyChain-None-Sofa-202/trial_T20190908_102743_595985",
    "train/pick_two_obj_and_place-Pillow-None-ArmChair-321/trial_T20190907_121714_804185",
)
OLD = "old/look_at_obj_in_light-Pillow-None-DeskLamp-316/trial_old"
STEPS = 15


def to_old_text(data):
    """Undo what ALFWorld 0.4's patch did to the 2.1.1 games."""
    grammar = data["grammar"]
    for new, old in (
        ("You arrive at {r.name}.", "You arrive at {lend.name}."),
        ("move {o} to {r}", "put {o} in/on {r}"),
        ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
    ):
        assert new in grammar
        grammar = grammar.replace(new, old)
    domain = data["pddl_domain"]
    return data | {
        "grammar": grammar[: grammar.index("action help")],
        "pddl_domain": domain[: domain.index("(:action help")] + ")",
        "walkthrough": [],
    }


@pytest.fixture(scope="module")
def folder(shared_data, tmp_path_factory):
    root = tmp_path_factory.mktemp("games")
    with tarfile.open(shared_data / "alfworld" / "train.tar.xz") as tar:
        for member in tar:
            if member.name.removeprefix("json_2.1.1/").rsplit("/", 1)[0] in GAMES:
                tar.extract(member, root, filter="data")
    write_game(root, OLD, to_old_text(json.loads(GameTree(root).path(GAMES[0]).read_text())))
    return root


@pytest.fixture(scope="module")
def engine():
    pytest.importorskip("textworld", reason="the real package (textworld, alfworld) is not installed")
    return importlib.import_module("skill1.envs.alfworld.textworld").TextworldEngine()


def choose(rng, episode, walkthrough):
    """The walkthrough, strayed from: handling things more often than walking about."""
    if walkthrough and rng.random() < 0.5:
        return walkthrough.pop(0)
    if rng.random() < 0.1:
        return rng.choice(("help me", "go to desk 99", " look "))
    near = [command for command in episode.admissible if not command.startswith("go to")]
    return rng.choice(near if rng.random() < 0.7 else episode.admissible)


@pytest.mark.slow
@pytest.mark.parametrize("game", [*GAMES, OLD], ids=lambda game: "-".join(game.split("/")[1].split("-")[:2]))
def test_native_engine_equals_the_package(folder, engine, game):
    games = GameTree(folder)
    real, native = engine.start(games, game), RunningGame(games.game(game))
    rng = random.Random(game)
    walkthrough = list(native.game.walkthrough)
    for _ in range(STEPS):
        assert (native.text, native.admissible, native.won) == (real.text, real.admissible, real.won)
        command = choose(rng, native, walkthrough)
        assert native.step(command) == real.step(command), command
    assert (native.admissible, native.won) == (real.admissible, real.won)


def test_the_package_behind_the_environment(folder, engine):
    arguments = list(sys.argv)
    environment = make_environment(ALFWorldConfig(engine="textworld", data=str(folder)))
    native = make_environment(ALFWorldConfig(data=str(folder)))
    tasks = [task for task in native.tasks("train") if task.game == GAMES[1]]
    walkthrough = native.games.game(GAMES[1]).walkthrough
    for _ in range(2):  # the second time on the first one's TextWorld environment
        assert environment.reset(tasks) == native.reset(tasks)
        steps = [(environment.step([command])[0], native.step([command])[0]) for command in walkthrough]
        assert all(real == ours for real, ours in steps)
        assert steps[-1][0].won
    assert sys.argv == arguments


def test_a_game_the_package_rejects(folder, engine, capsys):
    data = json.loads(GameTree(folder).path(GAMES[0]).read_text())
    game = "bad/look_at_obj_in_light-Pillow-None-DeskLamp-316/trial_bad"
    data["pddl_problem"] = data["pddl_problem"].replace("agent1 - agent", "agent1 - agent agent1 - agent", 1)
    write_game(folder, game, data)
    with pytest.raises(DataError, match="TextWorld rejects the game .*trial_bad"):
        engine.start(GameTree(folder), game)
    print("still here")
    assert capsys.readouterr().out.endswith("still here\n")  # standard output is given back


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "textworld", None)
    monkeypatch.delitem(sys.modules, "skill1.envs.alfworld.textworld", raising=False)
    with pytest.raises(ImportError, match=r"pip install -e '.\[reference\]'.*environment.engine=native"):
        importlib.import_module("skill1.envs.alfworld.textworld")
