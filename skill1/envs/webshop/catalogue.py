"""Products: one record of the original files made into what the shop needs, checked on the way.

Skipped as in the original: the id `nan`, ids of more than 10 characters, ids seen before. A record that the original
would fail on (a missing field, a price without an amount) is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

from skill1.envs.base import DataError

NO_ATTRIBUTES = ("DUMMY_ATTR",)  # the original's stand-in for a product without an entry in the attribute file
_LONGEST_ID = 10
_NO_PRICE = 100.0


@dataclass(frozen=True, slots=True)
class HumanInstruction:
    """What a crowd worker asked for; the price bound is added when goals are made."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """A product as pages, goals and rewards see it."""

    asin: str
    name: str
    category: str  # one of five, e.g. "fashion"
    query: str  # the search it was collected by, e.g. "men's t-shirts"
    breadcrumb: str  # "Home & Kitchen › Furniture › …"
    description: str
    bullets: tuple[str, ...]
    prices: tuple[float, ...]  # one, or the two ends of a range
    options: dict[str, tuple[str, ...]]  # name -> values, both lower-cased, in page order
    attributes: tuple[str, ...]
    instruction: str | None = None  # of the synthetic goals
    instruction_attributes: tuple[str, ...] = ()
    human: tuple[HumanInstruction, ...] = ()

    @property
    def price_tag(self) -> str:
        """Return the price as pages show it: "$5.0", or "$5.0 to $7.5"."""
        return " to ".join(f"${price}" for price in self.prices)

    @property
    def index_text(self) -> str:
        """Return what the search engine indexes: title, description, the first bullet, the options."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        return " ".join((self.name, self.description, *self.bullets[:1], options)).lower()


class Products(Protocol):
    """The products of a catalogue by their position in it, in memory or on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Product: ...


def read_products(
    records: Iterable[Any], attributes: Mapping[str, Any], human: Mapping[str, Any], source: str
) -> Iterator[Product]:
    """Read the catalogue's products in file order, without those that the original skips.

    `records` is the product file's list, `attributes` and `human` map ids to the entries of the other two files.
    Raises DataError for a malformed record, naming `source`, its position and its id.
    """
    seen: set[str] = set()
    for number, record in enumerate(records):
        asin: Any = record.get("asin") if isinstance(record, Mapping) else None
        if isinstance(asin, str) and (asin == "nan" or len(asin) > _LONGEST_ID or asin in seen):
            continue
        try:
            product = _product(record, attributes.get(asin, {}), human.get(asin, ()))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"product {number} of {source} (asin {asin!r}) is malformed: {problem}; fix it or fetch the file again"
            ) from error
        seen.add(product.asin)
        yield product


def parse_price(text: str | None) -> tuple[float, ...]:
    """Read the amounts of a price text, at most two; no text is 100. Raises ValueError for a text without an amount.

    >>> parse_price("$1,299.00"), parse_price("$19.99 - $27.99"), parse_price("")
    ((1299.0,), (19.99, 27.99), (100.0,))
    """
    if not text:
        return (_NO_PRICE,)
    try:
        prices = tuple(float(Decimal(re.sub(r"[^\d.]", "", part))) for part in text.split("$")[1:])
    except InvalidOperation:
        prices = ()
    if not prices:
        raise ValueError(f"pricing {text!r} has no amount like $12.50")
    return prices[:2]


def _product(record: Mapping[str, Any], entry: Mapping[str, Any], human: Iterable[Mapping[str, Any]]) -> Product:
    bullets = record["small_description"]
    instruction = entry.get("instruction")
    asked = _texts("instruction_attributes", entry.get("instruction_attributes") or ())
    if instruction is not None and not asked:
        raise ValueError(f"its instruction {instruction!r} has no instruction_attributes")
    return Product(
        asin=_text("asin", record["asin"]),
        name=_text("name", record["name"]),
        category=_text("category", record["category"]),
        query=_text("query", record["query"]).lower().strip(),
        breadcrumb=_text("product_category", record["product_category"]),
        description=_text("full_description", record["full_description"]),
        bullets=_texts("small_description", bullets if isinstance(bullets, list) else [bullets]),
        prices=parse_price(record.get("pricing")),
        options=_options(record["customization_options"]),
        attributes=_texts("attributes", entry["attributes"]) if "attributes" in entry else NO_ATTRIBUTES,
        instruction=None if instruction is None else _text("instruction", instruction),
        instruction_attributes=asked,
        human=tuple(
            HumanInstruction(
                _text("instruction", one["instruction"]),
                _texts("instruction_attributes", one["instruction_attributes"]),
                _texts("instruction_options", one["instruction_options"]),
            )
            for one in human
        ),
    )


def _options(record: Any) -> dict[str, tuple[str, ...]]:
    if not record:
        return {}
    if not isinstance(record, Mapping):
        raise TypeError(f"customization_options must map names to lists of values, not {record!r:.60}")
    return {
        name.lower(): tuple(
            _text("option value", choice["value"]).strip().replace("/", " | ").lower() for choice in choices
        )
        for name, choices in record.items()
        if choices is not None
    }


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a text, not {value!r:.60}")
    return value


def _texts(field: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        raise TypeError(f"{field} must be a list of texts, not {values!r:.60}")
    return tuple(_text(field, value) for value in values)
