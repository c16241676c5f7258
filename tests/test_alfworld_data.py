"""Game folders: ids, categories, filters, hash, and errors that say what to do."""

from __future__ import annotations

import json
import tarfile

import pytest
from alfworld_room import room, write_game

from skill1.envs.alfworld.data import CATEGORIES, GameTree, content_hash
from skill1.envs.base import DataError

HEAT = "pick_heat_then_place_in_recep-Apple-None-Fridge-1"


@pytest.fixture
def tree(tmp_path):
    for game in (
        f"train/{HEAT}/trial_2", f"train/{HEAT}/trial_1", "train/look_at_obj_in_light-Apple-None-DeskLamp-1/trial_1",
    ):  # fmt: skip
        write_game(tmp_path, game)
    return tmp_path


def test_games_are_sorted_and_categorised(tree):
    games = GameTree(tree).games("train")
    assert [(game.id, game.category) for game in games] == [
        ("train/look_at_obj_in_light-Apple-None-DeskLamp-1/trial_1", "Look"),
        (f"train/{HEAT}/trial_1", "Heat"),
        (f"train/{HEAT}/trial_2", "Heat"),
    ]
    assert GameTree(tree / "json_2.1.1").games("train") == games  # the inner folder is accepted too


def test_games_are_parsed_once(tree):
    games = GameTree(tree)
    first = games.game(f"train/{HEAT}/trial_1")
    assert first.instruction == "put a hot apple in fridge."
    assert games.game(f"train/{HEAT}/trial_1") is first


def test_filters_are_the_packages(tree):
    base = len(GameTree(tree).games("train"))
    write_game(tree, "train/pick_and_place_with_movable_recep-Apple-Bowl-Fridge-1/trial_1")
    write_game(tree, "train/pick_heat_then_place_in_recep-AppleSliced-None-Fridge-1/trial_1")
    write_game(tree, "train/stack_objects-Apple-None-Fridge-1/trial_1")
    write_game(tree, f"train/{HEAT}/unsolvable", room() | {"solvable": False})
    write_game(tree, f"train/{HEAT}/unmarked", {key: value for key, value in room().items() if key != "solvable"})
    write_game(tree, f"train/{HEAT}/no_trajectory").parent.joinpath("traj_data.json").unlink()
    assert len(GameTree(tree).games("train")) == base
    write_game(tree, f"train/{HEAT}/trial_9")
    assert len(GameTree(tree).games("train")) == base + 1


def test_hash_depends_on_content_and_ids_only(tree):
    games = GameTree(tree).games("train")
    value = content_hash(games)
    assert value == content_hash(reversed(games)) == content_hash(GameTree(tree).games("train"))
    assert value != content_hash(games[:-1])
    path = GameTree(tree).path(games[0].id)
    path.write_text(json.dumps(room(task="put a cold apple in fridge.")))
    assert value != content_hash(GameTree(tree).games("train"))


def test_missing_data_says_what_to_do(tree, tmp_path, monkeypatch):
    advice = "skill1 generate alfworld --out DIR.*alfworld-download.*ALFWORLD_DATA"
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    with pytest.raises(DataError, match=f"no game data.*{advice}"):
        GameTree.open(None)
    with pytest.raises(DataError, match=f"there is no folder .*nowhere.*{advice}"):
        GameTree.open(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=rf"no split 'valid_seen' \(it has: train\).*{advice}"):
        GameTree(tree).games("valid_seen")
    (tree / "json_2.1.1" / "empty").mkdir()
    with pytest.raises(DataError, match=rf"no playable game \(0 found\).*{advice}"):
        GameTree(tree).games("empty")
    with pytest.raises(DataError, match=f"no game 'train/x/y'.*{advice}"):
        GameTree(tree).game("train/x/y")
    monkeypatch.setenv("ALFWORLD_DATA", str(tree))
    assert len(GameTree.open(None).games("train")) == 3


def test_mixed_text_versions_are_refused(tree):
    write_game(tree, f"train/{HEAT}/old", room("2.1.1"))
    with pytest.raises(DataError, match=rf"two text versions.*{HEAT}/old \(2.1.1\) and .* \(2.1.2\)"):
        GameTree(tree).games("train")
    write_game(tree, f"valid_seen/{HEAT}/old", room("2.1.1"))
    assert GameTree(tree).games("valid_seen")[0].text_version == "2.1.1"


@pytest.mark.parametrize(("keep", "message"), [(0, "empty or cut off"), (400, "empty or cut off")])
def test_truncated_games_are_refused(tree, keep, message):
    path = GameTree(tree).path(f"train/{HEAT}/trial_1")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=message) as caught:
        GameTree(tree).games("train")
    assert str(path) in str(caught.value)


def test_published_split(shared_data, tmp_path):
    with tarfile.open(shared_data / "alfworld" / "valid_seen.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    games = GameTree(tmp_path).games("valid_seen")
    counts = dict.fromkeys(CATEGORIES.values(), 0)
    for game in games:
        counts[game.category] += 1
        trajectory = json.loads((tmp_path / "json_2.1.1" / game.id / "traj_data.json").read_text())
        assert CATEGORIES[trajectory["task_type"]] == game.category
    assert counts == {"Pick": 35, "Look": 13, "Clean": 27, "Heat": 16, "Cool": 25, "Pick2": 24}
    assert {game.text_version for game in games} == {"2.1.2"}
