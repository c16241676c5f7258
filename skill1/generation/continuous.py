"""The backend `continuous`: transformers' continuous batching, one manager and one paged cache for a whole rollout.

A short answer makes room for the next prompt at once, and nothing is padded. The cache is `policy.cache_tokens` long
(transformers' own choice would be most of the device's memory). Samples are the ones of the backend `transformers`, up
to float rounding of the logits: the manager is given a logits processor that draws from each call's own stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)

from skill1.config import ConfigError
from skill1.generation.calls import Prompt, Written
from skill1.generation.sampling import certain, draw, stream

_CPU_BATCH = 1024  # tokens a pass: without flash attention a mask of this times the cache's tokens is made
_PATIENCE = 5.0  # seconds between looks at whether the manager's thread is alive


class _Draws(ContinuousBatchingLogitsProcessor):
    """Token t of call i is drawn with `uniforms[i, t]`, and its log-probability kept in `logprobs[i, t]`.

    Both tables stay where they are for the manager's life: CUDA graphs are replayed on their addresses.
    """

    supported_kwargs: dict[str, type] = {}  # noqa: RUF012 - no ClassVar in the class that it derives from
    ignored_kwargs: tuple[str, ...] = ()

    def __init__(self, calls: int, tokens: int, temperature: float, device: torch.device) -> None:
        self.calls, self.tokens, self.temperature = calls, tokens, temperature
        self.prompts: list[int] = []  # lengths
        self._uniforms = torch.zeros(calls * tokens + 1, device=device)  # the last: of rows that pad a batch
        self._logprobs = torch.zeros(calls * tokens + 1, device=device)

    def begin(self, prompts: Sequence[Prompt], count: int) -> None:
        self.prompts = [len(prompt.ids) for prompt in prompts]
        table = np.zeros((self.calls, self.tokens), dtype=np.float32)
        for row, prompt in enumerate(prompts):
            table[row, :count] = stream(prompt.seed, count)
        self._uniforms[:-1].copy_(torch.from_numpy(table.reshape(-1)))

    def logprobs(self) -> np.ndarray:
        """Return (calls, tokens)"""
        return self._logprobs[:-1].cpu().numpy().reshape(self.calls, self.tokens)

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.fill_(self.calls * self.tokens)

    def prepare_tensor_args(self, requests_with_new_token: list) -> torch.Tensor:
        places = []
        for request in requests_with_new_token:
            state, row = request.state, int(request.state.request_id)
            # a request that had to leave the cache for a while comes back with its answer so far as part of its prompt
            written = len(state.initial_tokens) + len(state.generated_tokens) - self.prompts[row]
            places.append(row * self.tokens + written)
        return torch.tensor(places, dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        places = tensor_arg[: scores.size(0)].long()
        token, logp = draw(scores, self._uniforms[places], self.temperature)
        self._logprobs[places] = logp
        return certain(scores, token)


class ContinuousWriter:
    """Writes with a manager that is opened by the first call and stays until `close`.

    Args:
        graphs: CUDA graphs, in place of operators that are issued one by one; None: where transformers has
            attention without a mask, which is that of the package flash-attn.
    """

    def __init__(
        self, model: PreTrainedModel, *, cache_tokens: int, ends: frozenset[int], graphs: bool | None = None
    ) -> None:
        self._graphs = graphs
        self._model: Any = model  # the type of models lacks `init_continuous_batching`, which a mixin has
        self._cache = cache_tokens
        self._ends = ends
        self._manager: Any = None
        self._draws: _Draws | None = None

    def write(self, prompts: Sequence[Prompt], temperature: float, max_new_tokens: int) -> list[Written]:
        """Continue every prompt; conversations are read again at every call.

        Raises:
            ConfigError: an answer may need more than the whole cache.
            RuntimeError: the manager failed.
        """
        if not prompts:
            return []
        longest = max(len(prompt.ids) for prompt in prompts) + max_new_tokens
        if longest > self._cache:
            raise ConfigError(
                f"a prompt and its answer may have {longest} tokens, more than policy.cache_tokens={self._cache}: "
                "raise it"
            )
        draws = self._open(len(prompts), max_new_tokens, temperature)
        draws.begin(prompts, max_new_tokens)
        for row, prompt in enumerate(prompts):
            self._manager.add_request(
                prompt.ids, request_id=str(row), max_new_tokens=max_new_tokens, eos_token_id=sorted(self._ends)
            )
        answers: dict[int, list[int]] = {}
        while len(answers) < len(prompts):
            result = self._manager.get_result(timeout=_PATIENCE)
            if result is None:
                if not self._manager.is_running():
                    raise RuntimeError(
                        f"continuous batching stopped: {self._manager.background_thread_status.fatal_error!r}"
                    )
            elif result.error is not None:
                raise RuntimeError(f"continuous batching failed on a prompt: {result.error}")
            elif result.is_finished():
                answers[int(result.request_id)] = result.generated_tokens
        logprobs = draws.logprobs()
        return [
            (np.asarray(answers[row], np.int32), logprobs[row, : len(answers[row])].copy())
            for row in range(len(prompts))
        ]

    def close(self) -> None:
        """Release the cache; the model gets its own attention back."""
        if self._manager is not None:
            self._manager.stop(block=True)
            self._manager.destroy()
            self._manager = self._draws = None

    def _open(self, calls: int, tokens: int, temperature: float) -> _Draws:
        """The draws of a running manager with room for so many calls: the one there is, or a larger one."""
        draws = self._draws
        if draws is not None:
            if calls <= draws.calls and tokens <= draws.tokens and temperature == draws.temperature:
                return draws
            calls, tokens = max(calls, draws.calls), max(tokens, draws.tokens)
            self.close()
        device = self._model.device
        on_gpu = device.type == "cuda"
        page = ContinuousBatchingConfig.page_size
        manager = self._model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, max_new_tokens=tokens, eos_token_id=sorted(self._ends)),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=page,
                num_blocks=math.ceil(self._cache / page),
                max_batch_tokens=None if on_gpu else _CPU_BATCH,
                max_requests_per_batch=min(calls, 1024),
                use_cuda_graph=self._graphs,
                use_async_batching=False,  # the place of the next token is read off the request's state
                auto_switch_to_flash=on_gpu and self._model.dtype != torch.float32,  # which it has no kernels for
            ),
        )
        draws = _Draws(calls, tokens, temperature, device)
        processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([draws]))
        processors.tensors_required = 1
        manager.logit_processor = processors
        with torch.no_grad():
            manager.warmup()
        manager.start()
        self._manager, self._draws = manager, draws
        return draws
