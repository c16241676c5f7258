"""Teachers: who writes the bank's entries. One call, `Teacher.write(call, inputs) -> list[dict]`, four backends.

    file       a bank file: it answers the three calls of a first bank and has nothing to say about failures
    policy     the policy itself ("self-taught" in tables); `policy_teacher`
    endpoint   a model behind an OpenAI-compatible address (the paper's setting); `endpoint_teacher`
    scripted   counts over the episodes, in words of the nano policies: for their presets and tests

A teacher that cannot be had or does not answer with a JSON array is a `TeacherError`: the caller counts it and goes on.

Differs from the paper in: ids are given by the bank, not asked of the teacher.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from skill1.methods.skillrl.bank import SkillBank
from skill1.methods.skillrl.evolution import Episode
from skill1.nano.expert import read_goal
from skill1.nano.prompts.alfworld import compact
from skill1.nano.prompts.shop_reading import read_page, read_wish
from skill1.nano.prompts.webshop import CompactShopPrompts
from skill1.registry import closest

_TREATED_AT = {
    "clean": "sinkbasin",
    "heat": "microwave",
    "cool": "fridge",
}  # where objects are seen as they were brought

Call = Literal["general", "category", "mistakes", "evolve"]


class TeacherError(RuntimeError):
    """A teacher gave no usable answer. The message says what came instead."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a call is made from."""

    environment: str
    successes: tuple[Episode, ...] = ()
    failures: tuple[Episode, ...] = ()
    category: str | None = None  # "category": the one; "evolve": the failures' common one
    titles: tuple[str, ...] = ()  # "evolve": of all principles that are there
    counted: tuple[
        Episode, ...
    ] = ()  # "evolve": all episodes of the weak categories, won or lost; models do not see them


class Teacher(Protocol):
    """Writes entries in the bank's public shape, without ids."""

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """The entries as they came: `bank.usable` says which can be used. Raises TeacherError."""
        ...


def read_answer(text: str) -> list[Any]:
    """The JSON array in a model's answer: from the first "[" to the last "]". Raises TeacherError without one."""
    first, last = text.find("["), text.rfind("]")
    try:
        found = json.loads(text[first : last + 1]) if first >= 0 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise TeacherError(f"no JSON array in the answer {_short(text)!r}")
    return found


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


class FileTeacher:
    """What a bank file holds."""

    def __init__(self, bank: SkillBank) -> None:
        self._bank = bank

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """The section that the call asks for; nothing about failures."""
        if call == "evolve":
            return []
        if call == "mistakes":
            return [entry.to_json() for entry in self._bank.mistakes]
        wanted = self._bank.general if call == "general" else self._bank.of([inputs.category])
        return [entry.to_json() for entry in wanted]


class ScriptedTeacher:
    """Counts over the episodes, in the nano policies' vocabularies; no model.

    ALFWorld: in which type of place an object was seen most often ("mug in cabinet"); a mistake is one of the commands
    that most often had no effect. WebShop: which brand a wish was fulfilled with ("mens shirts : berden").
    """

    _GENERAL, _CATEGORY, _MISTAKES = 8, 4, 8

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """Entries from the episodes given, the most frequent first, ties by name."""
        episodes = (*inputs.successes, *inputs.failures)
        if call == "mistakes":
            return [
                {"description": command, "why_it_happens": "", "how_to_avoid": "look"}
                for command, _ in _frequent(_vain(episodes), self._MISTAKES)
            ]
        most = {"general": self._GENERAL, "category": self._CATEGORY, "evolve": None}[call]
        count = _COUNTED[closest(inputs.environment, _COUNTED, "environment of the scripted teacher")]
        return [
            {"title": text, "principle": text, "when_to_apply": ""}
            for text, _ in _frequent(count(inputs.counted or episodes), most)
        ]


def _places(episodes: Sequence[Episode]) -> Counter[str]:
    """ "<object type> in <the type of place it was seen at most often>" -> how often."""
    seen: Counter[tuple[str, str]] = Counter()
    for episode in episodes:
        goal = read_goal(episode.task)
        for observation, _ in episode.steps:
            kinds = [word.rpartition("_")[0] for word in compact(observation).split() if word[-1].isdecimal()]
            brought = kinds[:1] in ([goal.place], [_TREATED_AT.get(goal.kind)])
            if goal.target in kinds[1:] and not brought:  # the place comes first
                seen[goal.target, kinds[0]] += 1
    best = {target: max((n, place) for (t, place), n in seen.items() if t == target) for target, _ in seen}
    return Counter({f"{target} in {place}": n for target, (n, place) in best.items()})


def _brands(episodes: Sequence[Episode]) -> Counter[str]:
    """ "<wish> : <brand>" of the won episodes, whose last product page is that of what was bought -> how often."""
    bought: Counter[str] = Counter()
    for episode in episodes:
        pages = [read_page(observation, episode.task) for observation, _ in episode.steps] if episode.won else []
        items = [page.items[0] for page in pages if page.kind == "item"]
        if items:
            bought[CompactShopPrompts.write_skill(read_wish(episode.task).terms, items[-1].brand)] += 1
    return bought


_COUNTED = {"alfworld": _places, "webshop": _brands}


def _vain(episodes: Sequence[Episode]) -> Counter[str]:
    """Commands after which nothing happened -> how often."""
    return Counter(
        compact(action)
        for episode in episodes
        for (_, action), (after, _) in zip(episode.steps, episode.steps[1:], strict=False)
        if after.startswith("Nothing happens")
    )


def _frequent(counts: Counter[Any], most: int | None) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
