"""What can be known of a home: what the probe shows, and what the scripted teacher of a skill bank counts. Ours.

In every game of a split that has a train game of the same home and object, the relevant skill is what an episode of
such a train game would teach (the place where its walkthrough takes the object). The probe's arms:

    none           no skill
    relevant       the skill of this home and this object
    irrelevant     a skill of another home and another object
    other_object   this home, another object
    other_home     this object, another home
    stale          this home and this object, and another place than the relevant skill's
    conflicting    the relevant and the stale skill, in any order
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from skill1.envs.alfworld.engine import NOTHING
from skill1.envs.alfworld.environment import AlfworldEnvironment
from skill1.envs.base import DataError
from skill1.methods.skillrl.evolution import Episode
from skill1.nano.alfworld.expert import APPLIANCE
from skill1.nano.alfworld.prompts import CompactPrompts, principle
from skill1.nano.alfworld.reading import compact, home, read_request, room, type_of
from skill1.nano.prompts import Fact
from skill1.nano.world import Draw
from skill1.records import Rollout, Task

_PROMPTS = CompactPrompts()


def taught(environment: AlfworldEnvironment, tasks: Sequence[Task]) -> list[Fact]:
    """List the facts that the walkthroughs of `tasks` teach. Games whose walkthrough takes no target are left out."""
    return [fact for fact in _facts(environment, tasks) if fact is not None]


def right(environment: AlfworldEnvironment, tasks: Sequence[Task]) -> list[str | None]:
    """Write the strategy that each task's walkthrough teaches; None where it takes no target."""
    return [_PROMPTS.write_skill(fact) if fact else None for fact in _facts(environment, tasks)]


def _facts(environment: AlfworldEnvironment, tasks: Sequence[Task]) -> list[Fact | None]:
    found: list[Fact | None] = []
    for task, start in zip(tasks, environment.reset(tasks), strict=True):
        target = read_request(start.instruction).target
        walk = (compact(command).split() for command in environment.games.game(task.game).walkthrough)
        place = next((words[2] for words in walk if words[0] == "take" and type_of(words[1]) == target), None)
        found.append(_PROMPTS.fact(start, place) if place else None)
    return found


def draw_arms(
    environment: AlfworldEnvironment, train: Sequence[Task], tasks: Sequence[Task], passes: int, rng: random.Random
) -> tuple[list[Task], list[Draw]]:
    """Choose the tasks that can be probed, and draw what their episodes are shown, pass by pass.

    Raises DataError if no task has a train game of the same home and object, or one has none of another home and object.
    """
    known: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in taught(environment, train):
        known[fact.topic].append(fact)
    topics = [_PROMPTS.fact(start, "").topic for start in environment.reset(tasks)]
    probed = [(task, topic) for task, topic in zip(tasks, topics, strict=True) if topic in known]
    if not probed:
        raise DataError(
            f"no game of {tasks[0].split} has a train game with the same object and receptacle list: probe a split "
            "whose homes are in train (valid_seen)"
        )
    rooms = {home(start): room(start) for start in environment.reset([task for task, _ in probed])}
    drawn = [_draw(known, topic, rooms[topic[1]], rng) for _ in range(passes) for _, topic in probed]
    if any(draw["irrelevant"] is None for draw in drawn):
        raise DataError("no train game has both another home and another object: probe a larger world")
    return [task for task, _ in probed], drawn


def _draw(
    known: dict[tuple[str, str], list[Fact]], topic: tuple[str, str], places: Sequence[str], rng: random.Random
) -> Draw:
    target, this = topic

    def pick(wanted: Callable[[str, str], bool]) -> list[Fact] | None:
        topics = sorted(other for other in known if wanted(*other))
        return [rng.choice(known[rng.choice(topics)])] if topics else None

    relevant = rng.choice(known[topic])
    stale = replace(relevant, found=rng.choice([place for place in places if place != relevant.found]))
    return {
        "none": None,
        "relevant": [relevant],
        "irrelevant": pick(lambda about, at: about != target and at != this),
        "other_object": pick(lambda about, at: about != target and at == this),
        "other_home": pick(lambda about, at: about == target and at != this),
        "stale": [stale],
        "conflicting": rng.sample([relevant, stale], 2),
    }


def followed(fact: Fact, rollout: Rollout) -> bool:
    """Tell whether the first place that the episode went to is the fact's."""
    moves = (compact(turn.value).split() for turn in rollout.turns_of("act") if turn.value.startswith("go to "))
    return next((words[1] for words in moves if len(words) > 1), None) == fact.found


def principles(episodes: Sequence[Episode]) -> Counter[str]:
    """Count "<object type> in <the type of place it was seen at most often>".

    An object is not counted at the goal, or where it is treated: it was brought there.
    """
    seen: Counter[tuple[str, str]] = Counter()
    for episode in episodes:
        goal = read_request(episode.task)
        for observation, _ in episode.steps:
            kinds = [type_of(word) for word in compact(observation).split() if word[-1].isdecimal()]
            brought = kinds[:1] in ([goal.place], [APPLIANCE.get(goal.kind)])
            if goal.target in kinds[1:] and not brought:  # the place comes first
                seen[goal.target, kinds[0]] += 1
    best = {target: max((n, place) for (t, place), n in seen.items() if t == target) for target, _ in seen}
    return Counter({principle(target, place): n for target, (n, place) in best.items()})


def mistakes(episodes: Sequence[Episode]) -> Counter[str]:
    """Count the commands after which nothing happened."""
    return Counter(
        compact(action)
        for episode in episodes
        for (_, action), (after, _) in zip(episode.steps, episode.steps[1:], strict=False)
        if after.startswith(NOTHING)
    )
