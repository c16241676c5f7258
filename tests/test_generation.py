"""The backends behind `Policy.generate`: the same text from those that run here, and vLLM's side of the contract."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import requests
import torch
from tiny import random_rows, tiny_model, tiny_policy, tiny_tokenizer
from trainer_runs import configure, largest_difference, make_trainer
from trl.generation import vllm_client
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration, extract_logprobs

from skill1.config import ConfigError, load_config
from skill1.generation import vllm
from skill1.generation.calls import Prompt
from skill1.generation.continuous import ContinuousWriter
from skill1.generation.padded import PaddedWriter
from skill1.nano.alfworld.prompts import CompactPrompts
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
@pytest.mark.parametrize("cache", [4096, 512])  # 512: two pages, so that prompts wait for each other
@torch.no_grad()
def test_continuous_batching_writes_what_generate_writes(model, prompts, cache):
    padded = PaddedWriter(model, batch=8, cache_tokens=4096, pad=0, ends=ENDS)
    continuous = ContinuousWriter(model, cache_tokens=cache, ends=ENDS)
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


def test_vllm_that_is_not_installed_is_named(model, monkeypatch):
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    config = load_config("nano", overrides={"policy.backend": "vllm"}).policy
    with pytest.raises(ConfigError, match="policy.backend=vllm needs the package vllm"):
        Policy(model, tiny_tokenizer(), CompactPrompts(), config, 64)


class _Engine:
    """Stands for TRL's engine of the installed release: refuses calls that the real signatures would refuse."""

    made = synced = 0

    def __init__(self, **arguments):
        inspect.signature(VLLMGeneration.__init__).bind(None, **arguments)
        type(self).made += 1
        self.mode = arguments["mode"]
        self.asked = []
        if self.mode == "server":
            self.vllm_client = SimpleNamespace(generate=self._serve, session=requests.Session())
        else:
            self.llm = SimpleNamespace(generate=self._colocated)

    def sync_weights(self):
        type(self).synced += 1

    def _serve(self, **arguments):
        inspect.signature(VLLMClient.generate).bind(None, **arguments)
        self.asked.append(arguments)
        ids = [[p[0], 4] for p in arguments["prompts"]]
        return {"prompt_ids": arguments["prompts"], "completion_ids": ids, "logprobs": [[[-0.5], [-0.25]]] * len(ids)}

    def _colocated(self, prompts, sampling_params, use_tqdm):
        self.asked.append(sampling_params)
        step = [SimpleNamespace(logprob=-0.5, rank=3), SimpleNamespace(logprob=-0.25, rank=1)]
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(
                        token_ids=[p["prompt_token_ids"][0], 4],
                        logprobs=[{p["prompt_token_ids"][0]: step[0]}, {4: step[1]}],
                    )
                ]
            )
            for p in prompts
        ]


@pytest.mark.parametrize("backend", ["vllm", "vllm_server"])
def test_vllm_is_asked_as_the_installed_trl_wants_it(prompts, monkeypatch, backend):
    assert hasattr(VLLMGeneration, "sync_weights") and callable(extract_logprobs)
    monkeypatch.setattr(vllm, "find_spec", lambda name: True)
    monkeypatch.setattr(vllm.vllm_generation, "VLLMGeneration", _Engine)
    monkeypatch.setattr(vllm.vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
    monkeypatch.setattr(_Engine, "made", 0)
    monkeypatch.setattr(_Engine, "synced", 0)
    model, config = tiny_model(), load_config("nano", overrides={"policy.backend": backend}).policy
    for rollout in (1, 2):
        writer = vllm.VLLMWriter(model, tiny_tokenizer(), config, ENDS)
        for _ in range(3):
            written = writer.write(seeded(prompts, 1), 0.7, LIMIT)
        assert (_Engine.made, _Engine.synced) == (1, rollout)  # one engine; weights once a rollout, not once a call
    assert [ids.tolist() for ids, _ in written] == [[p[0], 4] for p in prompts]
    assert all(logprobs.tolist() == [-0.5, -0.25] for _, logprobs in written)
    asked = writer._engine.asked[-1]
    if backend == "vllm":
        assert len({one.seed for one in asked}) == len(prompts)  # rollouts of a group share their prompt
        asked = vars(asked[0])
        assert asked["stop_token_ids"] == [4, 7, 9]
    assert (asked["temperature"], asked["max_tokens"], asked["top_k"], asked["repetition_penalty"]) == (
        0.7,
        LIMIT,
        0,
        1.0,
    )


_SERVER = """
import json, os, signal
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": "policy"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        os.kill(os.getpid(), signal.SIGKILL)  # while it is asked to write

server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.slow
def test_a_vllm_server_that_dies_ends_the_run_within_a_minute(prompts, monkeypatch):
    """TRL's real client, on a rank that is not the first, and a server that is killed while it writes."""

    class Engine(_Engine):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            del self.vllm_client

    monkeypatch.setattr(vllm, "find_spec", lambda name: True)
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda **version: True)
    monkeypatch.setattr(vllm.vllm_generation, "VLLMGeneration", Engine)
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as server:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        config = load_config("nano", overrides={"policy.backend": "vllm_server", "policy.vllm_url": url}).policy
        writer = vllm.VLLMWriter(tiny_model(), tiny_tokenizer(), config, ENDS)
        started = time.monotonic()
        with pytest.raises(vllm.ServerError, match=f"the vLLM server at {url} is gone .*start it again .* --resume"):
            writer.write(seeded(prompts), 0.7, LIMIT)
    assert time.monotonic() - started < 60
    assert server.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_the_ratio_of_what_vllm_wrote_is_against_its_own_logprobs(tmp_path):
    """Rows that the sampler gave half the policy's probability are beyond the clip: no gradient."""
    policy = tiny_policy(tmp_path / "policy")
    rows = [replace(row, advantage=1.0, weight=1.0) for row in random_rows(6)]

    def gradient(backend: str, given: list) -> dict[str, torch.Tensor]:
        config = configure(policy__backend=backend, train__kl=0.0)
        trainer, tape = make_trainer(policy, tmp_path / "run", config, lambda step, model: given)
        trainer.train()
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
