"""The nano policy's body: a word-level tokenizer of the environment's own words and a tiny Qwen2-architecture model.

Ours: the paper trains Qwen2.5-7B-Instruct. Both are ordinary Hugging Face objects, saved and loaded like any model.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from skill1.nano.world import nano_of

PAD, UNKNOWN, END = "<pad>", "<unk>", "<end>"


def make_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Make a whitespace-splitting word-level tokenizer whose answers end with `<end>`."""
    vocab = {word: i for i, word in enumerate(dict.fromkeys([PAD, UNKNOWN, END, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, padding_side="left"
    )


def nano_tokenizer(environment: str) -> PreTrainedTokenizerFast:
    """Make the tokenizer of everything that an environment's generated games can say."""
    return make_tokenizer(nano_of(environment).prompts().vocabulary())


def make_model(
    tokenizer: PreTrainedTokenizerFast, *, width: int, layers: int, heads: int, seed: int, context: int = 1024
) -> Qwen2ForCausalLM:
    """Make a Qwen2 of `layers` blocks of `width`, embeddings tied, initialised from `seed`."""
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 2),
            max_position_embeddings=context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model
