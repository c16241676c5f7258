"""What a policy is asked and what it answers: prompts, completions, conversations. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

Seed = tuple[int, ...]  # entropy of one call's random stream
Written = tuple[np.ndarray, np.ndarray]  # (C,) int32 tokens and (C,) float32 log-probs, up to the end token or limit


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """One sampled answer. `ids` ends with the end token unless the length limit cut it."""

    prompt_ids: np.ndarray  # (P,) int32
    ids: np.ndarray  # (C,) int32
    logprobs: np.ndarray  # (C,) float32 at the sampling temperature
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a writer continues."""

    ids: list[int]
    seed: Seed  # of its random stream
    chat: Seed | None = None  # names the conversation that it belongs to


class Writer(Protocol):
    """A backend: what continues prompts."""

    def write(self, prompts: Sequence[Prompt], temperature: float, max_new_tokens: int) -> list[Written]:
        """Return what was written after each prompt."""

    def close(self) -> None:
        """Release what is kept between calls."""


@dataclass(slots=True, eq=False)
class Chat:
    """One conversation: what was asked and answered so far, and its tokens where the policy has a tokenizer."""

    name: Seed  # among those that run together
    ids: list[int] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)  # (request, answer)

    def add(self, request: str, answer: Completion) -> None:
        """Append a request and its answer."""
        self.ids += [*answer.prompt_ids.tolist(), *answer.ids.tolist()]
        self.said.append((request, answer.text))
