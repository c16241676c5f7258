"""Goals: what an episode asks for, in the original's order for given seeds.

Synthetic goals: one for every combination of the options of a product with an instruction; the real small catalogue has
6,910. Human goals: one for every crowd worker's instruction. Goals are kept as numbers (product, combination, bound)
and made when asked for: the full catalogue has millions.

Differs from the original in: prices within a range and price bounds are drawn with a seed of ours (`seed`), there with
whatever state the global generator has. The order is the original's.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skill1.envs.base import DataError
from skill1.envs.webshop.catalogue import Product, Products

Kind = Literal["synthetic", "human"]
KINDS: tuple[Kind, ...] = ("synthetic", "human")
_ORDER_SEED = 233  # the original's
NO_BOUND = 1_000_000.0
_BOUNDS = [10.0 * step for step in range(1, 100)]
_NEAREST = 4  # bounds above the price that one is chosen from


@dataclass(frozen=True, slots=True)
class Goal:
    """One episode's task. `options` are (name, value) pairs in synthetic goals, plain values in human ones."""

    text: str
    product: int  # position in the catalogue
    asin: str
    category: str
    query: str
    name: str
    breadcrumb: str
    attributes: tuple[str, ...]
    options: tuple[str | tuple[str, str], ...]
    price_upper: float


@dataclass(frozen=True, slots=True)
class GoalSources:
    """The instructions of a catalogue, without their texts: arrays (I,), in file order."""

    products: np.ndarray  # int64 position in the catalogue
    numbers: np.ndarray  # int64 which of its product's instructions
    combinations: np.ndarray  # int64 goals that come of it


class SourceCollector:
    """Collects a catalogue's goal sources product by product."""

    def __init__(self) -> None:
        self._rows: dict[Kind, list[tuple[int, int, int]]] = {kind: [] for kind in KINDS}

    def add(self, position: int, product: Product) -> None:
        """Add the product at `position`."""
        if product.instruction is not None:
            self._rows["synthetic"].append((position, 0, math.prod(map(len, product.options.values()))))
        self._rows["human"] += ((position, n, 1) for n, human in enumerate(product.human) if human.attributes)

    def finish(self) -> dict[Kind, GoalSources]:
        return {
            kind: GoalSources(*np.array(rows, np.int64).reshape(-1, 3).T.copy()) for kind, rows in self._rows.items()
        }


class Goals:
    """All goals of one kind, shuffled. Equal catalogues and seeds give equal goals."""

    def __init__(
        self, products: Products, sources: GoalSources, kind: Kind, prices: np.ndarray, rng: random.Random
    ) -> None:
        """`prices` (N,) is what each product costs; `rng` draws the bounds, in file order.

        Raises DataError if there is no goal of the kind.
        """
        if not sources.combinations.sum():
            raise DataError(f"the catalogue has no {kind} goal: {_ADVICE[kind]}")
        self.kind = kind
        self._products = products
        self._sources = sources
        self._bounds = np.array([_bound(float(prices[product]), rng) for product in sources.products])
        order_of_goals = list(range(int(sources.combinations.sum())))
        random.Random(_ORDER_SEED).shuffle(order_of_goals)
        self._order = np.array(order_of_goals)
        self._starts = np.concatenate(([0], np.cumsum(sources.combinations)))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Goal:
        """Goal number `index` of the shuffled list. Raises IndexError out of range."""
        if not 0 <= index < len(self):
            raise IndexError(f"goal {index} is out of range: there are {len(self)} {self.kind} goals")
        number = int(self._order[index])
        source = bisect.bisect_right(self._starts, number) - 1
        product = self._products[int(self._sources.products[source])]
        bound = float(self._bounds[source])
        price = "" if bound == NO_BOUND else f", and price lower than {bound:.2f} dollars"
        if self.kind == "human":
            human = product.human[int(self._sources.numbers[source])]
            text, attributes = human.text.strip("."), human.attributes
            options: tuple[str | tuple[str, str], ...] = human.options
        else:
            options = pairs = _combination(product, number - int(self._starts[source]))
            chosen = ", and ".join(f"{name}: {value}" for name, value in pairs)
            text = f"{product.instruction}{f' with {chosen}' if chosen else ''}"
            attributes = product.instruction_attributes
        return Goal(
            text=text + price,
            product=int(self._sources.products[source]),
            asin=product.asin,
            category=product.category,
            query=product.query,
            name=product.name,
            breadcrumb=product.breadcrumb,
            attributes=attributes,
            options=options,
            price_upper=bound,
        )

    def __iter__(self) -> Iterator[Goal]:
        return (self[index] for index in range(len(self)))

    @property
    def products(self) -> np.ndarray:
        """Return each goal's product as its position in the catalogue, (G,) int64, goals in order."""
        return self._sources.products[np.searchsorted(self._starts, self._order, side="right") - 1]

    def sha256(self) -> str:
        """Hash the JSON list of all goals' texts in order: two shops with the same hash pose the same goals."""
        return hashlib.sha256(json.dumps([goal.text for goal in self]).encode()).hexdigest()


def draw_prices(ranges: np.ndarray, rng: random.Random) -> np.ndarray:
    """Draw (N,) what each product costs: its price, or within its range. `ranges` (N, 2) has NaN for "no range"."""
    prices = ranges[:, 0].copy()
    for product in np.flatnonzero(~np.isnan(ranges[:, 1])):
        prices[product] = rng.uniform(*ranges[product].tolist())
    return prices


def split_goals(goals: Goals, held_out: int, by: Literal["goal", "product"]) -> np.ndarray:
    """Choose the goals of the test split, (G,) bool.

    `by="goal"`: goals 0 .. held_out - 1, as verl-agent has it (with 500); most of their products are also trained on.
    `by="product"`: whole products, drawn until their goals number `held_out` or more.

    Raises DataError if nothing would be left to train on.
    """
    if by == "goal":
        test = np.arange(len(goals)) < held_out
    else:
        owners = goals.products
        products, counts = np.unique(owners, return_counts=True)
        drawn = list(range(len(products)))
        random.Random(_ORDER_SEED).shuffle(drawn)
        needed = 1 + int(np.searchsorted(np.cumsum(counts[drawn]), held_out))
        test = np.isin(owners, products[drawn[:needed]])
    if test.all():
        raise DataError(
            f"a test split of {held_out} goals (by {by}) leaves none of the {len(goals)} {goals.kind} goals for "
            "training; ask for fewer or generate more products"
        )
    return test


_ADVICE = {
    "synthetic": "no product of the attribute file has an instruction",
    "human": "items_human_ins.json is missing or has no instruction for these products",
}


def _bound(price: float, rng: random.Random) -> float:
    nearest = [bound for bound in _BOUNDS if bound > price][:_NEAREST]
    return max(rng.sample(nearest, 2)) if len(nearest) >= 2 else NO_BOUND


def _combination(product: Product, number: int) -> tuple[tuple[str, str], ...]:
    """Combination `number` of the product's options, names sorted, the last name's values changing fastest."""
    names = sorted(product.options)
    chosen = []
    for name in reversed(names):
        number, at = divmod(number, len(product.options[name]))
        chosen.append((name, product.options[name][at]))
    return tuple(reversed(chosen))
