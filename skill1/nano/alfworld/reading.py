"""ALFWorld's sentences, observations and commands as compact words, for the prompts and the scripted player. Ours."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from skill1.envs.alfworld.homes import NAMES
from skill1.envs.base import Observation

Kind = Literal["put", "two", "clean", "heat", "cool", "look"]
_STATE_WORDS: dict[str, Kind] = {"clean": "clean", "hot": "heat", "heat": "heat", "cool": "cool"}
_FILLER = frozenset(
    "a an and are arrive at from in into is it its next of on s some the them then there this to under up using with "
    "you your see facing carrying".split()
)
_ENTITY = re.compile(r"\b([a-z]+) (\d+)\b")
_WORD = re.compile(r"[a-z_]+_\d+|[a-z_]+|\d+")
_HOUSE = re.compile(rf"\b({'|'.join(NAMES)})\b(?: house)?")  # "the amber house" of a task, "amber" of the library


@dataclass(frozen=True, slots=True)
class Request:
    """What the task's sentence asks for; `place` is the goal's receptacle type (the lamp's type for `look`)."""

    kind: Kind
    target: str
    place: str


@lru_cache(maxsize=1 << 12)  # every prompt of an episode asks
def read_request(instruction: str) -> Request:
    """Parse any of the task sentences of the ALFWorld grammar. Raises ValueError for another sentence."""
    match compact(_HOUSE.sub("", instruction)).split():
        case ["look" | "examine", target, lamp]:
            return Request("look", target, lamp)
        case ["put", "two", target, place] | ["find", "two", target, "put", place]:
            return Request("two", target, place)
        case ["put", state, target, place] | [state, target, "put", place] if state in _STATE_WORDS:
            return Request(_STATE_WORDS[state], target, place)
        case ["put", target, place]:
            return Request("put", target, place)
    raise ValueError(f"not a task sentence of the ALFWorld grammar: {instruction!r}")


@lru_cache(maxsize=1 << 16)  # a rollout says the same few thousand things again and again
def compact(text: str) -> str:
    """Reduce a text or command to content words and entity tokens, without repeats of the word just said."""
    joined = _ENTITY.sub(r"\1_\2", text.lower().replace("go to ", "go_to "))
    words: list[str] = []
    for word in _WORD.findall(joined):
        if word not in _FILLER and (not words or word != words[-1]):
            words.append(word)
    return " ".join(words)


def room(start: Observation) -> list[str]:
    """List the receptacles in the order of the first observation, as entity tokens."""
    return [f"{kind}_{n}" for kind, n in _ENTITY.findall(start.text.partition("you see ")[2].partition("\n")[0])]


def home(start: Observation) -> str:
    """Name the home: as the task does, else by its receptacles, whatever their order, with one of `NAMES`."""
    if said := _HOUSE.search(start.instruction):
        return said[1]
    return NAMES[zlib.crc32(" ".join(sorted(room(start))).encode()) % len(NAMES)]


def type_of(entity: str) -> str:
    """Return the type of an entity token: "cabinet" of "cabinet_3"."""
    return entity.rpartition("_")[0]


def request_words(start: Observation) -> str:
    """Write the task in compact words, the home, which it may not name, as "here"."""
    return f"{compact(_HOUSE.sub('', start.instruction))} here"


def pointed(text: str, start: Observation) -> str:
    """Replace names of homes by "here" or "elsewhere", and the task's object type by "this", as seen from `start`."""
    here, target = home(start), read_request(start.instruction).target
    placed = _HOUSE.sub(lambda name: "here" if name[1] == here else "elsewhere", text)
    return re.sub(rf"\b{target}\b", "this", placed)


def named(text: str, start: Observation) -> str:
    """Replace "here" by the name of the home, and "this" by the task's object type, for the library."""
    said = {"here": home(start), "this": read_request(start.instruction).target}
    return re.sub(r"\b(?:here|this)\b", lambda word: said[word[0]], text)
