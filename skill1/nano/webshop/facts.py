"""What can be known of a shop: what the probe shows, and what the scripted teacher of a skill bank counts. Ours.

A skill says which brand was right for a wish (`webshop.prompts`). The probe's arms:

    none         no skill
    relevant     this wish, and the brand of the goal's own product
    irrelevant   another wish of the training goals, and the brand of its product, which is another one too
    stale        this wish, and the brand of that other product
    conflicting  the relevant and the stale skill, in any order
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from skill1.envs.base import DataError
from skill1.envs.webshop.environment import WebshopEnvironment
from skill1.methods.skillrl.evolution import Episode
from skill1.nano.prompts import Fact
from skill1.nano.webshop.prompts import CompactShopPrompts, fact_of
from skill1.nano.webshop.reading import brand, read_page, spoken
from skill1.nano.world import Draw
from skill1.records import Rollout, Task

_PROMPTS = CompactShopPrompts()


def taught(environment: WebshopEnvironment, tasks: Sequence[Task]) -> list[Fact]:
    """List what an episode of each task would teach if it bought the right product."""
    goals = [environment.goal(task) for task in tasks]
    return [fact_of(goal.text, brand(goal.name)) for goal in goals]


def right(environment: WebshopEnvironment, tasks: Sequence[Task]) -> list[str | None]:
    """Write the strategy that buying the right product of each task would teach."""
    return [_PROMPTS.write_skill(fact) for fact in taught(environment, tasks)]


def draw_arms(
    environment: WebshopEnvironment, train: Sequence[Task], tasks: Sequence[Task], passes: int, rng: random.Random
) -> tuple[list[Task], list[Draw]]:
    """Return all tasks, and draw what their episodes are shown, pass by pass.

    Raises DataError if for some task no training goal is about another wish and brand.
    """
    distinct, drawn = list(dict.fromkeys(taught(environment, train))), []
    for task, fact in zip([*tasks] * passes, taught(environment, tasks) * passes, strict=True):
        others = [other for other in distinct if other.topic != fact.topic and other.found != fact.found]
        if not others:
            raise DataError(f"no training goal wishes another product than {task.game}: probe a larger shop")
        other = rng.choice(others)
        stale = replace(fact, found=other.found)
        both = rng.sample([fact, stale], 2)
        drawn.append({"none": None, "relevant": [fact], "irrelevant": [other], "stale": [stale], "conflicting": both})
    return list(tasks), drawn


def followed(fact: Fact, rollout: Rollout) -> bool:
    """Tell whether the episode's first search was for the fact's brand."""
    searches = (turn.value for turn in rollout.turns_of("act") if turn.value.startswith("search["))
    return next(searches, None) == f"search[{spoken(fact.found)}]"


def principles(episodes: Sequence[Episode]) -> Counter[str]:
    """Count "<wish> : <brand>" over the won episodes, whose last product page is that of what was bought."""
    bought: Counter[str] = Counter()
    for episode in episodes:
        pages = [read_page(observation, episode.task) for observation, _ in episode.steps] if episode.won else []
        items = [page.items[0] for page in pages if page.kind == "item"]
        if items:
            bought[_PROMPTS.write_principle(fact_of(episode.task, items[-1].brand))] += 1
    return bought
