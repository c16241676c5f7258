"""The contract of a prompt set: text in, text out, and a parser per stage. Prompt sets are stateless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from skill1.envs.base import Observation
from skill1.records import Lesson

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Exchange = tuple[str, str]  # (observation text, environment command answered with)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed completion: `value` is always usable, `well_formed` says whether the parser found what it asked for."""

    value: str
    well_formed: bool


@dataclass(frozen=True, slots=True)
class ActContext:
    """What an act prompt is made from."""

    start: Observation  # initial observation
    skill: str  # skill block, "" for none
    steps: int  # actions taken so far
    history: tuple[Exchange, ...]  # last W pairs, oldest first
    observation: Observation  # current


class PromptSet(Protocol):
    """Templates and parsers of the four stages."""

    def encode(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        """Token ids of one fresh single-turn call, up to where the policy starts writing."""
        ...

    def query(self, start: Observation) -> str: ...

    def rerank(self, start: Observation, strategies: Sequence[str]) -> str: ...

    def act(self, context: ActContext) -> str: ...

    def distill(
        self, start: Observation, won: bool, trajectory: Sequence[Exchange], reference: Sequence[Exchange] | None
    ) -> str:
        """`reference`: the last trajectory of the same task with the opposite outcome (released switch), else None."""
        ...

    def skill_block(self, strategies: Sequence[str]) -> str:
        """The text that stands in every act prompt of the episode; "" when `strategies` is empty."""
        ...

    def parse_query(self, text: str, start: Observation) -> Parsed: ...

    def parse_rerank(self, text: str, count: int) -> tuple[tuple[int, ...], bool]:
        """-> (permutation of range(count), parsed): valid ids in order, missing ids appended in retrieval order.

        No valid id: retrieval order and parsed = False.
        """
        ...

    def parse_action(self, text: str, admissible: Sequence[str]) -> Parsed:
        """The environment command. Ill-formed text is passed to the environment as it is."""
        ...

    def parse_distill(self, text: str, start: Observation) -> Lesson | None:
        """What the library keeps of a distillation; None if it did not parse."""
        ...

    def raw_lesson(self, start: Observation, trajectory: Sequence[Exchange]) -> Lesson:
        """The "no distillation" ablation: the raw trajectory, keyed by the task text."""
        ...


def history_of(trajectory: Sequence[Exchange], window: int) -> tuple[Exchange, ...]:
    """The last `window` pairs."""
    return tuple(trajectory[-window:]) if window else ()


def complete_ranking(written: Sequence[str], count: int) -> tuple[tuple[int, ...], bool]:
    """1-based ids as written -> (0-based permutation, whether any id was valid)."""
    positions = {str(i + 1): i for i in range(count)}
    ranked = list(dict.fromkeys(positions[word] for word in written if word in positions))
    return tuple(ranked + [i for i in range(count) if i not in ranked]), bool(ranked)
