"""Recordings of the original engine replay without a mismatch, and the replay notices what differs."""

from __future__ import annotations

import json
import lzma
import tarfile

import pytest
from alfworld_room import room, write_game

from skill1.envs.alfworld.replay import replay, replay_command
from skill1.envs.base import DataError

GAME = "train/pick_heat_then_place_in_recep-Apple-None-Fridge-1/trial_1"
AWAY = ["go to countertop 1", "go to fridge 1", "go to microwave 1", "go to sinkbasin 1", "help", "inventory", "look"]
RECORD = {
    "game": GAME,
    "reset": {
        "observation": "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around "
        "you, you see a countertop 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\nYour task is to: put a hot "
        "apple in fridge.",
        "admissible": AWAY,
        "won": False,
    },
    "steps": [
        {
            "action": "go to fridge 1",
            "observation": "You arrive at fridge 1. The fridge 1 is closed.",
            "admissible": sorted({*AWAY, "examine fridge 1", "open fridge 1"} - {"go to fridge 1"}),
            "won": False, "reward": 0, "done": False,
        }
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_game(tmp_path, GAME)
    return tmp_path


def write(folder, *records):
    path = folder / "recording.jsonl.xz"
    path.write_bytes(lzma.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    return path


def test_published_games_replay_without_mismatch(shared_data, tmp_path, capsys):
    with tarfile.open(shared_data / "alfworld" / "valid_seen.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    assert replay_command(tmp_path, shared_data / "alfworld" / "transcripts_seen.jsonl.xz") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"games": 140, "steps": 1756, "mismatches": 0}
    assert printed.err == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [("observation", "You arrive."), ("admissible", AWAY), ("won", True), ("reward", 1), ("done", True)],
)
def test_each_recorded_field_is_compared(folder, capsys, field, value):
    assert replay_command(folder, write(folder, RECORD)) == 0
    assert json.loads(capsys.readouterr().out) == {"games": 1, "steps": 1, "mismatches": 0}
    changed = RECORD | {"steps": [RECORD["steps"][0] | {field: value}]}
    assert replay_command(folder, write(folder, RECORD, changed)) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"games": 2, "steps": 2, "mismatches": 1}
    shown = json.loads(printed.err)
    assert (shown["step"], shown["action"], shown["field"], shown["recorded"]) == (1, "go to fridge 1", field, value)


def test_the_reset_is_compared_and_ten_mismatches_are_shown(folder):
    changed = RECORD | {"reset": RECORD["reset"] | {"won": True}}
    report = replay(folder, write(folder, *[changed] * 12))
    assert (report.mismatches, len(report.first)) == (12, 10)
    assert (report.first[0].step, report.first[0].action, report.first[0].field) == (0, None, "won")


def test_unusable_recordings_are_refused(folder):
    path = write(folder, RECORD)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut off after line 0"):
        replay(folder, path)
    path.write_text("plain text")
    with pytest.raises(DataError, match="not an xz file"):
        replay(folder, path)
    path.write_bytes(lzma.compress(b'{"game": \n'))
    with pytest.raises(DataError, match="malformed in line 1"):
        replay(folder, path)
    with pytest.raises(DataError, match="malformed in line 2: KeyError\\('reset'\\)"):
        replay(folder, write(folder, RECORD, {"game": GAME}))
    with pytest.raises(DataError, match="holds no game"):
        replay(folder, write(folder))
    with pytest.raises(DataError, match="cannot read the recording .*absent"):
        replay(folder, folder / "absent")


def test_missing_and_corrupt_games_are_named(folder):
    with pytest.raises(DataError, match="no game 'valid_seen/other/trial_1'"):
        replay(folder, write(folder, RECORD | {"game": "valid_seen/other/trial_1"}))
    broken = write_game(folder, GAME.replace("trial_1", "trial_2"), room() | {"grammar": ""})
    with pytest.raises(DataError, match="corrupt or incomplete") as caught:
        replay(folder, write(folder, RECORD | {"game": GAME.replace("trial_1", "trial_2")}))
    assert str(broken) in str(caught.value)
