"""Words, stems and index terms, against Lucene's known answers."""

from __future__ import annotations

import doctest
import importlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skill1.envs.webshop import text
from skill1.envs.webshop.text import analyze, stem, tokenize


@pytest.mark.parametrize(
    "given_text, tokens",
    [
        ("Women's 2-pack, 1,000.5 mAh", ["Women's", "2", "pack", "1,000.5", "mAh"]),
        ("a.b 3.x x.3 9:30 a:b l'eau 5'6", ["a.b", "3", "x", "x", "3", "9", "30", "a:b", "l'eau", "5'6"]),
        ("snake_case _x_ __ 28x16x18inch", ["snake_case", "_x_", "28x16x18inch"]),
        ("size：38 é e\u0301a naïve", ["size", "38", "é", "e\u0301a", "naïve"]),
        ("日本語 ひら テレビ 한국어", ["日", "本", "語", "ひ", "ら", "テレビ", "한국어"]),
        ("★ ❤️ 👍🏽 👨‍👩‍👧 🇩🇪 1️⃣", ["★", "❤️", "👍🏽", "👨‍👩‍👧", "🇩🇪", "1️⃣"]),
        ("【Soft】—“quiet” … ◆", ["Soft", "quiet"]),
        ("", []),
    ],
)
def test_words(given_text, tokens):
    assert tokenize(given_text) == tokens


def test_long_words_are_cut():
    assert [len(token) for token in tokenize("a" * 600 + " é")] == [255, 255, 90, 1]


# Porter's own examples, rule by rule, and the two later rules.
@pytest.mark.parametrize(
    "word, root",
    [
        ("caresses", "caress"), ("ponies", "poni"), ("ties", "ti"), ("cats", "cat"), ("feed", "feed"),
        ("agreed", "agre"),
        ("plastered", "plaster"), ("bled", "bled"), ("motoring", "motor"), ("sing", "sing"), ("conflated", "conflat"),
        ("troubled", "troubl"), ("sized", "size"), ("hopping", "hop"), ("falling", "fall"), ("hissing", "hiss"),
        ("fizzed", "fizz"), ("failing", "fail"), ("filing", "file"), ("happy", "happi"), ("sky", "sky"),
        ("relational", "relat"), ("conditional", "condit"), ("vietnamization", "vietnam"), ("formaliti", "formal"),
        ("sensibiliti", "sensibl"), ("triplicate", "triplic"), ("hopefulness", "hope"), ("revival", "reviv"),
        ("adoption", "adopt"), ("onion", "onion"), ("probate", "probat"), ("rate", "rate"), ("cease", "ceas"),
        ("controll", "control"), ("roll", "roll"), ("possibly", "possibl"), ("technology", "technolog"), ("as", "as"),
        ("yellow", "yellow"), ("toy", "toi"), ("", ""),
    ],
)  # fmt: skip
def test_stems(word, root):
    assert stem(word) == root


def test_terms_lose_possessives_case_and_stop_words():
    assert analyze("The Women’s and MEN'S shoes, as they're; 'S") == ["women", "men", "shoe", "they'r", "s"]


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_takes_the_same_way(given_text):
    assert tokenize(given_text) == [match.group() for match in text._WORDS.finditer(given_text)]


@given(st.text())
@settings(max_examples=300)
def test_any_text_has_terms_that_stand_in_it(given_text):
    for token in tokenize(given_text):
        assert token and token in given_text and not token.isspace()
    assert all(term == term.lower() or term for term in analyze(given_text))


@pytest.mark.parametrize("name", ["text", "ranking", "nouns", "reward", "catalogue", "generate", "environment"])
def test_the_examples_in_the_docstrings(name):
    module = importlib.import_module(f"skill1.envs.webshop.{name}")
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
