"""The score of a purchase, with its parts (WebShop, arXiv 2207.01206, section 3.3).

score = type · (attributes met + options met + price met) / (attributes + options + 1). Kept as in the original, quirks
included: an option value counts as the first colour word inside it, also inside another word ("rectangular" contains
"tan"), which puts some goals out of reach (see `ceiling`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz import fuzz, utils

from skill1.envs.webshop.catalogue import Product
from skill1.envs.webshop.goals import Goal

Nouns = Callable[[str], Sequence[str]]  # a title's nouns in lower case, repeats kept

# WebShop's colour words in its order: the first found stands for an option value. WebShop, MIT (c) 2023 Princeton NLP.
COLOURS = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo "
    "caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream "
    "crystal dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather "
    "indigo ivory ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha "
    "multicolor mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal "
    "rust sand sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise "
    "violet walnut wheat white wine yellow"
).split()
_ALIKE = 85  # a token_set_ratio above it is a match
_LATIN_1 = dict.fromkeys(range(0x80, 0x100))  # characters that thefuzz drops before comparing


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a purchase earned. Shares are of the goal's attributes and options; `options` is 1.0 for a goal without."""

    score: float  # 0..1
    type: float  # 1.0, 0.5, 0.1 or 0.0: is it that kind of product?
    attributes: float
    options: float
    price: bool
    same_query: bool
    same_category: bool
    title: float  # share of the goal title's nouns found in the bought title


def score(product: Product, price: float, options: Mapping[str, str], goal: Goal, nouns: Nouns) -> Outcome:
    """Rate buying `product` at `price` with the chosen `options` (name -> value)."""
    same_query = product.query == goal.query
    same_category = len(_parts(product.breadcrumb) & _parts(goal.breadcrumb)) >= 2
    title = _title_score(product.name, goal.name, nouns)
    kind = _type_score(title, same_query or same_category or title > 0.2)
    met = sum(_has(product, attribute) for attribute in goal.attributes)
    bought = [_colour(value) for value in options.values()]
    wanted = [option_text(option) for option in goal.options]
    matched = sum(any(alike(value, option) for value in bought) for option in wanted)
    cheap = price <= goal.price_upper
    total = (met + matched + cheap) / (len(goal.attributes) + len(wanted) + 1) * kind
    return Outcome(
        score=total,
        type=kind,
        attributes=met / len(goal.attributes),
        options=matched / len(wanted) if wanted else 1.0,
        price=cheap,
        same_query=same_query,
        same_category=same_category,
        title=title,
    )


def alike(first: str, second: str) -> bool:
    """Tell whether thefuzz's token_set_ratio is above 85."""
    return round(fuzz.token_set_ratio(_cleaned(first), _cleaned(second))) > _ALIKE


def option_text(option: str | tuple[str, str]) -> str:
    """Write a goal's option as the original compares it.

    A synthetic goal's option is a pair (name, value). The original looks for colour words in the pair's *elements*, so
    only an element that is one as a whole is replaced, and compares the pair's printed form otherwise.

    >>> option_text(("color", "white")), option_text(("size", "x-large")), option_text("navy blue")
    ('white', "('size', 'x-large')", 'blue')
    """
    if isinstance(option, str):
        return _colour(option)
    return next((colour for colour in COLOURS if colour in option), str(option))


def _colour(value: str) -> str:
    return next((colour for colour in COLOURS if colour in value), value)


def _title_score(bought: str, wanted: str, nouns: Nouns) -> float:
    words = nouns(wanted)
    return len(set(words) & set(nouns(bought))) / len(words) if words else 0.2


def _type_score(title: float, match: bool) -> float:
    if title == 0.0:
        return 0.0
    if title < 0.1:
        return 0.1
    return 1.0 if match else 0.5


def _has(product: Product, attribute: str) -> bool:
    """In the product's attributes, or word for word (the goal's case kept) in its texts."""
    return any(alike(own, attribute) for own in product.attributes) or any(
        attribute in text.lower() for text in (product.name, " ".join(product.bullets), product.description)
    )


def _parts(breadcrumb: str) -> set[str]:
    return {part.strip() for part in breadcrumb.split("›")}


@lru_cache(1 << 16)
def _cleaned(text: str) -> str:
    return utils.default_process(text.translate(_LATIN_1))
