"""Grouped attention answers as transformers' own, on a CPU with left padding, as reading and writing call it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_policy
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from skill1.config import load_config
from skill1.generation import attention
from skill1.generation.attention import grouped_attention
from skill1.policy import load_model


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_it_attends_as_transformers_does(length, dtype, atol, scaling):
    generator = torch.Generator().manual_seed(length)
    query, key, value = (
        torch.randn(3, heads, tokens, 8, generator=generator).to(dtype)
        for heads, tokens in ((6, length), (2, 11), (2, 11))
    )
    mask = torch.ones(3, 1, length, 11, dtype=torch.bool).tril(11 - length)
    mask[0, ..., :4] = False  # padding to the left
    module = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    ours, weights = grouped_attention(module, query, key, value, mask, scaling=scaling)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)
    assert ours.shape == (3, length, 6, 8) and ours.is_contiguous() and weights is None
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def test_a_model_that_is_loaded_on_a_cpu_reads_padded_prompts_with_it(tmp_path, monkeypatch):
    folder = tiny_policy(tmp_path / "policy")
    model, _ = load_model(load_config("nano", overrides={"policy.model": str(folder)}).policy)
    asked = []
    monkeypatch.setattr(
        attention, "scaled_dot_product_attention", lambda *given, **more: asked.append(given) or given[0]
    )
    ids = torch.tensor([[1, 2, 3, 4], [0, 0, 3, 4]])
    model(input_ids=ids, attention_mask=(ids > 0).long())
    groups = model.config.num_attention_heads // model.config.num_key_value_heads
    assert len(asked) == model.config.num_hidden_layers
    assert groups > 1 and asked[0][0].shape[2] == 4 * groups  # four tokens of each head of a group
