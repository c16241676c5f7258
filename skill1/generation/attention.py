"""Attention on a CPU where several query heads share keys and values, without copying these for each of them.

Where prompts are padded, transformers repeats keys and values for every query head; and torch's CPU kernel is slow for
single queries in bfloat16. Here the query heads of a group stand one below the other, as more queries of the same keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_GROUPED = "grouped"  # as `attn_implementation`
_BEYOND = ("softcap", "position_bias", "cache", "s_aux")  # what else a model may ask of "sdpa"


def group_heads(model: PreTrainedModel) -> None:
    """Let a model that attends by transformers' "sdpa" attend by `grouped_attention`; others keep their own."""
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        model.set_attn_implementation(_GROUPED)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # (B, H, Q, D)
    key: torch.Tensor,  # (B, H / G, T, D)
    value: torch.Tensor,  # (B, H / G, T, D)
    attention_mask: torch.Tensor | None,  # (B, 1, Q, T) bool
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' "sdpa" does, up to float rounding, and by it without padding, on a GPU, or if asked for more.

    Returns:
        (B, Q, H, D), and no weights.
    """
    groups = getattr(module, "num_key_value_groups", 1)
    beyond = more.get("dropout") or any(more.get(name) is not None for name in _BEYOND)
    if (
        attention_mask is None
        or attention_mask.dtype != torch.bool
        or beyond
        or groups == 1
        or query.device.type != "cpu"
    ):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    batch, heads, length, width = query.shape
    packed = query.reshape(batch, heads // groups, groups * length, width)
    if length == 1 and query.dtype == torch.bfloat16:
        scores = (packed @ key.transpose(2, 3)).float() * (width**-0.5 if scaling is None else scaling)
        attended = scores.masked_fill(~attention_mask, -torch.inf).softmax(-1).to(value.dtype) @ value
    else:
        attended = scaled_dot_product_attention(
            packed, key, value, attention_mask.repeat(1, 1, groups, 1), scale=scaling
        )
    return attended.view(batch, heads, length, width).transpose(1, 2).contiguous(), None


AttentionInterface.register(_GROUPED, grouped_attention)
AttentionMaskInterface.register(_GROUPED, sdpa_mask)
