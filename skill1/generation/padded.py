"""The backend `transformers`: `generate` on batches of prompts of similar length, padded to the longest.

A call has at most `policy.generate_batch` prompts and room for `policy.cache_tokens` keys and values, prompts and answers
padded: 256 prompts of 16,384 tokens would need 240 GB of them with a model of 7B. Of conversations as many tokens more
are kept from one call to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from skill1.generation.calls import Prompt, Written
from skill1.generation.kept import KeptStates, side_by_side
from skill1.generation.sampling import certain, draw, stream


class SeededSampling(LogitsProcessor):
    """Draws the next token of every row from its own uniforms; greedy decoding then takes what was drawn."""

    def __init__(self, uniforms: torch.Tensor, temperature: float) -> None:
        self.uniforms = uniforms  # (B, T)
        self.temperature = temperature
        self.logprobs: list[torch.Tensor] = []  # T x (B,)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        token, logp = draw(scores, self.uniforms[:, len(self.logprobs)], self.temperature)
        self.logprobs.append(logp)
        return certain(scores, token)


class PaddedWriter:
    """Writes with `transformers.generate`, at most `batch` prompts and `cache_tokens` padded tokens at a time.

    A single longer prompt goes alone.
    """

    def __init__(
        self, model: PreTrainedModel, *, batch: int, cache_tokens: int, pad: int, ends: frozenset[int]
    ) -> None:
        self._model: Any = model  # the type of models lacks `generate`, which a mixin has
        self._batch = batch
        self._cache = cache_tokens
        self._pad = pad
        self._ends = ends
        self._kept = KeptStates(cache_tokens)

    def close(self) -> None:
        """Forget the conversations."""
        self._kept.clear()

    def write(self, prompts: Sequence[Prompt], temperature: float, max_new_tokens: int) -> list[Written]:
        """Continue every prompt."""
        written: dict[int, Written] = {}
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
        for chosen in self._calls(order, [len(prompt.ids) + max_new_tokens for prompt in prompts]):
            batch = self._sample([prompts[i] for i in chosen], temperature, max_new_tokens)
            written.update(zip(chosen, batch, strict=True))
        return [written[i] for i in range(len(prompts))]

    def _calls(self, order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Consecutive pieces of `order`, in which `lengths` ascend."""
        call: list[int] = []
        for i in order:
            if call and (len(call) == self._batch or (len(call) + 1) * lengths[i] > self._cache):
                yield call
                call = []
            call.append(i)
        if call:
            yield call

    @contextmanager
    def _bare_generation(self) -> Iterator[None]:
        """Without the model's own generation settings: `generate` takes from them whatever it is not told.

        Qwen2.5-7B-Instruct's hold repetition_penalty=1.05, with which the samples would not be the policy's.
        """
        own = self._model.generation_config
        self._model.generation_config = GenerationConfig()
        try:
            yield
        finally:
            self._model.generation_config = own

    def _sample(self, prompts: list[Prompt], temperature: float, max_new_tokens: int) -> list[Written]:
        device = self._model.device
        self._kept.read(self._model, prompts, self._pad)
        cache, known = self._kept.take(self._model, prompts, max_new_tokens)
        ids, mask = side_by_side([prompt.ids for prompt in prompts], known, self._pad)
        width = ids.shape[1]
        uniforms = np.stack([stream(prompt.seed, max_new_tokens) for prompt in prompts])
        sampler = SeededSampling(torch.from_numpy(uniforms).to(device), temperature)
        with self._bare_generation():
            generated = self._model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                past_key_values=cache,
                generation_config=GenerationConfig(
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    pad_token_id=self._pad,
                    eos_token_id=sorted(self._ends),
                ),
                logits_processor=LogitsProcessorList([sampler]),
                synced_gpus=False,  # the weights are whole (skill1.generation.weights): ranks need not wait for others
            )
        new = generated[:, width:].cpu().numpy().astype(np.int32)  # (B, T)
        logprobs = torch.stack(sampler.logprobs, dim=1).cpu().numpy().astype(np.float32)  # (B, T)
        lengths = [next((t + 1 for t, i in enumerate(row) if i in self._ends), len(row)) for row in new.tolist()]
        written = [(row[:n].copy(), lp[:n].copy()) for row, lp, n in zip(new, logprobs, lengths, strict=True)]
        if any(prompt.chat is not None for prompt in prompts):
            # what the model has read of each: its prompt, and its answer up to the last column, which nobody read
            columns = torch.arange(int(cache.get_seq_length()) - width)
            read = torch.cat([mask.bool(), columns < torch.tensor(lengths).unsqueeze(1)], dim=1)  # (B, T)
            self._kept.keep(cache, read.to(device), prompts, [ids.tolist() for ids, _ in written])
        return written
