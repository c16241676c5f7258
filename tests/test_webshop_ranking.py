"""BM25 as Lucene computes it: by hand, against a plain scorer, and on disk."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skill1.envs.webshop.ranking import Index, remembered_length
from skill1.envs.webshop.text import analyze

WORDS = st.lists(st.sampled_from("lamp lamps oak desk red chair the of".split()), max_size=12).map(" ".join)


def plain_scores(texts: list[str], query: str) -> list[float]:
    """BM25 with k1 = .9, b = .4 in double precision, document by document; texts shorter than 40 words."""
    documents = [Counter(analyze(text)) for text in texts]
    lengths = [sum(document.values()) for document in documents]
    count = sum(length > 0 for length in lengths)
    mean = sum(lengths) / count if count else 1.0
    scores = []
    for document, length in zip(documents, lengths, strict=True):
        score = 0.0
        for term in analyze(query):
            df = sum(term in other for other in documents)
            if term in document:
                idf = math.log(1 + (count - df + 0.5) / (df + 0.5))
                tf = document[term]
                score += idf * tf / (tf + 0.9 * (0.6 + 0.4 * length / mean))
        scores.append(score)
    return scores


def test_scores_by_hand():
    index = Index.build(["red lamp", "lamp lamp blue desk"], ["b", "a"])
    # idf = ln 1.2; lengths 2 and 4, mean 3: tf / (tf + .78) and 2 / (2 + 1.02)
    assert index.search("lamps", 5) == [
        (1, pytest.approx(math.log(1.2) * 2 / 3.02, rel=1e-6)), (0, pytest.approx(math.log(1.2) / 1.78, rel=1e-6)),
    ]  # fmt: skip
    (once,), (twice,) = index.search("blue", 5), index.search("blue blue", 5)
    assert twice[1] == pytest.approx(2 * once[1], rel=1e-6)


def test_ties_go_by_id_and_k_limits():
    index = Index.build(["oak chair"] * 4 + ["oak oak chair", "desk"], ["d", "b", "c", "a", "z", "y"])
    assert [document for document, _ in index.search("oak", 50)] == [4, 3, 1, 2, 0]
    assert [document for document, _ in index.search("oak", 3)] == [4, 3, 1]
    assert index.search("oak", 0) == index.search("sofa", 5) == index.search("the of", 5) == index.search("", 5) == []


def test_lengths_are_remembered_in_a_byte():
    assert [remembered_length(n) for n in (0, 23, 39, 40, 41, 56, 59, 60, 1000)] == [0, 23, 39, 40, 40, 56, 56, 60, 984]
    index = Index.build(["oak " * 1 + "desk " * 39, "oak " * 1 + "desk " * 40, "chair"], ["b", "a", "c"])
    first, second = index.search("oak", 2)
    assert first[1] == second[1] and first[0] == 1  # 40 and 41 words look alike


@given(st.lists(WORDS, min_size=1, max_size=8), WORDS)
@settings(max_examples=150, deadline=None)
def test_it_agrees_with_a_plain_scorer(texts, query):
    ids = [f"{number:02d}" for number in range(len(texts))]
    found = dict(Index.build(texts, ids).search(query, len(texts)))
    expected = {number: score for number, score in enumerate(plain_scores(texts, query)) if score}
    assert found == {number: pytest.approx(score, rel=1e-5) for number, score in expected.items()}
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_disk_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["oak", "desk", "lamp", "red", "ü", "★"], size=rng.integers(0, 9))) for _ in range(60)]
    ids = [f"{number:02d}" for number in rng.permutation(60)]
    whole = Index.build(texts, ids)
    Index.build(texts, ids, tmp_path)
    stored = Index.load(tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(vars(whole))
    assert len(stored) == 60
    assert all((getattr(stored, name) == values).all() for name, values in vars(whole).items())
    for query in ("oak", "red ★ desk desk", "ü lamp", "none", "zz oak"):
        assert whole.search(query, 50) == stored.search(query, 50)


def test_unequal_ids_and_texts_are_refused():
    with pytest.raises(ValueError, match="1 ids for 2 documents"):
        Index.build(["a lamp", "b"], ["x"])


def test_nothing_to_search_in():
    assert Index.build(["", "the"], ["a", "b"]).search("lamp", 5) == []
