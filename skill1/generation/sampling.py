"""Sampling: every call's tokens come from its own stream of uniform numbers, whatever else is in the batch.

One uniform number per token and inversion of the cumulative distribution give exact samples and cost nothing at a
vocabulary of 150,000.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

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


def stream(seed: Seed, count: int) -> np.ndarray:
    """Draw (count,) uniforms in [0, 1) of the stream named by `seed`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))).random(count, dtype=np.float32)


def draw(scores: torch.Tensor, uniforms: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the next token of every row, with its log-probability at `temperature` (0 is greedy, at temperature 1).

    Args:
        scores: (B, V) logits.
        uniforms: (B,) in [0, 1).

    Returns:
        (B, 1) tokens and (B,) float32 log-probabilities.
    """
    logits = scores.float()
    logp = torch.log_softmax(logits / temperature if temperature else logits, dim=-1)  # (B, V)
    if temperature:
        cumulative = logp.exp().cumsum(dim=-1)
        # scaled to the total so that rounding of the sum can never select past the last token
        u = uniforms[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, u, right=True).clamp_(max=scores.shape[-1] - 1)  # (B, 1)
    else:
        token = logp.argmax(dim=-1, keepdim=True)
    return token, logp.gather(1, token)[:, 0]


def certain(scores: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """Scores (B, V) that leave greedy decoding no choice but `token` (B, 1)."""
    return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)
