"""Sampling: every call's tokens come from its own stream of uniform numbers, whatever else is in the batch.

One uniform number per token and inversion of the cumulative distribution give exact samples and cost nothing at a
vocabulary of 150,000.
"""

from __future__ import annotations

import numpy as np
import torch

from skill1.generation.calls import Seed


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
