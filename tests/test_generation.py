"""The backends behind `Policy.generate` write the same text. (vLLM's are in test_vllm.py and test_vllm_training.py.)"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from tiny import random_rows, tiny_model, tiny_policy
from trainer_runs import configure, entries, largest_difference, make_trainer

from skill1.config import ConfigError, load_config
from skill1.generation.calls import Prompt
from skill1.generation.continuous import ContinuousWriter
from skill1.generation.padded import PaddedWriter
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.play import load_policy
from skill1.policy import Policy, load_model

ENDS = frozenset([4, 7, 9])
LIMIT = 12


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(5, 64, rng.integers(3, 60)).tolist() for _ in range(20)]


def seeded(prompts: list[list[int]], run: int = 0) -> list[Prompt]:
    return [Prompt(ids, (run, i)) for i, ids in enumerate(prompts)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cache", "graphs"), [(4096, True), (512, None)]
)  # 512: two pages, so that prompts wait for each other
@torch.no_grad()
def test_continuous_batching_writes_what_generate_writes(model, prompts, cache, graphs):
    """With CUDA graphs too; a CPU has none, and goes on without."""
    padded = PaddedWriter(model, batch=8, cache_tokens=4096, pad=0, ends=ENDS)
    continuous = ContinuousWriter(model, cache_tokens=cache, ends=ENDS, graphs=graphs)
    try:
        for temperature, run in ((1.0, 0), (1.0, 1), (0.0, 0)):  # the second call finds the manager of the first
            asked = seeded(prompts, run)
            wanted = padded.write(asked, temperature, LIMIT)
            found = continuous.write(asked, temperature, LIMIT)
            assert len({len(ids) for ids, _ in wanted}) > 1
            for (ids, logprobs), (other, others) in zip(wanted, found, strict=True):
                assert ids.tolist() == other.tolist()
                np.testing.assert_allclose(logprobs, others, atol=1e-5)
    finally:
        continuous.close()
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.slow
def test_a_loaded_policy_writes_the_same_with_either_backend(tmp_path):
    folder = str(tiny_policy(tmp_path / "policy"))
    texts = ["go to the apple", "take mug", "put mug in drawer one"]
    answers = []
    for backend in ("transformers", "continuous"):
        given = {"policy.model": folder, "policy.backend": backend, "policy.cache_tokens": 1024}
        config = load_config("nano", overrides=given).policy
        policy = Policy(*load_model(config), CompactPrompts(), config, 64)
        seeds = [(1, i) for i in range(len(texts))]
        alone = policy.generate(texts, seeds, temperature=1.0, max_new_tokens=6)
        with policy:
            kept = [policy.generate(texts, seeds, temperature=1.0, max_new_tokens=6) for _ in range(2)]
            assert policy.generate([], [], temperature=1.0, max_new_tokens=6) == []
        answers += [[(c.text, c.ids.tolist()) for c in found] for found in (alone, *kept)]
    assert all(found == answers[0] for found in answers)


def test_an_answer_larger_than_the_cache_is_refused(model, prompts):
    writer = ContinuousWriter(model, cache_tokens=32, ends=ENDS)
    with pytest.raises(ConfigError, match=r"may have \d+ tokens, more than policy.cache_tokens=32: raise it"):
        writer.write(seeded(prompts), 1.0, LIMIT)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
@pytest.mark.parametrize("backend", ["vllm", "vllm_server"])
def test_vllm_that_is_not_installed_is_named_before_a_run_is_there(backend, tmp_path):
    policy = str(tiny_policy(tmp_path / "policy"))
    config = load_config("nano", overrides={"policy.backend": backend, "policy.model": policy})
    with pytest.raises(ConfigError, match=f"policy.backend={backend} needs the package vllm"):
        load_policy(config)


@pytest.mark.slow
def test_the_ratio_of_what_vllm_wrote_is_against_its_own_logprobs(tmp_path):
    """Rows that the sampler gave half the policy's probability are beyond the clip: no gradient."""
    policy = tiny_policy(tmp_path / "policy")
    rows = [replace(row, advantage=1.0, weight=1.0) for row in random_rows(6)]

    logged = []

    def gradient(backend: str, given: list) -> dict[str, torch.Tensor]:
        config = configure(policy__backend=backend, train__kl=0.0)
        trainer, tape = make_trainer(policy, tmp_path / "run", config, lambda step, model: given)
        trainer.train()
        [entry] = entries(trainer)
        logged.append([entry.get(f"importance_ratio/{name}") for name in ("mean", "max")])
        return tape.steps[0]

    def logprobs(row) -> np.ndarray:
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]], dtype=torch.long)
        with torch.no_grad():
            logp = tiny_model()(ids).logits[0, len(row.prompt_ids) - 1 : -1].log_softmax(-1)
        return logp.gather(1, ids[0, len(row.prompt_ids) :, None])[:, 0].numpy()

    exact = [replace(row, logprobs=logprobs(row)) for row in rows]
    wanted = gradient("transformers", rows)  # whose log-probs are not looked at
    assert largest_difference(gradient("vllm", exact), wanted) < 1e-5
    nearer = [replace(row, logprobs=row.logprobs - np.float32(np.log(1.1))) for row in exact]
    raised = gradient("vllm", nearer)  # ratio 1.1 within the clip of .2
    assert largest_difference(raised, {name: 1.1 * g for name, g in wanted.items()}) < 1e-5
    beyond = [replace(row, logprobs=row.logprobs - np.float32(np.log(2))) for row in exact]
    assert all(not g.any() for g in gradient("vllm", beyond).values())
    assert logged[0] == [None, None]
    np.testing.assert_allclose(logged[1:], [[1, 1], [1.1, 1.1], [2, 2]], rtol=1e-5)
