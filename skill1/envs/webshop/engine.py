"""The shop: a catalogue with prices, goals and a search engine, and what an action does.

One shop serves any number of episodes; an episode is a goal and a `State`, an action gives a new state. An action is
the first match of `(.+)\\[(.+)\\]` from its start, the name exactly `search` or `click`; anything else, and a click on
what is not there, changes nothing.

Differs from the original in: its special searches (`<r>`, `<c> …`, `<q> …`, `<a> …`) are plain text here; after the
purchase nothing changes any more; prices and bounds are drawn with a seed.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import lru_cache

from skill1.envs.webshop.catalogue import Product
from skill1.envs.webshop.goals import Goal, Goals, Kind, draw_prices
from skill1.envs.webshop.nouns import content_words
from skill1.envs.webshop.pages import BACK, BUY, NEXT, PREVIOUS, SEARCH, SUB_PAGES, Mode, State, clickables, render
from skill1.envs.webshop.reward import Nouns, Outcome, score
from skill1.envs.webshop.store import Catalogue

HITS = 50
_ACTION = re.compile(r"(.+)\[(.+)\]")
_CACHED_QUERIES = 1 << 12
_BACK, _BUY, _NEXT, _PREVIOUS, _SEARCH = (name.lower() for name in (BACK, BUY, NEXT, PREVIOUS, SEARCH))
_SUB_PAGES = frozenset(name.lower() for name in SUB_PAGES)


class Shop:
    """Catalogue, prices and goals. Equal catalogues and seeds give equal shops."""

    def __init__(
        self, catalogue: Catalogue, goals: Kind = "synthetic", seed: int = 0, nouns: Nouns = content_words
    ) -> None:
        """`seed` draws prices within ranges and price bounds.

        Raises DataError if the catalogue has no goal of the kind.
        """
        rng = random.Random(seed)
        self.products = catalogue.products
        self.categories = catalogue.categories
        self.prices = draw_prices(catalogue.ranges, rng)  # (N,) what each product costs
        self.goals = Goals(catalogue.products, catalogue.sources[goals], goals, self.prices, rng)
        self._nouns = nouns
        self._find = lru_cache(_CACHED_QUERIES)(
            lambda query: tuple(document for document, _ in catalogue.index.search(query, HITS))
        )

    def search(self, query: str) -> tuple[int, ...]:
        """Return the positions of the best 50 products, best first."""
        return self._find(query)

    def clickables(self, state: State) -> tuple[str, ...]:
        """List what `click[…]` works on."""
        return clickables(state, self.products)

    def observe(self, state: State, goal: Goal, mode: Mode = "text") -> str:
        """Write the page as text."""
        return render(state, goal.text, self.products, mode)

    def step(self, state: State, goal: Goal, action: str) -> State:
        """Return the state after an action; the same state if the action does nothing."""
        if state.page == "done" or (found := parsed(action)) is None:
            return state
        name, argument = found
        if name == "search":
            return replace(_at_results(state, 1), query=argument, hits=self.search(argument))
        if name == "click" and argument != _SEARCH and argument in self.clickables(state):
            return self._click(state, goal, argument)
        return state

    def rate(self, product: int, options: dict[str, str], goal: Goal) -> Outcome:
        """Rate what buying a product with these options would earn."""
        return score(self.products[product], float(self.prices[product]), options, goal, self._nouns)

    def _click(self, state: State, goal: Goal, name: str) -> State:
        if name == _BUY:
            return replace(state, page="done", outcome=self.rate(state.product, dict(state.options), goal))
        if name == _BACK:
            return State()
        match state.page:
            case "results":
                if name in (_NEXT, _PREVIOUS):
                    return _at_results(state, state.number + (1 if name == _NEXT else -1))
                product = next(p for p in state.shown if self.products[p].asin.lower() == name)
                return replace(state, page="item", product=product, seen=state.seen | {product})
            case "sub":
                return replace(state, page="item", sub="")
        if name == _PREVIOUS:
            return _at_results(state, state.number)
        if name in _SUB_PAGES:
            return replace(state, page="sub", sub=name)
        return replace(state, options=_chosen(self.products[state.product], state.options, name))


def parsed(action: str) -> tuple[str, str] | None:
    """Read an action as its name and its argument, lower-cased; None if it is none."""
    match = _ACTION.match(action)
    return match and (match[1], match[2].lower())


def _at_results(state: State, number: int) -> State:
    return replace(state, page="results", number=number, product=-1, options=(), sub="")


def _chosen(product: Product, options: tuple[tuple[str, str], ...], value: str) -> tuple[tuple[str, str], ...]:
    """A value that stands under two names is set for the last."""
    name = [name for name, values in product.options.items() if value in values][-1]
    return tuple({**dict(options), name: value}.items())
