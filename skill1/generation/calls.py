"""What a policy is asked and what it answers: prompts, completions, conversations. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Seed = tuple[int, ...]  # entropy of one call's random stream


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
