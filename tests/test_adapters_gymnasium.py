"""Environments behind Gymnasium's API, by its own checker; episodes share data and nothing else."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium
import pytest
from alfworld_room import write_game
from gymnasium.utils.env_checker import check_env
from pages import code
from webshop_shop import write_files

from skill1.envs.adapters.gymnasium import TextEnv
from skill1.envs.adapters.shared import SharedEnvironment
from skill1.envs.base import DataError
from skill1.registry import ConfigError

GARDEN = f"{Path(__file__).resolve().parents[1] / 'examples' / 'garden.py'}:GARDEN"
NAME = "skill1.envs.adapters.gymnasium:skill1/Text-v0"


def checked(name: str, split: str, **options) -> None:
    env = gymnasium.make(NAME, environment=name, split=split, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


@pytest.fixture
def garden() -> SharedEnvironment:
    return SharedEnvironment(GARDEN, max_steps=3)


def test_gymnasiums_checker_finds_nothing_in_a_garden():
    checked(GARDEN, "test", max_steps=4)


def test_gymnasiums_checker_finds_nothing_in_a_home_and_a_shop(tmp_path):
    write_game(tmp_path, "valid_seen/pick_heat_then_place_in_recep-Apple-None-Fridge-1/trial_T1")
    checked("alfworld", "valid_seen", data=str(tmp_path))
    checked("webshop", "train", data=str(write_files(tmp_path / "shop")), held_out_goals=2, max_steps=6)


def test_the_code_of_the_page_plays(tmp_path, monkeypatch, capsys):
    write_game(tmp_path / "data" / "games", "train/pick_heat_then_place_in_recep-Apple-None-Fridge-1/trial_T1")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for heading in ("Games and an open environment", "Gymnasium"):
        exec(code("environments.md", heading, "python"), names)
    assert capsys.readouterr().out == f"{names['info']['game']} False 0.0\n" and names["truncated"]


def test_a_win_a_loss_and_the_step_limit_end_differently(garden):
    env = TextEnv(garden, "train")
    text, info = env.reset(options={"game": "train/07"})
    wanted = info["instruction"].split()[2]
    assert (info["game"], info["won"]) == ("train/07", False) and text.startswith("You are at the gate.")
    env.step(f"go to {wanted}")
    *_, terminated, truncated, info = env.step(f"{info['category'].lower()} {wanted}")
    assert (terminated, truncated, info["won"]) == (True, False, True)

    env.reset(options={"game": "train/07"})
    env.step("wait")
    env.step(f"go to {wanted}")
    wrong = next(care for care in ("prune", "water") if care != info["category"].lower())
    text, reward, terminated, truncated, info = env.step(f"{wrong} {wanted}")  # with the last step
    assert text.endswith("wilts.") and (reward, terminated, truncated, info["won"]) == (0.0, True, False, False)

    env.reset(options={"game": "train/07"})
    assert [env.step("wait")[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    with pytest.raises(ValueError, match="The episode is over"):
        env.step("wait")


def test_a_seed_draws_the_same_games_and_others_run_beside_it(garden):
    games = []
    for _ in range(2):
        env = TextEnv(garden, "train")
        games.append([env.reset(seed=seed)[1]["game"] for seed in (5, None, None)])
    assert games[0] == games[1] and len(set(games[0])) > 1
    several = gymnasium.vector.SyncVectorEnv([lambda: TextEnv(garden, "train")] * 3)
    _, info = several.reset(seed=0)
    places = [admissible[0] for admissible in info["admissible"]]
    texts, *_ = several.step(places)
    assert list(texts) == [f"You stand before the {place.removeprefix('go to ')}." for place in places]


def test_what_is_not_there_is_named(garden):
    with pytest.raises(ConfigError, match="unknown option of the environment 'max_step'; did you mean 'max_steps'"):
        SharedEnvironment(GARDEN, max_step=3)
    with pytest.raises(ConfigError, match=r"environment\.max_steps = 0"):
        SharedEnvironment(GARDEN, max_steps=0)
    with pytest.raises(DataError, match="no split 'valid'"):
        TextEnv(garden, "valid")
    with pytest.raises(DataError, match="garden has no garden 'train/7' in its split 'train'"):
        TextEnv(garden, "train").reset(options={"game": "train/7"})
    with pytest.raises(ConfigError, match="unknown option of reset 'task'"):
        TextEnv(garden, "train").reset(options={"task": 1})
