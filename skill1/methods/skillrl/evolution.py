"""Recursive evolution: which failures a teacher is shown, and which of its answers the bank takes in. Pure functions.

Every `method.evolve_every` steps, over the episodes of these steps: a category is weak if it won less than
`method.weak_below` of at least `method.weak_rollouts`; up to `method.evolve_failures` of the lost *episodes*, drawn at
random, round-robin over the weak categories with the weakest first, go to one teacher call. Of the answer at most
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
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from skill1.encoder import Encoder
from skill1.methods.skillrl.bank import Principle, SkillBank, read_taught
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


Tally = tuple[int, int]  # episodes won and played of one category


def episode_of(rollout: Rollout, environment: str, last: int | None = None) -> Episode:
    """Take a rollout's `last` steps (None = all), with what the episode showed before each action."""
    turns = rollout.turns_of("act")
    shown = turns if last is None else turns[-last:]
    return Episode(
        task=rollout.instruction,
        category=category_of(environment, rollout.instruction),
        won=rollout.outcome == 1.0,
        steps=tuple((turn.observation, turn.value) for turn in shown),
    )


def tallies(episodes: Iterable[Episode]) -> dict[str, Tally]:
    """Count outcomes by category, sorted by name."""
    found: dict[str, list[bool]] = {}
    for episode in episodes:
        found.setdefault(episode.category, []).append(episode.won)
    return {name: (sum(won), len(won)) for name, won in sorted(found.items())}


def weak_categories(of: Mapping[str, Tally], config: SkillRLConfig) -> list[str]:
    """List the categories to learn from, weakest first, ties by name."""
    rates = {name: won / played for name, (won, played) in of.items() if played >= config.weak_rollouts}
    return sorted((name for name in rates if rates[name] < config.weak_below), key=lambda name: (rates[name], name))


def pick_failures(
    episodes: Sequence[Episode], weak: Sequence[str], count: int, rng: np.random.Generator
) -> tuple[Episode, ...]:
    """Draw at most `count` lost episodes: one of each weak category in turn, each category's in random order."""
    queues = []
    for name in weak:
        lost = [episode for episode in episodes if episode.category == name and not episode.won]
        queues.append([lost[i] for i in rng.permutation(len(lost))])
    return tuple(in_turn(queues))[:count]


def in_turn(queues: Iterable[Sequence[Episode]]) -> list[Episode]:
    """Take the first of each queue, then the second of each that has one, and so on."""
    return [episode for episode in chain.from_iterable(zip_longest(*queues)) if episode is not None]


def section_for(failures: Sequence[Episode], config: SkillRLConfig) -> str | None:
    """Choose the section for principles learnt from these failures: their common category, or None for general."""
    categories = {episode.category for episode in failures}
    return categories.pop() if len(categories) == 1 and config.evolved_section == "category" else None


def accept(
    answer: Sequence[Any], bank: SkillBank, category: str | None, config: SkillRLConfig, encoder: Encoder
) -> tuple[tuple[Principle, ...], tuple[str, ...]]:
    """Choose the principles to add from a teacher's answer, with their ids, and say why each of the others is not.

    Entries are judged in the order of the answer, each against the bank and those accepted before it.
    """
    accepted: list[Principle] = []
    refused: list[str] = []
    titles = {title.casefold() for title in bank.titles}
    known = encoder.encode([entry.principle for entry in bank.principles]).astype(np.float64)  # (n, d)
    for entry in answer:
        made = read_taught(Principle, entry, f"dyn_{bank.next_evolved + len(accepted):03d}", category=category)
        if made is None:
            refused.append("without a title or principle")
            continue
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
