"""A scripted ALFWorld player with partial information, the teacher of the nano warm start. Ours, not the paper's.

It sees what the policy sees (observation and admissible commands). It searches the receptacles in the order of the
first observation; a hint (the place a relevant skill names) is tried first. Without a hint it starts at the first
receptacle whose type the object commonly lies in, so that what a skill adds is its content and not merely a definite
place to start.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from skill1.envs.alfworld.engine import NOTHING
from skill1.envs.alfworld.homes import APPLIANCES
from skill1.envs.base import Observation
from skill1.nano.alfworld.reading import compact, read_request, room, type_of

APPLIANCE = {verb: kind.lower() for verb, kind, _ in APPLIANCES.values()}  # "heat" -> "microwave"
_Commands = Sequence[Sequence[str]]  # the admissible ones, each in words


class HomeExpert:
    """Plays one episode in compact answers: `act(observation)` gives the next, `moved(answer)` what was really done.

    Args:
        start: first observation.
        common: object type -> receptacle types it commonly lies in (lower case), for the start of a blind search.
        hint: entity token of the place to try first ("cabinet_3"), or None.
    """

    def __init__(self, start: Observation, common: Mapping[str, Collection[str]], hint: str | None = None) -> None:
        self.goal = read_request(start.instruction)
        self._ring = room(start)
        fits = common.get(self.goal.target, ())
        self._first = next((r for r in self._ring if type_of(r) in fits), self._ring[0])
        self._hint = hint if hint in self._ring else None
        self._at: str | None = None
        self._treated = False
        self._seen: str | None = None  # where the target was seen but not yet taken
        self._return_to: str | None = None  # second object of a `two` task: look where the first one was
        self.found: str | None = None  # where the target was picked up first
        self.doing = "search"  # what the last answer was for: "search", "search on", "treat", "deliver"

    def act(self, now: Observation) -> str:
        commands = [compact(command).split() for command in now.admissible]
        held = next((w[1] for w in commands if w[0] == "examine" and w[1] not in self._ring), None)
        if held is None:
            return self._search(commands)
        self.doing = "deliver"
        if type_of(held) != self.goal.target:
            return _offered(commands, "move", "put") or f"go_to {self._next()}"
        if self.goal.kind == "look":
            use = _offered(commands, "use", kind=self.goal.place)
            self.doing = "treat" if use else "search on"
            return use or _offered(commands, "open") or f"go_to {self._next()}"
        if self.goal.kind in APPLIANCE and not self._treated:
            self.doing = "treat"
            return _offered(commands, self.goal.kind) or f"go_to {APPLIANCE[self.goal.kind]}_1"
        opening = _offered(commands, "open") if self._at and type_of(self._at) == self.goal.place else None
        return _offered(commands, "move", "put", kind=self.goal.place) or opening or f"go_to {self.goal.place}_1"

    def moved(self, answer: str, now: Observation) -> None:
        """Update the memory after `answer` was executed (its own or a slip's) and `now` was seen."""
        words = answer.split()
        if words[0] == "go_to":
            self._at = place = words[1]
            self._hint = None if self._hint == place else self._hint
            self._return_to = None if self._return_to == place else self._return_to
        if now.text == NOTHING:  # in published homes also where the place stands within reach
            return
        if words[0] == "go_to" and self._at == self._seen:
            self._seen = None
        elif words[0] == "take" and type_of(words[1]) == self.goal.target:
            self._treated = False
            self.found = self.found or words[2]
            self._hint = self._seen = None
        elif words[0] == self.goal.kind and type_of(words[1]) == self.goal.target:
            self._treated = True
        elif words[0] in ("move", "put") and self.goal.kind == "two" and type_of(words[2]) == self.goal.place:
            self._return_to = self.found
        if words[0] in ("go_to", "open") and any(type_of(w) == self.goal.target for w in compact(now.text).split()):
            self._seen = None if self._is_goal(self._at) else self._at

    def slip(self, now: Observation, rng: random.Random) -> str:
        """Draw an answer: an admissible one that moves or handles something, or, one in three, an impossible one."""
        if rng.random() < 1 / 3:
            return f"{rng.choice(('open', 'close', 'go_to'))} {rng.choice(self._ring)}"
        answers = [compact(command) for command in now.admissible]
        return rng.choice([a for a in answers if a.split()[0] in ("go_to", "open", "take", "close")] or answers)

    def _search(self, commands: _Commands) -> str:
        self.doing = "search"
        for words in commands:
            if words[0] == "take" and type_of(words[1]) == self.goal.target and not self._is_goal(words[2]):
                return " ".join(words)
        known = self._seen or self._hint or self._return_to
        opening = _offered(commands, "open")
        if not opening and not known and self._at:
            self.doing = "search on"
        return opening or f"go_to {known or self._next()}"

    def _is_goal(self, place: str | None) -> bool:
        """What lies there is where it must be: it is not to be taken."""
        return self.goal.kind in ("put", "two") and place is not None and type_of(place) == self.goal.place

    def _next(self) -> str:
        if self._at is None:
            return self._first
        return self._ring[(self._ring.index(self._at) + 1) % len(self._ring)]


def _offered(commands: _Commands, *verbs: str, kind: str | None = None) -> str | None:
    """The first command with one of the verbs, about an entity of that kind (of two, the second) if one is given."""
    fitting = (w for w in commands if w[0] in verbs and (kind is None or type_of(w[-1]) == kind))
    return next((" ".join(w) for w in fitting), None)
