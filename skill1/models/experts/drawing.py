"""Skills drawn for demonstrated episodes: lessons as training games teach them, in the place of a library. Ours.

One of an episode's candidates is relevant, or none is; the relevant one is true of the game, or what another game taught of
such a task. The expert ranks it first and looks where it says; what a skill says about another thing it leaves aside. So
skills are learnt to be read.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Generic

import numpy as np

from skill1.library import Mode
from skill1.models.experts.base import APART, Expert, F
from skill1.models.options import ExpertConfig
from skill1.records import Candidate, Lesson, Skill


def draw(expert: Expert[F], fact: F, options: ExpertConfig, most: int, rng: random.Random) -> list[F]:
    """Draw what an episode's candidates say: of none, or of two to `most`, in random order.

    Args:
        fact: what is true of the episode's game.
    """
    if rng.random() >= options.skills:
        return []
    known: defaultdict[int, list[F]] = defaultdict(list)
    for other in dict.fromkeys(expert.facts.values()):
        known[expert.distance(fact, other)].append(other)
    count, drawn = rng.randint(min(2, most), most), []
    if rng.random() < options.relevant:
        drawn.append(fact if rng.random() < options.true else rng.choice(known[0]))
    near = sum(rng.random() < options.near for _ in range(count - len(drawn)))
    some = [other for distance in range(1, APART) for other in known[distance]]
    for others, wanted in ((some, near), (known[APART], count - len(drawn) - near)):
        drawn += rng.sample(others, min(wanted, len(others)))
    rng.shuffle(drawn)
    return drawn


class DrawnSkills(Generic[F]):
    """Skills that were drawn for episodes, in the place of a library: the i-th query is that of the i-th episode."""

    def __init__(self, drawn: Iterable[Sequence[tuple[F, Lesson]]], utility: float) -> None:
        """`drawn`: for each episode what its candidates say, and how."""
        self.facts: dict[str, F] = {}  # by `Skill.id`
        self._skills: dict[str, Skill] = {}
        self._candidates: list[tuple[Candidate, ...]] = []
        for number, skills in enumerate(drawn):
            names = [f"{number}.{place}" for place in range(len(skills))]
            for name, (fact, lesson) in zip(names, skills, strict=True):
                self.facts[name] = fact
                self._skills[name] = Skill(name, lesson.desc, lesson.strategy, "", utility, 1, 0, 0, "success")
            self._candidates.append(tuple(Candidate(name, utility, math.nan, math.nan) for name in names))

    def __len__(self) -> int:
        return len(self._skills)

    def __getitem__(self, skill: str) -> Skill:
        return self._skills[skill]

    def retrieve(self, queries: Sequence[str], mode: Mode) -> list[tuple[Candidate, ...]]:
        """Return what was drawn, whatever is asked for."""
        return [candidates for candidates, _ in zip(self._candidates, queries, strict=True)]

    def similarity(self, texts: Sequence[str], skills: Sequence[str]) -> np.ndarray:
        """Return nan: nothing was embedded. (n,)"""
        return np.full(len(texts), math.nan)
