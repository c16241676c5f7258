"""What the demonstrations of both environments have in common: which skills an episode is shown, and reflections. Ours."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from skill1.config import WarmStartConfig
from skill1.envs.base import Observation
from skill1.nano.prompts.alfworld import CompactPrompts
from skill1.nano.prompts.webshop import CompactShopPrompts
from skill1.prompts.base import Exchange
from skill1.records import Stage

_POOL = 512  # recent facts from which foreign skills are drawn
_OTHERS = (1, 2)  # foreign skills beside one
BLOCK = (2, 6)  # foreign principles of a bank's block


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One prompt with the answer to learn."""

    stage: Stage
    kind: str  # what it teaches, for the report on held-out demonstrations
    prompt: str
    answer: str


class Fact(Protocol):
    """A fact some earlier episode could have distilled."""

    @property
    def skill(self) -> str:
        """The strategy that the library keeps of it."""
        ...


_Fact = TypeVar("_Fact", bound=Fact)


class DemonstratorBase(ABC, Generic[_Fact]):
    """Keeps the pool of foreign skills between games."""

    def __init__(self, config: WarmStartConfig, prompts: CompactPrompts | CompactShopPrompts, seed: int) -> None:
        self._config = config
        self._prompts = prompts
        self._rng = random.Random(seed)
        self._pool: deque[_Fact] = deque(maxlen=_POOL)

    @abstractmethod
    def _foreign(self, known: _Fact) -> _Fact | None:
        """A skill that does not help where `known` does; None while there is none, or if the one drawn does help."""

    def _bank_shown(self) -> bool:
        """Whether this episode is shown a bank's block instead of a skill."""
        return bool(self._config.bank_share) and self._rng.random() < self._config.bank_share

    def _draw_shown(self, known: _Fact) -> tuple[str, bool]:
        """An episode's skill, if any, alone or among others; and whether it is `known`, which the expert follows."""
        skill = self._draw_skill(known)
        if skill is None:
            return "", False
        shown = skill.skill
        if self._config.several_share and self._rng.random() < self._config.several_share:
            shown = self._among_others(skill, known)
        return shown, skill is known

    def _draw_skill(self, known: _Fact) -> _Fact | None:
        u = self._rng.random()
        if u < self._config.relevant_share:
            return known
        return self._foreign(known) if u < self._config.relevant_share + self._config.foreign_share else None

    def _among_others(self, skill: _Fact, known: _Fact) -> str:
        """A block of the skill and foreign ones, in random order."""
        drawn = [self._foreign(known) for _ in range(self._rng.randint(*_OTHERS) if self._pool else 0)]
        return self._block([skill.skill, *(other.skill for other in drawn if other)])

    def _block(self, texts: list[str]) -> str:
        """Texts as a prompt shows several, in random order, so that only reading tells which counts."""
        self._rng.shuffle(texts)
        return self._prompts.skill_block(texts)

    def _reflections(self, start: Observation, won: bool, trajectory: list[Exchange]) -> list[Demonstration]:
        """The episode and its beginning, which is lost, each with the outcome told and with the outcome to be judged.

        Half of those that are told show the other beside, if its outcome is the opposite. Only `reflect_share` of the
        episodes are reflected on.
        """
        if not self._config.reflect_share or self._rng.random() >= self._config.reflect_share:
            return []
        rows = []
        cut = trajectory[: self._rng.randrange(len(trajectory))]
        for part, outcome, other in ((trajectory, won, cut), (cut, False, trajectory if won else [])):
            if not part:
                continue
            answer = self._prompts.write_reflection(start, outcome, part)
            shown = other if won and other and self._rng.random() < 0.5 else None
            told = self._prompts.reflect(start, outcome, part, shown)
            rows.append(Demonstration("distill", "reflect, told", told, answer))
            judged = self._prompts.reflect(start, None, part, None)
            rows.append(Demonstration("distill", "reflect, judged", judged, answer))
        return rows
