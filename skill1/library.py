"""The skill library (Skill1 section 3): retrieval (Eq. 3, Table 6), utility (Eq. 5), admission and retirement.

`SkillLibrary` is the live library of a training run. After every step it holds a new immutable `FrozenLibrary`, which
does the reading; evaluation gets that view. What a step changed is a `LibraryEvent`: rank 0 learns, the other ranks
and the journal's replay `apply` the event, and all of them hold the same records.

Differs from the paper in:
* retirement ranks by U log(n + 1) (released code); the printed U log n is 0 for every fresh skill;
* U0 = 0.5 and n0 = 1, and the merging of equal skills, are the released code's (the paper is silent);
* N <= 1 has no bonus (ln 1 = 0).
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from skill1.config import LibraryConfig
from skill1.encoder import Encoder
from skill1.records import Candidate, Lesson, Rollout, Skill
from skill1.store.journal import Journal, LibraryError, LibraryEvent, Snapshot, line, read_snapshot, write_snapshot
from skill1.store.skill_file import skill_id

Mode = Literal["ucb", "greedy"]

_SETTINGS = ("capacity", "ema", "initial_utility", "merge_similarity")  # what the stored numbers depend on
_RETIRE: dict[str, Callable[[Skill], float]] = {  # those of the least go
    "least_value": lambda skill: skill.utility * math.log(skill.count + 1),
    "least_recent": lambda skill: skill.last_used,
}
_QUERY_BLOCK = 64  # queries multiplied at once: bounds the product to 64 x capacity
_PROBES = 16  # records that are embedded again on load


def won(rollout: Rollout) -> bool:
    """Tell whose lessons the paper admits."""
    return rollout.outcome == 1.0


class Library(Protocol):
    """What a method reads of skills: a `FrozenLibrary`, or what stands in its place."""

    def __len__(self) -> int: ...
    def __getitem__(self, skill: str) -> Skill: ...
    def retrieve(self, queries: Sequence[str], mode: Mode) -> list[tuple[Candidate, ...]]: ...
    def similarity(self, texts: Sequence[str], skills: Sequence[str]) -> np.ndarray: ...


class FrozenLibrary:
    """An immutable library: retrieval without learning. Later changes of the live library do not reach it."""

    def __init__(
        self, config: LibraryConfig, encoder: Encoder, skills: Mapping[str, Skill], embeddings: np.ndarray
    ) -> None:
        """Args: skills: by id, in id order; embeddings: (len(skills), d) float32 unit rows, never written again."""
        self._config = config
        self._encoder = encoder
        self._skills = dict(skills)
        self._embeddings = embeddings
        self._row = {skill: row for row, skill in enumerate(self._skills)}
        self._ids = tuple(self._skills)
        weight = 1.0 - config.similarity_weight
        utility = np.array([s.utility for s in self], dtype=np.float64)  # (n,)
        count = np.array([s.count for s in self], dtype=np.float64)  # (n,)
        bonus = config.exploration * np.sqrt(math.log(max(count.sum(), 1.0)) / count)
        # The part of the score that does not depend on the query.
        self._prior: dict[Mode, np.ndarray] = {"ucb": weight * (utility + bonus), "greedy": weight * utility}
        self._top: dict[Mode, int] = {"ucb": config.top_k, "greedy": config.evaluation_top_k or config.top_k}

    def __len__(self) -> int:
        return len(self._skills)

    def __iter__(self) -> Iterator[Skill]:
        """Skills in id order, which is the order of admission."""
        return iter(self._skills.values())

    def __contains__(self, skill: object) -> bool:
        return skill in self._skills

    def __getitem__(self, skill: str) -> Skill:
        try:
            return self._skills[skill]
        except KeyError:
            raise KeyError(f"skill {skill!r} is not in the library: retired or never admitted") from None

    def similarity(self, texts: Sequence[str], skills: Sequence[str]) -> np.ndarray:
        """Cosine of texts[i] with the description of the skill whose id is skills[i]. Returns (n,) float64.

        Raises:
            KeyError: an id that is not in the library.
            ValueError: as many texts as ids are needed.
        """
        if len(texts) != len(skills):
            raise ValueError(f"similarity needs as many texts as skill ids, not {len(texts)} and {len(skills)}")
        rows = [self._row[self[skill].id] for skill in skills]
        return _cosines(self._embeddings[rows], self._encoder.encode(texts))

    def retrieve(self, queries: Sequence[str], mode: Mode) -> list[tuple[Candidate, ...]]:
        """Find the exact top K by w cos + (1 - w)(U + bonus) for each query, best first, ties by id.

        The bonus c sqrt(ln N / n) is given in mode "ucb" (training) and 0 in "greedy" (evaluation), which can have a K
        of its own. With a `similarity_floor` only skills whose cosine is at or above it are ranked. Scores are float64
        and depend on the query alone, not on the queries around it.

        Returns:
            For each query at most K candidates; fewer when the library, or what is above the floor, is smaller.

        Raises:
            ValueError: an unknown mode.
        """
        if mode not in self._prior:
            raise ValueError(f"unknown retrieval mode {mode!r} (known: {', '.join(self._prior)})")
        if not self._skills or not queries:
            return [()] * len(queries)
        embedded = self._encoder.encode(queries)  # (m, d)
        found: list[tuple[Candidate, ...]] = []
        for start in range(0, len(queries), _QUERY_BLOCK):
            block = embedded[start : start + _QUERY_BLOCK]
            for query, cosines in zip(block, block @ self._embeddings.T, strict=True):
                rows = self._preselect(cosines, self._prior[mode], self._top[mode])
                found.append(self._rank(query, rows, self._prior[mode][rows], self._top[mode]))
        return found

    def _preselect(self, cosines: np.ndarray, prior: np.ndarray, top: int) -> np.ndarray:
        """The rows that can be in the top `top`, ascending, given a query's (n,) float32 cosines.

        A float32 product of unit vectors is off by at most d * eps / 2 in any order of summation; `slack` is twice
        that. Every row within the slack of the K-th best, or of the floor, is kept for the exact ranking.
        """
        weight, floor = self._config.similarity_weight, self._config.similarity_floor
        slack = self._embeddings.shape[1] * float(np.finfo(np.float32).eps)
        rows = np.arange(len(self)) if floor is None else np.flatnonzero(cosines >= floor - slack)
        scores = np.multiply(cosines[rows], weight, dtype=np.float64) + prior[rows]
        certain = scores if floor is None else scores[cosines[rows] >= floor + slack]
        if len(certain) <= top:
            return rows
        kth = np.partition(certain, len(certain) - top)[-top]
        return rows[scores >= kth - 2 * weight * slack - 1e-12 * abs(kth)]

    def _rank(self, query: np.ndarray, rows: np.ndarray, prior: np.ndarray, top: int) -> tuple[Candidate, ...]:
        cosines = _cosines(self._embeddings[rows], query)
        scores = self._config.similarity_weight * cosines + prior
        if self._config.similarity_floor is not None:
            above = cosines >= self._config.similarity_floor
            rows, cosines, scores = rows[above], cosines[above], scores[above]
        best = np.argsort(-scores, kind="stable")[:top]  # rows ascend by id: stable = ties by id
        ranked = [(self._skills[self._ids[rows[i]]], float(cosines[i]), float(scores[i])) for i in best]
        return tuple(Candidate(skill.id, skill.utility, cosine, score) for skill, cosine, score in ranked)


class SkillLibrary:
    """The live library of a run. Written by `learn` on rank 0 and by `apply` everywhere else."""

    def __init__(self, config: LibraryConfig, encoder: Encoder) -> None:
        self._config = config
        self._encoder = encoder
        self._skills: dict[str, Skill] = {}  # in id order
        self._row: dict[str, int] = {}  # id -> row of the matrix
        self._twins: dict[str, list[str]] = {}  # strategy -> ids, in id order
        self._matrix = np.zeros((64, encoder.dimension), dtype=np.float32)  # first len(self) rows are in use
        self._next = 1  # number of the next id
        self._sequence = 0
        self._freeze()

    @property
    def sequence(self) -> int:
        """Number of events applied so far: the library's version."""
        return self._sequence

    def __len__(self) -> int:
        return len(self._skills)

    def __iter__(self) -> Iterator[Skill]:
        """Skills in id order, which is the order of admission."""
        return iter(self._frozen)

    def __contains__(self, skill: object) -> bool:
        return skill in self._skills

    def __getitem__(self, skill: str) -> Skill:
        return self._frozen[skill]

    def retrieve(self, queries: Sequence[str], mode: Mode) -> list[tuple[Candidate, ...]]:
        """See `FrozenLibrary.retrieve`."""
        return self._frozen.retrieve(queries, mode)

    def similarity(self, texts: Sequence[str], skills: Sequence[str]) -> np.ndarray:
        """See `FrozenLibrary.similarity`."""
        return self._frozen.similarity(texts, skills)

    def frozen(self) -> FrozenLibrary:
        """Return the library as it is now, for evaluation. Free: later steps make new views and leave this one alone."""
        return self._frozen

    def learn(self, rollouts: Sequence[Rollout], step: int, admits: Callable[[Rollout], bool] = won) -> LibraryEvent:
        """Take one step of the library: utilities (Eq. 5; see `library.utility_of`), then admission, then retirement.

        Utilities and admissions go in rollout order. A lesson of a won rollout (or of those that `admits` says) merges into the
        record with the exact same strategy whose description is nearest (if its cosine exceeds `merge_similarity`; ties
        by id), else it is admitted. Lessons admitted earlier in the step count as records. Then the skills of least
        U log(n + 1), or as `library.retire` says, ties by id, leave until the capacity holds; a skill admitted in this very
        step can be one of them.
        A candidate that was retired since it was retrieved gets no update.

        Raises:
            LibraryError: an outcome outside [0, 1] or a candidate that never was in this library. Nothing is changed.
        """
        updates = self._updates(rollouts)
        taught = [(r, r.lesson) for r in rollouts if r.lesson is not None and admits(r)]
        embeddings = self._encoder.encode([lesson.desc for _, lesson in taught])
        for skill, outcome in updates:
            self._update(skill, outcome, step)
        admitted: list[Skill] = []
        merged: list[str] = []
        for (rollout, lesson), embedding in zip(taught, embeddings, strict=True):
            twin = self._twin(lesson, embedding)
            if twin is None:
                admitted.append(self._new(rollout, lesson, step))
                self._append(admitted[-1], embedding)
            else:
                self._merge(twin)
                merged.append(twin)
        retired = self._weakest(len(self) - self._config.capacity)
        self._remove(retired)
        self._sequence += 1
        self._freeze()
        return LibraryEvent(self._sequence, step, updates, tuple(admitted), tuple(merged), retired)

    def apply(self, event: LibraryEvent) -> None:
        """Repeat what `learn` did elsewhere (another rank, or before a restart).

        Raises:
            LibraryError: the event is not the next one, or names skills that this library does not hold.
        """
        if event.sequence != self._sequence + 1:
            raise LibraryError(f"event {event.sequence} cannot follow event {self._sequence}: events must be in order")
        held = set(self._skills)
        named = {skill for skill, _ in event.updates}
        named.update((set(event.merged) | set(event.retired)) - {s.id for s in event.admitted})
        if not named <= held or any(s.id != skill_id(self._next + i) for i, s in enumerate(event.admitted)):
            raise LibraryError(f"event {event.sequence} does not fit this library: it belongs to another run")
        embeddings = self._encoder.encode([s.desc for s in event.admitted])
        for skill, outcome in event.updates:
            self._update(skill, outcome, event.step)
        for admitted, embedding in zip(event.admitted, embeddings, strict=True):
            self._append(admitted, embedding)
        for skill in event.merged:
            self._merge(skill)
        self._remove(event.retired)
        self._sequence += 1
        self._freeze()

    def save(self, folder: Path) -> None:
        """Write a snapshot into `folder`, in place of the one there. A kill leaves the old or the new one."""
        embeddings = self._matrix[: len(self)]
        write_snapshot(folder, Snapshot(self._sequence, self._next, self._settings(), tuple(self), embeddings))

    @classmethod
    def load(cls, folder: Path, config: LibraryConfig, encoder: Encoder) -> SkillLibrary:
        """Load the library that `save` wrote, bit by bit, embeddings included.

        Raises:
            LibraryError: the snapshot is missing, truncated, corrupt or of another format version; it was learnt with
                other settings than `config`; or its embeddings are not those of `encoder`.
        """
        snapshot = read_snapshot(folder)
        library = cls(config, encoder)
        for name, value in library._settings().items():
            if snapshot.settings[name] != value:
                raise LibraryError(
                    f"the library in {folder} was learnt with library.{name} = {snapshot.settings[name]}, the "
                    f"configuration has {value}: use the run's own configuration"
                )
        _check_encoder(folder, snapshot, encoder)
        for skill, embedding in zip(snapshot.skills, snapshot.embeddings, strict=True):
            library._append(skill, embedding)
        library._next, library._sequence = snapshot.next_id, snapshot.sequence
        library._freeze()
        return library

    def state_hash(self) -> str:
        """SHA-256 of all records, the id counter and the sequence: equal on all ranks and after a resume.

        Embeddings are not in it: they are a function of the texts, up to rounding.
        """
        state = [f"{self._sequence} {self._next}", *map(line, map(asdict, self))]
        return hashlib.sha256("\n".join(state).encode()).hexdigest()

    def _settings(self) -> dict[str, float]:
        return {name: getattr(self._config, name) for name in _SETTINGS}

    def _updates(self, rollouts: Sequence[Rollout]) -> tuple[tuple[str, float | None], ...]:
        updates: list[tuple[str, float | None]] = []
        for rollout in rollouts:
            if not 0.0 <= rollout.outcome <= 1.0:
                raise LibraryError(f"outcome {rollout.outcome!r} of {rollout.task.game} is not in [0, 1]")
            for candidate in rollout.candidates:
                if candidate.skill in self._skills:
                    credited = self._config.utility_of == "candidates" or candidate.skill == rollout.selected
                    updates.append((candidate.skill, float(rollout.outcome) if credited else None))
                elif not self._issued(candidate.skill):
                    raise LibraryError(f"candidate {candidate.skill!r} never was in this library: wrong run?")
        return tuple(updates)

    def _issued(self, skill: str) -> bool:
        return skill[:1] == "s" and skill[1:].isdecimal() and 0 < int(skill[1:]) < self._next

    def _update(self, skill: str, outcome: float | None, step: int) -> None:
        """Count a retrieval, and let the utility follow its outcome; None leaves it."""
        old, alpha = self._skills[skill], self._config.ema
        utility = old.utility if outcome is None else (1.0 - alpha) * old.utility + alpha * outcome
        self._skills[skill] = replace(old, utility=utility, count=old.count + 1, last_used=step)

    def _new(self, rollout: Rollout, lesson: Lesson, step: int) -> Skill:
        return Skill(
            id=skill_id(self._next),
            desc=lesson.desc,
            strategy=lesson.strategy,
            task=rollout.instruction,
            utility=self._config.initial_utility,
            count=1,
            admitted=step,
            last_used=step,
            outcome="success" if rollout.outcome == 1.0 else "failure",
        )

    def _append(self, skill: Skill, embedding: np.ndarray) -> None:
        if len(self) == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
        self._matrix[len(self)] = embedding  # beyond the rows that any frozen view holds
        self._row[skill.id] = len(self)
        self._skills[skill.id] = skill
        self._twins.setdefault(skill.strategy, []).append(skill.id)
        self._next = int(skill.id[1:]) + 1

    def _twin(self, lesson: Lesson, embedding: np.ndarray) -> str | None:
        """The id of the record that `lesson` merges into."""
        equal = self._twins.get(lesson.strategy, [])
        if not equal:
            return None
        cosines = _cosines(self._matrix[[self._row[skill] for skill in equal]], embedding)
        nearest = int(np.argmax(cosines))  # the first of equals: the lowest id
        return equal[nearest] if cosines[nearest] > self._config.merge_similarity else None

    def _merge(self, skill: str) -> None:
        old = self._skills[skill]
        utility = (1.0 - self._config.ema) * old.utility + self._config.ema * 0.5
        self._skills[skill] = replace(old, utility=utility, count=old.count + 1)

    def _weakest(self, number: int) -> tuple[str, ...]:
        if number <= 0:
            return ()
        # Stable: of equals the lowest id, which comes first, goes first.
        worth = _RETIRE[self._config.retire]
        return tuple(skill.id for skill in heapq.nsmallest(number, self._skills.values(), key=worth))

    def _remove(self, retired: Sequence[str]) -> None:
        if not retired:
            return
        for skill in retired:
            strategy = self._skills.pop(skill).strategy
            self._twins[strategy].remove(skill)
            if not self._twins[strategy]:
                del self._twins[strategy]
        matrix = np.zeros_like(self._matrix)  # a new one: frozen views keep theirs
        matrix[: len(self)] = self._matrix[[self._row[skill] for skill in self._skills]]
        self._matrix = matrix
        self._row = {skill: row for row, skill in enumerate(self._skills)}

    def _freeze(self) -> None:
        self._frozen = FrozenLibrary(self._config, self._encoder, self._skills, self._matrix[: len(self._skills)])


def _cosines(rows: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Float64 dot products of (n, d) float32 unit rows with (n, d) or (d,): each row's value is its own alone."""
    return np.vecdot(rows.astype(np.float64), other.astype(np.float64))


def _check_encoder(folder: Path, snapshot: Snapshot, encoder: Encoder) -> None:
    probes = range(0, len(snapshot.skills), max(len(snapshot.skills) // _PROBES, 1))
    again = encoder.encode([snapshot.skills[i].desc for i in probes])
    stored = snapshot.embeddings[list(probes)]
    if stored.shape != again.shape or (_cosines(stored, again) < 0.999).any():
        raise LibraryError(f"the embeddings in {folder} are not those of this encoder: use the run's library.encoder")


def replay(journal: Journal, library: SkillLibrary, before: int | None = None) -> SkillLibrary:
    """Apply to `library` the journal's events that it has not seen, and return it.

    A new library becomes the one at the journal's end, a loaded snapshot catches up. A torn last event is left out.

    Args:
        before: leave out events of this training step and later ones.

    Raises:
        LibraryError: there is no journal, or its events do not fit the library.
    """
    for event in journal.events():
        if event.sequence > library.sequence and (before is None or event.step < before):
            library.apply(event)
    return library
