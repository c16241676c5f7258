"""What the probe (`probe`) shows a policy in WebShop, and when it has followed it. Ours.

A skill there says which brand was right for a wish (`prompts.compact_shop`). The arms:

    none         no skill
    relevant     this wish, and the brand of the goal's own product
    irrelevant   another wish of the training goals, and the brand of its product, which is another one too

A policy has followed a skill if its first search is for the skill's brand. Without a skill the relevant one counts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from skill1.envs.base import DataError
from skill1.envs.webshop.environment import WebshopEnvironment
from skill1.nano.prompts.shop_reading import brand, read_wish, spoken
from skill1.nano.webshop import BrandFact
from skill1.records import Rollout, Task

ARMS = ("none", "relevant", "irrelevant")


@dataclass(frozen=True, slots=True)
class ShopFact(BrandFact):
    """A skill that may be shown, and whether an episode followed it."""

    def followed(self, rollout: Rollout) -> bool:
        return first_search(rollout) == spoken(self.brand)


def learn_facts(environment: WebshopEnvironment, tasks: Sequence[Task]) -> list[ShopFact]:
    """What an episode of each task would teach if it bought the right product."""
    goals = [environment.goal(task) for task in tasks]
    return [ShopFact(read_wish(goal.text).terms, brand(goal.name)) for goal in goals]


def draw_facts(
    environment: WebshopEnvironment, tasks: Sequence[Task], known: Sequence[ShopFact], rng: random.Random
) -> list[dict[str, ShopFact | None]]:
    """Per task, what each of `ARMS` shows.

    Args:
        known: facts of training goals, of which irrelevant ones are drawn.

    Raises:
        DataError: for some task, none of `known` is about another wish and brand.
    """
    drawn = []
    distinct = list(dict.fromkeys(known))
    for task, fact in zip(tasks, learn_facts(environment, tasks), strict=True):
        others = [other for other in distinct if other.wish != fact.wish and other.brand != fact.brand]
        if not others:
            raise DataError(f"no training goal wishes another product than {task.game}: probe a larger shop")
        drawn.append({"none": None, "relevant": fact, "irrelevant": rng.choice(others)})
    return drawn


def first_search(rollout: Rollout) -> str | None:
    """The words of the episode's first search."""
    searches = (turn.value for turn in rollout.turns_of("act") if turn.value.startswith("search["))
    return next((value.removeprefix("search[").removesuffix("]") for value in searches), None)
