"""The contract of a prompt set: text in, text out, and a parser per stage. Prompt sets are stateless.

A call stands in a context (`rollout.context`). In the "window" every call is a chat of its own, which says all that the
policy is to know (the paper). In the "conversation" all calls of a rollout are one chat: a call says only what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from skill1.envs.base import Observation
from skill1.records import Lesson
from skill1.registry import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Context = Literal["window", "conversation"]
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
    skill: str  # skill block, "" for none; in a conversation only where it is to be shown for the first time
    steps: int  # actions taken so far
    history: tuple[Exchange, ...]  # last W pairs, oldest first
    observation: Observation  # current


class PromptSet(Protocol):
    """Templates and parsers of the four stages."""

    context: Context  # what the texts are worded for

    def check(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raise ConfigError where the policy cannot read these prompts: no chat template that serves, unknown words."""
        ...

    def encode(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        """Encode the first call of a chat, up to where the policy starts writing."""
        ...

    def messages(self, said: Sequence[Exchange], text: str) -> list[dict[str, str]]:
        """Write a conversation, and the next call of it, as the messages of a chat with roles."""
        ...

    def encode_next(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        """Encode a later call of a conversation: what follows an answer, up to where the policy writes again.

        The first token is the one that ends the answer (`tokenizer.eos_token_id`), whether the policy wrote it or not.

        Raises:
            ConfigError: the tokenizer's chat template cannot be continued in this way.
        """
        ...

    def opening(self, start: Observation) -> str:
        """Write what stands before the text of a rollout's first call: task and first observation; "" in the window."""
        ...

    def query(self, start: Observation) -> str: ...

    def rerank(self, start: Observation, strategies: Sequence[str]) -> str: ...

    def act(self, context: ActContext) -> str:
        """Ask for an action; in a conversation the observation is shown from the second action on."""
        ...

    def distill(
        self, start: Observation, won: bool, trajectory: Sequence[Exchange], reference: Sequence[Exchange] | None
    ) -> str:
        """Ask for a lesson. `reference`: the last trajectory of the same task with the opposite outcome (released switch), else None."""
        ...

    def skill_block(self, strategies: Sequence[str]) -> str:
        """Word the text that stands in every act prompt of the episode; "" when `strategies` is empty."""
        ...

    def parse_query(self, text: str, start: Observation) -> Parsed: ...

    def parse_rerank(self, text: str, count: int) -> tuple[tuple[int, ...], bool]:
        """Read a ranking: -> (permutation of range(count), parsed): valid ids in order, missing ids appended in retrieval order.

        No valid id: retrieval order and parsed = False.
        """
        ...

    def parse_action(self, text: str, admissible: Sequence[str]) -> Parsed:
        """Read the environment command. Ill-formed text is passed to the environment as it is."""
        ...

    def parse_distill(self, text: str, start: Observation) -> Lesson | None:
        """Read what the library keeps of a distillation; None if it did not parse."""
        ...

    def raw_lesson(self, start: Observation, trajectory: Sequence[Exchange]) -> Lesson:
        """Build the lesson of the "no distillation" ablation: the raw trajectory, keyed by the task text."""
        ...


class Answers(Protocol):
    """What an instruct set's parsers read, the other way round: the answers of demonstrations.

    Each writer raises ValueError for what its parser would not read as it is meant.
    """

    def write_query(self, text: str) -> str: ...

    def write_ranking(self, order: Sequence[int]) -> str:
        """Write a ranking. `order`: all candidates, from 0, the best first."""
        ...

    def write_action(self, command: str, thought: str = "") -> str:
        """Write an action. `thought`: what is considered before, "" for none."""
        ...

    def write_lesson(self, lesson: Lesson, won: bool) -> str: ...


def window_only(what: str, context: Context) -> None:
    """Refuse a conversation in the name of a prompt set ("policy.prompts=compact") or method that has no words for it.

    Raises:
        ConfigError: `context` is "conversation".
    """
    if context != "window":
        raise ConfigError(f"{what} has no words for rollout.context={context}: set rollout.context=window")


def history_of(trajectory: Sequence[Exchange], window: int) -> tuple[Exchange, ...]:
    """Return the last `window` pairs."""
    return tuple(trajectory[-window:]) if window else ()


def complete_ranking(written: Sequence[str], count: int) -> tuple[tuple[int, ...], bool]:
    """Complete a ranking: 1-based ids as written -> (0-based permutation, whether any id was valid)."""
    positions = {str(i + 1): i for i in range(count)}
    ranked = list(dict.fromkeys(positions[word] for word in written if word in positions))
    return tuple(ranked + [i for i in range(count) if i not in ranked]), bool(ranked)
