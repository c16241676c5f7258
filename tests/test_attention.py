"""Grouped attention answers as transformers' own, on a CPU with left padding, as reading and writing call it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_policy, tiny_tokenizer
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    GptOssConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
)
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


SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        Qwen3Config(**SHAPE),
        MistralConfig(**SHAPE, sliding_window=4),
        Gemma2Config(**SHAPE, sliding_window=4, attn_logit_softcapping=2.0),
        GptOssConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2, sliding_window=4),  # with attention sinks
        FalconConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
        ),  # another attention class
    ],
    ids=lambda config: config.model_type,
)
def test_whatever_a_model_attends_by_its_logits_are_the_same(config: PreTrainedConfig, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    given = load_config("small", overrides={"policy.model": str(tmp_path), "policy.lora_rank": 0}).policy
    ids, mask = torch.randint(3, 60, (3, 12)), torch.ones(3, 12, dtype=torch.long)
    mask[0, :5] = 0
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(input_ids=ids, attention_mask=mask).logits
        ours = load_model(given)[0].eval()(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], rtol=0, atol=1e-5)
