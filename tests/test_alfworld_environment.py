"""ALFWorld behind the vector protocol: counting steps, rewards, finished episodes, exact restarts."""

from __future__ import annotations

import random

import pytest
from alfworld_room import room, write_game

from skill1.envs.alfworld.data import GameTree
from skill1.envs.alfworld.environment import AlfworldEnvironment
from skill1.envs.alfworld.options import ALFWorldConfig
from skill1.envs.base import DataError
from skill1.envs.make import make_environment
from skill1.records import Task

GAME = "train/pick_heat_then_place_in_recep-Apple-None-Fridge-1/trial_1"


@pytest.fixture
def folder(tmp_path):
    write_game(tmp_path, GAME)
    return tmp_path


@pytest.fixture
def environment(folder):
    return AlfworldEnvironment(GameTree(folder), max_steps=9)


def test_tasks_name_environment_split_game_and_category(environment):
    assert environment.tasks("train") == (Task("alfworld", "train", GAME, "Heat"),)


def test_a_win_is_rewarded_once_and_finishes(environment):
    tasks = environment.tasks("train")
    (observation,) = environment.reset(tasks)
    assert observation.instruction == "put a hot apple in fridge."
    assert observation.text.startswith("-= Welcome to TextWorld, ALFRED! =-")
    steps = [environment.step([command])[0] for command in room()["walkthrough"]]
    assert [step.reward for step in steps] == [0.0] * 6 + [1.0]
    assert [step.won for step in steps] == [step.done for step in steps] == [False] * 6 + [True]
    assert all(step.admissible and step.observation.instruction == observation.instruction for step in steps)
    with pytest.raises(ValueError, match="episode 0 is finished; pass None instead of the action 'look'"):
        environment.step(["look"])
    assert environment.step([None]) == [None]


def test_the_step_limit_is_not_success(environment):
    environment.reset(environment.tasks("train"))
    for number in range(1, 10):
        (step,) = environment.step(["dance"])
        assert (step.observation.text, step.admissible, step.won, step.reward) == (
            "Nothing happens.", False, False, 0.0,
        )  # fmt: skip
        assert step.done == (number == 9)


def test_help_is_playable_but_not_offered(environment):
    (observation,) = environment.reset(environment.tasks("train"))
    assert "help" not in observation.admissible
    assert list(observation.admissible) == sorted(observation.admissible)
    (step,) = environment.step(["help"])
    assert step.observation.text.startswith("Available commands:") and not step.admissible


def test_episodes_are_apart_and_none_leaves_one_untouched(environment):
    task = environment.tasks("train")[0]
    environment.reset([task] * 3)
    first, second, third = environment.step(["go to countertop 1", None, " go to fridge 1 "])
    assert first.observation.text.startswith("You arrive at countertop 1.")
    assert second is None
    assert third.admissible and third.observation.text.startswith("You arrive at fridge 1.")
    _, second, _ = environment.step([None, "look", None])
    assert second.observation.text.startswith("You are in the middle of a room.")
    with pytest.raises(ValueError, match="2 actions for 3 running episodes"):
        environment.step(["look", "look"])


def test_an_error_moves_no_episode(environment):
    task = environment.tasks("train")[0]
    environment.reset([task] * 2)
    for command in room()["walkthrough"]:
        environment.step([None, command])
    with pytest.raises(ValueError, match="episode 1 is finished"):
        environment.step(["go to fridge 1", "look"])
    (step, _) = environment.step(["look", None])
    assert step.observation.text.startswith("You are in the middle of a room.")


def test_restarts_are_exact_whatever_runs_beside(environment):
    task = environment.tasks("train")[0]

    def play(width: int) -> list:
        rng = random.Random(3)
        observations = environment.reset([task] * width)
        log = [observations[0]]
        for _ in range(9):
            command = rng.choice(log[-1].admissible)
            steps = environment.step([command] + ["look"] * (width - 1))
            log.append(steps[0].observation)
        return log

    assert play(1) == play(4) == play(1)


def test_make_environment_checks_its_data(folder, tmp_path, monkeypatch):
    environment = make_environment(ALFWorldConfig(data=str(folder), max_steps=3))
    assert environment.max_steps == 3 and len(environment.tasks("train")) == 1
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    with pytest.raises(DataError, match="environment.data is not set"):
        make_environment(ALFWorldConfig())
    monkeypatch.setenv("ALFWORLD_DATA", str(folder))
    assert len(make_environment(ALFWorldConfig()).tasks("train")) == 1
    with pytest.raises(ValueError, match="max_steps must be at least 1, not 0"):
        AlfworldEnvironment(GameTree(folder), max_steps=0)
