"""A library's whole life, replayed from its journal; and what a smaller capacity would have retired.

The replay is the live library's own code (`SkillLibrary.apply` and the retirement of `learn`), without embeddings.

The smaller capacity is a **counterfactual of retirement only**: it takes the recorded uses, outcomes and admissions as
they were. In a run with that capacity other skills would have been retrieved in place of the lost ones, episodes would
have gone otherwise, and a lesson that merged into a lost skill would have been admitted again; here it stays lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from skill1.config import LibraryConfig
from skill1.encoder import HashEncoder
from skill1.library import SkillLibrary
from skill1.records import Skill
from skill1.store.journal import LibraryError, LibraryEvent

_SMALLEST = 8  # skills: below it no capacity is tried by default


@dataclass(frozen=True, slots=True)
class Moment:
    """A library after a step has learnt and before its retirement."""

    step: int
    skills: tuple[Skill, ...]  # in id order
    retired: tuple[str, ...]  # what leaves now
    lost_merges: int  # lessons that merged into a skill which the smaller capacity had retired


def moments(events: Sequence[LibraryEvent], config: LibraryConfig, capacity: int | None = None) -> Iterator[Moment]:
    """Replay `events` under the run's own capacity, or under a smaller one.

    A smaller capacity keeps a subset of what a larger one keeps, at every step: a skill's U and n depend on its own
    recorded uses alone as long as it is there.

    Raises:
        ValueError: a capacity below 1 or above the recorded one, whose retired skills have no recorded future.
        LibraryError: under the run's own capacity, other skills are retired than the journal says.
    """
    kept = config.capacity if capacity is None else capacity
    if not 1 <= kept <= config.capacity:
        raise ValueError(f"capacity {kept}: a replay needs 1 to {config.capacity}, the capacity that was recorded")
    library = _empty(replace(config, capacity=kept))
    for event in events:
        there = {skill.id for skill in library} | {skill.id for skill in event.admitted}
        merged = tuple(skill for skill in event.merged if skill in there)
        updates = tuple(update for update in event.updates if update[0] in there)
        library.apply(LibraryEvent(library.sequence + 1, event.step, updates, event.admitted, merged, ()))
        skills = tuple(library)
        retired = library.learn((), event.step).event.retired
        if kept == config.capacity and retired != event.retired:
            raise LibraryError(
                f"step {event.step} retired {len(event.retired)} skills, a capacity of {kept} retires "
                f"{len(retired)} others: the journal is not this configuration's"
            )
        yield Moment(event.step, skills, retired, len(event.merged) - len(merged))


def skills_before(events: Sequence[LibraryEvent], config: LibraryConfig, step: int) -> dict[str, Skill]:
    """Replay `events` up to `step`: id -> record as the step's retrieval saw it, in order of admission."""
    library = _empty(config)
    for event in events:
        if event.step < step:
            library.apply(event)
    return {skill.id: skill for skill in library}


def _empty(config: LibraryConfig) -> SkillLibrary:
    return SkillLibrary(config, HashEncoder(dimension=1))  # nothing is retrieved: any encoder will do


def halves(size: int) -> list[int]:
    """List capacities to try on a library that grew to `size` skills: its half, quarter and so on, at most six."""
    return [size >> i for i in range(1, 7) if size >> i >= _SMALLEST]


def counterfactual(
    events: Sequence[LibraryEvent],
    config: LibraryConfig,
    episodes: pd.DataFrame,
    retrievals: pd.DataFrame,
    capacities: Sequence[int],
) -> pd.DataFrame:
    """Measure how much of what was used later a smaller capacity would have lost; the module's docstring has its limits.

    Args:
        episodes, retrievals: of `LibraryRun`.
        capacities: each at most the recorded one.

    Returns:
        One row per capacity: capacity, retired (skills), used_later (of them, retrieved afterwards), retrievals, shown,
        won (shares that are lost: of all retrievals; of the retrievals that were shown; of the shown ones in episodes
        that were won), emptied (share of the episodes with candidates that lose all of them), merges (lessons that
        merged into a lost skill).

    Raises:
        ValueError, LibraryError: see `moments`.
    """
    rows = []
    won = retrievals["episode"].map(episodes["outcome"]) == 1.0
    for capacity in capacities:
        gone: dict[str, int] = {}
        merges = 0
        for moment in moments(events, config, capacity):
            gone |= dict.fromkeys(moment.retired, moment.step)
            merges += moment.lost_merges
        # a step retrieves from the library as the step before left it
        lost = retrievals["step"] > retrievals["skill"].map(gone).astype(float)
        rows.append(
            {
                "capacity": capacity,
                "retired": len(gone),
                "used_later": retrievals.loc[lost, "skill"].nunique(),
                "retrievals": lost.mean(),
                "shown": lost[retrievals["shown"]].mean(),
                "won": lost[retrievals["shown"] & won].mean(),
                "emptied": lost.groupby(retrievals["episode"]).all().mean(),
                "merges": merges,
            }
        )
    return pd.DataFrame(rows)
