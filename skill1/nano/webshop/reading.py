"""Instructions and pages of WebShop taken apart, for the compact prompts and the scripted player. Ours.

Everything is read from the texts that the policy is shown. Terms that generated catalogues are made of are one token
each ("long sleeve" is `long_sleeve`); the brand of a generated title is one token a syllable ("Berden" is `~ber +den`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import regex

from skill1.envs.webshop.goods import STOCK
from skill1.envs.webshop.pages import BUY, NEXT, PREVIOUS, SEARCH, SEPARATOR

PageKind = Literal["index", "results", "item", "sub"]
_CACHED = 1 << 14  # a rollout shows the same few thousand pages again and again
_BOUND = re.compile(r", and price lower than (\d+\.\d+) dollars$")
_OPTION = re.compile(r"(?: with |, and )(?:(?! with )[a-z ])+: (.+?)(?=, and [a-z ]+: |$)")
_BUTTON = re.compile(r"\[((?:clicked )?button)\] (.*) \[\1_\]")
_AMOUNT = re.compile(r"\$(\d+(?:\.\d+)?)")


def _terms() -> tuple[str, ...]:
    terms = {term for g in STOCK.goods for term in (g.query, *g.nouns, *g.attributes)}
    terms |= {value.replace("/", " | ") for g in STOCK.goods for values in g.options.values() for value in values}
    return tuple(sorted(terms, key=lambda term: (-len(term), term)))


TERMS = _terms()  # longest first
_TERM = re.compile(rf"(?<![\w'])(?:{'|'.join(map(re.escape, TERMS))})(?![\w'])")
_BRAND = regex.compile(rf"(?r)({'|'.join(STOCK.syllables)})+")  # from the end, as syllables stand in the list
_WORD = re.compile(rf"{_TERM.pattern}|[a-z0-9']+|[:;]")
KEPT = frozenset(": ; search open choose buy prev back next description features reviews".split())


@dataclass(frozen=True, slots=True)
class Wish:
    """What an instruction asks for, as tokens."""

    terms: tuple[str, ...]  # kind of product and attributes, in the order of the sentence
    options: tuple[str, ...]  # values to choose, in the order of the sentence
    bound: float  # dollars; inf without one


@dataclass(frozen=True, slots=True)
class Item:
    """A product as a results page or its own page shows it."""

    brand: str  # tokens
    terms: tuple[str, ...]  # of the wish that its title has, in the wish's order
    cheap: bool  # its lowest price is within the bound
    seen: bool = False  # opened before; only `text_rich` shows it


@dataclass(frozen=True, slots=True)
class ShopPage:
    """One page, as far as it matters for a wish."""

    kind: PageKind
    items: tuple[Item, ...] = ()  # results: the products listed; item: the one shown
    ids: tuple[str, ...] = ()  # results: what a click on each is called
    offered: tuple[str, ...] = ()  # item: wanted values that can be chosen and are not, in the wish's order
    chosen: tuple[str, ...] = ()  # item: wanted values that are chosen; only `text_rich` shows it
    missing: tuple[str, ...] = ()  # item: wanted values that this product does not come in
    terms: tuple[str, ...] = ()  # sub: of the wish that the text has


def token(term: str) -> str:
    """Write a term as one token.

    >>> token("4 fl oz | 118 ml")
    '4_fl_oz_|_118_ml'
    """
    return term.replace(" ", "_")


def terms(text: str) -> tuple[str, ...]:
    """List the known terms in a text as tokens, in order, without repeats.

    >>> terms("Berden Modern Polo Shirt, Slim Fit, Trusted Men's Shirts")
    ('polo_shirt', 'slim_fit', "men's_shirts")
    """
    return tuple(dict.fromkeys(token(term) for term in _TERM.findall(text.lower())))


def brand(title: str) -> str:
    """Return a title's first word: as syllables where it is made of them, else as it is.

    >>> brand("Berden Modern Polo Shirt"), brand("Acme Lamp")
    ('~ber +den', 'acme')
    """
    first = title.split(maxsplit=1)[0].lower() if title.strip() else "none"
    made = _BRAND.fullmatch(first)
    return f"~{' +'.join(reversed(made.captures(1)))}" if made else first


def tokens(text: str) -> str:
    """Write a skill or a query as tokens: known terms, brands, the words of actions; anything else is left out.

    >>> tokens("men's shirts slim fit : berden")
    "men's_shirts slim_fit : ~ber +den"
    """
    found = []
    for word in _WORD.findall(text.lower()):
        if _TERM.fullmatch(word):
            found.append(token(word))
        elif word in KEPT:
            found.append(word)
        elif _BRAND.fullmatch(word):
            found.append(brand(word))
    return " ".join(found)


def spoken(text: str) -> str:
    """Write tokens as the words they stand for.

    >>> spoken("~ber +den polo_shirt")
    'berden polo shirt'
    """
    return text.replace(" +", "").replace("~", "").replace("_", " ")


@lru_cache(_CACHED)
def read_wish(instruction: str) -> Wish:
    """Read what an instruction asks for.

    >>> read_wish("Find me sofas with solid wood with color: teal, and size: corner, and price lower than 40.00 dollars")
    Wish(terms=('sofas', 'solid_wood'), options=('teal', 'corner'), bound=40.0)
    """
    bound = _BOUND.search(instruction)
    text = instruction[: bound.start()] if bound else instruction
    options = list(_OPTION.finditer(text))
    text = text[: options[0].start()] if options else text
    return Wish(terms(text), tuple(token(o[1]) for o in options), float(bound[1]) if bound else float("inf"))


@lru_cache(_CACHED)
def read_page(text: str, instruction: str) -> ShopPage:
    """Read the page of an observation in any of the environment's modes."""
    wish, nodes = read_wish(instruction), _nodes(text)
    texts = [node for node, _ in nodes]
    if BUY in texts:
        return _item(nodes, wish)
    if NEXT in texts:
        listed = nodes[texts.index(NEXT) + 1 :]
        products = list(zip(listed[::3], listed[1::3], listed[2::3], strict=False))  # asin, title, price
        items = tuple(_read(title, price, wish, seen) for (_, seen), (title, _), (price, _) in products)
        return ShopPage("results", items, tuple(asin.lower() for (asin, _), _, _ in products))
    if SEARCH in texts:
        return ShopPage("index")
    found = terms(" ".join(texts[texts.index(PREVIOUS) + 1 :])) if PREVIOUS in texts else ()
    return ShopPage("sub", terms=tuple(term for term in wish.terms if term in found))


def _item(nodes: Sequence[tuple[str, bool]], wish: Wish) -> ShopPage:
    texts = [node for node, _ in nodes]
    first = texts.index(PREVIOUS) + 1 if PREVIOUS in texts else 0
    price = next((i for i, node in enumerate(texts) if i > first and node.startswith("Price: ")), first + 1)
    offers = {token(node.lower()): clicked for node, clicked in nodes[first : price - 1]}
    return ShopPage(
        "item",
        (_read(texts[price - 1], texts[price], wish, True),),
        offered=tuple(value for value in wish.options if offers.get(value) is False),
        chosen=tuple(value for value in wish.options if offers.get(value)),
        missing=tuple(value for value in wish.options if value not in offers),
    )


def _read(title: str, price: str, wish: Wish, seen: bool) -> Item:
    found, amount = terms(title), _AMOUNT.search(price)
    cheap = amount is not None and float(amount[1]) <= wish.bound
    return Item(brand(title), tuple(term for term in wish.terms if term in found), cheap, seen)


def _nodes(text: str) -> list[tuple[str, bool]]:
    """A page's texts, each with whether it is marked as clicked."""
    if "[button] " in text:  # text_rich
        marked = ((_BUTTON.fullmatch(line.strip()), line.strip()) for line in text.splitlines() if line.strip())
        return [(match[2], match[1] != "button") if match else (line, False) for match, line in marked]
    return [(part.removeprefix("'").removesuffix("'"), False) for part in text.split(SEPARATOR)]
