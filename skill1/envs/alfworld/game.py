"""The static part of an ALFWorld game, parsed once and shared by all its rollouts.

A game file is JSON with the PDDL domain, the text grammar, the PDDL problem, a `solvable` mark and a walkthrough. All
published games have one domain and one grammar in two *text versions*, which the file itself decides:

* "2.1.1": "put X in/on Y", "You arrive at loc 14.", no `help`;
* "2.1.2" (current): "move X to Y", "You arrive at cabinet 1.", `help`.

Numbers in names follow ALFWorld's demangler without shuffling: ids sorted, numbered downwards within a name.
Receptacles, objects and locations are addressed by their position in sorted id order, which is also the order in
which the text lists them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from skill1.envs.base import DataError
from skill1.store.json_file import DamagedFile, read_json

TextVersion = Literal["2.1.1", "2.1.2"]
Action = tuple[str, int, int]  # (verb, object, receptacle), -1 where the verb takes none
_Facts = defaultdict[str, list[tuple[str, ...]]]
_GoalKind = Literal["place", "two", "look"]

_FACT = re.compile(r"\(\s*([a-z]+)((?:\s+[^\s()]+)*)\s*\)")
_COMMENT = re.compile(r";[^\n]*")
_TASK = re.compile(r'"Your task is to: ([^"]*)"')
_SINK = re.compile(r"^\s*\(receptacletype \?r sinktype\)", re.MULTILINE)
_ARRIVE: dict[str, TextVersion] = {"You arrive at {lend.name}.": "2.1.1", "You arrive at {r.name}.": "2.1.2"}
_KEYS = ("pddl_domain", "grammar", "pddl_problem")
# Facts that a rule or a text reads, with their number of arguments, and those that nothing reads.
_READ = {
    "atlocation": 2, "receptacleatlocation": 2, "objectatlocation": 2, "receptacletype": 2, "objecttype": 2,
    "cancontain": 2, "inreceptacle": 2, "inreceptacleobject": 2, "openable": 1, "opened": 1, "pickupable": 1,
    "isreceptacleobject": 1, "cleanable": 1, "heatable": 1, "coolable": 1, "toggleable": 1, "sliceable": 1,
    "isclean": 1, "ishot": 1, "iscool": 1, "issliced": 1, "istoggled": 1,
}  # fmt: skip
_UNREAD = {"wasinreceptacle", "checked", "examined", "full", "isreceptacleobjectfull", "moveable", "ison"}
# treatment -> the predicates of an object that can have it and of one that had it
_TREATMENTS = {"clean": ("cleanable", "isclean"), "heat": ("heatable", "ishot"), "cool": ("coolable", "iscool")}
# The goals of ALFWorld's six task types by the predicates they mention.
_PLACE = ("inreceptacle", "objecttype", "receptacletype")
_LOOK = ("atlocation", "holds", "inreceptacle", "istoggled", "objecttype", "objecttype", "receptacleatlocation")
_GOALS: dict[tuple[str, ...], tuple[_GoalKind, str | None]] = {
    _PLACE: ("place", None),
    **{tuple(sorted((*_PLACE, *predicates))): ("place", name) for name, predicates in _TREATMENTS.items()},
    tuple(sorted(_PLACE * 2)): ("two", None),
    tuple(sorted((*_LOOK, "toggleable"))): ("look", None),
}


@dataclass(frozen=True, slots=True)
class Receptacle:
    """A place that holds objects. `accepts` are the object kinds that may be put there."""

    name: str  # "cabinet 3"
    kind: str  # "cabinet": the PDDL type, which is "sinkbasin" for a bathtub's basin
    location: int
    openable: bool
    accepts: frozenset[str]
    treatment: str | None  # "clean", "heat" or "cool": what can be done to objects there


@dataclass(frozen=True, slots=True)
class Item:
    """An object. `inside` are the names of what a box or bowl held when the game was made; it never changes."""

    name: str  # "apple 2"
    kind: str  # "apple"
    pickupable: bool
    toggleable: bool
    sliceable: bool
    container: bool
    treatments: frozenset[str]  # of "clean", "heat" and "cool", those that it can have
    inside: tuple[str, ...]

    @property
    def cuts(self) -> bool:
        return self.kind in ("knife", "butterknife")


@dataclass(frozen=True, slots=True)
class GameGoal:
    """What wins.

    `place`: an `object` that had the `treatment` (if any) in a receptacle of kind `target`; `two`: two of them in the
    same one; `look`: hold an `object` where a lamp of kind `target` is switched on.
    """

    kind: _GoalKind
    object: str
    target: str
    treatment: str | None  # "clean", "heat" or "cool"


@dataclass(frozen=True, slots=True)
class Start:
    """The state at reset; the sets hold object positions, `opened` receptacle positions."""

    location: int
    contents: tuple[tuple[int, ...], ...]  # by receptacle: its objects in order
    opened: frozenset[int]
    treated: Mapping[str, frozenset[int]]  # "clean", "heat" and "cool" -> objects that had the treatment
    sliced: frozenset[int]
    toggled: frozenset[int]
    lying: frozenset[tuple[int, int]]  # (object, location), PDDL's objectAtLocation


@dataclass(frozen=True, slots=True, eq=False)
class Game:
    """Everything about a game that no episode changes."""

    instruction: str  # the sentence after "Your task is to: "
    text_version: TextVersion
    walkthrough: tuple[str, ...]  # commands that win; empty when the file has none
    receptacles: tuple[Receptacle, ...]  # sorted by id
    items: tuple[Item, ...]  # sorted by id
    locations: tuple[str, ...]  # names, "loc 14"
    at: Mapping[int, tuple[int, ...]]  # location -> receptacles there
    goal: GameGoal
    targets: tuple[int, ...]  # receptacles of the goal's target kind
    start: Start
    everywhere: Mapping[str, Action]  # commands that do not depend on the state but for where the agent stands

    @classmethod
    def load(cls, path: str | Path) -> Game:
        """Read a `game.tw-pddl` file. Raises DataError naming the path and what is wrong with it."""
        try:
            data = read_json(Path(path))
        except OSError as error:
            raise DataError(f"cannot read the game {path}: {error.strerror}") from error
        except DamagedFile as error:
            raise DataError(
                f"the game {path} is not valid JSON ({error.reason}); fetch or generate it again"
            ) from error
        try:
            return cls.parse(data)
        except DataError as error:
            raise DataError(f"the game {path} is corrupt or incomplete: {error}") from error

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Game:
        """Build a game from the JSON object of a game file. Raises DataError saying what is missing or unknown."""
        if not isinstance(data, Mapping):
            raise DataError(f"expected a JSON object, found {type(data).__name__}")
        for key in _KEYS:
            if not isinstance(data.get(key), str):
                raise DataError(f"no text under the key {key!r}")
        grammar, walkthrough = data["grammar"], data.get("walkthrough") or ()
        if isinstance(walkthrough, str) or not all(isinstance(command, str) for command in walkthrough):
            raise DataError("the walkthrough is not a list of commands")
        task = _TASK.search(grammar)
        if task is None:
            raise DataError("the grammar has no 'Your task is to: ' sentence")
        version = text_version(grammar)
        facts, goal = _problem(data["pddl_problem"])
        try:
            return _assemble(task[1], version, tuple(walkthrough), facts, goal, _appliances(data["pddl_domain"]))
        except KeyError as error:
            raise DataError(f"the PDDL problem lacks a type, place or numbered id for {error}") from error


def text_version(grammar: str) -> TextVersion:
    """Tell a game's text version by its grammar, or its file's text. Raises DataError if it is neither."""
    found = [version for sentence, version in _ARRIVE.items() if sentence in grammar]
    if len(found) != 1:
        raise DataError("the grammar's arrival sentence is neither text version 2.1.1's nor 2.1.2's")
    return found[0]


def _appliances(domain: str) -> dict[str, str]:
    """Receptacle kind -> the treatment that objects can have there."""
    # The package's own alfred.pddl has lost SinkType; the domain inside a published game still has it.
    sink = {"sink": "clean"} if _SINK.search(domain.lower()) else {}
    return {"sinkbasin": "clean", "microwave": "heat", "fridge": "cool"} | sink


def _problem(problem: str) -> tuple[_Facts, GameGoal]:
    text = _COMMENT.sub("", problem.lower())
    begin, end = text.find("(:init"), text.find("(:goal")
    if begin < 0 or end < begin:
        raise DataError("the PDDL problem has no (:init ...) followed by (:goal ...)")
    facts: _Facts = defaultdict(list)
    for name, arguments in _FACT.findall(text[begin + len("(:init") : end]):
        facts[name].append(tuple(arguments.split()))
    for name, tuples in facts.items():
        if name not in _READ and name not in _UNREAD:
            raise DataError(f"the PDDL problem states {name!r}, which the rules do not know")
        if name in _READ and any(len(arguments) != _READ[name] for arguments in tuples):
            raise DataError(f"a {name!r} fact of the PDDL problem does not have {_READ[name]} arguments")
    if len(facts["atlocation"]) != 1:
        raise DataError("the PDDL problem must place the agent once with 'atLocation'")
    return facts, _goal(text[end:])


def _goal(text: str) -> GameGoal:
    atoms = [(name, arguments.split()) for name, arguments in _FACT.findall(text)]
    names = tuple(sorted(name for name, _ in atoms))
    if names not in _GOALS:
        raise DataError(f"the PDDL goal is none of the six task types' (it mentions {', '.join(names) or 'nothing'})")
    kind, treatment = _GOALS[names]
    kinds = {arguments[0]: _kind(arguments[1]) for name, arguments in atoms if name == "objecttype"}
    if kind == "look":
        lamp = next(arguments[0] for name, arguments in atoms if name == "toggleable")
        target = kinds.pop(lamp)
    else:
        target = next(_kind(arguments[1]) for name, arguments in atoms if name == "receptacletype")
    if len(set(kinds.values())) != 1:
        raise DataError("the PDDL goal asks for two kinds of objects")
    return GameGoal(kind, next(iter(kinds.values())), target, treatment)


def _kind(pddl_type: str) -> str:
    return pddl_type.removesuffix("type")


def demangle(ids: Iterable[str]) -> dict[str, str]:
    """Name the ids with a position in them, "cabinet_bar__plus_..." as "cabinet 3": numbered downwards as they sort."""
    bases = {i: i.split("_bar_", 1)[0] + ("basin" if "basin" in i else "") for i in sorted(ids) if "_bar_" in i}
    left = Counter(bases.values())
    names = {}
    for i, base in bases.items():
        names[i] = f"{base} {left[base]}"
        left[base] -= 1
    return names


def _assemble(
    instruction: str,
    version: TextVersion,
    walkthrough: tuple[str, ...],
    facts: _Facts,
    goal: GameGoal,
    appliances: Mapping[str, str],
) -> Game:
    names = demangle({argument for tuples in facts.values() for arguments in tuples for argument in arguments})
    marked = {name: {arguments[0] for arguments in facts[name]} for name, arity in _READ.items() if arity == 1}
    located = {arguments[0]: arguments[1] for arguments in facts["receptacleatlocation"]}
    rtypes, otypes = ({i: _kind(t) for i, t in facts[name]} for name in ("receptacletype", "objecttype"))

    start = facts["atlocation"][0][1]
    location_ids = sorted({start, *located.values(), *(place for _, place in facts["objectatlocation"])})
    location = {i: k for k, i in enumerate(location_ids)}
    receptacle = {i: k for k, i in enumerate(sorted(located))}
    item = {i: k for k, i in enumerate(sorted(otypes))}

    accepts: defaultdict[str, set[str]] = defaultdict(set)
    for rtype, otype in facts["cancontain"]:
        accepts[_kind(rtype)].add(_kind(otype))
    accepted = {kind: frozenset(kinds) for kind, kinds in accepts.items()}
    inside: defaultdict[str, list[str]] = defaultdict(list)
    for inner, outer in sorted(facts["inreceptacleobject"]):
        inside[outer].append(names[inner])
    contents: list[set[int]] = [set() for _ in receptacle]
    for i, place in facts["inreceptacle"]:
        contents[receptacle[place]].add(item[i])

    receptacles = []
    at: defaultdict[int, list[int]] = defaultdict(list)
    for i, k in receptacle.items():
        kind, where = rtypes[i], location[located[i]]
        at[where].append(k)
        takes, openable = accepted.get(kind, frozenset()), i in marked["openable"]
        receptacles.append(Receptacle(names[i], kind, where, openable, takes, appliances.get(kind)))
    items = tuple(
        Item(
            names[i],
            otypes[i],
            pickupable=i in marked["pickupable"],
            toggleable=i in marked["toggleable"],
            sliceable=i in marked["sliceable"],
            container=i in marked["isreceptacleobject"],
            treatments=frozenset(name for name, (able, _) in _TREATMENTS.items() if i in marked[able]),
            inside=tuple(inside[i]),
        )
        for i in item
    )

    def positions(flag: str) -> frozenset[int]:
        return frozenset(item[i] for i in marked[flag] if i in item)

    everywhere: dict[str, Action] = {f"go to {r.name}": ("go", -1, k) for k, r in enumerate(receptacles)}
    everywhere |= {"look": ("look", -1, -1), "inventory": ("inventory", -1, -1)}
    if version == "2.1.2":
        everywhere["help"] = ("help", -1, -1)
    return Game(
        instruction=instruction,
        text_version=version,
        walkthrough=walkthrough,
        receptacles=tuple(receptacles),
        items=items,
        locations=tuple(names[i] for i in location_ids),
        at={place: tuple(there) for place, there in at.items()},
        goal=goal,
        targets=tuple(k for k, r in enumerate(receptacles) if r.kind == goal.target),
        start=Start(
            location=location[start],
            contents=tuple(tuple(sorted(there)) for there in contents),
            opened=frozenset(receptacle[i] for i in marked["opened"]),
            treated={name: positions(done) for name, (_, done) in _TREATMENTS.items()},
            sliced=positions("issliced"),
            toggled=positions("istoggled"),
            lying=frozenset((item[i], location[place]) for i, place in facts["objectatlocation"]),
        ),
        everywhere=dict(sorted(everywhere.items())),
    )
