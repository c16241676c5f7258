"""What the compact prompts of all environments share: the frames of the calls. Ours, not the paper's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from skill1.envs.base import Observation
from skill1.methods.skillrl.bank import Mistake, Principle
from skill1.prompts.base import Exchange, complete_ranking
from skill1.registry import ConfigError

Trajectory = Sequence[Exchange]
WRITE = "<write>"  # where the policy starts


@dataclass(frozen=True, slots=True)
class Fact:
    """What an episode can teach: what is right where a task is about `about`, in ALFWorld in one home."""

    about: str  # object type; in WebShop the wish's words as tokens
    found: str  # entity token of the place where it was; in WebShop the brand as tokens
    home: str = ""  # name of the home

    @property
    def topic(self) -> tuple[str, str]:
        """What the fact is about: facts with one topic help with the same tasks."""
        return self.about, self.home


class CompactBase(ABC):
    """The prompts that differ between environments only in how a task, a skill and a trajectory are written."""

    context = "window"

    @abstractmethod
    def _task(self, start: Observation) -> str:
        """Write the task, with its mark."""

    @abstractmethod
    def _skill(self, text: str, start: Observation) -> str:
        """Write a strategy of the library as prompts show it."""

    @abstractmethod
    def _actions(self, start: Observation, trajectory: Trajectory) -> str:
        """Write a trajectory, looked back on."""

    def encode(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    def encode_next(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        raise NotImplementedError("compact prompts are single calls")

    def messages(self, said: Trajectory, text: str) -> list[dict[str, str]]:
        raise ConfigError("policy.prompts=compact is for the nano policies: another model needs policy.prompts=full")

    def opening(self, start: Observation) -> str:
        return ""

    def query(self, start: Observation) -> str:
        return f"<query> {self._task(start)} {WRITE}"

    def rerank(self, start: Observation, strategies: Sequence[str]) -> str:
        shown = " ; ".join(f"{self._skill(s, start)} : {i}" for i, s in enumerate(strategies, start=1))
        return f"<rerank> {self._task(start)} <cand> {shown} {WRITE}"

    def distill(self, start: Observation, won: bool, trajectory: Trajectory, reference: Trajectory | None) -> str:
        return self._looking_back("", start, won, trajectory, reference)

    def _looking_back(
        self, asked: str, start: Observation, won: bool | None, trajectory: Trajectory, reference: Trajectory | None
    ) -> str:
        """The frame of what is asked after an episode; `won`: None where the policy is to judge."""
        shown = f"<ref> {self._actions(start, reference)} " if reference is not None else ""
        played = self._actions(start, trajectory)
        return f"<distill> {asked}{shown}<traj> {played} {verdict(won)} {self._task(start)} {WRITE}"

    def skill_block(self, strategies: Sequence[str]) -> str:
        return " ; ".join(strategies)

    def bank_block(
        self, general: Sequence[Principle], specific: Sequence[Principle], mistakes: Sequence[Mistake]
    ) -> str:
        return self.skill_block([*(entry.principle for entry in (*general, *specific)), *self._avoided(mistakes)])

    def _avoided(self, mistakes: Sequence[Mistake]) -> list[str]:
        """Write a bank's mistakes; nothing where no word says what not to do."""
        return []

    def parse_rerank(self, text: str, count: int) -> tuple[tuple[int, ...], bool]:
        return complete_ranking(text.replace(",", " ").split(), count)

    # -- what the warm start teaches ------------------------------------------------------------------------------

    @abstractmethod
    def fact(self, start: Observation, found: str) -> Fact:
        """The fact that an episode teaches which found the place, or the brand, `found`."""

    @abstractmethod
    def write_query(self, fact: Fact) -> str:
        """The query that should find the fact."""

    @abstractmethod
    def write_lesson(self, fact: Fact) -> str:
        """The distillation of an episode that taught the fact."""

    @abstractmethod
    def write_skill(self, fact: Fact) -> str:
        """The strategy that the library keeps of it."""

    @abstractmethod
    def write_principle(self, fact: Fact) -> str:
        """The principle that a skill bank keeps of it."""


def verdict(won: bool | None) -> str:
    """An outcome as prompts tell it; None is one to be judged."""
    return "none" if won is None else "success" if won else "failure"
