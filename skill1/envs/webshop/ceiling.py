"""The success ceiling of a catalogue: how many of its goals can be met at all.

Report it beside every WebShop result. On the original small catalogue it is 93.4 % of the synthetic goals: the reward
takes some option values for another than they are (see `reward`), and none of the other 458 goals is met by any other
product of that catalogue either.
"""

from __future__ import annotations

from collections.abc import Iterable

from skill1.envs.spec import Ceiling
from skill1.envs.webshop.catalogue import Product
from skill1.envs.webshop.engine import Shop
from skill1.envs.webshop.goals import Goal
from skill1.envs.webshop.reward import alike, option_text


def ceiling(shop: Shop, goals: Iterable[int] | None = None) -> Ceiling:
    """Count of all goals, or those with the numbers given, where buying the goal's own product can earn 1.0.

    With the goal's own options, or, where those are taken for something else (see `reward`), any others.
    """
    numbers = range(len(shop.goals)) if goals is None else list(goals)
    return Ceiling(len(numbers), sum(best_purchase(shop, shop.goals[number]) is not None for number in numbers))


def best_purchase(shop: Shop, goal: Goal) -> dict[str, str] | None:
    """Find options with which the goal's own product earns 1.0; None if there are none."""
    product = shop.products[goal.product]
    chosen = _cover([option_text(option) for option in goal.options], product, {})
    return chosen if chosen is not None and shop.rate(goal.product, chosen, goal).score == 1.0 else None


def _cover(wanted: list[str], product: Product, chosen: dict[str, str]) -> dict[str, str] | None:
    """`chosen` completed so that every wanted option is met by some value, one value a name."""
    values = [option_text(value) for value in chosen.values()]
    unmet = [option for option in wanted if not any(alike(value, option) for value in values)]
    if not unmet:
        return chosen
    for name, choices in product.options.items():
        if name in chosen:
            continue
        for value in choices:
            if not alike(option_text(value), unmet[0]):
                continue
            if (found := _cover(unmet[1:], product, {**chosen, name: value})) is not None:
                return found
    return None
