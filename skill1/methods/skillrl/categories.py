"""The bank's category of a task, read off the task's sentence alone: never the game file or the shop's record.

ALFWorld: the kit's own grammar of task sentences (`skill1.nano.expert.read_goal`); a pair of objects is picked and placed.
WebShop: the category with most of its words in the sentence, "other" without any.

Differs from the paper in: the released keyword rules send "put a hot mug ..." to pick_and_place. "look at ... under"
and "examine ... with" are two wordings of one kind of task: both are shown the principles of either section.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from skill1.config import closest
from skill1.nano.expert import read_goal

_OF_KIND = {
    "put": "pick_and_place", "two": "pick_and_place", "clean": "clean", "heat": "heat", "cool": "cool",
    "look": "look_at_obj_in_light",
}  # fmt: skip
_ALSO = {"look_at_obj_in_light": ("examine",)}  # sections of the published banks that belong to the same category
_WEBSHOP: Mapping[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "footwear": "shoe sneaker boot sandal slipper loafer heel clog flat moccasin pump mule oxford",
        "apparel": "shirt tee t-shirt tshirt dress pant trouser jean jacket coat sweater hoodie sweatshirt short skirt "
        "blouse top legging underwear bra sock swimsuit bikini suit pajama vest cardigan tunic romper jumpsuit lingerie "
        "polo tank brief boxer panty costume robe",
        "home_decor": "sofa couch chair table desk lamp light curtain rug bed bedding pillow cushion mattress shelf "
        "cabinet stool ottoman bench furniture mirror wall blanket candle vase bookcase nightstand dresser futon frame",
        "electronics": "phone iphone galaxy laptop computer tablet ipad cable charger headphone earbud earphone speaker "
        "camera lens tv television usb hdmi monitor keyboard mouse projector router battery bluetooth antenna adapter "
        "console drone microphone radio recorder",
        "accessories": "watch band bag backpack handbag wallet belt hat cap scarf glove necklace bracelet ring earring "
        "jewelry sunglass purse tote tie strap luggage umbrella",
        "beauty_health": "shampoo conditioner hair wig skin cream lotion serum makeup lipstick lip mascara brush nail "
        "teeth tooth toothbrush toothpaste fragrance perfume deodorant soap vitamin supplement mask razor massage "
        "eyelash face facial oil",
    }.items()
}
_OTHER = "other"

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "alfworld": ("pick_and_place", "look_at_obj_in_light", "clean", "heat", "cool", "examine"),
    "webshop": (*_WEBSHOP, _OTHER),
}


def known_categories(environment: str) -> tuple[str, ...]:
    """Categories of an environment's bank. Raises ConfigError for an environment without any."""
    return CATEGORIES[closest(environment, CATEGORIES, "environment of a skill bank")]


def category_of(environment: str, instruction: str) -> str:
    """The category of a task. Raises ValueError for a sentence that is not of ALFWorld's grammar."""
    if environment == "alfworld":
        return _OF_KIND[read_goal(instruction).kind]
    words = [_forms(word) for word in re.findall(r"[a-z-]+", instruction.lower())]
    hits = {name: sum(not known.isdisjoint(forms) for forms in words) for name, known in _WEBSHOP.items()}
    best = max(hits, key=hits.__getitem__)  # the first of equals
    return best if hits[best] else _OTHER


def sections_of(category: str) -> tuple[str, ...]:
    """Sections of a bank whose principles a task of this category is shown; the first is its own."""
    return (category, *_ALSO.get(category, ()))


def _forms(word: str) -> set[str]:
    """The word and what it may be the plural of."""
    return {word, word.removesuffix("s"), word.removesuffix("es")}
