"""The backends `vllm` (beside training on the same GPUs) and `vllm_server` (a server started with TRL's help).

TRL owns the engine and the transfer of weights, sharded or with adapters; it happens once per policy, that is once a
rollout. Prompts go to the engine directly: TRL's own `generate` would take one sampling seed for all prompts, transfer
weights again after sleeping, and in server mode hand completions to the wrong ranks unless all ask equally many. Every
rank talks to its own engine, or to the server by itself, so ranks may ask as often as their own episodes need.

A server that was started again between two rollouts is sent the weights like the first; one that was started again within
a rollout would write with the weights it was started with: that ends the run, which continues with --resume.

vLLM's numerics are not the policy's: training takes the importance ratio against the log-probs that come from here.

Differs from the other backends in: samples are vLLM's own (colocated: seeded per prompt; on a server: unseeded, so such
a run cannot be repeated exactly).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import requests
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, is_peft_model
from peft.tuners.lora import LoraLayer
from requests.adapters import HTTPAdapter
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient
from urllib3.util.retry import Retry

from skill1.config import PolicyConfig
from skill1.errors import one_line
from skill1.generation.calls import Prompt, Seed, Written
from skill1.generation.vllm_server import Server, ServerError

# of a server that does not write: asked again after 0, 2, 4 and 8 s, so that a dead one ends the run in this minute
_RETRIES = Retry(total=4, backoff_factor=1, status_forcelist=(500, 502, 503), allowed_methods=("POST",))
_MODES = {"vllm": "colocate", "vllm_server": "server"}
# what TRL's client raises where the server's answer is not 200, or the weights are on a CPU; anything else is a defect
_REFUSALS = (Exception, NotImplementedError)
_ENGINES: WeakKeyDictionary[PreTrainedModel, Engine] = WeakKeyDictionary()


class Engine(vllm_generation.VLLMGeneration):
    """TRL's engine: in the policy's compute dtype, on any number of ranks, and sent weights without touching the policy's."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: PolicyConfig) -> None:
        self._config = config
        self._instance = ""  # of the server that this rank is connected to
        super().__init__(
            model=model,
            accelerator=Accelerator(),
            processing_class=tokenizer,
            mode=_MODES[config.backend],
            gpu_memory_utilization=config.vllm_memory,
            logprobs=0,
        )

    def send_weights(self) -> None:
        """Send the policy's weights; afterwards every rank may write.

        Raises:
            ServerError: the server is gone, or cannot be sent these weights.
        """
        with _answering(self._config):
            if self.mode == "server" and self.accelerator.is_main_process:
                self._connect(Server.at(self._config.vllm_url))
            self.sync_weights()
        [self._instance] = broadcast_object_list([self._instance])  # by which the other ranks wait for the first

    def serve(self, prompts: Sequence[list[int]], ends: list[int], sampling: dict[str, Any]) -> tuple[list, list]:
        """Let the server write: tokens and their log-probs.

        Raises:
            ServerError: the server is gone, refuses, or was started again and has not the policy's weights.
        """
        url = self._config.vllm_url
        with _answering(self._config):
            answer = self.vllm_client.generate(prompts=prompts, generation_kwargs={"stop_token_ids": ends}, **sampling)
            if Server.at(url).instance != self._instance:
                raise ServerError(
                    f"the vLLM server at {url} was started again within a rollout, and has not the policy's weights: "
                    "continue with --resume"
                )
        return answer["completion_ids"], answer["logprobs"]

    def _init_vllm(self) -> None:
        if self.mode == "server":
            with _answering(self._config):
                self._connect(Server.at(self._config.vllm_url))
            return
        made = vllm_generation.LLM
        # vLLM's own choice for float32 weights is half of them
        vllm_generation.LLM = lambda **given: made(**given, dtype=self._config.dtype)
        try:
            super()._init_vllm()
        finally:
            vllm_generation.LLM = made

    def _connect(self, server: Server) -> None:
        """Connect to a server unless this rank is; the first rank's connection can send weights."""
        if server.instance == self._instance:
            return
        # the port of the weights is a new one each time: that of a server that is gone may still be held
        self.vllm_client = VLLMClient(base_url=self._config.vllm_url, group_port=_free_port())
        session, base = self.vllm_client.session, self.vllm_client.base_url
        # asked again to write only: a server that is asked twice to receive weights waits for some that do not come
        session.mount(base, HTTPAdapter())
        session.mount(f"{base}/v1/completions", HTTPAdapter(max_retries=_RETRIES, pool_maxsize=64))
        if self.accelerator.is_main_process:
            self.vllm_client.init_communicator(device=self.accelerator.device)
        self._instance = server.instance

    def _iter_named_params(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield whole weights, adapters folded into copies of them.

        TRL folds adapters into the policy's weights and out again: in bfloat16 these are other weights then.
        """
        model: Any = self.model
        base = model.get_base_model() if is_peft_model(model) else model
        adapted: dict[str, Any] = {
            name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)
        }
        if not adapted:
            yield from super()._iter_named_params()
            return
        for name, weight in base.named_parameters():
            home, _, leaf = name.rpartition(".")
            if ".lora_" in name:
                continue
            module = adapted.get(home.removesuffix(".base_layer"))
            with self._dist.gather_params([weight] if module is None else [*module.parameters()]):
                sent = _merged(module) if module is not None and leaf == "weight" else weight
                whole = sent.full_tensor() if isinstance(sent, DTensor) else sent
                yield self._fix_param_name_to_vllm(name.replace(".base_layer", "")), whole.detach()


class VLLMWriter:
    """Writes with vLLM, with the weights that the policy had when this was made. Every rank must make one."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: PolicyConfig, ends: frozenset[int]
    ) -> None:
        """
        Raises:
            ServerError: the server is gone, or cannot be sent the policy's weights.
        """
        self._ends = sorted(ends)
        if model not in _ENGINES:
            _ENGINES[model] = Engine(model, tokenizer, config)
        self._engine = _ENGINES[model]
        self._engine.send_weights()

    def close(self) -> None:
        """Do nothing: the engine stays for the next rollout."""

    def write(self, prompts: Sequence[Prompt], temperature: float, max_new_tokens: int) -> list[Written]:
        """Continue every prompt; a server has no random streams.

        Raises:
            ServerError: the server is gone, or was started again.
        """
        if not prompts:
            return []
        # everything that vLLM would otherwise take from the model's own generation settings
        sampling: dict[str, Any] = dict(
            n=1, temperature=temperature, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0,
            max_tokens=max_new_tokens, logprobs=0,
        )  # fmt: skip
        if self._engine.mode == "server":
            ids, logprobs = self._engine.serve([prompt.ids for prompt in prompts], self._ends, sampling)
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


@contextmanager
def _answering(config: PolicyConfig) -> Iterator[None]:
    """Say in one line what became of the server."""
    again = "start it again and continue with --resume"
    try:
        yield
    except requests.RequestException as error:
        raise ServerError(f"the vLLM server at {config.vllm_url} is gone ({one_line(error)}): {again}") from error
    except Exception as error:
        if type(error) not in _REFUSALS:
            raise
        refused = f"the vLLM server at {config.vllm_url} refuses ({one_line(error)})"
        raise ServerError(
            f"{refused}: see its log, start it with `trl vllm-serve --model {config.model}` and continue with --resume"
        ) from error


def _merged(layer: Any) -> torch.Tensor:
    """The weight of a `LoraLayer` with its adapters, in the layer's dtype."""
    weight = layer.get_base_layer().weight
    whole = weight.float()
    for adapter in layer.active_adapters:
        whole = whole + layer.get_delta_weight(adapter)
    return whole.to(weight.dtype)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


def _number(seed: Seed) -> int:
    """vLLM's seeds are single numbers."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
