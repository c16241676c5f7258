"""Two libraries: what they share and where they differ, and both as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rapidfuzz import fuzz, process

from skill1.analysis.library.source import Entry
from skill1.store.skill_file import WrittenSkill

_ALIKE = 70.0  # percent: below it two texts have little in common but common words


@dataclass(frozen=True, slots=True)
class Pair:
    """A skill that both libraries hold with the same texts, or that one of them holds alone."""

    a: Entry | None
    b: Entry | None
    closest: str | None = None  # of a skill of one alone: id of the other library's with the most similar texts
    similarity: float | None = None  # of these two, in percent: 100 (1 - insertions and deletions / both lengths)

    @property
    def moved(self) -> bool:
        """Whether both hold it, with another utility or count."""
        return self.a is not None and self.b is not None and _earned(self.a.skill) != _earned(self.b.skill)


def compare(a: Sequence[Entry], b: Sequence[Entry]) -> list[Pair]:
    """Pair skills with the same description and strategy, one to one: A's in their order, then those of B alone."""
    in_a, in_b = ({entry.id: _texts(entry.skill) for entry in entries} for entries in (a, b))
    waiting: dict[str, list[Entry]] = {}
    for entry in b:
        waiting.setdefault(in_b[entry.id], []).append(entry)
    pairs = []
    for entry in a:
        twins = waiting.get(in_a[entry.id])
        pairs.append(Pair(entry, twins.pop(0)) if twins else Pair(entry, None, *_closest(in_a[entry.id], in_b)))
    alone = {entry.id for twins in waiting.values() for entry in twins}
    return pairs + [Pair(None, entry, *_closest(in_b[entry.id], in_a)) for entry in b if entry.id in alone]


def _closest(text: str, others: Mapping[str, str]) -> tuple[str | None, float | None]:
    found = process.extractOne(text, others, scorer=fuzz.ratio, score_cutoff=_ALIKE)
    return (None, None) if found is None else (found[2], found[1])


def merge(a: Sequence[WrittenSkill], b: Sequence[WrittenSkill]) -> list[WrittenSkill]:
    """Join two libraries: A's skills, then B's others; what has the same description and strategy becomes one skill.

    Its utility is the mean weighted by count, its count the sum, in which the observation that every skill begins with
    counts once. Of a skill that was never used in one of them the other's statistics stay.
    """
    merged: dict[str, WrittenSkill] = {}
    for skill in (*a, *b):
        texts = _texts(skill)
        merged[texts] = _joined(merged[texts], skill) if texts in merged else skill
    return list(merged.values())


def _joined(a: WrittenSkill, b: WrittenSkill) -> WrittenSkill:
    if a.utility is None or b.utility is None:
        known = a if b.utility is None else b
        return replace(a, utility=known.utility, count=known.count)
    utility = (a.count * a.utility + b.count * b.utility) / (a.count + b.count)
    return replace(a, utility=utility, count=a.count + b.count - 1)


def _texts(skill: WrittenSkill) -> str:
    return f"{skill.desc}\0{skill.strategy}"


def _earned(skill: WrittenSkill) -> tuple[float | None, int]:
    return skill.utility, skill.count
