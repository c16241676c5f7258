"""A catalogue of one's own in WebShop's file format, in which every goal can be met.

Products come in families of one to four look-alikes that share a noun and two attributes and differ in the others, in
options and price. Some attributes stand only in bullets or the description, about a tenth of the prices is missing or a
range, and fewer than half of the products have no options. Family i is the same whatever the size of the catalogue.

Differs from the paper in: the paper shops in WebShop's own catalogue, whose product texts are Amazon's.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, cycle, islice
from pathlib import Path
from typing import Annotated, Any

from skill1.envs.generation import GenerationReport, Generator, check_integers, data_card, generate_once, write_text
from skill1.envs.webshop.data import FILE_NAMES, HUMAN
from skill1.envs.webshop.goods import STOCK, Goods

FORMAT = 1  # raise when the same parameters give other catalogues
_CARD = Path(__file__).with_name("datacard.md.jinja")
ASKED = 0.5  # in the original's small set it is .42
SMALL = 1000  # products of the original's small set: catalogues of this size take its file names
_ASIN_DIGITS = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"
_ASINS = len(_ASIN_DIGITS) ** 8
_STRIDE = 1_103_515_245_679  # has no factor in common with the number of ids, so that no id comes twice


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueParameters:
    """What a catalogue is drawn from; equal parameters give equal bytes. Raises ValueError for impossible values."""

    seed: Annotated[int, "of the catalogue"] = 0
    products: Annotated[int, "of the catalogue"] = SMALL
    asked: Annotated[float, "share of the products that synthetic goals are about"] = ASKED

    def __post_init__(self) -> None:
        check_integers(self, {"seed": 0, "products": 1})
        if isinstance(self.asked, bool) or not isinstance(self.asked, int | float) or not 0 < self.asked <= 1:
            raise ValueError(f"asked={self.asked!r}: must be a share above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class GeneratedProduct:
    """One product as the three original files hold it."""

    record: dict[str, Any]  # an element of the product file's list
    attributes: dict[str, Any]  # its entry in the attribute file
    human: list[dict[str, Any]]  # its entry in the file of human instructions; [] has none


def make_products(seed: int, products: int, asked: float = ASKED) -> Iterator[GeneratedProduct]:
    """Draw the catalogue's products one by one."""
    ids = (_asin(seed, number) for number in count())
    families = (
        _family(random.Random(f"skill1 webshop family {seed} {number}"), goods, asked, ids)
        for number, goods in enumerate(cycle(STOCK.goods))
    )
    return islice(chain.from_iterable(families), products)


def generate(out: Path, **parameters: Any) -> GenerationReport:
    """Write a catalogue's files below `out`; keywords are the fields of `CatalogueParameters`.

    Writes the product, attribute and human instruction files, `DATACARD.md` and `generation.json`. Returns at once if
    `out` already holds exactly this catalogue.

    Raises ValueError for sizes that make no sense, FileExistsError if `out` holds anything else.
    """
    wanted = CatalogueParameters(**parameters)
    names = (*file_names(wanted), HUMAN)

    def make() -> tuple[dict[str, Any], str]:
        items, attributes, human = (list[str](), list[str](), list[str]())
        goals = {"synthetic": 0, "human": 0}
        for product in make_products(wanted.seed, wanted.products, wanted.asked):
            key = json.dumps(product.record["asin"])
            items.append(_json(product.record))
            attributes.append(f"{key}: {_json(product.attributes)}")
            human += [f"{key}: {_json(product.human)}"] if product.human else []
            goals["human"] += len(product.human)
            if "instruction" in product.attributes:
                options = product.record["customization_options"] or {}
                goals["synthetic"] += math.prod(len(values) for values in options.values() if values is not None)
        out.mkdir(parents=True, exist_ok=True)
        for name, members, marks in zip(names, (items, attributes, human), ("[]", "{}", "{}"), strict=True):
            write_text(out / name, f"{marks[0]}\n" + ",\n".join(members) + f"\n{marks[1]}\n")
        return goals, data_card(_CARD, parameters=wanted, goals=goals, kinds=len(STOCK.goods))

    def lacks() -> str:
        missing = [name for name in names if not (out / name).is_file()]
        return f"lacks {missing[0]}" if missing else ""

    return generate_once(out, wanted, {"format": FORMAT}, "goals", make, lacks)


GENERATOR = Generator("Products, goals and instructions in the format of WebShop's.", CatalogueParameters, generate)


def file_names(parameters: CatalogueParameters) -> tuple[str, str]:
    """Name the product and the attribute file: as those of the original's small set for 1,000 products."""
    return FILE_NAMES["small" if parameters.products == SMALL else "full"]


# ----------------------------------------------------------------------------------------------------------- products


def _family(rng: random.Random, goods: Goods, asked: float, ids: Iterator[str]) -> Iterator[GeneratedProduct]:
    """Draw look-alikes; each takes the next id."""
    noun = rng.choice(goods.nouns)
    shared = rng.sample(goods.attributes, 2)
    audience = rng.choice(STOCK.audiences)
    for _ in range(rng.choice((1, 2, 3, 4))):
        others = [attribute for attribute in goods.attributes if attribute not in shared]
        attributes = shared + rng.sample(others, min(len(others), rng.choice((0, 1, 1, 2, 2, 3))))
        rng.shuffle(attributes)
        yield _Draft(rng, goods, noun, attributes, audience, asked).finish(next(ids))


class _Draft:
    """One product being drawn. All draws are made here, in a fixed order; the id comes last."""

    def __init__(
        self, rng: random.Random, goods: Goods, noun: str, attributes: list[str], audience: str, asked: float
    ) -> None:
        self.goods, self.noun, self.attributes, self.audience = goods, noun, attributes, audience
        self.brand = "".join(rng.choices(STOCK.syllables, k=rng.choice((2, 2, 3)))).capitalize()
        self.options = _options(rng, goods) if rng.random() < 0.55 else {}
        in_title = [attribute for attribute in attributes if rng.random() < 0.45]
        hidden = [attribute for attribute in attributes if attribute not in in_title]
        self.title = self._title(rng, in_title)
        self.pricing = _pricing(rng, goods)
        self.bullets = [self._fill(rng, rng.choice(STOCK.promises), attribute) for attribute in hidden]
        self.bullets += [self._fill(rng, aside) for aside in rng.sample(STOCK.asides, rng.randint(1, 3))]
        rng.shuffle(self.bullets)
        self.description = self._description(rng, hidden) if rng.random() < 0.8 else ""
        self.empty_option = rng.random() < 0.08  # the original's files have option names without values
        self.asked = rng.sample(attributes, rng.randint(2, min(4, len(attributes)))) if rng.random() < asked else []
        self.human = self._human(rng) if rng.random() < 0.3 else None

    def finish(self, asin: str) -> GeneratedProduct:
        """Write the product under its id."""
        options: dict[str, Any] = {
            name.title(): [
                {"is_selected": place == 0, "is_available": True, "value": value.title(), "image": None}
                for place, value in enumerate(values)
            ]
            for name, values in self.options.items()
        }
        if self.options and self.empty_option:
            options["Edition"] = None
        record = {
            "name": self.title,
            "full_description": self.description,
            "pricing": self.pricing,
            "images": [f"{asin}.jpg"],
            "product_category": " › ".join((*self.goods.breadcrumb, self.noun.title())),
            "average_rating": "",
            "small_description": self.bullets,
            "model": "",
            "customization_options": options or "",
            "asin": asin,
            "category": self.goods.category,
            "query": self.goods.query,
            "page": 1,
        }
        attributes: dict[str, Any] = {"attributes": self.attributes}
        if self.asked:
            attributes |= {"instruction": instruction(self.goods, self.asked), "instruction_attributes": self.asked}
        human = [] if self.human is None else [{"asin": asin, **self.human}]
        return GeneratedProduct(record, attributes, human)

    def _title(self, rng: random.Random, in_title: list[str]) -> str:
        parts = [f"{self.brand} {rng.choice(STOCK.praise)} {self.noun}", *in_title]
        parts.append(f"{rng.choice(STOCK.praise)} {self.goods.query} {self.audience}")
        if not self.options:  # what others leave to choose is fixed
            parts.append(rng.choice(self.goods.options[rng.choice(sorted(self.goods.options))]))
        return ", ".join(part.title() for part in parts).replace("'S ", "'s ")

    def _description(self, rng: random.Random, hidden: list[str]) -> str:
        story = f"The {self.brand} {self.noun} was drawn up by a small workshop. "
        praise = f"It is {' and '.join(hidden)}. " if hidden and rng.random() < 0.5 else ""
        return f"{story}{praise}{rng.choice(STOCK.praise).capitalize()} {self.audience}."

    def _human(self, rng: random.Random) -> dict[str, Any]:
        wanted = rng.sample(self.attributes, rng.randint(1, 2))
        chosen = {name: rng.choice(values) for name, values in self.options.items() if rng.random() < 0.8}
        values = [value.replace("/", " | ") for value in chosen.values()]
        options = f" in {' and '.join(chosen.values())}" if chosen else ""
        text = rng.choice(STOCK.requests).format(noun=self.noun, attributes=" and ".join(wanted), options=options)
        return {
            "instruction": text,
            "attributes": self.attributes,
            "options": [f"{name}: {value}" for name, value in zip(chosen, values, strict=True)] or [""],
            "instruction_attributes": wanted,
            "instruction_options": values,
            "assignment_id": "generated",
            "worker_id": "generated",
        }

    def _fill(self, rng: random.Random, template: str, attribute: str = "") -> str:
        return template.format(
            noun=self.noun, brand=self.brand, audience=self.audience, Praise=rng.choice(STOCK.praise).capitalize(),
            attribute=attribute, Attribute=attribute.capitalize(), ATTRIBUTE=attribute.upper(),
        )  # fmt: skip


def instruction(goods: Goods, attributes: list[str]) -> str:
    """Write the sentence of a synthetic goal, before options and price.

    >>> instruction(STOCK.goods[0], ["long sleeve", "slim fit", "daily wear"])
    "Find me slim fit men's shirts with long sleeve for daily wear"
    """
    groups = (goods.adjectives, goods.features, goods.uses)
    before, features, uses = (", ".join(a for a in attributes if a in group) for group in groups)
    sentence = f"Find me {before} {goods.query}" if before else f"Find me {goods.query}"
    return sentence + (f" with {features}" if features else "") + (f" for {uses}" if uses else "")


def _options(rng: random.Random, goods: Goods) -> dict[str, list[str]]:
    most = len(goods.options)
    names = rng.sample(sorted(goods.options), max(rng.randint(1, most), rng.randint(1, most)))
    chosen = {}
    for name in names:
        values = goods.options[name]
        kept = rng.sample(values, rng.randint(2, min(len(values), 10)))
        chosen[name] = sorted(kept, key=values.index)
    return chosen


def _pricing(rng: random.Random, goods: Goods) -> str:
    price, kind, wider = rng.uniform(*goods.prices), rng.random(), rng.uniform(1.1, 1.5)
    if kind < 0.09:
        return ""
    return f"${price:.2f} - ${price * wider:.2f}" if kind < 0.18 else f"${price:.2f}"


def _asin(seed: int, number: int) -> str:
    """A ten-character id, different for every number of a catalogue, in no order."""
    code = (number * _STRIDE + random.Random(f"skill1 webshop ids {seed}").randrange(_ASINS)) % _ASINS
    digits = ""
    for _ in range(8):
        code, digit = divmod(code, len(_ASIN_DIGITS))
        digits += _ASIN_DIGITS[digit]
    return f"B0{digits}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
