"""ALFWorld's expert: searches where training games kept such objects, and knows the procedure of every task type. Ours.

Published games and generated ones are played alike, in the environment's own words. The expert sees what a policy sees.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skill1.envs.alfworld.engine import NOTHING
from skill1.envs.alfworld.environment import AlfworldEnvironment
from skill1.envs.base import Observation
from skill1.models.experts.base import Expert, Player, Taught
from skill1.nano.alfworld.expert import APPLIANCE
from skill1.nano.alfworld.reading import Kind, Request, read_request
from skill1.records import Rollout, Task

_TRUST = 4  # places of the kind that a skill names that are looked at before any other
_ENTITY = re.compile(r"\b[a-z]+ \d+\b")
_PLACE = re.compile(r"(?:On the|The) ([a-z]+ \d+)(?: is (open|closed)|, you see)")
_PUT = re.compile(r"(?:move|put) (.+) (?:to|in/on) (.+)")
# receptacles that one puts things "in"; on all others they lie
_IN = frozenset("bathtubbasin box cabinet drawer fridge garbagecan laundryhamper microwave safe sinkbasin sink".split())
_CLOSED = frozenset("box cabinet drawer fridge microwave safe".split())  # as far as they can be
_Places = Mapping[str, Mapping[str, float]]  # object type -> place type -> objects of that type in such a place


@dataclass(frozen=True, slots=True)
class Fact:
    """What an episode can teach: where the thing was that its task is about. Places are types: "cabinet"."""

    kind: Kind
    target: str
    place: str  # where it must go; for "look" the lamp
    found: tuple[str, ...]  # where it was, of two things both; empty where it was not found
    closed: bool = False  # the first of these had to be opened
    lamp: str = ""  # where the lamp stood
    empty: tuple[str, ...] = ()  # where it was looked for in vain


class HomeExpert(Expert[Fact]):
    """Counts where objects lie when training games begin."""

    def __init__(self, environment: AlfworldEnvironment, tasks: Sequence[Task]) -> None:
        things: defaultdict[str, Counter[str]] = defaultdict(Counter)
        there: defaultdict[str, Counter[str]] = defaultdict(Counter)  # such places in games with such an object
        self.facts = {}
        for task in tasks:
            game = environment.games.game(task.game)
            places = [receptacle.name.split()[0] for receptacle in game.receptacles]
            kinds = [[game.items[item].name.split()[0] for item in inside] for inside in game.start.contents]
            for place, inside in zip(places, kinds, strict=True):
                for kind in inside:
                    things[kind][place] += 1
            for kind in {kind for inside in kinds for kind in inside}:
                there[kind].update(places)
            request = read_request(game.instruction)
            shut = [r.openable and i not in game.start.opened for i, r in enumerate(game.receptacles)]
            self.facts[task.game] = _known(request, list(zip(places, kinds, shut, strict=True)))
        self._places: _Places = {
            kind: {place: count / there[kind][place] for place, count in sorted(counts.items())}
            for kind, counts in sorted(things.items())
        }

    def knowledge(self) -> dict[str, Any]:
        """See `Expert.knowledge`."""
        rounded = {kind: {place: round(x, 4) for place, x in rates.items()} for kind, rates in self._places.items()}
        return {"objects a place": rounded}

    def asked(self, start: Observation) -> Fact:
        """See `Expert.asked`."""
        request = read_request(start.instruction)
        return Fact(request.kind, request.target, request.place, ())

    def player(self, start: Observation, told: Fact | None) -> HomePlayer:
        """See `Expert.player`."""
        return HomePlayer(start, self._places, told)

    def distance(self, one: Fact, other: Fact) -> int:
        """See `Expert.distance`: object, then task type."""
        return 2 * (one.target != other.target) + (one.kind != other.kind)

    def query(self, fact: Fact, rng: random.Random) -> str:
        """See `Expert.query`."""
        what, todo = _a(fact.target), _todo(fact)
        return rng.choice(
            (
                f"how to find {what}{todo}",
                f"where {what} is kept, and how to find it{todo}",
                f"I must find {what}{todo}: where to look first and what to do then",
            )
        )

    def lesson(self, fact: Fact, won: bool, rng: random.Random) -> Taught:
        """See `Expert.lesson`."""
        desc = rng.choice(("The task is to find {}{}.", "To find {}{}.", "How to find {}{}."))
        return Taught(desc.format(_a(fact.target), _todo(fact)), _procedure(fact), _where(fact, won))

    def can_follow(self, fact: Fact, start: Observation) -> bool:
        """See `Expert.can_follow`: there is such a place."""
        return any(_type(place) in fact.found for place in _places(start))

    def follows(self, fact: Fact, rollout: Rollout) -> bool:
        """See `Expert.follows`: the first place that it goes to is such a place."""
        moves = (
            turn.value.removeprefix("go to ") for turn in rollout.turns_of("act") if turn.value.startswith("go to ")
        )
        return _type(next(moves, "")) in fact.found


class HomePlayer(Player[Fact]):
    """Plays one episode, and remembers what it saw."""

    def __init__(self, start: Observation, places: _Places, told: Fact | None) -> None:
        self._goal = read_request(start.instruction)
        self._rates = places
        self._told = told
        self._places = _places(start)
        self._seen: dict[str, set[str]] = {}  # place -> what was there at the last look
        self._closed: set[str] = set()
        self._at: str | None = None
        self._held: str | None = None
        self._from = ""  # where what is held was taken
        self._treated: set[str] = set()
        self._store: str | None = None  # where both of two things go
        self._taken: dict[str, tuple[str, bool]] = {}  # target -> type of the place it was first taken from; was closed
        self._opened: set[str] = set()
        self._bare: set[str] = set()  # types of places that were looked into
        self._failed = False
        self._lit = ""

    def act(self, now: Observation) -> tuple[str, str]:
        """See `Player.act`."""
        command, why = self._decide(set(now.admissible))
        return command, f"Nothing happened. {why}" if self._failed else why

    def moved(self, command: str, now: Observation) -> None:
        """See `Player.moved`."""
        self._failed = now.text == NOTHING
        if self._failed:
            return
        verb, *rest = command.split()
        if verb == "take":
            item, place = command.removeprefix("take ").split(" from ")
            self._held, self._from = item, place
            self._seen.get(place, set()).discard(item)
            if _type(item) == self._goal.target:
                self._taken.setdefault(item, (_type(place), place in self._opened))
        elif put := _PUT.fullmatch(command):
            self._held = None
            self._seen.setdefault(put[2], set()).add(put[1])
            if self._goal.kind == "two" and _type(put[1]) == self._goal.target and _type(put[2]) == self._goal.place:
                self._store = self._store or put[2]
        elif verb in APPLIANCE:
            self._treated.add(" ".join(rest[:2]))
        elif verb == "close":
            self._closed.add(" ".join(rest))
        elif verb == "use":
            self._lit = _type(self._at or "")
        if there := _PLACE.search(now.text):
            self._look(there[1], there[2] == "closed", _ENTITY.findall(now.text.partition("you see ")[2]))
            if verb == "open":
                self._opened.add(there[1])

    def _look(self, place: str, closed: bool, things: Iterable[str]) -> None:
        self._at = place
        if closed:
            self._closed.add(place)
            return
        self._closed.discard(place)
        self._seen[place] = set(things)
        self._bare.add(_type(place))
        if self._goal.kind == "two" and _type(place) == self._goal.place and self._has(place):
            self._store = self._store or place

    def slip(self, now: Observation, rng: random.Random) -> str:
        """See `Player.slip`: one that goes or handles something, or (one in three) one that is impossible now."""
        goal, held = self._goal, self._held or f"{self._goal.target} 1"
        if rng.random() < 1 / 3:
            again = f"go to {self._at or goal.place + ' 9'}"  # what a policy does most that is lost in a search
            tried = [
                *[again] * 4,
                f"open {rng.choice(self._places)}",
                f"take {goal.target} 1 from {rng.choice(self._places)}",
                f"use {goal.place} 1" if goal.kind == "look" else f"move {held} to {goal.place} 1",
                *(f"{verb} {held} with {place} 1" for verb, place in APPLIANCE.items() if verb == goal.kind),
            ]
            return rng.choice([command for command in tried if command not in now.admissible] or ["go on"])
        handled = [c for c in now.admissible if c.split()[0] in ("go", "open", "close", "take", "examine")]
        return rng.choice(handled or list(now.admissible))

    def fact(self) -> Fact:
        """See `Player.fact`."""
        goal, taken = self._goal, list(self._taken.values())
        found = tuple(dict.fromkeys(place for place, _ in taken))
        empty = () if found else tuple(sorted(self._bare - {_type(p) for p in self._seen if self._has(p)}))
        return Fact(goal.kind, goal.target, goal.place, found, bool(taken) and taken[0][1], self._lit, empty)

    # -- what to do ---------------------------------------------------------------------------------------------------

    def _decide(self, offered: set[str]) -> tuple[str, str]:
        goal, held = self._goal, self._held
        if held is None:
            return self._fetch(offered)
        if _type(held) != goal.target:
            return self._drop(held, offered)
        if goal.kind == "look":
            return self._light(held, offered)
        if goal.kind in APPLIANCE and held not in self._treated:
            appliance = next((p for p in self._places if _type(p) == APPLIANCE[goal.kind]), f"{APPLIANCE[goal.kind]} 1")
            treat = f"{goal.kind} {held} with {appliance}"
            if treat in offered:
                return treat, f"I am at the {appliance}, so I {goal.kind} the {held}."
            return self._reach(appliance, offered), f"I hold the {held}, and must {goal.kind} it at the {appliance}."
        return self._deliver(held, offered)

    def _fetch(self, offered: set[str]) -> tuple[str, str]:
        goal = self._goal
        known = [p for p in self._places if self._has(p) and not self._is_goal(p)]
        if not known:
            return self._search(goal.target, offered)
        place = self._at if self._at in known else known[0]
        item = min(o for o in self._seen[place] if _type(o) == goal.target)
        take = f"take {item} from {place}"
        if take in offered:
            return take, f"I see the {item}, which I need, so I take it."
        return self._reach(place, offered), f"I saw the {item} at the {place}."

    def _drop(self, held: str, offered: set[str]) -> tuple[str, str]:
        why = f"I hold the {held}, but I need {_a(self._goal.target)}."
        put = next((c for c in sorted(offered) if (m := _PUT.fullmatch(c)) and m[1] == held), None)
        return put or self._reach(self._from, offered), f"{why} I put it back."

    def _light(self, held: str, offered: set[str]) -> tuple[str, str]:
        lamp = self._goal.place
        if use := next((c for c in sorted(offered) if c.startswith(f"use {lamp} ")), None):
            return use, f"I hold the {held}, and the {lamp} is here, so I turn it on."
        place = next((p for p, things in self._seen.items() if any(_type(o) == lamp for o in things)), None)
        if place:
            return self._reach(place, offered), f"I hold the {held}, and saw {_a(lamp)} at the {place}."
        command, why = self._search(lamp, offered)
        return command, f"I hold the {held}. {why}"

    def _deliver(self, held: str, offered: set[str]) -> tuple[str, str]:
        goals = [p for p in self._places if _type(p) == self._goal.place]
        place = self._store or (self._at if self._at in goals else goals[0])
        put = next((c for c in sorted(offered) if (m := _PUT.fullmatch(c)) and m[1] == held and m[2] == place), None)
        if put:
            return put, f"I am at the {place}, where the {held} must go."
        done = {"clean": " is clean", "heat": " is hot", "cool": " is cool"}.get(self._goal.kind, "")
        return self._reach(place, offered), f"The {held}{done or ' is in my hand'} and must go to the {place}."

    def _search(self, kind: str, offered: set[str]) -> tuple[str, str]:
        """Look at the place, of those not yet looked at, where the thing is to be expected most."""
        left = [p for p in self._places if p not in self._seen]
        if not left:  # it was overlooked, or was moved
            self._seen.clear()
            left = list(self._places)
        told = [p for p in left if _type(p) in self._hinted(kind)]
        place = max(told or left, key=lambda p: (self._rates.get(kind, {}).get(_type(p), 0.0), -self._places.index(p)))
        at = f"{'in' if _type(place) in _IN else 'on'} {_a(_type(place))}"
        if told:
            why = f"The skill says that {_a(kind)} was {at}, so I look at the {place}."
        elif place in self._closed:
            why = f"The {place} is closed, and {_a(kind)} may be in it."
        else:
            why = f"I still need {_a(kind)}, which may be {at}, so I look at the {place}."
        return self._reach(place, offered), why

    def _hinted(self, kind: str) -> list[str]:
        """Types of places that the skill names for a thing, as long as it was not tried too often."""
        told, goal = self._told, self._goal
        if told is None:
            return []
        named: tuple[str, ...] = ()
        if kind == goal.target == told.target:
            named = told.found
        elif goal.kind == told.kind == "look" and kind == goal.place == told.place and told.lamp:
            named = (told.lamp,)
        return [name for name in named if sum(_type(p) == name for p in self._seen) < _TRUST]

    def _reach(self, place: str, offered: set[str]) -> str:
        """Go there; of a place within reach, which cannot be gone to, open or examine it."""
        for command in (f"go to {place}", f"open {place}"):
            if command in offered:
                return command
        return f"examine {place}"

    def _has(self, place: str) -> bool:
        return any(_type(thing) == self._goal.target for thing in self._seen.get(place, ()))

    def _is_goal(self, place: str) -> bool:
        """What lies there is where it must be: it is not to be taken."""
        if self._goal.kind == "two" and self._store:
            return place == self._store
        return self._goal.kind in ("put", "two") and _type(place) == self._goal.place


def _known(request: Request, places: Sequence[tuple[str, list[str], bool]]) -> Fact:
    """What is true of a game: its places with what lies there, and whether they are closed."""
    kind, target = request.kind, request.target
    lying = {place: closed for place, things, closed in places if target in things}
    away = {place: closed for place, closed in lying.items() if kind not in ("put", "two") or place != request.place}
    found = away or lying
    lamp = next((place for place, things, _ in places if kind == "look" and request.place in things), "")
    kept = tuple(found)[: 2 if kind == "two" else 1]
    return Fact(kind, target, request.place, kept, bool(kept) and found[kept[0]], lamp)


# -- words ------------------------------------------------------------------------------------------------------------


def _places(start: Observation) -> list[str]:
    """The places of a home, as the first observation lists them."""
    return _ENTITY.findall(start.text.partition("you see ")[2].partition("\n")[0])


def _type(entity: str) -> str:
    return entity.partition(" ")[0]


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _inside(place: str) -> str:
    return f"{'in' if place in _IN else 'on'} {_a(place)}"


def _todo(fact: Fact) -> str:
    """What is to be done after a thing is found, as the end of a sentence."""
    goal = _inside(fact.place)
    match fact.kind:
        case "look":
            return f" and look at it under {_a(fact.place)}"
        case "two":
            return f" and another one, and put both {goal}"
        case "put":
            return f" and put it {goal}"
        case treat:
            return f", {treat} it and put it {goal}"


def _where(fact: Fact, won: bool) -> str:
    """What the episode says of where the thing was."""
    if not fact.found:
        if not fact.empty:
            return f"{_a(fact.target).capitalize()} was not found."
        looked = " or ".join(_inside(place) for place in fact.empty[:4])
        return f"No {fact.target} was {looked}: look elsewhere first."
    opened = ", which was closed: open it" if fact.closed else ""
    first = f"{_a(fact.target).capitalize()} was {_inside(fact.found[0])}{opened}."
    second = f" Another one was {_inside(fact.found[1])}." if len(fact.found) > 1 else ""
    return f"{first}{second}{'' if won else ' It was found too late: look there first.'}"


def _procedure(fact: Fact) -> str:
    """What to do with the thing."""
    opening = f" (open the {fact.place} if it is closed)" if fact.place in _CLOSED else ""
    take = f"Take {'one' if fact.kind == 'two' else 'the'} {fact.target}"
    match fact.kind:
        case "look":
            there = f" {_inside(fact.lamp)}" if fact.lamp else ""
            return f"{take}, carry it to the {fact.place}{there} and use the {fact.place}."
        case "two":
            return f"{take}, move it to the {fact.place}{opening}, then bring another one to the same {fact.place}."
        case "put":
            return f"{take} and move it to the {fact.place}{opening}."
        case treat:
            return f"{take}, {treat} it with the {APPLIANCE[treat]}, then move it to the {fact.place}{opening}."
