"""A scripted ALFWorld player with partial information, the teacher of the nano warm start. Ours, not the paper's.

It sees what the policy sees (observation and admissible commands). It searches the receptacles in the order of the
first observation; a hint (the place a relevant skill names) is tried first. Without a hint it starts at the first
receptacle whose type the object commonly lies in, so that what a skill adds is its content and not merely a definite
place to start.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from skill1.envs.alfworld.engine import NOTHING
from skill1.envs.base import Observation
from skill1.nano.prompts.alfworld import compact, room

Kind = Literal["put", "two", "clean", "heat", "cool", "look"]
Doing = Literal["search", "search on", "treat", "deliver"]
_APPLIANCE = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}
_STATE_WORDS: dict[str, Kind] = {"clean": "clean", "hot": "heat", "heat": "heat", "cool": "cool"}


@dataclass(frozen=True, slots=True)
class Goal:
    """What the task's sentence asks for; `place` is the goal's receptacle type (the lamp's type for `look`)."""

    kind: Kind
    target: str
    place: str


def read_goal(instruction: str) -> Goal:
    """Parse any of the task sentences of the ALFWorld grammar. Raises ValueError for another sentence."""
    words = compact(instruction).split()
    match words:
        case ["look" | "examine", target, lamp]:
            return Goal("look", target, lamp)
        case ["put", "two", target, place] | ["find", "two", target, "put", place]:
            return Goal("two", target, place)
        case ["put", state, target, place] | [state, target, "put", place] if state in _STATE_WORDS:
            return Goal(_STATE_WORDS[state], target, place)
        case ["put", target, place]:
            return Goal("put", target, place)
    raise ValueError(f"not a task sentence of the ALFWorld grammar: {instruction!r}")


class Expert:
    """Plays one episode: `act(observation)` gives the next command, `moved(command)` tells what was really done.

    Args:
        start: first observation.
        common: object type -> receptacle types it commonly lies in (lower case), for the start of a blind search.
        hint: entity token of the place to try first ("cabinet_3"), or None.
    """

    def __init__(self, start: Observation, common: Mapping[str, Collection[str]], hint: str | None = None) -> None:
        self.goal = read_goal(start.instruction)
        self._ring = room(start)
        fits = common.get(self.goal.target, ())
        self._first = next((r for r in self._ring if _kind(r) in fits), self._ring[0])
        self._hint = hint if hint in self._ring else None
        self._at: str | None = None
        self._treated = False
        self._seen: str | None = None  # where the target was seen but not yet taken
        self.found: str | None = None  # where the target was picked up first
        self.doing: Doing = "search"  # what the last command of `act` was for
        self._return_to: str | None = None  # second object of a `two` task: look where the first one was

    def act(self, now: Observation) -> str:
        commands = {command: compact(command).split() for command in now.admissible}
        held = next((w[1] for w in commands.values() if w[0] == "examine" and w[1] not in self._ring), None)
        if held is None:
            return self._search(commands)
        self.doing = "deliver"
        if _kind(held) != self.goal.target:
            return next((c for c, w in commands.items() if w[0] in ("move", "put")), self._go(self._next()))
        if self.goal.kind == "look":
            use = next((c for c, w in commands.items() if w[0] == "use" and _kind(w[1]) == self.goal.place), None)
            self.doing = "treat" if use else "search on"
            return use or self._open(commands) or self._go(self._next())
        if self.goal.kind in _APPLIANCE and not self._treated:
            self.doing = "treat"
            treat = next((c for c, w in commands.items() if w[0] == self.goal.kind), None)
            return treat or self._go(f"{_APPLIANCE[self.goal.kind]}_1")
        deliver = next(
            (c for c, w in commands.items() if w[0] in ("move", "put") and _kind(w[2]) == self.goal.place), None
        )
        if deliver:
            return deliver
        opening = self._open(commands) if self._at and _kind(self._at) == self.goal.place else None
        return opening or self._go(f"{self.goal.place}_1")

    def moved(self, command: str, now: Observation) -> None:
        """Update the expert's memory after `command` was executed (by itself or by noise) and `now` was seen."""
        words = compact(command).split()
        if now.text == NOTHING:
            if words[0] == "go_to":  # in published homes: the place stands where one is already, so it is within reach
                self._at = words[1]
                self._hint = None if self._hint == self._at else self._hint
                self._return_to = None if self._return_to == self._at else self._return_to
            return
        if words[0] == "go_to":
            self._at = words[1]
            if self._at == self._hint:
                self._hint = None
            if self._at == self._return_to:
                self._return_to = None
            if self._at == self._seen:
                self._seen = None
        elif words[0] == "take" and _kind(words[1]) == self.goal.target:
            self._treated = False
            self.found = self.found or words[2]
            self._hint = self._seen = None
        elif words[0] == self.goal.kind and _kind(words[1]) == self.goal.target:
            self._treated = True
        elif words[0] in ("move", "put") and self.goal.kind == "two" and _kind(words[2]) == self.goal.place:
            self._return_to = self.found
        if words[0] in ("go_to", "open") and any(_kind(w) == self.goal.target for w in compact(now.text).split()):
            self._seen = None if self._is_goal(self._at) else self._at

    def _search(self, commands: Mapping[str, Sequence[str]]) -> str:
        self.doing = "search"
        for command, words in commands.items():
            if words[0] == "take" and _kind(words[1]) == self.goal.target and not self._is_goal(words[2]):
                return command
        known = self._seen or self._hint or self._return_to
        opening = self._open(commands)
        if not opening and not known and self._at:
            self.doing = "search on"
        return opening or self._go(known or self._next())

    def _is_goal(self, place: str) -> bool:
        """What lies there is where it must be: it is not to be taken."""
        return self.goal.kind in ("put", "two") and _kind(place) == self.goal.place

    def _next(self) -> str:
        if self._at is None:
            return self._first
        return self._ring[(self._ring.index(self._at) + 1) % len(self._ring)]

    @staticmethod
    def _open(commands: Mapping[str, Sequence[str]]) -> str | None:
        return next((c for c, w in commands.items() if w[0] == "open"), None)

    @staticmethod
    def _go(place: str) -> str:
        return f"go to {place.replace('_', ' ')}"


def slip(now: Observation, start: Observation, rng: random.Random) -> str:
    """A noisy command: an admissible one that moves or handles something, or (one in three) an impossible one."""
    if rng.random() < 1 / 3:
        return f"{rng.choice(('open', 'close', 'go to'))} {rng.choice(room(start)).replace('_', ' ')}"
    useful = [c for c in now.admissible if c.split()[0] in ("go", "open", "take", "close")]
    return rng.choice(useful or list(now.admissible))


def _kind(entity: str) -> str:
    return entity.rsplit("_", 1)[0]
