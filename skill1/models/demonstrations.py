"""Demonstrations on disk: what `demonstrate` writes and `coldstart` learns from, one chat a line.

    DIR/manifest.json       what was played and how; "parts": how many files of
    DIR/part-00000.jsonl    {"chat": [{"stage", "prompt", "completion", "learn"}, ...], "game", "pass", "won"}

A prompt is what the user says: all of it in a call of the context "window", which is a chat of its own; only what is new
in a call of a conversation. A completion that is not to be learnt is context for what comes after it. A file of one's own
may also hold lines {"prompt", "completion"}, each a chat of one action; "stage" and "learn" may be left out everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, StrictBool, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from skill1.records import Stage
from skill1.registry import ConfigError
from skill1.store.atomic import replace_file
from skill1.store.json_file import read_json, to_json

MANIFEST = "manifest.json"


@checked_dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="ignore"))
class Call:
    """One call of a chat and its answer."""

    stage: Stage = "act"
    prompt: str
    completion: str
    learn: StrictBool = True


@dataclass(frozen=True, slots=True)
class Chat:
    """The calls of one chat in their order, and the episode that they are of."""

    calls: tuple[Call, ...]
    game: str = ""
    number: int = 0  # of the pass
    won: bool = True
    place: str = field(default="", compare=False)  # "file:line" that it was read from


_CALLS = TypeAdapter(tuple[Call, ...])


def part_file(folder: Path, number: int) -> Path:
    """Name a part of a folder of demonstrations."""
    return folder / f"part-{number:05d}.jsonl"


def write_chats(file: Path, chats: Iterable[Chat]) -> None:
    """Write a file of chats, whole or not at all."""
    lines = [
        {"chat": [asdict(call) for call in chat.calls], "game": chat.game, "pass": chat.number, "won": chat.won}
        for chat in chats
    ]
    replace_file(file, "".join(f"{to_json(line)}\n" for line in lines).encode())


def read_chats(file: Path) -> list[Chat]:
    """Read a file of chats.

    Raises:
        ConfigError: a line is no chat with the texts "prompt" and "completion", or teaches nothing; names the line.
    """
    # bytes: texts may hold characters that str.splitlines takes for the end of a line
    lines = enumerate(file.read_bytes().splitlines(), start=1)
    return [_chat(text, f"{file}:{number}") for number, text in lines if text.strip()]


def read_demonstrations(path: Path) -> list[Chat]:
    """Read the different chats of a JSONL file, or of a folder that `demonstrate` has finished, in their order.

    Raises:
        ConfigError: there is nothing at `path`, parts are missing, or as `read_chats`.
    """
    if path.is_dir() and (why := incomplete(path)) is not None:
        raise ConfigError(why)
    if not path.exists():
        raise ConfigError(f"demonstrations: there is no file or folder {path}")
    files = sorted(path.glob("part-*.jsonl")) if path.is_dir() else [path]
    chats: dict[tuple[Call, ...], Chat] = {}
    for file in files:
        for chat in read_chats(file):
            chats.setdefault(chat.calls, chat)
    if not chats:
        raise ConfigError(f"demonstrations: {path} is empty")
    return list(chats.values())


def incomplete(folder: Path) -> str | None:
    """Why a folder's demonstrations are not all there; None if they are."""
    try:
        parts = read_json(folder / MANIFEST)["parts"]
    except FileNotFoundError:
        return f"{folder} holds no demonstrations: make them with `skill1 demonstrate --out {folder}`, or give a file"
    there = len(list(folder.glob("part-*.jsonl")))
    return None if there == parts else f"{folder} holds {there} of {parts} parts: repeat `skill1 demonstrate` to resume"


def _chat(text: bytes, place: str) -> Chat:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{place}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ConfigError(f'{place}: needs an object with "chat", or with the texts "prompt" and "completion"')
    return Chat(
        _calls(found.get("chat", [found]), place),
        found.get("game", ""),
        found.get("pass", 0),
        found.get("won", True),
        place,
    )


def _calls(tree: Any, place: str) -> tuple[Call, ...]:
    try:
        calls = _CALLS.validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "chat"
        raise ConfigError(
            f'{place}: needs calls with the texts "prompt" and "completion" ({where}: {first["msg"]})'
        ) from None
    for number, call in enumerate(calls):
        blank = (not number and not call.prompt.strip(), call.learn and not call.completion.strip())
        if any(blank):
            raise ConfigError(f"{place}: the {'prompt' if blank[0] else 'completion'} of call {number + 1} is empty")
    if not any(call.learn for call in calls):
        raise ConfigError(f'{place}: not one call is to be learnt ("learn" is false everywhere)')
    return calls
