"""Homes: which receptacles a generated floor plan has and where each object type usually lies in it.

A *home* is one floor plan number with a receptacle list and habits that are fixed for a given seed. Types, counts and
compatibility are facts of the installed alfworld package (ALFRED's constants and AI2-THOR layouts); the draw is ours.

Differs from the paper in: ALFWorld's published games place objects at random within a floor plan; here every object
type has one habitual receptacle per home, so that remembering a home pays, and a home has a name that its tasks say.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

from skill1.envs.alfworld.data import CATEGORIES
from skill1.envs.alfworld.game import demangle
from skill1.envs.generation import check_integers
from skill1.errors import MissingPackage

TASK_TYPES = tuple(CATEGORIES)
LOOK, PICK_TWO = "look_at_obj_in_light", "pick_two_obj_and_place"
# task type -> (command, appliance type, package's name of the objects it works on)
APPLIANCES = {
    "pick_clean_then_place_in_recep": ("clean", "SinkBasin", "Cleanable"),
    "pick_heat_then_place_in_recep": ("heat", "Microwave", "Heatable"),
    "pick_cool_then_place_in_recep": ("cool", "Fridge", "Coolable"),
}
# Half kitchens: two of six task types (heat, cool) exist nowhere else.
ROOM_CYCLE = ("Kitchen", "Bedroom", "Kitchen", "LivingRoom", "Kitchen", "Bathroom")
REQUIRED = {"Kitchen": ("Fridge", "Microwave", "SinkBasin"), "Bathroom": ("SinkBasin",)}
LAMP_HOSTS = frozenset({"Desk", "SideTable", "Dresser", "CoffeeTable", "DiningTable", "Shelf"})
MIN_RECEPTACLES = 5
_MIN_OBJECTS = 3  # two targets and a lamp
MAX_INSTANCES = 3  # of one distractor type in a game, as in ALFRED's scene initialisation
_MIN_CONTENTS = 3  # receptacle types that hold fewer object types (towel holder, toaster, ...) are left out
_CANDIDATES = 20  # receptacle sets drawn per home; the one least like earlier homes of the room is kept
_TARGET_DRAWS = 200
_BASINS = {"Sink": "SinkBasin", "Bathtub": "BathtubBasin"}  # layouts name the furniture, games the basin
# A home's name: words that occur nowhere else in a game, and which a sentence encoder tells apart.
NAMES = tuple(
    "acacia agate alder amber apricot aspen aurora badger bamboo basalt beacon beaver birch bison bramble breeze brook "
    "canary canyon caravan cedar cherry chestnut cinder citrine cliff clover cobalt comet condor copper coral cosmos "
    "cougar crane crater creek crimson crystal cypress dahlia daisy delta desert dolphin dragon dune eagle ebony echo "
    "ember emerald falcon fern finch fjord flint forest fox galaxy garnet geyser ginger glacier granite grove hamlet "
    "harbor hawk hazel heather heron hickory holly horizon indigo iris iron island ivory jade jaguar jasmine juniper "
    "kestrel lagoon lantern larch lark laurel lavender lemon leopard lilac lily linden lotus lynx magnolia mango maple "
    "marble marigold marlin meadow mercury meteor mint mist monsoon moon moose moss myrtle nebula nectar oasis ocean "
    "olive onyx opal orbit orchid osprey otter owl palm panther pearl pebble penguin pepper phoenix pine planet plum "
    "poplar poppy prairie puma quail quartz rabbit rainbow raven reef ridge river robin rocket rosemary ruby saffron "
    "sage salmon sapphire savanna scarlet sequoia shadow sierra silver sparrow spruce star stone storm summit sunset "
    "swan sycamore tavern thistle thunder tiger topaz tulip tundra turquoise valley velvet violet volcano walnut "
    "waterfall whale willow winter wolf yarrow zephyr".split()
)
_GRID = range(-14, 15)  # agent positions in steps of 0.25 m, as ALFWorld's location ids count them


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldParameters:
    """What a world is drawn from; equal parameters give equal bytes. Raises ValueError on sizes that make no sense."""

    seed: Annotated[int, "of the world"] = 0
    train: Annotated[int, "games of the split"] = 768
    valid_seen: Annotated[int, "games of the split, in homes of train"] = 96
    valid_unseen: Annotated[int, "games of the split, in homes of its own"] = 72
    homes: Annotated[int, "floor plans of train and valid_seen"] = 16
    unseen_homes: Annotated[int, "floor plans of valid_unseen"] = 6
    receptacles: Annotated[int, "per home, varied by up to a fifth"] = 16
    objects: Annotated[int, "instances per game, targets and lamp included"] = 14
    habit: Annotated[float, "probability that an instance lies in its type's habitual place"] = 0.9
    targets_per_home: Annotated[int, "object types that a home's tasks are about"] = 6
    spares: Annotated[int, "more instances of a game's target, each in a random place"] = 0
    tidy: Annotated[float, "probability that a habitual place is a closed one, and a spare's an open one"] = 0.0
    moved: Annotated[float, "share of a home's targets with another habit in the first half of train"] = 0.0

    def __post_init__(self) -> None:
        games = {"train": 1, "valid_seen": 0, "valid_unseen": 0}
        homes = {"homes": 1, "unseen_homes": 1 if self.valid_unseen else 0, "receptacles": MIN_RECEPTACLES}
        check_integers(self, {"seed": 0, **games, **homes, "spares": 0, "targets_per_home": 1})
        check_integers(self, {"objects": _MIN_OBJECTS + self.spares})
        for name in ("habit", "tidy", "moved"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be a probability between 0 and 1")


@dataclass(frozen=True, slots=True)
class Room:
    """What the layouts say of a room type: counts are over its floor plans."""

    most: Mapping[str, int]  # receptacle type -> largest number in one floor plan
    mean: Mapping[str, float]  # receptacle type -> mean number per floor plan
    objects: tuple[str, ...]  # movable object types seen in the room, sorted
    lamps: tuple[str, ...]  # toggleable object types seen in the room, sorted
    tasks: tuple[str, ...]  # task types ALFRED sets in this room, in TASK_TYPES order


@dataclass(frozen=True, slots=True)
class Facts:
    """The installed alfworld package's knowledge."""

    version: str
    domain: str
    grammar: str
    goals: Mapping[str, Mapping]  # task type -> {"pddl", "templates"}
    holds: Mapping[str, frozenset[str]]  # receptacle type -> object types it can hold
    actions: Mapping[str, frozenset[str]]  # "Heatable" -> object types, ...
    openable: frozenset[str]
    containers: frozenset[str]  # object types that are themselves receptacles (bowl, mug, ...)
    things: frozenset[str]  # every type a published game can name, receptacles included
    rooms: Mapping[str, Room]
    seen_plans: Mapping[str, tuple[int, ...]]  # room -> ALFRED's training floor plans
    unseen_plans: Mapping[str, tuple[int, ...]]  # room -> ALFRED's held-out floor plans


@dataclass(frozen=True, slots=True)
class HomeReceptacle:
    """A place of a home that holds things."""

    kind: str  # "Drawer"
    id: str  # "Drawer|+01.25|+00.50|-02.00"
    name: str  # "drawer 3", as the player reads it
    location: str  # "loc|5|-8|1|30"; no two receptacles of a home share one
    openable: bool


@dataclass(frozen=True, slots=True)
class Home:
    """A floor plan as it is in every game of one (seed, floor plan)."""

    plan: int
    name: str  # as its tasks say it: "amber", of which no other home of the world is called
    room: str
    unseen: bool
    receptacles: tuple[HomeReceptacle, ...]
    kinds: tuple[str, ...]  # movable object types that may occur
    lamps: tuple[str, ...]  # the lamp's type; () where no Look task can be set
    habits: Mapping[str, HomeReceptacle]  # object type (lamps included) -> its habitual receptacle
    former: Mapping[str, HomeReceptacle]  # target type that moves -> its receptacle in the first half of train
    targets: tuple[str, ...]  # object types its tasks are about
    tasks: Mapping[str, Mapping[str, tuple[str, ...]]]  # task type -> target type -> goal receptacle types, () for Look

    def places(self, kind: str) -> tuple[HomeReceptacle, ...]:
        """Return the receptacles of the home that can hold an object type."""
        return _places(self.receptacles, kind)


@lru_cache(maxsize=1)
def facts() -> Facts:
    """Read the installed alfworld package once. Raises MissingPackage if it is absent."""
    try:
        constants, library = import_module("alfworld.gen.constants"), import_module("alfworld.gen.goal_library")
        info = import_module("alfworld.info")
    except ImportError as error:
        raise MissingPackage(
            f"generated ALFWorld games and the nano policy's words need the alfworld package's layouts ({error}): "
            "`pip install --no-deps alfworld==0.4.2`, or skill1's extra 'reference' to have TextWorld too"
        ) from error
    static = frozenset(constants.STATIC_RECEPTACLES)
    holds = {
        kind: frozenset(o for o in contents if not o.endswith("Sliced"))
        for kind, contents in constants.VAL_RECEPTACLE_OBJECTS.items()
        if kind in static
    }
    holds = {kind: contents for kind, contents in sorted(holds.items()) if len(contents) >= _MIN_CONTENTS}
    lamps = frozenset(constants.VAL_ACTION_OBJECTS["Toggleable"])
    layouts = files("alfworld.gen") / "layouts"
    rooms = {
        name: _room(layouts, plans, holds, lamps, tuple(t for t in TASK_TYPES if name in constants.GOALS_VALID[t]))
        for name, plans in constants.SCENE_TYPE.items()
    }

    def by_room(numbers: Iterable[int]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(n for n in sorted(numbers) if n in plans) for name, plans in constants.SCENE_TYPE.items()}

    return Facts(
        version=metadata.version("alfworld"),
        domain=Path(info.ALFRED_PDDL_PATH).read_text(encoding="utf-8"),
        grammar=Path(info.ALFRED_TWL2_PATH).read_text(encoding="utf-8"),
        goals={t: library.gdict[t] for t in TASK_TYPES},
        holds=holds,
        actions={name: frozenset(kinds) for name, kinds in constants.VAL_ACTION_OBJECTS.items()},
        openable=frozenset(constants.OPENABLE_CLASS_LIST),
        containers=frozenset(constants.MOVABLE_RECEPTACLES),
        things=frozenset(constants.OBJECTS_SET),
        rooms=rooms,
        seen_plans=by_room(constants.TRAIN_SCENE_NUMBERS),
        unseen_plans=by_room(constants.TEST_SCENE_NUMBERS),
    )


def _room(
    layouts: Traversable,
    plans: Sequence[int],
    holds: Mapping[str, frozenset[str]],
    lamps: frozenset[str],
    tasks: tuple[str, ...],
) -> Room:
    most: Counter[str] = Counter()
    total: Counter[str] = Counter()
    seen: set[str] = set()
    for plan in plans:
        poses = json.loads((layouts / f"FloorPlan{plan}-openable.json").read_text(encoding="utf-8"))
        types = set(json.loads((layouts / f"FloorPlan{plan}-objects.json").read_text(encoding="utf-8")))
        counts = Counter(_BASINS.get(kind, kind) for kind in (pose.split("|")[0] for pose in poses))
        for kind in types - set(counts):
            counts[kind] = 1  # listed without a pose: stove burner, garbage can, safe, ...
        for kind in counts:
            if kind in holds:
                most[kind] = max(most[kind], counts[kind])
                total[kind] += counts[kind]
        seen |= types
    return Room(
        most=dict(sorted(most.items())),
        mean={kind: total[kind] / len(plans) for kind in sorted(total)},
        objects=tuple(sorted(t for t in seen if any(t in holds[kind] for kind in most))),
        lamps=tuple(sorted(seen & lamps)) if LOOK in tasks else (),
        tasks=tasks,
    )


def player_names(ids: Iterable[str]) -> dict[str, str]:
    """Name objects or receptacles as the player reads them, "cabinet 3"; numbers count down over the sorted ids."""
    pddl = {i: pddl_name(i).lower() for i in ids}
    names = demangle(pddl.values())
    return {i: names[pddl[i]] for i in pddl}


_MANGLING = str.maketrans({"|": "_bar_", "-": "_minus_", "+": "_plus_", ".": "_dot_", ",": "_comma_"})


def pddl_name(identifier: str) -> str:
    """Write an AI2-THOR id as a PDDL name."""
    return identifier.translate(_MANGLING)


def coordinate(metres: float) -> str:
    """Write a coordinate as AI2-THOR ids do, e.g. -01.25."""
    return f"{'-' if metres < 0 else '+'}{abs(metres):05.2f}"


def _places(receptacles: Iterable[HomeReceptacle], kind: str) -> tuple[HomeReceptacle, ...]:
    holds, lamps = facts().holds, facts().actions["Toggleable"]
    # the package says nowhere what a lamp stands on
    return tuple(r for r in receptacles if (r.kind in LAMP_HOSTS if kind in lamps else kind in holds[r.kind]))


def draw_homes(parameters: WorldParameters) -> tuple[Home, ...]:
    """Draw the homes of a world, those of train and valid_seen first.

    Raises ValueError when the package has too few floor plans or the sizes cannot be met.
    """
    known = facts()
    drawn: list[Home] = []
    number = parameters.homes + parameters.unseen_homes
    names = iter(random.Random(f"skill1 alfworld names {parameters.seed}").sample(NAMES, number))
    for unseen, count in ((False, parameters.homes), (True, parameters.unseen_homes)):
        plans = known.unseen_plans if unseen else known.seen_plans
        for room, plan in _choose_plans(parameters.seed, count, plans, unseen):
            earlier = [_signature(h.receptacles) for h in drawn if h.room == room]
            drawn.append(_draw_home(parameters, plan, next(names), room, unseen, earlier))
    return tuple(drawn)


def _choose_plans(seed: int, count: int, plans: Mapping[str, tuple[int, ...]], unseen: bool) -> list[tuple[str, int]]:
    available = sum(map(len, plans.values()))
    if count > available:
        name = "unseen_homes" if unseen else "homes"
        raise ValueError(f"{name}={count}: the alfworld package has {available} floor plans for it; ask for fewer")
    rng = random.Random(f"skill1 alfworld plans {seed} {unseen}")
    left = {room: rng.sample(numbers, len(numbers)) for room, numbers in plans.items()}
    chosen: list[tuple[str, int]] = []
    turn = 0
    while len(chosen) < count:
        room = ROOM_CYCLE[turn % len(ROOM_CYCLE)]
        turn += 1
        if left[room]:  # a room type that ran out of floor plans is passed over
            chosen.append((room, left[room].pop()))
    return chosen


def _signature(receptacles: Iterable[HomeReceptacle]) -> Counter[str]:
    return Counter(r.kind for r in receptacles)


def _difference(one: Mapping[str, int], other: Mapping[str, int]) -> int:
    return sum(abs(one.get(kind, 0) - other.get(kind, 0)) for kind in {*one, *other})


def _draw_home(
    parameters: WorldParameters, plan: int, name: str, room_name: str, unseen: bool, earlier: list[Counter[str]]
) -> Home:
    rng = random.Random(f"skill1 alfworld home {parameters.seed} {plan}")
    size, objects, targets_per_home = parameters.receptacles, parameters.objects, parameters.targets_per_home
    room = facts().rooms[room_name]
    candidates = [_draw_counts(rng, room, room_name, size) for _ in range(_CANDIDATES)]
    distances = [min((_difference(c, e) for e in earlier), default=0) for c in candidates]
    lamps = (rng.choice(room.lamps),) if room.lamps else ()
    for index in sorted(range(_CANDIDATES), key=lambda i: -distances[i]):  # least like the earlier homes first
        counts = candidates[index]
        receptacles = _lay_out(rng, counts)
        fitting = [kind for kind in room.objects if _places(receptacles, kind)]
        habits = {kind: choose(rng, _places(receptacles, kind), parameters.tidy) for kind in [*fitting, *lamps]}
        goals = {
            task: {kind: of for kind in fitting if (of := _goals(counts, task, kind, habits[kind])) is not None}
            for task in room.tasks
        }
        searchable = [k for k in fitting if len(_places(receptacles, k)) >= max(3, len(receptacles) // 3)]
        if targets := _draw_targets(rng, goals, searchable, targets_per_home):
            break
    else:
        raise ValueError(
            f"targets_per_home={targets_per_home} with receptacles={size}: no {room_name} drawn has that many object "
            "types worth searching for over all its task types; ask for more receptacles or other targets_per_home"
        )
    others = [kind for kind in fitting if kind not in targets]
    kinds = sorted([*targets, *rng.sample(others, min(len(others), max(0, objects - len(targets))))])
    most = MAX_INSTANCES * (len(kinds) - 1) + 1 + len(lamps)
    if objects > most:
        raise ValueError(f"objects={objects}: a {room_name} of {len(kinds)} object types takes {most}; ask for fewer")
    tasks = {task: {kind: of[kind] for kind in targets if kind in of} for task, of in goals.items()}
    return Home(
        plan=plan,
        name=name,
        room=room_name,
        unseen=unseen,
        receptacles=receptacles,
        kinds=tuple(kinds),
        lamps=lamps,
        habits={kind: habits[kind] for kind in [*kinds, *lamps]},
        former=_former(rng, parameters, receptacles, habits, targets, tasks),
        targets=tuple(targets),
        tasks=tasks,
    )


def choose(rng: random.Random, places: Sequence[HomeReceptacle], tidy: float, *, closed: bool = True) -> HomeReceptacle:
    """Draw one of some places; with probability `tidy` one that is closed (or open), where there are such."""
    fitting = [place for place in places if place.openable == closed]
    return rng.choice(fitting if fitting and tidy and rng.random() < tidy else places)


def _former(
    rng: random.Random,
    parameters: WorldParameters,
    receptacles: Sequence[HomeReceptacle],
    habits: Mapping[str, HomeReceptacle],
    targets: Sequence[str],
    tasks: Mapping[str, Mapping[str, tuple[str, ...]]],
) -> dict[str, HomeReceptacle]:
    """Where targets that move were before: nowhere that a task of theirs must bring them to."""
    former = {}
    for kind in targets:
        if parameters.moved and rng.random() < parameters.moved:
            goals = [set(of[kind]) for of in tasks.values() if of.get(kind)]
            places = [r for r in _places(receptacles, kind) if r != habits[kind] and all(g - {r.kind} for g in goals)]
            if places:
                former[kind] = choose(rng, places, parameters.tidy)
    return former


def _draw_counts(rng: random.Random, room: Room, room_name: str, size: int) -> Counter[str]:
    """Receptacles per type: what the tasks need, then draws with weights of this home's own around the room's mean."""
    number = size + rng.randint(-(size // 5), size // 5)
    required = REQUIRED.get(room_name) or (rng.choice([kind for kind in room.most if kind in LAMP_HOSTS]),)
    counts = Counter(required)
    limit = {kind: min(most, max(1, number // 2)) for kind, most in room.most.items()}
    if number > sum(limit.values()):
        raise ValueError(f"receptacles={size}: a {room_name} has room for {sum(limit.values())}; ask for fewer")
    weight = {kind: mean * rng.expovariate(1.0) for kind, mean in room.mean.items()}
    while counts.total() < number:
        free = [kind for kind in weight if counts[kind] < limit[kind]]
        counts[rng.choices(free, [weight[kind] for kind in free])[0]] += 1
    return counts


def _lay_out(rng: random.Random, counts: Mapping[str, int]) -> tuple[HomeReceptacle, ...]:
    kinds = sorted(Counter(counts).elements())
    cells = rng.sample([(x, z) for x in _GRID for z in _GRID], len(kinds))
    furniture = {basin: name for name, basin in _BASINS.items()}
    made = []
    for kind, (x, z) in zip(kinds, cells, strict=True):
        place = "|".join(coordinate(v) for v in (x / 4, rng.randint(0, 80) / 40, z / 4))
        identifier = f"{furniture[kind]}|{place}|{kind}" if kind in furniture else f"{kind}|{place}"
        made.append((kind, identifier, f"loc|{x}|{z}|{rng.randint(0, 3)}|{rng.choice((0, 30, 45, 60))}"))
    made.sort(key=lambda m: pddl_name(m[1]).lower())  # the order in which the game lists them
    names = player_names(identifier for _, identifier, _ in made)
    return tuple(HomeReceptacle(kind, i, names[i], location, kind in facts().openable) for kind, i, location in made)


def _goals(counts: Mapping[str, int], task: str, kind: str, habit: HomeReceptacle) -> tuple[str, ...] | None:
    """HomeReceptacle types the task can ask to bring the object type to; None where the task cannot be set."""
    if task == LOOK:
        return ()
    _, appliance, able = APPLIANCES.get(task, (None, None, None))
    if able is not None and kind not in facts().actions[able]:
        return None
    return tuple(r for r in sorted(counts) if kind in facts().holds[r] and r not in (appliance, habit.kind)) or None


def _draw_targets(
    rng: random.Random, goals: Mapping[str, Mapping[str, tuple[str, ...]]], searchable: list[str], number: int
) -> list[str]:
    """Target types such that every task type of the room has one, or two where there are four or more; [] if none."""
    usable = [kind for kind in searchable if any(kind in of_kind for of_kind in goals.values())]
    each = 2 if number >= 4 else 1
    for _ in range(_TARGET_DRAWS if number <= len(usable) else 0):
        targets = sorted(rng.sample(usable, number))
        if all(sum(kind in of_kind for kind in targets) >= each for of_kind in goals.values()):
            return targets
    return []
