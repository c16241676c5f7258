"""Generation: exact sampling that depends on the prompt and the seed alone, and loading."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nano_runs import configure, load_policy, make_nano
from scipy.stats import chisquare
from transformers import GenerationConfig

import skill1.play
from skill1.config import ConfigError, load_config
from skill1.errors import PromptTooLong
from skill1.generation.padded import SeededSampling
from skill1.generation.sampling import stream
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.model import END, make_model, make_tokenizer, nano_tokenizer
from skill1.policy import Policy, load_model, load_tokenizer

PROMPTS = [
    f"<act> {' '.join(['go_to', 'shelf_1', 'mug_2', 'open'] * n)} {mark} <write>"
    for n in (1, 5, 11, 2)
    for mark in ("fridge_1", "cabinet_7", "none")
]


@pytest.fixture(scope="module")
def policy(world, nano) -> Policy:
    policy = load_policy(configure(world, nano))
    with torch.no_grad():  # far from uniform, so that rounding cannot hide a wrong distribution
        policy.model.model.embed_tokens.weight *= 12
    return policy


def seeds(count: int) -> list[tuple[int, ...]]:
    return [(7, i) for i in range(count)]


def with_batch(policy: Policy, world, nano, size: int) -> Policy:
    config = configure(world, nano, policy__generate_batch=size)
    return Policy(policy.model, policy.tokenizer, policy.prompts, config.policy, 512)


def exact_logprobs(policy: Policy, prompt: np.ndarray, ids: np.ndarray, temperature: float) -> np.ndarray:
    """Log-softmax at `temperature` of `ids`, from one unpadded forward pass."""
    both = torch.tensor(np.concatenate([prompt, ids]), dtype=torch.long)[None]
    with torch.no_grad():
        logits = policy.model(both).logits[0, len(prompt) - 1 : -1].double()
    logp = torch.log_softmax(logits / temperature, dim=-1)
    return logp[torch.arange(len(ids)), both[0, len(prompt) :]].numpy()


def test_a_completion_does_not_depend_on_the_batch_around_it(policy, world, nano):
    texts, names = PROMPTS * 3, seeds(3 * len(PROMPTS))
    whole, *others = [
        with_batch(policy, world, nano, size).generate(texts, names, temperature=1.0, max_new_tokens=12)
        for size in (128, 3, 1)
    ]
    assert len({c.text for c in whole}) > len(PROMPTS)  # the same prompt under another seed reads otherwise
    for other in others:
        assert [c.ids.tolist() for c in other] == [c.ids.tolist() for c in whole]
        for a, b in zip(whole, other, strict=True):
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
    backwards = policy.generate(texts[::-1], names[::-1], temperature=1.0, max_new_tokens=12)
    assert [c.ids.tolist() for c in backwards[::-1]] == [c.ids.tolist() for c in whole]


def test_another_seed_writes_another_completion(policy):
    same = policy.generate(PROMPTS[:1] * 20, [(0, 0)] * 20, temperature=1.0, max_new_tokens=12)
    other = policy.generate(PROMPTS[:1] * 20, seeds(20), temperature=1.0, max_new_tokens=12)
    assert len({c.text for c in same}) == 1
    assert len({c.text for c in other}) > 10


@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.0])
def test_logprobs_are_those_of_a_separate_forward_pass(policy, temperature):
    found = policy.generate(PROMPTS, seeds(len(PROMPTS)), temperature=temperature, max_new_tokens=12)
    for text, completion in zip(PROMPTS, found, strict=True):
        assert completion.prompt_ids.tolist() == policy.tokenizer.encode(text)
        expected = exact_logprobs(policy, completion.prompt_ids, completion.ids, temperature)
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)
        assert (completion.prompt_ids.dtype, completion.ids.dtype) == (np.int32, np.int32)
        assert completion.logprobs.dtype == np.float32 and len(completion.logprobs) == len(completion.ids) > 0


def test_temperature_zero_is_greedy(policy):
    found = policy.generate(PROMPTS, seeds(len(PROMPTS)), temperature=0.0, max_new_tokens=6)
    assert [c.ids.tolist() for c in found] == [
        c.ids.tolist() for c in policy.generate(PROMPTS, [(1,)] * len(PROMPTS), temperature=0.0, max_new_tokens=6)
    ]
    for completion in found:
        ids = completion.prompt_ids.tolist()
        for token in completion.ids.tolist():
            with torch.no_grad():
                assert int(policy.model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_an_answer_ends_with_the_end_token_or_at_the_limit(policy):
    end = policy.tokenizer.eos_token_id
    written = policy.generate(PROMPTS, seeds(len(PROMPTS)), temperature=1.0, max_new_tokens=8)
    common = Counter(i for c in written for i in c.ids.tolist()).most_common(1)[0][0]
    weight = policy.model.model.embed_tokens.weight
    with torch.no_grad():
        saved = weight.clone()
        weight[end] = saved[common]  # as likely as the commonest word
        found = policy.generate(PROMPTS * 20, seeds(20 * len(PROMPTS)), temperature=1.5, max_new_tokens=8)
        weight.copy_(saved)
    ended = [c for c in found if c.ids[-1] == end]
    assert ended and len(ended) < len(found)
    for c in found:
        assert end not in c.ids[:-1].tolist()
        assert c.ids[-1] == end or len(c.ids) == 8
        assert END not in c.text


def test_sampling_frequencies_are_the_probabilities(policy):
    draws = 4000
    text = PROMPTS[4]
    with torch.no_grad():
        weight = policy.model.model.embed_tokens.weight.clone()
        policy.model.model.embed_tokens.weight *= 0.5  # a flatter distribution: more tokens are drawn often enough
    found = policy.generate([text] * draws, seeds(draws), temperature=1.0, max_new_tokens=1)
    ids = torch.tensor([policy.tokenizer.encode(text)])
    with torch.no_grad():
        expected = torch.softmax(policy.model(ids).logits[0, -1].double(), dim=-1).numpy() * draws
        policy.model.model.embed_tokens.weight.copy_(weight)
    counts = np.bincount([int(c.ids[0]) for c in found], minlength=len(expected))
    common = expected >= 10
    assert common.sum() > 10
    observed = [*counts[common], counts[~common].sum()]
    predicted = [*expected[common], expected[~common].sum()]
    assert chisquare(observed, predicted).pvalue > 0.001
    shifted = [*np.roll(counts[common], 1), counts[~common].sum()]
    assert chisquare(shifted, predicted).pvalue < 1e-6  # the test would see a wrong token order


def test_impossible_tokens_are_never_drawn():
    scores = torch.tensor([[0.0, 1.0, -torch.inf, 0.5, -torch.inf], [-torch.inf, 0.1, 0.2, 0.3, -torch.inf]])
    extremes = [0.0, float(np.nextafter(np.float32(1), np.float32(0)))]
    for u in [*extremes, *stream((3,), 200).tolist()]:
        for scale in (1.0, 7.3, 0.01):
            sampler = SeededSampling(torch.full((2, 1), u), temperature=1.0)
            drawn = sampler(torch.zeros(2, 0, dtype=torch.long), scores * scale)
            assert torch.isfinite(sampler.logprobs[0]).all()
            assert (scores[torch.arange(2), drawn.argmax(dim=-1)] > -torch.inf).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 2000))
def test_the_largest_uniform_draws_a_possible_token(seed, size):
    """The sum of float32 probabilities is rounded: neither it nor the product with u may pass the last token."""
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(seed)) * 4
    logits = torch.cat([logits, torch.full((1, 3), -torch.inf)], dim=1)
    u = torch.full((1, 1), float(np.nextafter(np.float32(1), np.float32(0))))
    sampler = SeededSampling(u, temperature=1.0)
    drawn = int(sampler(torch.zeros(1, 0, dtype=torch.long), logits).argmax())
    assert drawn < size and torch.isfinite(sampler.logprobs[0]).all()


def test_the_models_own_generation_settings_do_not_touch_sampling(policy):
    """Qwen2.5-7B-Instruct comes with repetition_penalty=1.05, top_k=20 and a temperature of its own."""
    plain = policy.generate(PROMPTS, seeds(len(PROMPTS)), temperature=1.0, max_new_tokens=12)
    own = policy.model.generation_config
    ends = dict(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
    policy.model.generation_config = GenerationConfig(
        **ends, do_sample=True, repetition_penalty=3.0, temperature=0.1, top_k=1, no_repeat_ngram_size=1,
        min_new_tokens=9,
    )  # fmt: skip
    try:
        again = policy.generate(PROMPTS, seeds(len(PROMPTS)), temperature=1.0, max_new_tokens=12)
        assert policy.model.generation_config.repetition_penalty == 3.0
    finally:
        policy.model.generation_config = own
    assert [c.ids.tolist() for c in again] == [c.ids.tolist() for c in plain]


def test_streams_are_named_by_the_whole_seed():
    names = [(0, 0), (0, 1), (1, 0), (1, 1), (2**31, 5), (5, 2**31)]
    assert len({tuple(stream(name, 4).tolist()) for name in names}) == len(names)
    assert stream((3, 1), 4).tolist() == stream((3, 1), 8)[:4].tolist()
    many = stream((9, 9), 20_000)
    assert many.dtype == np.float32 and 0 <= many.min() and many.max() < 1 and abs(many.mean() - 0.5) < 0.01


def test_no_prompts_no_completions(policy):
    assert policy.generate([], [], temperature=1.0, max_new_tokens=4) == []


def test_a_prompt_beyond_the_limit_is_an_error(policy, world, nano):
    short = Policy(policy.model, policy.tokenizer, policy.prompts, configure(world, nano).policy, max_prompt_tokens=8)
    length = len(policy.tokenizer.encode(PROMPTS[3]))
    with pytest.raises(PromptTooLong, match=f"has {length} tokens, more than rollout.max_prompt_tokens=8"):
        short.generate([PROMPTS[0], PROMPTS[3]], seeds(2), temperature=1.0, max_new_tokens=4)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "tests/nowhere"])
def test_a_missing_folder_is_an_error(world, nano, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    with pytest.raises(ConfigError, match=f"there is no folder '{name}'.*skill1 warmstart --out {name}"):
        load_model(configure(world, nano, policy__model=name).policy)


def test_a_folder_without_a_model_is_an_error(world, nano, tmp_path):
    with pytest.raises(ConfigError, match="does not load"):
        load_model(configure(world, nano, policy__model=str(tmp_path)).policy)
    nano_tokenizer("alfworld").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="does not load"):
        load_model(configure(world, nano, policy__model=str(tmp_path)).policy)


def test_what_does_not_load_is_told_in_one_whole_line(world, nano, tmp_path):
    make_nano(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="does not load .*from one of: .* need to have sentencepiece") as told:
        load_model(configure(world, nano, policy__model=str(tmp_path)).policy)
    assert "\n" not in str(told.value)


def test_a_torn_model_is_an_error(world, nano, tmp_path):
    make_nano(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="does not load"):
        load_model(configure(world, nano, policy__model=str(tmp_path)).policy)


def test_a_tokenizer_that_cannot_serve_is_an_error(world, nano, tmp_path):
    with pytest.raises(ConfigError, match="has no chat template, which the prompts need"):
        load_policy(configure(world, nano, policy__prompts="full"))
    make_nano(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has no end token"):
        load_model(configure(world, nano, policy__model=str(tmp_path)).policy)


def test_a_nano_policy_of_another_environment_is_refused():
    """It would read every prompt as unknown words, play on, and win nothing."""
    config = load_config("nano", overrides={"policy.model": "data/nano-webshop-policy"})
    with pytest.raises(ConfigError, match=r"policy.model: 'data/nano-webshop-policy' does not know \d+ words of this"):
        skill1.play.load_policy(config)


def test_without_a_padding_token_the_end_token_pads(policy, world, nano):
    tokenizer = load_tokenizer(str(nano))
    tokenizer.pad_token = None
    bare = Policy(policy.model, tokenizer, policy.prompts, configure(world, nano).policy, 512)
    written, expected = (
        p.generate(PROMPTS, seeds(len(PROMPTS)), temperature=1.0, max_new_tokens=6) for p in (bare, policy)
    )
    assert [c.ids.tolist() for c in written] == [c.ids.tolist() for c in expected]


def test_weights_are_float32_for_full_fine_tuning(world, nano):
    full, _ = load_model(configure(world, nano, policy__dtype="bfloat16").policy)
    adapted, _ = load_model(configure(world, nano, policy__dtype="bfloat16", policy__lora_rank=4).policy)
    assert (full.dtype, adapted.dtype) == (torch.float32, torch.bfloat16)


def test_a_word_level_tokenizer_reloads_exactly(nano):
    saved, again = nano_tokenizer("alfworld"), load_tokenizer(str(nano))
    assert again.get_vocab() == saved.get_vocab()
    text = "<act> put clean mug fridge <hist> shelf_3 : 1 ; go_to desk_1 <write>"
    assert again.encode(text) == saved.encode(text) and again.unk_token_id not in again.encode(text)
    assert again.decode(again.encode(text)) == text
    assert (again.padding_side, again.pad_token, again.eos_token) == ("left", saved.pad_token, END)
    assert CompactPrompts().encode(again, text) == saved.encode(text)


def test_a_tokenizer_saved_by_a_run_reloads_exactly(nano, tmp_path):
    load_tokenizer(str(nano)).save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).get_vocab() == nano_tokenizer("alfworld").get_vocab()


def test_the_vocabulary_has_no_gaps_and_the_model_fits_it():
    tokenizer = make_tokenizer(["b", "a", "b"])
    assert tokenizer.get_vocab() == {"<pad>": 0, "<unk>": 1, "<end>": 2, "b": 3, "a": 4}
    model = make_model(tokenizer, width=32, layers=1, heads=2, seed=1)
    assert model.get_output_embeddings().weight.shape == (5, 32)
    again = make_model(tokenizer, width=32, layers=1, heads=2, seed=1)
    other = make_model(tokenizer, width=32, layers=1, heads=2, seed=2)
    assert torch.equal(model.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)
