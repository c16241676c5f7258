"""Time of exact top-5 retrieval from 5,000 skills of 384 dimensions, against a float64 brute force in the same run.

Run on one thread: OMP_NUM_THREADS=1 python benchmarks/library.py
Both sides find the same candidates (checked) from queries that are already embedded.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from skill1.config import LibraryConfig
from skill1.library import FrozenLibrary
from skill1.records import Skill

SKILLS, DIMENSION, REPEATS = 5000, 384, 50


class Lookup:
    """An encoder of known texts, so that embedding costs nothing."""

    dimension = DIMENSION

    def __init__(self, texts: Sequence[str], rows: np.ndarray) -> None:
        self._rows = dict(zip(texts, rows, strict=True))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._rows[text] for text in texts])


def unit_rows(rng: np.random.Generator, number: int) -> np.ndarray:
    rows = rng.standard_normal((number, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute_force(
    embeddings: np.ndarray, skills: Sequence[Skill], queries: np.ndarray, config: LibraryConfig
) -> list[list[str]]:
    """Scores every skill in float64 and sorts them all. embeddings (n, d) and queries (m, d) are float64."""
    utility = np.array([s.utility for s in skills])
    count = np.array([s.count for s in skills])
    bonus = config.exploration * np.sqrt(np.log(count.sum()) / count)
    weight = config.similarity_weight
    scores = weight * (queries @ embeddings.T) + (1 - weight) * (utility + bonus)
    return [[skills[i].id for i in np.argsort(-row, kind="stable")[: config.top_k]] for row in scores]


def milliseconds(call: Callable[[], object]) -> str:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return f"median {statistics.median(times):7.3f} ms, best {min(times):7.3f} ms"


def main() -> None:
    rng = np.random.default_rng(0)
    skills = [
        Skill(f"s{i:06d}", "", "", "", float(rng.random()), int(rng.integers(1, 60)), 0, 0, "success")
        for i in range(SKILLS)
    ]
    embeddings = unit_rows(rng, SKILLS)
    names = [f"query {i}" for i in range(128)]
    queries = unit_rows(rng, len(names))
    wide = embeddings.astype(np.float64)
    encoder = Lookup(names, queries)
    for label, floor in (("", None), (", similarity floor 0.1", 0.1)):
        config = LibraryConfig(similarity_floor=floor)
        library = FrozenLibrary(config, encoder, {s.id: s for s in skills}, embeddings)
        for number in (1, len(names)):
            asked, some = names[:number], queries[:number].astype(np.float64)
            print(f"{number:3d} queries, library{label}: {milliseconds(lambda: library.retrieve(asked, 'ucb'))}")
            if floor is None:
                found = [[c.skill for c in row] for row in library.retrieve(asked, "ucb")]
                assert found == brute_force(wide, skills, some, config)
                took = milliseconds(lambda: brute_force(wide, skills, some, config))
                print(f"{number:3d} queries, brute force: {took}")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
