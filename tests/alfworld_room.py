"""A kitchen small enough to check by hand, as the JSON object of a game file, and how to put games on disk.

Fridge 1 (closed; apple 2) | microwave 1 (closed; empty) | counter top 1 and sink basin 1 share a place; the counter
holds apple 1, desk lamp 1 and knife 1. Task: put a hot apple in the fridge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ARRIVE = {"2.1.1": "You arrive at {lend.name}.", "2.1.2": "You arrive at {r.name}."}
PUT = {"2.1.1": "put {} in/on {}", "2.1.2": "move {} to {}"}
INIT = """
    (receptacleType Fridge_bar_1 FridgeType) (receptacleAtLocation Fridge_bar_1 loc_bar_1) (openable Fridge_bar_1)
    (receptacleType Sink_bar_1_bar_SinkBasin SinkBasinType) (receptacleAtLocation Sink_bar_1_bar_SinkBasin loc_bar_2)
    (receptacleType CounterTop_bar_1 CounterTopType) (receptacleAtLocation CounterTop_bar_1 loc_bar_2)
    (receptacleType Microwave_bar_1 MicrowaveType) (receptacleAtLocation Microwave_bar_1 loc_bar_3)
    (openable Microwave_bar_1)
    (objectType Apple_bar_1 AppleType) (objectType Apple_bar_2 AppleType)
    (objectType Knife_bar_1 KnifeType) (objectType DeskLamp_bar_1 DeskLampType)
    (inReceptacle Apple_bar_1 Fridge_bar_1) (objectAtLocation Apple_bar_1 loc_bar_1) (isCool Apple_bar_1)
    (inReceptacle Apple_bar_2 CounterTop_bar_1) (objectAtLocation Apple_bar_2 loc_bar_2)
    (inReceptacle Knife_bar_1 CounterTop_bar_1) (objectAtLocation Knife_bar_1 loc_bar_2)
    (inReceptacle DeskLamp_bar_1 CounterTop_bar_1) (objectAtLocation DeskLamp_bar_1 loc_bar_2)
    (pickupable Apple_bar_1) (cleanable Apple_bar_1) (heatable Apple_bar_1) (coolable Apple_bar_1)
    (sliceable Apple_bar_1)
    (pickupable Apple_bar_2) (cleanable Apple_bar_2) (heatable Apple_bar_2) (coolable Apple_bar_2)
    (sliceable Apple_bar_2)
    (pickupable Knife_bar_1) (cleanable Knife_bar_1) (toggleable DeskLamp_bar_1)
    (canContain FridgeType AppleType) (canContain MicrowaveType AppleType) (canContain CounterTopType AppleType)
    (canContain SinkBasinType AppleType) (canContain CounterTopType KnifeType)
    (atLocation agent1 loc_bar_9)
"""
HEAT_GOAL = """(and (exists (?r - receptacle) (exists (?o - object) (and (heatable ?o) (objectType ?o AppleType)
    (receptacleType ?r FridgeType) (isHot ?o) (inReceptacle ?o ?r)))))"""
TWO_GOAL = """(and (exists (?r - receptacle) (exists (?o1 - object) (and (objectType ?o1 AppleType)
    (receptacleType ?r FridgeType) (inReceptacle ?o1 ?r) (exists (?o2 - object) (and (not (= ?o1 ?o2))
    (objectType ?o2 AppleType) (receptacleType ?r FridgeType) (inReceptacle ?o2 ?r)))))))"""
LOOK_GOAL = """(and (exists (?ot - object ?r - receptacle ?a - agent ?l - location) (and (objectType ?ot DeskLampType)
    (toggleable ?ot) (isToggled ?ot) (receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?ot ?r)))
    (exists (?o - object ?a - agent) (and (objectType ?o AppleType) (holds ?a ?o))))"""


def room(
    version: str = "2.1.2", goal: str = HEAT_GOAL, init: str = INIT, task: str = "put a hot apple in fridge."
) -> dict[str, Any]:
    """The game file's object in one of the two text versions."""
    put = PUT[version].format("apple 1", "fridge 1")
    return {
        "pddl_domain": "(define (domain alfred)\n (receptacleType ?r SinkType)\n (receptacleType ?r SinkBasinType))",
        "grammar": f'{{"task": [{{"rhs": "Your task is to: {task}"}}],\n "go": [{{"rhs": "{ARRIVE[version]}"}}]}}',
        "pddl_problem": f"(define (problem p) (:domain alfred) (:objects) (:init {init})\n(:goal {goal}))",
        "solvable": True,
        "walkthrough": [
            "go to countertop 1", "take apple 1 from countertop 1", "go to microwave 1",
            "heat apple 1 with microwave 1", "go to fridge 1", "open fridge 1", put,
        ],
    }  # fmt: skip


def write_game(root: Path, game: str, data: dict[str, Any] | None = None) -> Path:
    """Write a game file and its trajectory file under `root`/json_2.1.1/`game`."""
    folder = root / "json_2.1.1" / game
    folder.mkdir(parents=True)
    (folder / "traj_data.json").write_text(json.dumps({"task_type": game.split("/")[1].split("-")[0]}))
    (folder / "game.tw-pddl").write_text(json.dumps(data or room()))
    return folder / "game.tw-pddl"
