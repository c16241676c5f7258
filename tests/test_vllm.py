"""vLLM beside training, the real one on a CPU: what it writes, with which weights, and what it says is not supported.

Run by `make test-vllm` in an environment of its own (`make vllm`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vllm_cpu  # before vllm

pytest.importorskip("vllm", reason="vLLM is not installed here: make test-vllm")

from peft import LoraConfig, get_peft_model
from tiny import tiny_policy

from skill1.config import ConfigError, PolicyConfig, load_config
from skill1.generation.calls import Prompt
from skill1.generation.padded import PaddedWriter
from skill1.generation.vllm import VLLMWriter
from skill1.generation.vllm_server import check_vllm
from skill1.policy import load_model

DATA = Path(__file__).parents[1] / "data"
ENDS = frozenset([2, 4, 15, 26])
LIMIT = 12
BOUND = 1e-4  # between log-probs in float32


@pytest.fixture(scope="module", autouse=True)
def engines() -> None:
    vllm_cpu.load()
    vllm_cpu.connect_trainer()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy"), head=32)


def loaded(folder: Path, **fields: Any) -> tuple[Any, Any, PolicyConfig]:
    given = {f"policy.{name}": value for name, value in fields.items()}
    config = load_config("nano", overrides={"policy.model": str(folder), "policy.backend": "vllm"} | given).policy
    return *load_model(config), config


def written(model: Any, asked: list[Prompt], temperature: float = 0.0) -> list[tuple[list[int], np.ndarray]]:
    """By transformers."""
    with torch.no_grad():
        answers = PaddedWriter(model.eval(), batch=64, cache_tokens=8192, pad=0, ends=ENDS).write(
            asked, temperature, LIMIT
        )
    return [(ids.tolist(), logprobs) for ids, logprobs in answers]


def prompts(vocabulary: int = 64, longest: int = 60, count: int = 12) -> list[Prompt]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, longest, count)
    return [Prompt(rng.integers(5, vocabulary, length).tolist(), (1, i)) for i, length in enumerate(lengths)]


def assert_same(found: list, wanted: list) -> None:
    for (ids, logprobs), (theirs, others) in zip(found, wanted, strict=True):
        assert ids.tolist() == theirs
        np.testing.assert_allclose(logprobs, others, atol=BOUND)


@pytest.mark.parametrize("name", ["nano-policy", "nano-webshop-policy", "tiny"])
def test_greedy_answers_are_those_of_transformers(name: str, tiny: Path) -> None:
    model, tokenizer, config = loaded(tiny if name == "tiny" else DATA / name)
    asked = prompts(model.config.vocab_size)
    found = VLLMWriter(model, tokenizer, config, ENDS).write(asked, 0.0, LIMIT)
    wanted = written(model, asked)
    assert len({len(ids) for ids, _ in wanted}) > 1
    assert_same(found, wanted)


def moved(model: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for _, parameter in sorted(model.named_parameters()):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def test_an_answer_follows_the_weights_of_its_rollout(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are longer than a block of vLLM's prefix cache, which holds states of the old weights."""
    model, tokenizer, config = loaded(tiny)
    asked = [Prompt(prompt.ids * 12, prompt.seed) for prompt in prompts(longest=30)]
    writer = VLLMWriter(model, tokenizer, config, ENDS)
    before = written(model, asked)
    assert_same(writer.write(asked, 0.0, LIMIT), before)
    moved(model)
    after = written(model, asked)
    assert [ids for ids, _ in before] != [ids for ids, _ in after]
    assert_same(writer.write(asked, 0.0, LIMIT), before)  # this rollout's policy
    with monkeypatch.context() as patched:
        patched.setattr(writer._engine.llm, "reset_prefix_cache", lambda: None)
        stale = VLLMWriter(model, tokenizer, config, ENDS).write(asked, 0.0, LIMIT)
    assert max(float(np.abs(a[:1] - b[:1]).max()) for (_, a), (_, b) in zip(stale, after, strict=True)) > BOUND
    assert_same(VLLMWriter(model, tokenizer, config, ENDS).write(asked, 0.0, LIMIT), after)


def test_samples_are_named_by_their_seeds(tiny: Path) -> None:
    model, tokenizer, config = loaded(tiny)
    writer = VLLMWriter(model, tokenizer, config, ENDS)
    asked = [Prompt(prompts()[0].ids, (1, i)) for i in range(8)]  # rollouts of a group share their prompt
    found = [ids.tolist() for ids, _ in writer.write(asked, 1.0, LIMIT)]
    assert len(set(map(tuple, found))) > 4
    assert [ids.tolist() for ids, _ in writer.write(asked[::-1], 1.0, LIMIT)] == found[::-1]
    assert [ids.tolist() for ids, _ in writer.write(asked[3:5], 1.0, LIMIT)] == found[3:5]


def test_log_probs_of_samples_are_at_the_temperature(tiny: Path) -> None:
    model, tokenizer, config = loaded(tiny)
    asked = prompts()
    for temperature in (1.0, 0.4):
        found = VLLMWriter(model, tokenizer, config, ENDS).write(asked, temperature, LIMIT)
        for prompt, (ids, logprobs) in zip(asked, found, strict=True):
            whole = torch.tensor([[*prompt.ids, *ids.tolist()]])
            with torch.no_grad():
                logits = model(whole).logits[0, len(prompt.ids) - 1 : -1] / temperature
            wanted = logits.log_softmax(-1).gather(1, whole[0, len(prompt.ids) :, None])[:, 0]
            np.testing.assert_allclose(logprobs, wanted, atol=BOUND)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_is_written_with_and_the_policy_stays_as_it_is(tiny: Path, dtype: str) -> None:
    base, tokenizer, config = loaded(tiny, dtype=dtype, lora_rank=4)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=32, target_modules="all-linear"))
    plain = written(model, prompts())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    found = VLLMWriter(model, tokenizer, config, ENDS).write(prompts(), 0.0, LIMIT)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())
    adapted = written(model, prompts())
    assert [ids for ids, _ in plain] != [ids for ids, _ in adapted]
    if dtype == "float32":
        assert_same(found, adapted)
    else:  # rounding differs: the first token's log-probs
        difference = [abs(a[0] - b[0]) for (_, a), (_, b) in zip(found, adapted, strict=True)]
        assert np.median(difference) < 0.05


def test_a_release_that_trl_does_not_support_is_refused_by_name(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import import_utils

    config = load_config("nano", overrides={"policy.backend": "vllm"}).policy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_vllm(config)
    for release in ("0.21.3", "0.99.0"):
        monkeypatch.setattr(import_utils, "_is_package_available", _release(release))
        with pytest.raises(ConfigError, match=f"policy.backend=vllm: TRL currently supports vLLM .* {release}"):
            check_vllm(config)


def _release(version: str) -> Callable[..., tuple[bool, str]]:
    return lambda name, return_version=False: (True, version)
