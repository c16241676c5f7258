"""Full-knowledge walkthroughs of generated games: the shortest scripted play that wins, in the engine's commands."""

from __future__ import annotations

from collections.abc import Sequence

from skill1.envs.alfworld.homes import Receptacle


class _Plan:
    """Commands issued so far and what they changed of the room."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.at: Receptacle | None = None
        self.opened: set[str] = set()

    def go(self, receptacle: Receptacle) -> None:
        if self.at != receptacle:
            self.commands.append(f"go to {receptacle.name}")
            self.at = receptacle

    def go_and_open(self, receptacle: Receptacle) -> None:
        self.go(receptacle)
        if receptacle.openable and receptacle.name not in self.opened:
            self.commands.append(f"open {receptacle.name}")
            self.opened.add(receptacle.name)

    def take(self, name: str, receptacle: Receptacle) -> None:
        self.go_and_open(receptacle)
        self.commands.append(f"take {name} from {receptacle.name}")


def look_walkthrough(target: tuple[str, Receptacle], lamp: tuple[str, Receptacle]) -> list[str]:
    """Fetch the target and use the lamp; both are (name, where it is)."""
    plan = _Plan()
    plan.take(*target)
    plan.go(lamp[1])
    plan.commands.append(f"use {lamp[0]}")
    return plan.commands


def place_walkthrough(
    targets: Sequence[tuple[str, Receptacle]], goal: Receptacle, treatment: tuple[str, Receptacle] | None
) -> list[str]:
    """Bring every target (name, where it is) to `goal`, treated on the way: (command, appliance), e.g. ("heat", it)."""
    plan = _Plan()
    for name, place in targets:
        plan.take(name, place)
        if treatment is not None:
            command, appliance = treatment
            plan.go(appliance)  # an appliance works closed
            plan.commands.append(f"{command} {name} with {appliance.name}")
        plan.go_and_open(goal)
        plan.commands.append(f"move {name} to {goal.name}")
    return plan.commands
