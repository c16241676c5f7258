"""What generated catalogues are made of (`goods.json`): kinds of product, and the phrases of their texts.

All words are our own. No option value has a colour word inside another word, so that the reward recognises every value
(see `reward`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Goods:
    """A kind of product. Attributes are by their place in a sentence: "<adjective> thing with <feature> for <use>"."""

    query: str  # what its products are collected by and named in instructions
    category: str
    breadcrumb: tuple[str, ...]  # "Electronics", "Headphones", ...
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    features: tuple[str, ...]
    uses: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    prices: tuple[float, float]  # dollars, lowest and highest

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.adjectives + self.features + self.uses


@dataclass(frozen=True, slots=True)
class Stock:
    """Kinds of product and phrases. A phrase names in braces what is filled in."""

    syllables: tuple[str, ...]  # of brands
    praise: tuple[str, ...]
    audiences: tuple[str, ...]
    promises: tuple[str, ...]  # bullets about an attribute
    asides: tuple[str, ...]  # other bullets
    requests: tuple[str, ...]  # human-style instructions
    goods: tuple[Goods, ...]


STOCK = TypeAdapter(Stock).validate_json(Path(__file__).with_name("goods.json").read_bytes())
