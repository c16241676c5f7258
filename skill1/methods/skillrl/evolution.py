"""Recursive evolution: which failures a teacher is shown, and which of its answers the bank takes in. Pure functions.

Every `method.evolve_every` steps, over the episodes of these steps: a category is weak if it won less than
`method.weak_below` of at least `method.weak_rollouts`; up to `method.evolve_failures` of its lost *episodes*, drawn at random,
round-robin over the weak categories with the weakest first, go to one teacher call. Of the answer at most
`method.evolve_new` entries stay.

Differs from the paper in:
* Failures come from training by default (the paper's come from validation, the split it reports).
* What a teacher repeats is dropped: an existing title (case-folded), or a principle as near to an existing one as
  `method.duplicate_similarity`. The released code only shows it the titles.
* New principles belong to the failures' category if they have one in common, else they are general; the released code
  makes all of them general (`method.evolved_section = "general"`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skill1.encoder import Encoder
from skill1.methods.skillrl.bank import Principle, SkillBank, usable
from skill1.methods.skillrl.categories import category_of
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.records import Rollout


@dataclass(frozen=True, slots=True)
class Episode:
    """A played episode as a teacher is shown it."""

    task: str  # the sentence
    category: str
    won: bool
    steps: tuple[tuple[str, str], ...]  # (observation, action), oldest first


@dataclass(frozen=True, slots=True)
class Tally:
    """Outcomes of one category."""

    won: int
    played: int

    @property
    def rate(self) -> float:
        return self.won / self.played


def episode_of(rollout: Rollout, environment: str, last: int | None = None) -> Episode:
    """A rollout's `last` steps (None = all), with what the episode showed before each action."""
    turns = rollout.turns_of("act")
    shown = turns if last is None else turns[-last:]
    return Episode(
        task=rollout.instruction,
        category=category_of(environment, rollout.instruction),
        won=rollout.outcome == 1.0,
        steps=tuple((turn.observation, turn.value) for turn in shown),
    )


def tallies(episodes: Iterable[Episode]) -> dict[str, Tally]:
    """Category -> outcomes, by name."""
    found: dict[str, list[bool]] = {}
    for episode in episodes:
        found.setdefault(episode.category, []).append(episode.won)
    return {name: Tally(sum(won), len(won)) for name, won in sorted(found.items())}


def weak_categories(of: Mapping[str, Tally], config: SkillRLConfig) -> list[str]:
    """Categories to learn from, weakest first, ties by name."""
    weak = [name for name, t in of.items() if t.played >= config.weak_rollouts and t.rate < config.weak_below]
    return sorted(weak, key=lambda name: (of[name].rate, name))


def pick_failures(
    episodes: Sequence[Episode], weak: Sequence[str], count: int, rng: np.random.Generator
) -> tuple[Episode, ...]:
    """At most `count` lost episodes: one of each weak category in turn, each category's in random order."""
    queues = []
    for name in weak:
        lost = [episode for episode in episodes if episode.category == name and not episode.won]
        queues.append([lost[i] for i in rng.permutation(len(lost))])
    rounds = max(map(len, queues), default=0)
    return tuple(queue[i] for i in range(rounds) for queue in queues if i < len(queue))[:count]


def section_for(failures: Sequence[Episode], config: SkillRLConfig) -> str | None:
    """Where principles learnt from these failures go: their common category, or None for general."""
    categories = {episode.category for episode in failures}
    return categories.pop() if len(categories) == 1 and config.evolved_section == "category" else None


def accept(
    answer: Sequence[Any], bank: SkillBank, category: str | None, config: SkillRLConfig, encoder: Encoder
) -> tuple[tuple[Principle, ...], tuple[str, ...]]:
    """A teacher's answer -> the principles to add, with their ids, and why each of the others is not.

    Entries are judged in the order of the answer, each against the bank and those accepted before it.
    """
    accepted: list[Principle] = []
    refused: list[str] = []
    titles = {title.casefold() for title in bank.titles}
    known = encoder.encode([entry.principle for entry in bank.principles]).astype(np.float64)  # (n, d)
    for entry in answer:
        if not usable(entry):
            refused.append("without a title or principle")
            continue
        made = Principle(
            id=f"dyn_{bank.next_evolved + len(accepted):03d}",
            title=entry["title"].strip(),
            principle=entry["principle"].strip(),
            when=when.strip() if isinstance(when := entry.get("when_to_apply"), str) else "",
            category=category,
        )
        embedding = encoder.encode([made.principle]).astype(np.float64)  # (1, d)
        if len(accepted) == config.evolve_new:
            refused.append(f"{made.title}: more than {config.evolve_new}")
        elif len(bank) + len(accepted) >= config.limit:
            refused.append(f"{made.title}: the bank is full")
        elif made.title.casefold() in titles:
            refused.append(f"{made.title}: a title that is there")
        elif len(known) and (known @ embedding[0]).max() >= config.duplicate_similarity:
            refused.append(f"{made.title}: a principle that is there")
        else:
            accepted.append(made)
            titles.add(made.title.casefold())
            known = np.concatenate([known, embedding])
    return tuple(accepted), tuple(refused)
