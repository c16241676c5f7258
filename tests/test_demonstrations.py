"""The format of demonstrations: what is written is read, one's own lines are chats of one call, mistakes name their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skill1.models.demonstrations import (
    MANIFEST,
    Call,
    Chat,
    incomplete,
    part_file,
    read_chats,
    read_demonstrations,
    write_chats,
)
from skill1.registry import ConfigError

QUERY = Call(stage="query", prompt="what?", completion="a mug")
SLIP = Call(stage="act", prompt="go\u2028on", completion="fly", learn=False)
SILENCE = Call(stage="act", prompt="", completion="", learn=False)  # context may be empty
ONE = Chat((QUERY, SLIP, SILENCE), "train/a/b", 1, won=False)
OTHER = Chat((Call(prompt="go", completion="to"),), "train/a/c", 0)


def folder_of(parts: int, folder: Path) -> Path:
    (folder / MANIFEST).write_text(json.dumps({"parts": parts}))
    return folder


def test_what_is_written_is_read(tmp_path):
    write_chats(tmp_path / "chats.jsonl", [ONE, OTHER])
    found = read_chats(tmp_path / "chats.jsonl")
    assert found == [ONE, OTHER]
    assert [chat.place for chat in found] == [f"{tmp_path}/chats.jsonl:{line}" for line in (1, 2)]
    first = json.loads((tmp_path / "chats.jsonl").read_text().splitlines()[0])
    assert (first["game"], first["pass"], first["won"]) == ("train/a/b", 1, False)
    assert first["chat"][1] == {"stage": "act", "prompt": "go\u2028on", "completion": "fly", "learn": False}


def test_lines_of_ones_own_are_actions(tmp_path):
    file = tmp_path / "mine.jsonl"
    lines = [{"prompt": "go", "completion": "to", "why": "kept out"}, {"chat": [{"prompt": "a", "completion": "b"}]}]
    file.write_text("\n\n".join(map(json.dumps, lines)))
    assert read_demonstrations(file) == [
        Chat((Call(prompt="go", completion="to"),)),
        Chat((Call(stage="act", prompt="a", completion="b", learn=True),)),
    ]


def test_a_chat_counts_once_and_all_parts_are_read(tmp_path):
    folder = folder_of(2, tmp_path)
    write_chats(part_file(folder, 0), [ONE, OTHER, ONE])
    assert incomplete(folder) == f"{folder} holds 1 of 2 parts: repeat `skill1 demonstrate` to resume"
    with pytest.raises(ConfigError, match="1 of 2 parts"):
        read_demonstrations(folder)
    write_chats(part_file(folder, 1), [Chat(OTHER.calls, "train/other", 3)])
    assert read_demonstrations(folder) == [ONE, OTHER] and incomplete(folder) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"prompt": "go", "completion": "to"}\n{"prompt": "go"}\n',
            r"mine\.jsonl:2: .*\(0\.completion: Field required",
        ),
        ('{"prompt": "  ", "completion": "to"}\n', r"mine\.jsonl:1: the prompt of call 1 is empty"),
        ('{"prompt": "go", "completion": ""}\n', r"mine\.jsonl:1: the completion of call 1 is empty"),
        ('{"prompt": ["go"], "completion": "to"}\n', r"\(0\.prompt: Input should be a valid string"),
        ('{"chat": [{"prompt": "a", "completion": "b", "learn": 1}]}', r"\(0\.learn: Input should be a valid boolean"),
        ('{"chat": "go"}', r"\(chat: Input should be a valid tuple"),
        ('{"chat": []}', "not one call is to be learnt"),
        ('{"chat": [{"prompt": "a", "completion": "b", "learn": false}]}', "not one call is to be learnt"),
        ("[1]\n", r"mine\.jsonl:1: needs an object"),
        ('\n{"prompt": "go', r"mine\.jsonl:2: not JSON"),
        ("\n", r"mine\.jsonl is empty"),
    ],
)
def test_a_malformed_file_names_its_line(tmp_path, text, message):
    file = tmp_path / "mine.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_demonstrations(file)


def test_what_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no file or folder"):
        read_demonstrations(tmp_path / "absent.jsonl")
    with pytest.raises(ConfigError, match="holds no demonstrations: make them with `skill1 demonstrate"):
        read_demonstrations(tmp_path)
