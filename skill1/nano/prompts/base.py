"""What the compact prompts of all environments have in common: the frames of the calls. Ours, not the paper's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from skill1.envs.base import Observation
from skill1.nano.prompts.reflection import verdict
from skill1.prompts.base import Exchange, complete_ranking

WRITE = "<write>"  # where the policy starts


class CompactBase(ABC):
    """The prompts that differ between environments only in how a task, a skill and a trajectory are written."""

    @abstractmethod
    def _task(self, start: Observation) -> str:
        """The task, with its mark."""

    @abstractmethod
    def _skill(self, text: str, start: Observation) -> str:
        """A strategy of the library as prompts show it."""

    @abstractmethod
    def _asked(self, start: Observation) -> str:
        """What a reflection is asked about: a mark and the subtasks, and what they depend on."""

    @abstractmethod
    def _actions(self, start: Observation, trajectory: Sequence[Exchange]) -> str:
        """A trajectory, looked back on."""

    def encode(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    def query(self, start: Observation) -> str:
        return f"<query> {self._task(start)} {WRITE}"

    def rerank(self, start: Observation, strategies: Sequence[str]) -> str:
        shown = " ; ".join(f"{self._skill(s, start)} : {i}" for i, s in enumerate(strategies, start=1))
        return f"<rerank> {self._task(start)} <cand> {shown} {WRITE}"

    def distill(
        self, start: Observation, won: bool, trajectory: Sequence[Exchange], reference: Sequence[Exchange] | None
    ) -> str:
        return self._looking_back("", start, won, trajectory, reference)

    def reflect(
        self,
        start: Observation,
        won: bool | None,
        trajectory: Sequence[Exchange],
        reference: Sequence[Exchange] | None,
    ) -> str:
        return self._looking_back(f"{self._asked(start)} ", start, won, trajectory, reference)

    def _looking_back(
        self,
        asked: str,
        start: Observation,
        won: bool | None,
        trajectory: Sequence[Exchange],
        reference: Sequence[Exchange] | None,
    ) -> str:
        shown = f"<ref> {self._actions(start, reference)} " if reference is not None else ""
        played = self._actions(start, trajectory)
        return f"<distill> {asked}{shown}<traj> {played} {verdict(won)} {self._task(start)} {WRITE}"

    def skill_block(self, strategies: Sequence[str]) -> str:
        return " ; ".join(strategies)

    def parse_rerank(self, text: str, count: int) -> tuple[tuple[int, ...], bool]:
        return complete_ranking(text.replace(",", " ").split(), count)
