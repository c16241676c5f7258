"""Nouns of a title, for the type part of the reward: one function, replaceable.

Differs from the original in: it tags with a spaCy model, which no package registry carries. Without one, the nouns are
the words that are no function words. The scores of some wrong purchases then differ; a right purchase earns 1.0 either
way. `Shop` takes any other function.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z][a-z0-9]*")
_FUNCTION_WORDS = frozenset(
    "a about above after all an and any are as at be been before below between both but by can do does each every for "
    "from had has have he her his how if in into is it its may more most my no nor not of off on onto or our out over "
    "own per she so some such than that the their them then there these they this those through to too under up us "
    "very via was we were what when where which while who will with within without you your".split()
)


def words(title: str) -> list[str]:
    """List every word that begins with a letter.

    >>> words("Women's 2-Pack Tops")
    ['women', 's', 'pack', 'tops']
    """
    return _WORD.findall(title.lower())


def content_words(title: str) -> list[str]:
    """List the words of two letters or more that are no function words.

    >>> content_words("Set of 2 Lamps for the Living Room")
    ['set', 'lamps', 'living', 'room']
    """
    return [word for word in words(title) if len(word) > 1 and word not in _FUNCTION_WORDS]
