"""A library's whole life, replayed from its journal by the live library's own code, without embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from skill1.config import LibraryConfig
from skill1.encoder import HashEncoder
from skill1.library import SkillLibrary
from skill1.records import Skill
from skill1.store.journal import LibraryError, LibraryEvent


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
    library = SkillLibrary(
        replace(config, capacity=kept), HashEncoder(dimension=1)
    )  # nothing is retrieved: any encoder
    for event in events:
        there = {skill.id for skill in library} | {skill.id for skill in event.admitted}
        merged = tuple(skill for skill in event.merged if skill in there)
        updates = tuple(update for update in event.updates if update[0] in there)
        library.apply(LibraryEvent(library.sequence + 1, event.step, updates, event.admitted, merged, ()))
        skills = tuple(library)
        retired = library.learn((), event.step).retired if event.step else ()  # 0: what the run starts with, whole
        if kept == config.capacity and retired != event.retired:
            raise LibraryError(
                f"step {event.step} retired {len(event.retired)} skills, a capacity of {kept} retires "
                f"{len(retired)} others: the journal is not this configuration's"
            )
        yield Moment(event.step, skills, retired, len(event.merged) - len(merged))
