"""What a teacher is asked: the four calls, the episodes that they show, and their prompts in our own words.

Differs from the paper in: a call shows successes and failures drawn round-robin over the categories (the released code
fills its lists category by category, so that the first two dominate), as episodes rather than as memories distilled by
three calls each; ids are not asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from skill1.envs.make import environment_spec
from skill1.methods.skillrl.evolution import Episode, in_turn

Call = Literal["general", "category", "mistakes", "evolve"]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a call is made from."""

    environment: str
    successes: tuple[Episode, ...] = ()
    failures: tuple[Episode, ...] = ()
    category: str | None = None  # "category": the one; "evolve": the failures' common one
    titles: tuple[str, ...] = ()  # "evolve": of all principles that are there
    counted: tuple[Episode, ...] = ()  # "evolve": all of the weak categories, won or lost; models do not see them


# how many episodes a call shows (released code)
_PER_CATEGORY, _POOL = 5, 10  # general: of each outcome, per category and in all
_OF_ONE = 8  # category: of each outcome
_MISTAKES_POOL = 15  # mistakes: failures in all, five per category
_FIRST = 5  # steps of an episode, from its start
_WANTED = {"general": "8 to 12", "category": "4 to 6", "mistakes": "8 to 12", "evolve": "1 to 3"}
_ASKS: dict[Call, str] = {
    "general": "Write principles that help in tasks of every kind.",
    "category": 'Write principles for tasks of the kind "{category}" that do not hold for tasks in general.',
    "mistakes": "Write down the mistakes that cost these episodes.",
    "evolve": "All these episodes were lost. Write new principles that would have prevented it. These are known already, "
    "do not repeat them:\n{titles}",
}
_PRINCIPLE = (
    '"title" (three to five words), "principle" (one or two sentences that say what to do) and "when_to_apply" (one '
    "sentence)"
)
_MISTAKE = (
    '"description" (what goes wrong), "why_it_happens" and "how_to_avoid" (what to do instead), one sentence each'
)
_PROMPT = """You teach an agent that plays {world}.

{episodes}

{ask}
Answer with a JSON array of {wanted} objects and nothing else. Each has the keys {keys}."""


def question(call: Call, inputs: Inputs, observation: int) -> str:
    """Write the prompt of a call; observations are cut at `observation` characters."""
    titles = "\n".join(f"- {title}" for title in inputs.titles) or "- none"
    return _PROMPT.format(
        world=environment_spec(inputs.environment).words.world,
        episodes="\n\n".join(_episode(e, observation) for e in (*inputs.successes, *inputs.failures)),
        ask=_ASKS[call].format(category=inputs.category, titles=titles),
        wanted=_WANTED[call],
        keys=_MISTAKE if call == "mistakes" else _PRINCIPLE,
    )


def first_inputs(call: Call, environment: str, episodes: Sequence[Episode], category: str | None = None) -> Inputs:
    """Choose what a call of a first bank is shown of the episodes played for it."""
    starts = [replace(e, steps=e.steps[:_FIRST]) for e in episodes]
    won, lost = ([e for e in starts if e.won == outcome] for outcome in (True, False))
    if call == "category":
        shown = [[e for e in pool if e.category == category][:_OF_ONE] for pool in (won, lost)]
    elif call == "general":
        shown = [_round_robin(pool, _PER_CATEGORY)[:_POOL] for pool in (won, lost)]
    else:
        shown = [[], _round_robin(lost, _PER_CATEGORY)[:_MISTAKES_POOL]]
    return Inputs(environment, tuple(shown[0]), tuple(shown[1]), category)


def _round_robin(episodes: Iterable[Episode], per_category: int) -> list[Episode]:
    """At most `per_category` of each category, one of each in turn."""
    queues: dict[str, list[Episode]] = {}
    for episode in episodes:
        queues.setdefault(episode.category, []).append(episode)
    return in_turn(queue[:per_category] for _, queue in sorted(queues.items()))


def _episode(episode: Episode, observation: int) -> str:
    lines = [f"Episode ({'won' if episode.won else 'lost'}, kind {episode.category}): {episode.task}"]
    for seen, action in episode.steps:
        lines += [f"  saw: {' '.join(seen.split())[:observation]}", f"  did: {action}"]
    return "\n".join(lines)
