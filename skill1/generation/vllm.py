"""The backends `vllm` (beside training on the same GPUs) and `vllm_server` (a server started with TRL's help).

TRL owns the engine and the transfer of weights, sharded or with adapters; it happens once per policy, that is once a
rollout. Prompts go to the engine directly: TRL's own `generate` would take one sampling seed for all prompts, transfer
weights again after sleeping, and in server mode hand completions to the wrong ranks unless all ask equally many. Every
rank talks to its own engine, or to the server by itself, so ranks may ask as often as their own episodes need.

vLLM's numerics are not the policy's: training takes the importance ratio against the log-probs that come from here.

Differs from the other backends in: samples are vLLM's own (colocated: seeded per prompt; on a server: unseeded, so such
a run cannot be repeated exactly).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import requests
from accelerate import Accelerator
from requests.adapters import HTTPAdapter
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient
from urllib3.util.retry import Retry

from skill1.config import ConfigError, PolicyConfig
from skill1.errors import UserError
from skill1.generation.calls import Prompt, Seed, Written

# of a server that does not answer: asked again after 0, 2, 4 and 8 s, so that a dead one ends the run in this minute
_RETRIES = Retry(total=4, backoff_factor=1, status_forcelist=(500, 502, 503), allowed_methods=("GET", "POST"))
_MODES = {"vllm": "colocate", "vllm_server": "server"}
_ENGINES: WeakKeyDictionary[PreTrainedModel, vllm_generation.VLLMGeneration] = WeakKeyDictionary()


class ServerError(UserError, RuntimeError):
    """The vLLM server cannot be reached or does not write. The message names its address and the fix."""


def check_installed(backend: str) -> None:
    """Raise ConfigError if vLLM, which a backend needs, is not installed."""
    if find_spec("vllm") is None:
        raise ConfigError(
            f"policy.backend={backend} needs the package vllm (`pip install trl[vllm]`): install it, or use transformers or "
            "continuous"
        )


class VLLMWriter:
    """Writes with vLLM, with the weights that the policy had when this was made. Every rank must make one."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: PolicyConfig, ends: frozenset[int]
    ) -> None:
        """
        Raises:
            ConfigError: vLLM is not installed.
        """
        check_installed(config.backend)
        self._ends = sorted(ends)
        if model not in _ENGINES:
            _ENGINES[model] = vllm_generation.VLLMGeneration(
                model=model,
                accelerator=Accelerator(),
                processing_class=tokenizer,
                mode=_MODES[config.backend],
                server_base_url=config.vllm_url,
                gpu_memory_utilization=config.vllm_memory,
                logprobs=0,
            )
        self._engine = _ENGINES[model]
        self._engine.sync_weights()
        self._url = config.vllm_url
        if config.backend == "vllm_server":
            if not hasattr(self._engine, "vllm_client"):  # TRL connects rank 0 only
                self._engine.vllm_client = VLLMClient(base_url=config.vllm_url)
            self._engine.vllm_client.session.mount(config.vllm_url, HTTPAdapter(max_retries=_RETRIES, pool_maxsize=64))

    def close(self) -> None:
        """Do nothing: the engine stays for the next rollout."""

    def write(self, prompts: Sequence[Prompt], temperature: float, max_new_tokens: int) -> list[Written]:
        """Continue every prompt; a server has no random streams.

        Raises:
            ServerError: the server is gone.
        """
        if not prompts:
            return []
        # everything that vLLM would otherwise take from the model's own generation settings
        sampling: dict[str, Any] = dict(
            n=1, temperature=temperature, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0,
            max_tokens=max_new_tokens, logprobs=0,
        )  # fmt: skip
        if self._engine.mode == "server":
            try:
                answer = self._engine.vllm_client.generate(
                    prompts=[prompt.ids for prompt in prompts],
                    generation_kwargs={"stop_token_ids": self._ends},
                    **sampling,
                )
            except requests.RequestException as error:
                raise ServerError(
                    f"the vLLM server at {self._url} is gone ({error}): start it again and continue with --resume"
                ) from error
            ids, logprobs = answer["completion_ids"], answer["logprobs"]
        else:
            outputs = self._engine.llm.generate(
                [{"prompt_token_ids": prompt.ids} for prompt in prompts],
                sampling_params=[
                    vllm_generation.SamplingParams(seed=_number(prompt.seed), stop_token_ids=self._ends, **sampling)
                    for prompt in prompts
                ],
                use_tqdm=False,
            )
            ids = [output.outputs[0].token_ids for output in outputs]
            logprobs, _ = vllm_generation.extract_logprobs(outputs)
        return [
            (np.asarray(tokens, np.int32), np.asarray([first for first, *_ in values], np.float32))
            for tokens, values in zip(ids, logprobs, strict=True)
        ]


def _number(seed: Seed) -> int:
    """vLLM's seeds are single numbers."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
