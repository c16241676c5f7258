"""The policy: prompts in, sampled completions with log-probs out. One place decides how text is generated.

What writes is a backend of `skill1.generation`, chosen by `policy.backend`. Every (run seed, step, task, rollout, turn)
has its own random stream, so that a completion depends on its own prompt and seed alone, never on what else happens to
be in the batch (up to float rounding of the logits).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from skill1.config import ConfigError, PolicyConfig
from skill1.errors import NotFinite, PromptTooLong, one_line
from skill1.generation.attention import group_heads
from skill1.generation.calls import Chat, Completion, Prompt, Seed, Writer
from skill1.generation.continuous import ContinuousWriter
from skill1.generation.padded import PaddedWriter
from skill1.prompts import PromptSet
from skill1.store.model_folder import adapter_base, is_adapter, refuse_adapter, with_adapter
from skill1.store.resources import find_adapter, find_model
from skill1.store.weights import check_finite, load_weights


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
        self._max_prompt = max_prompt_tokens
        self._context = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        own = model.generation_config.eos_token_id or tokenizer.eos_token_id
        ends = frozenset(own if isinstance(own, list) else [own])
        self._writer: Writer
        if config.backend == "transformers":
            self._writer = PaddedWriter(
                model, batch=config.generate_batch, cache_tokens=config.cache_tokens, pad=pad, ends=ends
            )
        elif config.backend == "continuous":
            self._writer = ContinuousWriter(model, cache_tokens=config.cache_tokens, ends=ends)
        else:
            from skill1.generation.vllm import VLLMWriter  # TRL's engines take a second to import

            self._writer = VLLMWriter(model, tokenizer, config, ends)
        self._open = False

    def __enter__(self) -> Policy:
        """Until the end, what the backend needs between calls (a cache, a thread) is kept; else each call makes it."""
        self._open = True
        return self

    def __exit__(self, *exception: object) -> None:
        self._open = False
        self._writer.close()

    @torch.no_grad()
    def generate(
        self,
        texts: Sequence[str],
        seeds: Sequence[Seed],
        *,
        temperature: float,
        max_new_tokens: int,
        chats: Sequence[Chat] | None = None,
    ) -> list[Completion]:
        """Answer every prompt; `temperature` 0 is greedy.

        Args:
            chats: the conversations that the prompts continue; None: each is a chat of its own.

        Returns:
            Completions whose `prompt_ids` are what is new in the conversation.

        Raises:
            NotFinite: the policy gives no probabilities.
            PromptTooLong: a prompt has more than `rollout.max_prompt_tokens` tokens, or a conversation more than the
                model's context.
        """
        known = [(list[int](), None)] * len(texts) if chats is None else [(chat.ids, chat.name) for chat in chats]
        new = [
            encode_call(self.prompts, self.tokenizer, said, text) for (said, _), text in zip(known, texts, strict=True)
        ]
        prompts = [Prompt(said + ids, seed, chat) for (said, chat), ids, seed in zip(known, new, seeds, strict=True)]
        longest = max((len(prompt.ids) for prompt in prompts), default=0)
        if chats is None and longest > self._max_prompt:
            raise PromptTooLong(
                f"a prompt has {longest} tokens, more than rollout.max_prompt_tokens={self._max_prompt}: raise the limit"
            )
        if longest + max_new_tokens > self._context:
            raise PromptTooLong(
                f"{longest} tokens and an answer of {max_new_tokens} are more than the {self._context} that the model reads: "
                f"lower rollout.max_prompt_tokens (it is {self._max_prompt})"
            )
        try:
            written = self._writer.write(prompts, temperature, max_new_tokens)
        finally:
            if not self._open:
                self._writer.close()
        if not all(np.isfinite(logprobs).all() for _, logprobs in written):
            raise NotFinite(
                "the policy's probabilities are no finite numbers: its weights are of no use, as after a training that "
                "diverged; use an earlier checkpoint, or train again with a lower train.learning_rate"
            )
        tokens = [ids.tolist() for ids, _ in written]
        answers = self.tokenizer.batch_decode(tokens, skip_special_tokens=True) if tokens else []
        return [
            Completion(np.asarray(read, np.int32), ids, logprobs, text)
            for read, (ids, logprobs), text in zip(new, written, answers, strict=True)
        ]


def encode_call(prompts: PromptSet, tokenizer: PreTrainedTokenizerBase, said: Sequence[int], text: str) -> list[int]:
    """Encode a call's prompt: all of it in a chat that begins, else what is new after the tokens `said`.

    What is new begins with the end of the answer before it if that was cut.
    """
    if not said:
        return prompts.encode(tokenizer, text)
    ids = prompts.encode_next(tokenizer, text)
    return ids[1:] if said[-1] == ids[0] else ids


def load_model(config: PolicyConfig, model: Path | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal LM and its tokenizer from a folder or the hub.

    Weights are float32 for full fine-tuning (`policy.dtype` is then the compute dtype), else `policy.dtype`; an adapter
    (`policy.adapter`) is folded into those of `policy.model`.

    Args:
        model: a checkpoint's folder, `policy.model` by default.

    Raises:
        ConfigError: the folder does not exist or holds no model, its tokenizer has no token that ends an answer (without
            a padding token the end token pads), or the adapter is not there or for another base.
    """
    name = find_model(config.model) if model is None else str(model)
    dtype = torch.float32 if not config.lora_rank else getattr(torch, config.dtype)
    refuse_adapter(Path(name))
    adapted = is_adapter(Path(name))  # a LoRA run's checkpoint, or what was exported of it
    own = name
    if adapted:
        own = adapter_base(Path(name)) if model is None else find_model(config.model)
    revision = None if own == str(model) else config.revision
    try:
        tokenizer = load_tokenizer(name, revision)
    except (OSError, ValueError) as error:
        raise ConfigError(f"policy.model: {name!r} does not load ({one_line(error)})") from error
    loaded = load_weights(own, dtype, revision)
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"policy.model: the tokenizer of {name!r} has no end token (eos_token): every answer would run to its limit"
        )
    rows = len(loaded.get_input_embeddings().weight)  # type: ignore[arg-type]  # torch says Tensor or Module
    if (last := max(tokenizer.get_vocab().values())) >= rows:
        raise ConfigError(
            f"policy.model: the tokenizer of {name!r} has tokens up to {last}, its weights embed {rows}: they are of two models"
        )
    if config.adapter is not None and (model is None or adapted):  # whole weights of a checkpoint have it in them
        loaded = with_adapter(loaded, config.model, find_adapter(config.adapter))
    if adapted:
        loaded.load_adapter(name)
        check_finite(loaded, name)
    if not torch.cuda.is_available() and config.backend != "continuous":  # a GPU and its pages have their own attention
        group_heads(loaded)
    return loaded, tokenizer


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model (`policy.model`), exactly as it was saved.

    AutoTokenizer picks the class by the *model's* architecture and would rebuild a word-level tokenizer saved beside a
    Qwen2 model as Qwen2's byte-level one, without a warning.
    """
    name = find_model(name)
    declared = get_tokenizer_config(name, revision=revision).get("tokenizer_class")
    generic = declared in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return (PreTrainedTokenizerFast if generic else AutoTokenizer).from_pretrained(name, revision=revision or "main")
