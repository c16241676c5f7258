"""Lucene's BM25 as pyserini sets it (k1 = 0.9, b = 0.4, an OR of the terms), to the bit: order and scores.

What has to be kept for the order to be Lucene's: document lengths in one lossy byte, single precision for every term's
share, double for their sum, equal scores by document id, and a repeated query term at twice the weight. Differs from
Lucene in: queries of more than 1,024 distinct terms are answered, where Lucene refuses them.

An index is built in memory, 16 bytes a posting, and takes half of it; one left in a folder is read through memory maps.
"""

from __future__ import annotations

import bisect
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy import sparse

from skill1.envs.webshop.text import analyze

K1, B = np.float32(0.9), np.float32(0.4)
_EXACT_LENGTHS = 24  # byte codes that stand for themselves
_ONE = np.float32(1)


@dataclass(frozen=True, eq=False)
class Index:
    """Postings term by term: V terms, numbered in the order of their UTF-8 bytes, P postings, N documents."""

    starts: np.ndarray  # (V + 1,) int64 of a term's postings
    documents: np.ndarray  # (P,) int32
    saturations: np.ndarray  # (P,) float32, tf / Lucene's length norm
    idf: np.ndarray  # (V,) float32
    order: np.ndarray  # (N,) int32 rank of the document's id
    terms: np.ndarray  # uint8 bytes of all terms
    term_starts: np.ndarray  # (V + 1,) int64 of a term's bytes

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.order)

    @classmethod
    def build(cls, texts: Iterable[str], ids: Sequence[str] | np.ndarray, folder: Path | None = None) -> Index:
        """Index `texts`, and leave the index in `folder` too; `ids` (N,) break ties and are read after the last text."""
        vocabulary: dict[str, int] = {}
        terms, counts, lengths, distinct = array("i"), array("i"), array("q"), array("q")
        for text in texts:
            found = Counter(analyze(text))
            terms.extend([vocabulary.setdefault(term, len(vocabulary)) for term in found])
            counts.extend(found.values())
            lengths.append(found.total())
            distinct.append(len(found))
        ids, words = np.asarray(ids), sorted((word.encode(), number) for word, number in vocabulary.items())
        if len(ids) != len(lengths):
            raise ValueError(f"{len(ids)} ids for {len(lengths)} documents")
        renumbered = np.empty(len(words), np.int32)
        renumbered[[number for _, number in words]] = np.arange(len(words), dtype=np.int32)
        by_document = sparse.csr_array(
            (np.asarray(counts), renumbered[np.asarray(terms, np.int64)], np.concatenate(([0], np.cumsum(distinct)))),
            shape=(len(lengths), len(words)),
        )
        by_term = by_document.tocsc()  # documents in order within a term
        texts_with_terms = np.count_nonzero(lengths)
        idf = [math.log(1 + (texts_with_terms - df + 0.5) / (df + 0.5)) for df in np.diff(by_term.indptr)]
        index = cls(
            starts=by_term.indptr.astype(np.int64),
            documents=by_term.indices.astype(np.int32),
            saturations=by_term.data.astype(np.float32) * _inverse_norms(np.asarray(lengths))[by_term.indices],
            idf=np.array(idf, np.float32),
            order=_ranks(ids),
            terms=np.frombuffer(b"".join(word for word, _ in words), np.uint8),
            term_starts=np.cumsum([0, *(len(word) for word, _ in words)]),
        )
        if folder:
            for name, values in vars(index).items():
                np.save(folder / f"{name}.npy", values)
        return index

    @classmethod
    def load(cls, folder: Path) -> Index:
        """Open the index that `build` left in a folder, memory-mapped."""
        return cls(*(np.load(folder / f"{field.name}.npy", mmap_mode="r") for field in fields(cls)))

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Find the best k documents with a query term: (document, score), best first, equal scores by id."""
        found, shares = [], []
        for term, count in Counter(analyze(query)).items():
            number = self._number(term.encode())
            if number is None:
                continue
            postings = slice(self.starts[number], self.starts[number + 1])
            weight = np.float32(count) * self.idf[number]
            found.append(self.documents[postings])
            shares.append(weight - weight / (_ONE + self.saturations[postings]))
        if not found:
            return []
        sums = np.bincount(np.concatenate(found), weights=np.concatenate(shares), minlength=len(self))
        scores = sums.astype(np.float32)  # summed in double, term by term, then rounded
        if (best := min(k, int(np.count_nonzero(scores)))) < 1:
            return []
        threshold = np.partition(scores, len(scores) - best)[len(scores) - best]
        candidates = np.flatnonzero(scores >= threshold)
        ranked = candidates[np.lexsort((self.order[candidates], -scores[candidates]))[:best]]
        return [(int(document), float(scores[document])) for document in ranked]

    def _number(self, term: bytes) -> int | None:
        """A term's number by binary search in the sorted terms."""
        size = len(self.term_starts) - 1
        number = bisect.bisect_left(range(size), term, key=self._term)
        return number if number < size and self._term(number) == term else None

    def _term(self, number: int) -> bytes:
        return self.terms[self.term_starts[number] : self.term_starts[number + 1]].tobytes()


def _ranks(ids: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(ids), np.int32)
    ranks[np.argsort(ids, kind="stable")] = np.arange(len(ids), dtype=np.int32)
    return ranks


def _inverse_norms(lengths: np.ndarray) -> np.ndarray:
    """(N,) float32: 1 / (k1 (1 - b + b L / mean)), L as Lucene remembers it, the mean exact over non-empty texts."""
    mean = np.float32(lengths.sum() / max(1, np.count_nonzero(lengths)))
    kept, positions = np.unique(lengths, return_inverse=True)
    remembered = np.array([remembered_length(int(length)) for length in kept], np.float32)
    return (_ONE / (K1 * ((_ONE - B) + B * remembered / max(mean, _ONE))))[positions]


def remembered_length(length: int) -> int:
    """Round a document length as Lucene's one-byte code does: exact below 40, then down to four significant bits.

    >>> [remembered_length(n) for n in (39, 40, 41, 42, 1000)]
    [39, 40, 40, 42, 984]
    """
    above = length - _EXACT_LENGTHS
    shift = max(0, above.bit_length() - 4)
    return length if above < 0 else _EXACT_LENGTHS + (above >> shift << shift)
