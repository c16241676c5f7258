"""Lucene's BM25 as pyserini sets it (k1 = 0.9, b = 0.4, an OR of the terms), to the bit: order and scores.

What has to be kept for the order to be Lucene's: document lengths in one lossy byte, single precision for every term's
share, double for their sum, equal scores by document id, and a repeated query term at twice the weight. Differs from
Lucene in: queries of more than 1,024 distinct terms are answered, where Lucene refuses them.

An index is built in blocks of documents, so that only one block's tokens are ever in memory; with a folder, the blocks
and the finished postings lie there and are read through memory maps. A posting takes 8 bytes.
"""

from __future__ import annotations

import bisect
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from skill1.envs.webshop.text import analyze

K1, B = np.float32(0.9), np.float32(0.4)
_BLOCK_TOKENS = 8_000_000  # tokens that are sorted at a time: about 0.3 GB
_EXACT_LENGTHS = 24  # byte codes that stand for themselves
_ONE = np.float32(1)


class Index:
    """Postings term by term. Terms are numbered in the order of their UTF-8 bytes."""

    ARRAYS = ("starts", "documents", "saturations", "idf", "order", "terms", "term_starts")

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        """See `build` for the arrays' meaning."""
        self.arrays = arrays
        self._starts, self._documents, self._saturations = (arrays[n] for n in Index.ARRAYS[:3])
        self._idf, self._order, self._terms, self._term_starts = (arrays[n] for n in Index.ARRAYS[3:])

    def __len__(self) -> int:
        """Number of documents."""
        return len(self._order)

    @classmethod
    def build(cls, texts: Iterable[str], ids: Sequence[str] | np.ndarray, folder: Path | None = None) -> Index:
        """The index of `texts`; `ids` (N,) break ties and are read after the last text.

        Arrays, for V terms, P postings and N documents: starts (V + 1,) int64, documents (P,) int32 and saturations
        (P,) float32 (tf / Lucene's length norm), idf (V,) float32, order (N,) int32 (rank of the document's id), and
        the terms' bytes (uint8) with their starts (V + 1,) int64.
        """
        builder = _Builder(folder)
        for text in texts:
            builder.add(analyze(text))
        return cls(builder.finish(np.asarray(ids)))

    @classmethod
    def load(cls, folder: Path) -> Index:
        """The index that `build` left in a folder, memory-mapped."""
        return cls({name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in cls.ARRAYS})

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """The best k documents with a query term: (document, score), best first, equal scores by id."""
        found, shares = [], []
        for term, count in Counter(analyze(query)).items():
            number = self._number(term.encode())
            if number is None:
                continue
            postings = slice(self._starts[number], self._starts[number + 1])
            weight = np.float32(count) * self._idf[number]
            found.append(self._documents[postings])
            shares.append(weight - weight / (_ONE + self._saturations[postings]))
        if not found or k < 1:
            return []
        sums = np.bincount(np.concatenate(found), weights=np.concatenate(shares), minlength=len(self))
        scores = sums.astype(np.float32)  # summed in double, term by term, then rounded
        if (best := min(k, np.count_nonzero(scores))) < 1:
            return []
        least = np.partition(scores, len(scores) - best)[len(scores) - best]
        candidates = np.flatnonzero(scores >= least)
        ranked = candidates[np.lexsort((self._order[candidates], -scores[candidates]))[:best]]
        return [(int(document), float(scores[document])) for document in ranked]

    def _number(self, term: bytes) -> int | None:
        """A term's number by binary search in the sorted terms."""
        size = len(self._term_starts) - 1
        number = bisect.bisect_left(range(size), term, key=self._term)
        return number if number < size and self._term(number) == term else None

    def _term(self, number: int) -> bytes:
        return self._terms[self._term_starts[number] : self._term_starts[number + 1]].tobytes()


class _Builder:
    """Collects tokens block by block; a block becomes its postings, sorted by term and document."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._vocabulary: dict[str, int] = {}
        self._tokens = array("i")
        self._lengths = array("q")
        self._first = 0  # document of the block's first token
        self._blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # term, document, frequency

    def add(self, terms: list[str]) -> None:
        """Add the next document."""
        vocabulary = self._vocabulary
        self._tokens.extend([vocabulary.setdefault(term, len(vocabulary)) for term in terms])
        self._lengths.append(len(terms))
        if len(self._tokens) >= _BLOCK_TOKENS:
            self._close_block()

    def finish(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Merge the blocks, which are in document order, into postings by term."""
        self._close_block()
        lengths = np.asarray(self._lengths)
        if len(ids) != len(lengths):
            raise ValueError(f"{len(ids)} ids for {len(lengths)} documents")
        words = sorted((word.encode(), number) for word, number in self._vocabulary.items())
        renumbered = np.empty(len(words), np.int64)
        renumbered[[number for _, number in words]] = np.arange(len(words))
        frequencies = np.zeros(len(words), np.int64)
        for terms, _, _ in self._blocks:
            np.add.at(frequencies, renumbered[terms], 1)
        starts = np.concatenate(([0], np.cumsum(frequencies)))
        documents = self._empty("documents", starts[-1], np.int32)
        saturations = self._empty("saturations", starts[-1], np.float32)
        norms = _inverse_norms(lengths)
        free = starts[:-1].copy()
        for terms, where, counts in self._blocks:
            numbers = renumbered[terms]
            order = np.argsort(numbers, kind="stable")
            numbers, where, counts = numbers[order], where[order], counts[order]
            heads = np.flatnonzero(np.diff(numbers, prepend=-1))
            sizes = np.diff(np.append(heads, len(numbers)))
            places = np.arange(len(numbers)) - np.repeat(heads - free[numbers[heads]], sizes)
            free[numbers[heads]] += sizes
            documents[places] = where
            saturations[places] = counts.astype(np.float32) * norms[where]
        count = np.count_nonzero(lengths)
        small = {
            "starts": starts,
            "idf": np.array([math.log(1 + (count - df + 0.5) / (df + 0.5)) for df in frequencies], np.float32),
            "order": _ranks(ids),
            "terms": np.frombuffer(b"".join(word for word, _ in words), np.uint8),
            "term_starts": np.cumsum([0, *(len(word) for word, _ in words)]),
        }
        for name, values in small.items():
            if self._folder:
                np.save(self._folder / f"{name}.npy", values)
        for block in range(len(self._blocks) if self._folder else 0):
            self._block_file(block).unlink()
        return {"documents": documents, "saturations": saturations, **small}

    def _close_block(self) -> None:
        """Sort the block's tokens into (term, document, frequency) triples."""
        lengths = np.asarray(self._lengths[self._first :])
        tokens = np.asarray(self._tokens)
        keys = tokens.astype(np.int64) * max(1, len(lengths)) + np.repeat(np.arange(len(lengths)), lengths)
        keys, counts = np.unique(keys, return_counts=True)
        terms, documents = np.divmod(keys, max(1, len(lengths)))
        block = np.stack([terms, documents + self._first, counts]).astype(np.int32)
        if self._folder:
            path = self._block_file(len(self._blocks))
            np.save(path, block)
            block = np.load(path, mmap_mode="r")
        self._blocks.append((block[0], block[1], block[2]))
        self._first = len(self._lengths)
        self._tokens = array("i")

    def _block_file(self, number: int) -> Path:
        return self._folder / f"block-{number}.npy"

    def _empty(self, name: str, size: int, kind: type) -> np.ndarray:
        if self._folder is None:
            return np.empty(size, kind)
        return np.lib.format.open_memmap(self._folder / f"{name}.npy", "w+", dtype=kind, shape=(int(size),))


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
    """A document length after Lucene's one-byte code: exact below 40, then rounded down to four significant bits.

    >>> [remembered_length(n) for n in (39, 40, 41, 42, 1000)]
    [39, 40, 40, 42, 984]
    """
    above = length - _EXACT_LENGTHS
    shift = max(0, above.bit_length() - 4)
    return length if above < 0 else _EXACT_LENGTHS + (above >> shift << shift)
