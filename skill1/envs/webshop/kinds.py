"""The kind of product that a goal asks for, read off its sentence: the sections of SkillRL's published shopping bank."""

from __future__ import annotations

import re
from collections.abc import Mapping

_WORDS: Mapping[str, frozenset[str]] = {
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
KINDS = (*_WORDS, _OTHER)


def kind_of(instruction: str) -> str:
    """Return the kind with most of its words in the sentence, the first of equals; "other" without any."""
    words = [_forms(word) for word in re.findall(r"[a-z-]+", instruction.lower())]
    hits = {name: sum(not known.isdisjoint(forms) for forms in words) for name, known in _WORDS.items()}
    best = max(hits, key=hits.__getitem__)
    return best if hits[best] else _OTHER


def _forms(word: str) -> set[str]:
    """The word and what it may be the plural of."""
    return {word, word.removesuffix("s"), word.removesuffix("es")}
