"""The ALFWorld text game as a pure state machine: texts, admissible commands, transitions, won.

Built to the rules of TextWorld's PDDL engine under ALFWorld's domain and grammar, quirks included: `go to` a receptacle
is admissible unless the agent stands at its location, so of two receptacles that share a location neither can be gone
to from there, while opening, taking and putting work on both; an object may lie in two receptacles at once; only a held
object can be examined; an appliance need not be open to heat or cool. `benchmarks/parity.py` checks it against
recordings of the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from skill1.envs.alfworld.game import Action, Game

NOTHING = "Nothing happens."
_UNDOES = {"heat": "cool", "cool": "heat"}
_HELP = """\
Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""


class RunningGame:
    """One running game. Objects, receptacles and locations are positions in the game's tuples."""

    def __init__(self, game: Game) -> None:
        start = game.start
        self.game = game
        self.location = start.location
        self.holding: int | None = None
        self.contents = list(start.contents)
        self.opened = start.opened
        self.treated = dict(start.treated)
        self.sliced, self.toggled = start.sliced, start.toggled
        self.lying = start.lying
        self.removed: frozenset[tuple[int, int]] = frozenset()  # (object, receptacle) taken out and not put back
        self._commands: dict[str, Action] | None = None
        around = _listing(f"a {receptacle.name}" for receptacle in game.receptacles)
        self.text = (
            "-= Welcome to TextWorld, ALFRED! =-\n\n"
            f"You are in the middle of a room. Looking quickly around you, you see {around}.\n\n"
            f"Your task is to: {game.instruction}"
        )

    @property
    def admissible(self) -> tuple[str, ...]:
        """Admissible commands, sorted; with `help` if the game has it."""
        return tuple(sorted(self.commands))

    @property
    def commands(self) -> Mapping[str, Action]:
        """Admissible commands and what they do."""
        if self._commands is None:
            self._commands = self._derive()
        return self._commands

    @property
    def won(self) -> bool:
        """Return whether the goal holds now."""
        goal, items = self.game.goal, self.game.items
        if goal.kind == "look":
            if self.holding is None or items[self.holding].kind != goal.object:
                return False
            lit = {item for item in self.toggled if items[item].kind == goal.target and items[item].toggleable}
            return any(not lit.isdisjoint(self.contents[r]) for r in self.game.at.get(self.location, ()))
        needed = 2 if goal.kind == "two" else 1
        for receptacle in self.game.targets:
            there = self.contents[receptacle]
            if len(there) >= needed and sum(self._counts(item) for item in there) >= needed:
                return True
        return False

    def _counts(self, item: int) -> bool:
        goal, it = self.game.goal, self.game.items[item]
        if it.kind != goal.object or goal.treatment is None:
            return it.kind == goal.object
        return goal.treatment in it.treatments and item in self.treated[goal.treatment]

    def step(self, command: str) -> str:
        """Perform a command and return the new text; an inadmissible one answers "Nothing happens."."""
        action = self.commands.get(command.strip())
        self.text = NOTHING if action is None else self._perform(*action)
        return self.text

    def _derive(self) -> dict[str, Action]:
        game, items, held = self.game, self.game.items, self.holding
        here = game.at.get(self.location, ())
        commands = dict(game.everywhere)
        for r in here:
            del commands[f"go to {game.receptacles[r].name}"]
        put = "move {} to {}" if game.text_version == "2.1.2" else "put {} in/on {}"
        for r in here:
            place = game.receptacles[r]
            name = place.name
            commands[f"examine {name}"] = ("examine", -1, r)
            accessible = True
            if place.openable:
                accessible = r in self.opened
                verb = "close" if accessible else "open"
                commands[f"{verb} {name}"] = (verb, -1, r)
            for o in self.contents[r]:
                if accessible and held is None and items[o].pickupable:
                    commands[f"take {items[o].name} from {name}"] = ("take", o, r)
                if items[o].toggleable:
                    commands[f"use {items[o].name}"] = ("use", o, -1)
            if held is not None:
                item = items[held]
                if accessible and item.kind in place.accepts:
                    commands[put.format(item.name, name)] = ("put", held, r)
                if place.treatment and place.treatment in item.treatments:
                    commands[f"{place.treatment} {item.name} with {name}"] = (place.treatment, held, r)
        if held is not None:
            commands[f"examine {items[held].name}"] = ("examine", held, -1)
            if items[held].cuts:
                for o, location in self.lying:
                    if location == self.location and items[o].sliceable:
                        commands[f"slice {items[o].name} with {items[held].name}"] = ("slice", o, -1)
        return commands

    def _perform(self, verb: str, o: int, r: int) -> str:
        game = self.game
        item = game.items[o].name if o >= 0 else ""
        place = game.receptacles[r].name if r >= 0 else ""
        held = game.items[self.holding].name if self.holding is not None else ""
        match verb:
            case "look":
                return self._look()
            case "inventory":
                return f"You are carrying: a {held}." if held else "You are not carrying anything."
            case "help":
                return _HELP
            case "examine":
                return self._examine_item(o) if o >= 0 else self._examine_receptacle(r)
        self._commands = None
        match verb:
            case "go":
                self.location = game.receptacles[r].location
                arrived = place if game.text_version == "2.1.2" else game.locations[self.location]
                return f"You arrive at {arrived}. {self._examine_receptacle(r)}"
            case "open":
                self.opened |= {r}
                return f"You open the {place}. {self._examine_receptacle(r)}"
            case "close":
                self.opened -= {r}
                return f"You close the {place}."
            case "take":
                self.holding = o
                self.contents[r] = tuple(other for other in self.contents[r] if other != o)
                self.lying -= {(o, self.location)}
                self.removed |= {(o, r)}
                return f"You pick up the {item} from the {place}."
            case "put":
                self.holding = None
                self.contents[r] = tuple(sorted({*self.contents[r], o}))
                self.lying |= {(o, self.location)}
                self.removed -= {(o, r)}
                if game.text_version == "2.1.2":
                    return f"You move the {item} to the {place}."
                return f"You put the {item} in/on the {place}."
            case "clean" | "heat" | "cool":
                self.treated[verb] |= {o}
                if undone := _UNDOES.get(verb):
                    self.treated[undone] -= {o}
                return f"You {verb} the {item} using the {place}."
            case "use":
                self.toggled |= {o}
                return f"You turn on the {item}."
        self.sliced |= {o}
        return f"You sliced the {item} with the {held}."

    def _look(self) -> str:
        game = self.game
        here = game.at.get(self.location, ())
        if not here:
            return "You are in the middle of a room. Looking quickly around you, you see nothing."
        facing = _listing(game.receptacles[r].name for r in here)
        # The grammar asks for objects at this location that are *known not to be* in a receptacle here, and only an
        # object that was taken out of one is known not to be in it.
        beside = [o for o, r in sorted(self.removed) if r in here and (o, self.location) in self.lying]
        seen = _listing(f"a {game.items[o].name}" for o in beside)
        return f"You are facing the {facing}. Next to it, you see {seen}."

    def _examine_receptacle(self, r: int) -> str:
        place, items = self.game.receptacles[r], self.game.items
        if place.openable and r not in self.opened:
            return f"The {place.name} is closed."
        seen = _listing(f"a {items[o].name}" for o in self.contents[r])
        where = f"The {place.name} is open. In it" if place.openable else f"On the {place.name}"
        return f"{where}, you see {seen}."

    def _examine_item(self, o: int) -> str:
        item = self.game.items[o]
        if item.container:
            return f"This is a normal {item.name}. In it, you see {_listing(f'a {name}' for name in item.inside)}."
        clean, hot, cool = (o in self.treated[name] for name in ("clean", "heat", "cool"))
        sliced = o in self.sliced
        if clean and (hot or cool):
            state = "hot and clean" if hot else "cool and clean"
        elif hot:
            state = "hot"
        elif clean:
            state = "clean"
        elif cool:
            state = "cool" if sliced else "cold"
        elif item.toggleable and o in self.toggled:
            return f"This {item.name} is on."
        elif sliced and item.sliceable:
            return f"This is a sliced {item.name}."
        else:
            return f"There's nothing special about {item.name}."
        return f"This is a {state} {'sliced ' if sliced else ''}{item.name}."


def _listing(phrases: Iterable[str]) -> str:
    *first, last = list(phrases) or ["nothing"]
    return f"{', '.join(first)}, and {last}" if first else last
