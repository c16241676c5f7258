"""Goals of generated shops for the warm start; a skill's topic is the words of a wish. Ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from skill1.envs.base import Observation
from skill1.envs.webshop.catalogue import read_products
from skill1.envs.webshop.engine import Shop
from skill1.envs.webshop.environment import WebshopEnvironment
from skill1.envs.webshop.generate import SMALL, make_products
from skill1.envs.webshop.goods import STOCK
from skill1.envs.webshop.store import build_catalogue
from skill1.nano.demonstrator import Demonstrator
from skill1.nano.prompts import Fact
from skill1.nano.webshop.expert import ShopExpert
from skill1.nano.webshop.prompts import CompactShopPrompts
from skill1.nano.webshop.reading import brand
from skill1.records import Task

_LENGTHS = (2, 2, 3)  # syllables of a brand


class ShopDemonstrator(Demonstrator):
    """Episodes in generated shops, for the warm start."""

    prompts = CompactShopPrompts()

    def _games(self, seed: int, world: int, count: int) -> Iterator[tuple[WebshopEnvironment, Task, str]]:
        """Goals about different products."""
        environment = WebshopEnvironment(_make_shop(seed), self._config.max_steps, "text_rich", held_out=1)
        owners = environment.shop.goals.products
        firsts: dict[int, Task] = {}
        for task in environment.tasks("train"):
            firsts.setdefault(int(owners[environment.number(task.game)]), task)
        for task in islice(firsts.values(), count):
            yield environment, task, brand(environment.goal(task).name)

    def player(self, start: Observation, told: Fact | None, *, by_principle: bool = False) -> ShopExpert:
        return ShopExpert(start, told.found if told else None)

    def _foreign(self, start: Observation, known: Fact, found: str | None = None) -> Fact | None:
        """About another wish, half of the time one that shares a word with it."""
        others = [other for other in self._pool if other.topic != known.topic]
        akin = [other for other in others if set(other.about.split()) & set(known.about.split())]
        if not others:
            return None
        other = self._rng.choice(akin if akin and self._rng.random() < 0.5 else others)
        return replace(other, found=found or other.found)

    _elsewhere = _foreign

    def _invented(self, start: Observation) -> str:
        return brand("".join(self._rng.choices(STOCK.syllables, k=self._rng.choice(_LENGTHS))))

    def _candidates(self, start: Observation, known: Fact) -> list[Fact]:
        count = self._rng.randint(2, self._config.candidates)
        candidates = [known] if self._rng.random() < self._config.rerank_relevant else []
        while len(candidates) < count:
            foreign = self._foreign(start, known)
            if foreign is None:
                return []
            candidates.append(foreign)
        return candidates


def _make_shop(seed: int) -> Shop:
    made = list(make_products(seed, SMALL))
    attributes = {product.record["asin"]: product.attributes for product in made}
    return Shop(build_catalogue(read_products((p.record for p in made), attributes, {}, f"shop {seed}")), seed=seed)
