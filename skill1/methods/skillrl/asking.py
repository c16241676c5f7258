"""The teacher's prompts, in our own words: what the four calls ask of a language model, and which episodes they show.

Differs from the paper in: a call shows successes and failures drawn round-robin over the categories (the released code
fills its lists category by category, so that the first two dominate), as episodes rather than as memories distilled by
three calls each; ids are not asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest

from skill1.envs.make import environment_spec
from skill1.methods.skillrl.evolution import Episode
from skill1.methods.skillrl.teacher import Call, Inputs

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
    """The prompt of a call; observations are cut at `observation` characters."""
    titles = "\n".join(f"- {title}" for title in inputs.titles) or "- none"
    return _PROMPT.format(
        world=environment_spec(inputs.environment).words.world,
        episodes="\n\n".join(_episode(e, observation) for e in (*inputs.successes, *inputs.failures)),
        ask=_ASKS[call].format(category=inputs.category, titles=titles),
        wanted=_WANTED[call],
        keys=_MISTAKE if call == "mistakes" else _PRINCIPLE,
    )


def first_inputs(call: Call, environment: str, episodes: Sequence[Episode], category: str | None = None) -> Inputs:
    """What the calls of a first bank are shown of the episodes played for it."""
    won, lost = ([e for e in episodes if e.won == outcome] for outcome in (True, False))
    if call == "category":
        shown = [[e for e in pool if e.category == category][:_OF_ONE] for pool in (won, lost)]
    elif call == "general":
        shown = [_round_robin(pool, _PER_CATEGORY)[:_POOL] for pool in (won, lost)]
    else:
        shown = [[], _round_robin(lost, _PER_CATEGORY)[:_MISTAKES_POOL]]
    return Inputs(environment, tuple(map(_start, shown[0])), tuple(map(_start, shown[1])), category)


def _round_robin(episodes: Iterable[Episode], per_category: int) -> list[Episode]:
    """At most `per_category` of each category, one of each in turn."""
    queues: dict[str, list[Episode]] = {}
    for episode in episodes:
        queues.setdefault(episode.category, []).append(episode)
    rounds = zip_longest(*(queue[:per_category] for _, queue in sorted(queues.items())))
    return [episode for episode in chain.from_iterable(rounds) if episode is not None]


def _start(episode: Episode) -> Episode:
    return Episode(episode.task, episode.category, episode.won, episode.steps[:_FIRST])


def _episode(episode: Episode, observation: int) -> str:
    lines = [f"Episode ({'won' if episode.won else 'lost'}, kind {episode.category}): {episode.task}"]
    for seen, action in episode.steps:
        lines += [f"  saw: {' '.join(seen.split())[:observation]}", f"  did: {action}"]
    return "\n".join(lines)
