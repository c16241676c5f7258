"""Lucene's EnglishAnalyzer: word breaks, possessives, lower case, stop words, Porter's stemmer.

Word breaks follow StandardTokenizer, which is UAX#29 with two additions: an ideograph or a Hiragana letter is a token
of its own, and so is an emoji. Differs from Lucene in: the Unicode version is that of the `regex` package (17), and a
token longer than 255 characters is cut into pieces of 255 code points (Lucene counts UTF-16 units).
"""

from __future__ import annotations

import re
from functools import lru_cache

import regex

STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with".split()
)
MAX_TOKEN = 255
_CACHED_WORDS = 1 << 18  # distinct tokens whose stems are remembered

# UAX#29's word-break classes joined as in StandardTokenizer's grammar; `x` are marks that belong to what precedes.
_WORDS = regex.compile(
    r"""
    (?(DEFINE)
      (?<x>         [\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*+)
      (?<join>      (?:\p{WB=ExtendNumLet}(?&x))*+)
      (?<letter>    [[\p{WB=ALetter}\p{WB=Hebrew_Letter}]--\p{LB=SA}](?&x))
      (?<digit>     \p{WB=Numeric}(?&x))
      (?<inletters> [\p{WB=MidLetter}\p{WB=MidNumLet}\p{WB=Single_Quote}](?&x))
      (?<indigits>  [\p{WB=MidNum}\p{WB=MidNumLet}\p{WB=Single_Quote}](?&x))
      (?<run>       (?: (?&letter) (?:(?:(?&inletters)|(?&join)) (?&letter))*
                      | (?&digit) (?:(?:(?&indigits)|(?&join)) (?&digit))* )+
                  | \p{WB=Katakana}(?&x) (?:(?&join) \p{WB=Katakana}(?&x))*)
      # Pictographs of today and those that Lucene's older Unicode had reserved for them.
      (?<picture>   [\p{Extended_Pictographic}\u2605\u2607-\u2612\u2616-\u2685\u2690-\u2705\u2763-\u2767]
                    \p{Emoji_Modifier}?\uFE0F?)
    )
      (?&picture) (?:\u200D(?&picture))*
    | \p{WB=Regional_Indicator}{2}
    | [\p{Han}\p{Hiragana}](?&x)
    | \p{LB=SA} (?:\p{LB=SA}|[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}])*
    | (?&join) (?&run) (?:(?:\p{WB=ExtendNumLet}(?&x))++ (?&run))* (?&join)
    """,
    regex.V1 | regex.VERBOSE,
)
# The same for ASCII text, ten times faster. No token spans a blank, so a text is taken apart there.
_ASCII_WORDS = re.compile(
    r"[A-Za-z0-9_]+(?:(?:(?<=[A-Za-z])[.':](?=[A-Za-z])|(?<=[0-9])[.',;](?=[0-9]))[A-Za-z0-9_]+)*"
)


def tokenize(text: str) -> list[str]:
    """List the tokens as they stand in the text, before any filter.

    >>> tokenize("Women's 2-pack, 1,000 mAh")
    ["Women's", '2', 'pack', '1,000', 'mAh']
    """
    words: list[str] = []
    for piece in (text,) if text.isascii() else text.split(" "):
        if piece.isascii():
            words += (word for word in _ASCII_WORDS.findall(piece) if word.strip("_"))
        else:
            words += (match.group() for match in _WORDS.finditer(piece))
    if all(len(word) <= MAX_TOKEN for word in words):
        return words
    return [word[at : at + MAX_TOKEN] for word in words for at in range(0, len(word), MAX_TOKEN)]


def analyze(text: str) -> list[str]:
    """List the index terms of a text or query, in order, repeats kept.

    >>> analyze("the Women's running shoes")
    ['women', 'run', 'shoe']
    """
    return [term for term in map(_term, tokenize(text)) if term]


@lru_cache(_CACHED_WORDS)
def _term(token: str) -> str:
    """A token's index term; "" for a stop word."""
    if len(token) > 1 and token[-1] in "sS" and token[-2] in "'\u2019\uff07":
        token = token[:-2]
    token = token.lower()
    return "" if token in STOP_WORDS else stem(token)


# ------------------------------------------------------------------------------------------------------------ stemmer

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
    "logi": "log",
}  # fmt: skip
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = dict.fromkeys("al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize".split(), "")
_LONGEST = max(map(len, (*_STEP_2, *_STEP_3, *_STEP_4)))


def stem(word: str) -> str:
    """Stem a word by Porter's rules of 1980 and his two later ones (bli, logi); one or two letters stay.

    >>> stem("relational"), stem("hopping"), stem("sky")
    ('relat', 'hop', 'sky')
    """
    if len(word) <= 2:
        return word
    word = _plural(word)
    word = _past(word)
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(word, _STEP_2, min_measure=1)
    word = _replace(word, _STEP_3, min_measure=1)
    word = _replace(word, _STEP_4, min_measure=2)
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _short(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    root = word.removesuffix("ed") if word.endswith("ed") else word.removesuffix("ing")
    if root == word or "v" not in _shape(root):
        return word
    if root.endswith(("at", "bl", "iz")):
        return root + "e"
    if root[-1:] == root[-2:-1] and _shape(root)[-1] == "c":
        return root if root[-1] in "lsz" else root[:-1]
    return root + "e" if _measure(root) == 1 and _short(root) else root


def _replace(word: str, endings: dict[str, str], min_measure: int) -> str:
    """The longest ending of the table that the word has is replaced, if the rest has at least that measure."""
    for length in range(min(_LONGEST, len(word)), 1, -1):
        ending = word[-length:]
        if ending in endings:
            root = word[:-length]
            if ending == "ion" and root[-1:] not in ("s", "t"):
                return word
            return root + endings[ending] if _measure(root) >= min_measure else word
    return word


def _shape(word: str) -> str:
    """Vowels as v, all else as c; y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and shape[-1:] == "c")
        shape += "v" if vowel else "c"
    return shape


def _measure(word: str) -> int:
    """Porter's m: how often a consonant follows a vowel."""
    return _shape(word).count("vc")


def _short(word: str) -> bool:
    """Ends consonant, vowel, consonant, the last not w, x or y."""
    return _shape(word).endswith("cvc") and word[-1] not in "wxy"
