"""Prompts of 16,384 tokens, the paper's limit: what grows with their square, or with the vocabulary, must not exist."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from trainer_runs import configure
from transformers import Qwen2Config, Qwen2ForCausalLM

from skill1.generation.calls import Prompt
from skill1.generation.padded import PaddedWriter
from skill1.plan.passes import Passes, Weights
from skill1.plan.rates import peak_memory
from skill1.records import Row
from skill1.trainer import build_trainer

pytestmark = pytest.mark.slow

PROMPT, COMPLETION, VOCABULARY = 16384, 16, 4096


def row(prompt: int, completion: int) -> Row:
    rng = np.random.default_rng(0)
    ids, written = (rng.integers(5, VOCABULARY, n).astype(np.int32) for n in (prompt, completion))
    return Row(ids, written, np.zeros(completion, np.float32), "act", 1.0, 1.0, 0, 0, 0)


def test_an_update_with_a_prompt_of_16384_tokens_takes_what_the_planner_says(tmp_path):
    shape = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=2 * PROMPT, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=4, pad_token_id=0,
    )  # fmt: skip
    lengths: list[tuple[int, int]] = []

    def train(prompt: int) -> list[dict[str, float]]:
        def collect(step: int, policy: Qwen2ForCausalLM) -> tuple[list[Row], dict[str, float]]:
            lengths.append((prompt, COMPLETION))
            return [row(prompt, COMPLETION)], {}

        config = configure(train__kl=0.0)
        trainer = build_trainer(config, Qwen2ForCausalLM(shape), tiny_tokenizer(), tmp_path / str(prompt), collect)
        trainer.train()
        return trainer.state.log_history

    train(8)  # loads whatever a first step loads
    logs: list[dict[str, float]] = []
    grown = peak_memory(torch.device("cpu"), lambda: logs.extend(train(PROMPT)))
    planned = Passes(shape, Weights(torch.float32, None)).update(1, PROMPT, COMPLETION, False).peak
    assert lengths[-1] == (PROMPT, COMPLETION) and logs[0]["grad_norm"] > 0
    scores, logits = 4 * PROMPT**2, 4 * PROMPT * VOCABULARY  # bytes of one head's attention, of a logit a token
    assert max(planned, grown) < logits / 2 < scores / 2
    assert grown < 1.5 * planned + 16e6  # the allocator's own, model and optimiser


def test_prompts_that_would_fill_more_than_the_cache_are_written_in_several_calls(monkeypatch):
    """The same text; and no call holds more padded tokens than it may, but for a single prompt that is longer."""
    model = tiny_model().eval()
    rng = np.random.default_rng(0)
    prompts = [Prompt(rng.integers(5, 64, n).tolist(), (0, i)) for i, n in enumerate((3, 60, 4, 50, 30, 9))]
    widths: list[tuple[int, int]] = []
    generate = model.generate

    def watched(input_ids: torch.Tensor, **given):
        widths.append(tuple(input_ids.shape))
        return generate(input_ids=input_ids, **given)

    monkeypatch.setattr(model, "generate", watched)
    at_once = PaddedWriter(model, batch=8, cache_tokens=10**6, pad=0, ends=frozenset([4])).write(prompts, 1.0, 8)
    assert widths == [(6, 60)]
    widths.clear()
    cut = PaddedWriter(model, batch=4, cache_tokens=64, pad=0, ends=frozenset([4])).write(prompts, 1.0, 8)
    # with 8 tokens of an answer: 3 x (9 + 8) = 51 of 64, while 4 x (30 + 8) would be too many
    assert widths == [(3, 9), (1, 30), (1, 50), (1, 60)]
    for (ids, logprobs), (other, others) in zip(at_once, cut, strict=True):
        assert ids.tolist() == other.tolist()
        np.testing.assert_allclose(logprobs, others, atol=1e-5)
