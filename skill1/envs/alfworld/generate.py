"""ALFWorld games drawn from the installed alfworld package's facts, in the published games' file format.

A world is a set of homes (see `homes`) in which every object type has a habitual place. Train and valid_seen games
play in the same homes with the same target types; valid_unseen games play in homes on held-out floor plans.

Differs from the paper in: the paper plays ALFWorld's published games; these are smaller, and their homes have habits.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skill1.envs.alfworld.data import DATA_FOLDER, GAME_FILE, TRAJECTORY_FILE
from skill1.envs.alfworld.homes import (
    APPLIANCES,
    LOOK,
    MAX_INSTANCES,
    PICK_TWO,
    TASK_TYPES,
    Home,
    HomeReceptacle,
    WorldParameters,
    choose,
    coordinate,
    draw_homes,
    facts,
    pddl_name,
    player_names,
)
from skill1.envs.generation import GenerationReport, Generator, data_card, generate_once, write_text

SPLITS = ("train", "valid_seen", "valid_unseen")
FORMAT = 2  # raise when the same parameters give other games
_CARD = Path(__file__).with_name("datacard.md.jinja")
_START_CELL = 99  # in steps of 0.25 m: outside the grid that receptacles stand on


@dataclass(frozen=True, slots=True)
class GeneratedGame:
    """One game in memory, as the two files of the published format hold it."""

    split: str
    id: str  # "<split>/<task>/<trial>"
    game_dict: dict[str, Any]  # content of game.tw-pddl
    traj_dict: dict[str, Any]  # content of traj_data.json
    home: int  # floor plan number
    target_type: str  # "Mug"
    habitual: str  # the target type's habitual receptacle in this home at that time, e.g. "drawer 3"


@dataclass(frozen=True, slots=True)
class _Item:
    """An object instance and where it lies at the start."""

    kind: str
    id: str
    place: HomeReceptacle


def make_games(seed: int, **sizes: Any) -> Iterator[GeneratedGame]:
    """Draw a world's games in memory, split by split; `sizes` are the other fields of `WorldParameters`.

    Game i of a split is the same whatever number of games the split has. Raises ValueError before the first game.
    """
    parameters = WorldParameters(seed=seed, **sizes)
    return _games(parameters, draw_homes(parameters))


def _games(parameters: WorldParameters, homes: Sequence[Home]) -> Iterator[GeneratedGame]:
    everything = {
        unseen: {(home.plan, kind) for home in homes if home.unseen == unseen for kind in home.targets}
        for unseen in (False, True)
    }
    revisited = {(home.plan, kind) for home, _, kind in _schedule(parameters, "train", homes, everything[False])}
    allowed = {"train": everything[False], "valid_seen": revisited, "valid_unseen": everything[True]}
    for split in SPLITS:
        for index, (home, task, kind) in enumerate(_schedule(parameters, split, homes, allowed[split])):
            yield _game(parameters, split, index, home, task, kind)


def _schedule(
    parameters: WorldParameters, split: str, homes: Sequence[Home], allowed: set[tuple[int, str]]
) -> Iterator[tuple[Home, str, str]]:
    """(home, task type, target type) of a split's games: task types in turn, then the least used pair."""
    rng = random.Random(f"skill1 alfworld schedule {parameters.seed} {split}")
    choices = {
        task: [(home, kind) for home in homes for kind in home.tasks.get(task, ()) if (home.plan, kind) in allowed]
        for task in TASK_TYPES
    }
    tasks = [task for task in TASK_TYPES if choices[task]]
    visits: Counter[int] = Counter()
    uses: Counter[tuple[int, str]] = Counter()
    for index in range(getattr(parameters, split)):
        task = tasks[index % len(tasks)]
        home, kind = min(choices[task], key=lambda c: (uses[c[0].plan, c[1]], visits[c[0].plan], rng.random()))
        visits[home.plan] += 1
        uses[home.plan, kind] += 1
        yield home, task, kind


def _game(parameters: WorldParameters, split: str, index: int, home: Home, task: str, kind: str) -> GeneratedGame:
    known = facts()
    rng = random.Random(f"skill1 alfworld game {parameters.seed} {split} {index}")
    habit = home.habits[kind]
    if split == "train" and index < parameters.train // 2:
        habit = home.former.get(kind, habit)
    goals = [goal for goal in home.tasks[task][kind] if goal != habit.kind]
    goal = rng.choice(goals) if goals else ""
    items = _place(rng, parameters, home, habit, task, kind, goal)
    trial = f"trial_G{parameters.seed:06d}_{split}_{index:05d}"
    toggle = home.lamps[0] if task == LOOK else ""
    traj = {
        "task_id": trial,
        "task_type": task,
        "pddl_params": {
            "mrecep_target": "",
            "object_sliced": False,
            "object_target": kind,
            "parent_target": goal,
            "toggle_target": toggle,
        },
        "scene": {"floor_plan": f"FloorPlan{home.plan}", "scene_num": home.plan},
        "turk_annotations": {"anns": []},
    }
    words = {"obj": kind, "recep": goal, "toggle": toggle, "mrecep": ""}
    sentence = rng.choice(known.goals[task]["templates"]).format(**{k: word.lower() for k, word in words.items()})
    sentence += f" in the {home.name} house"
    goal_text = known.goals[task]["pddl"].format(**words).replace(" # ", " - ")
    start = f"loc|{_START_CELL}|{rng.randint(-14, 14)}|0|30"
    game = {
        "pddl_domain": known.domain,
        "grammar": known.grammar.replace("UNKNOWN GOAL", sentence),
        "pddl_problem": _problem(home, items, start, f"plan_{trial}", goal_text),
        "solvable": True,
        "walkthrough": _walkthrough(home, task, kind, goal, items),
    }
    folder = f"{task}-{kind}-None-{goal or toggle}-{home.plan}"
    return GeneratedGame(split, f"{split}/{folder}/{trial}", game, traj, home.plan, kind, habit.name)


def _place(
    rng: random.Random,
    parameters: WorldParameters,
    home: Home,
    habit: HomeReceptacle,
    task: str,
    target: str,
    goal: str,
) -> list[_Item]:
    """Targets first, then the lamp, spares, distractors. No target starts in a receptacle of the goal's type."""
    kinds = [target] * _wanted(task) + [*home.lamps] + [target] * parameters.spares
    spares = range(len(kinds) - parameters.spares, len(kinds))
    pool = [kind for kind in home.kinds if kind != target for _ in range(MAX_INSTANCES)]
    kinds += rng.sample(pool, parameters.objects - len(kinds))
    items: list[_Item] = []
    taken: set[str] = set()
    for number, kind in enumerate(kinds):
        places = [r for r in home.places(kind) if not (kind == target and r.kind == goal)]
        if number in spares:
            place = choose(rng, places, parameters.tidy, closed=False)
        elif rng.random() < parameters.habit:
            place = habit if kind == target else home.habits[kind]
        else:
            place = rng.choice(places)
        identifier = _object_id(rng, kind)
        while identifier in taken:
            identifier = _object_id(rng, kind)
        taken.add(identifier)
        items.append(_Item(kind, identifier, place))
    return items


def _wanted(task: str) -> int:
    """How many instances of its target a task asks for."""
    return 2 if task == PICK_TWO else 1


def _object_id(rng: random.Random, kind: str) -> str:
    x, y, z = rng.uniform(-3.5, 3.5), rng.uniform(0.0, 2.0), rng.uniform(-3.5, 3.5)
    return "|".join((kind, coordinate(x), coordinate(y), coordinate(z)))


def _problem(home: Home, items: Sequence[_Item], start: str, name: str, goal: str) -> str:
    """The PDDL problem. A type is declared as rtype or as otype, never both (a duplicate for the translator)."""
    known = facts()
    object_kinds = sorted([*home.kinds, *home.lamps])
    receptacle_kinds = sorted({r.kind for r in home.receptacles})
    ids = {item.id: pddl_name(item.id) for item in items}
    rids = {r.name: pddl_name(r.id) for r in home.receptacles}
    places = {r.name: pddl_name(r.location) for r in home.receptacles}
    declarations = [
        "agent1 - agent",
        *(f"{kind}Type - otype" for kind in object_kinds),
        *(f"{kind}Type - rtype" for kind in receptacle_kinds),
        *(f"{identifier} - object" for identifier in ids.values()),
        *(f"{identifier} - receptacle" for identifier in rids.values()),
        *(f"{location} - location" for location in [*places.values(), pddl_name(start)]),
    ]
    init = [f"(atLocation agent1 {pddl_name(start)})"]
    for r in home.receptacles:
        init.append(f"(receptacleType {rids[r.name]} {r.kind}Type)")
        init.append(f"(receptacleAtLocation {rids[r.name]} {places[r.name]})")
        if r.openable:
            init.append(f"(openable {rids[r.name]})")
    for kind in receptacle_kinds:
        init += (f"(canContain {kind}Type {o}Type)" for o in object_kinds if o in known.holds[kind])
    for item in items:
        identifier = ids[item.id]
        init.append(f"(objectType {identifier} {item.kind}Type)")
        init.append(f"(inReceptacle {identifier} {rids[item.place.name]})")
        init.append(f"(objectAtLocation {identifier} {places[item.place.name]})")
        if item.kind not in home.lamps:
            init.append(f"(pickupable {identifier})")
        if item.kind in known.containers:
            init.append(f"(isReceptacleObject {identifier})")
        init += (f"({able.lower()} {identifier})" for able, kinds in known.actions.items() if item.kind in kinds)
    indent = "\n        "
    return (
        f"\n(define (problem {name})\n(:domain alfred)\n(:objects{indent}{indent.join(declarations)}{indent})\n"
        f"    (:init{indent}{indent.join(init)}{indent})\n{goal}"
    )


def _walkthrough(home: Home, task: str, target: str, goal: str, items: Sequence[_Item]) -> list[str]:
    """The shortest play that wins, with full knowledge, in the engine's commands."""
    names = player_names(item.id for item in items)
    found = {kind: [(names[i.id], i.place) for i in items if i.kind == kind] for kind in (target, *home.lamps)}
    commands: list[str] = []
    opened: set[str] = set()

    def go(place: HomeReceptacle) -> None:
        gone = [command for command in commands if command.startswith("go to ")]
        if gone[-1:] != [f"go to {place.name}"]:
            commands.append(f"go to {place.name}")

    def reach_into(place: HomeReceptacle) -> None:
        go(place)
        if place.openable and place.name not in opened:
            commands.append(f"open {place.name}")
            opened.add(place.name)

    def first(kind: str) -> HomeReceptacle:
        return next(r for r in home.receptacles if r.kind == kind)

    treatment, appliance, _ = APPLIANCES.get(task, ("", "", ""))
    for name, place in found[target][: _wanted(task)]:
        reach_into(place)
        commands.append(f"take {name} from {place.name}")
        if task == LOOK:
            lamp, stand = found[home.lamps[0]][0]
            go(stand)
            commands.append(f"use {lamp}")
            break
        if treatment:
            go(first(appliance))  # an appliance works closed
            commands.append(f"{treatment} {name} with {first(appliance).name}")
        reach_into(first(goal))
        commands.append(f"move {name} to {first(goal).name}")
    return commands


def generate(out: Path, **parameters: Any) -> GenerationReport:
    """Write a world's games below `out`; keywords are the fields of `WorldParameters`.

    Writes `json_2.1.1/<split>/<task>/<trial>/{game.tw-pddl,traj_data.json}`, `homes.jsonl` (habits, for analysis
    only), `DATACARD.md` and `generation.json`. Returns at once if `out` already holds exactly this generation.

    Raises ValueError for sizes that make no sense, FileExistsError if `out` holds anything else.
    """
    wanted = WorldParameters(**parameters)
    for split in SPLITS:
        if getattr(wanted, split) < 1:
            raise ValueError(f"{split}=0: games on disk need every split; ask for at least 1")
    version = facts().version

    def make() -> tuple[dict[str, Any], str]:
        homes = draw_homes(wanted)
        counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for game in _games(wanted, homes):
            counts[game.split][game.traj_dict["task_type"]] += 1
            folder = out / DATA_FOLDER / game.id
            folder.mkdir(parents=True)
            write_text(folder / GAME_FILE, json.dumps(game.game_dict))
            write_text(folder / TRAJECTORY_FILE, json.dumps(game.traj_dict, indent=1) + "\n")
        write_text(out / "homes.jsonl", "".join(json.dumps(_home_line(home)) + "\n" for home in homes))
        rooms = ", ".join(f"{count} {room}" for room, count in sorted(Counter(home.room for home in homes).items()))
        card = data_card(_CARD, rooms=rooms, parameters=asdict(wanted), version=version)
        return {split: dict(sorted(found.items())) for split, found in counts.items()}, card

    def lacks() -> str:
        present = len(list((out / DATA_FOLDER).glob(f"*/*/*/{GAME_FILE}")))
        expected = sum(getattr(wanted, split) for split in SPLITS)
        return "" if present == expected else f"holds {present} of {expected} games"

    return generate_once(out, wanted, {"format": FORMAT, "alfworld": version}, "task_types", make, lacks)


GENERATOR = Generator(
    "Household games in the format of ALFWorld's, with homes that have habits.", WorldParameters, generate
)


def _home_line(home: Home) -> dict[str, Any]:
    return {
        "home": home.plan,
        "name": home.name,
        "room": home.room,
        "unseen": home.unseen,
        "receptacles": [r.name for r in home.receptacles],
        "targets": list(home.targets),
        "habits": {kind: place.name for kind, place in home.habits.items()},
        "former": {kind: place.name for kind, place in home.former.items()},
    }
