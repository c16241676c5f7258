"""The policy: prompts in, sampled completions with log-probs out. One place decides how text is generated.

Generation is `transformers.generate`, length-bucketed. Sampling is ours in one respect: every (run seed, step, task,
rollout, turn) has its own random stream, so that a completion depends on its own prompt and seed alone, never on what
else happens to be in the batch (up to float rounding of the logits). One uniform number per token and inversion of the
cumulative distribution give exact samples and cost nothing at a vocabulary of 150,000.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils.logging import disable_progress_bar

from skill1.config import ConfigError, PolicyConfig
from skill1.prompts import PromptSet

Seed = tuple[int, ...]  # entropy of one call's random stream


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """One sampled answer. `ids` ends with the end token unless the length limit cut it."""

    prompt_ids: np.ndarray  # (P,) int32
    ids: np.ndarray  # (C,) int32
    logprobs: np.ndarray  # (C,) float32 at the sampling temperature
    text: str


class PromptTooLong(ValueError):
    """A prompt exceeds `rollout.max_prompt_tokens`."""


class _SeededSampling(LogitsProcessor):
    """Draws the next token of every row from its own uniforms; greedy decoding then takes what was drawn."""

    def __init__(self, uniforms: torch.Tensor, temperature: float) -> None:
        self.uniforms = uniforms  # (B, T)
        self.temperature = temperature
        self.logprobs: list[torch.Tensor] = []  # T x (B,)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        logits = scores.float()
        logp = torch.log_softmax(logits / self.temperature if self.temperature else logits, dim=-1)  # (B, V)
        if self.temperature:
            cumulative = logp.exp().cumsum(dim=-1)
            # scaled to the total so that rounding of the sum can never select past the last token
            u = self.uniforms[:, len(self.logprobs), None] * cumulative[:, -1:]
            token = torch.searchsorted(cumulative, u, right=True).clamp_(max=scores.shape[-1] - 1)  # (B, 1)
        else:
            token = logp.argmax(dim=-1, keepdim=True)
        self.logprobs.append(logp.gather(1, token)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def stream(seed: Seed, count: int) -> np.ndarray:
    """(count,) uniforms in [0, 1) of the stream named by `seed`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))).random(count, dtype=np.float32)


class Policy:
    """A causal LM with its tokenizer and prompt set, ready to answer."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSet,
        config: PolicyConfig,
        max_prompt_tokens: int,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.prompts = prompts
        self._batch = config.generate_batch
        self._max_prompt = max_prompt_tokens
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])

    @torch.no_grad()
    def generate(
        self, texts: Sequence[str], seeds: Sequence[Seed], *, temperature: float, max_new_tokens: int
    ) -> list[Completion]:
        """Answer every prompt; `temperature` 0 is greedy.

        Raises:
            PromptTooLong: a prompt has more than `rollout.max_prompt_tokens` tokens.
        """
        prompts = [self.prompts.encode(self.tokenizer, text) for text in texts]
        longest = max(map(len, prompts), default=0)
        if longest > self._max_prompt:
            raise PromptTooLong(
                f"a prompt has {longest} tokens, more than rollout.max_prompt_tokens={self._max_prompt}: raise the limit"
            )
        out: list[Completion | None] = [None] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for first in range(0, len(order), self._batch):
            chosen = order[first : first + self._batch]
            batch = self._sample([prompts[i] for i in chosen], [seeds[i] for i in chosen], temperature, max_new_tokens)
            for i, completion in zip(chosen, batch, strict=True):
                out[i] = completion
        return [completion for completion in out if completion is not None]

    @contextmanager
    def _bare_generation(self) -> Iterator[None]:
        """Without the model's own generation settings: `generate` takes from them whatever it is not told.

        Qwen2.5-7B-Instruct's hold repetition_penalty=1.05, with which the samples would not be the policy's.
        """
        own = self.model.generation_config
        self.model.generation_config = GenerationConfig()
        try:
            yield
        finally:
            self.model.generation_config = own

    def _sample(
        self, prompts: list[list[int]], seeds: list[Seed], temperature: float, max_new_tokens: int
    ) -> list[Completion]:
        width, device = max(map(len, prompts)), self.model.device
        ids = torch.full((len(prompts), width), self._pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        uniforms = np.stack([stream(seed, max_new_tokens) for seed in seeds])
        sampler = _SeededSampling(torch.from_numpy(uniforms).to(device), temperature)
        with self._bare_generation():
            generated = self.model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
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
        logprobs = torch.stack(sampler.logprobs, dim=1).cpu().numpy()  # (B, T)
        lengths = [next((t + 1 for t, i in enumerate(row) if i in self._ends), len(row)) for row in new.tolist()]
        texts = self.tokenizer.batch_decode(
            [row[:n] for row, n in zip(new.tolist(), lengths, strict=True)], skip_special_tokens=True
        )
        return [
            Completion(np.asarray(p, np.int32), row[:n].copy(), lp[:n].astype(np.float32), text)
            for p, row, lp, n, text in zip(prompts, new, logprobs, lengths, texts, strict=True)
        ]


def load_model(config: PolicyConfig, model: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal LM and its tokenizer from a folder or the hub.

    Weights are float32 for full fine-tuning (`policy.dtype` is then the compute dtype), else `policy.dtype`.

    Args:
        model: folder or hub id, `policy.model` by default (a checkpoint, when evaluating).

    Raises:
        ConfigError: the folder does not exist or holds no model, or its tokenizer cannot serve: no chat template for
            `policy.prompts` = full, or no token that ends an answer. (Without a padding token the end token pads.)
    """
    if not sys.stderr.isatty():
        disable_progress_bar()  # transformers' bars, one per file read or written, would flood logs and notebooks
    name = model or config.model
    folder = Path(name)
    # "org/name" is a hub id unless its first part is a folder here: then it is a path that does not exist
    if not folder.is_dir() and (name.startswith((".", "/")) or Path(folder.parts[0]).is_dir()):
        raise ConfigError(
            f"policy.model: there is no folder {name!r}; name an existing model folder or hub id, or make a nano policy "
            f"with `skill1 warmstart --out {name}`"
        )
    dtype = torch.float32 if not config.lora_rank else getattr(torch, config.dtype)
    try:
        tokenizer = load_tokenizer(name)
        loaded = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"policy.model: {name!r} does not load ({str(error).splitlines()[0]})") from error
    if config.prompts == "full" and not tokenizer.chat_template:
        raise ConfigError(
            f"policy.model: the tokenizer of {name!r} has no chat template, which policy.prompts=full needs: use an "
            "instruction-tuned model, or add its chat_template.jinja to the folder"
        )
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"policy.model: the tokenizer of {name!r} has no end token (eos_token): every answer would run to its limit"
        )
    return loaded, tokenizer


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer exactly as it was saved.

    AutoTokenizer picks the class by the *model's* architecture and would rebuild a word-level tokenizer saved beside a
    Qwen2 model as Qwen2's byte-level one, without a warning.
    """
    declared = get_tokenizer_config(name).get("tokenizer_class")
    generic = declared in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return (PreTrainedTokenizerFast if generic else AutoTokenizer).from_pretrained(name)
