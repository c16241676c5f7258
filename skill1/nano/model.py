"""The nano policy's body: a word-level tokenizer of the environment's own words and a tiny Qwen2-architecture model.

Ours: the paper trains Qwen2.5-7B-Instruct. Both are ordinary Hugging Face objects, saved and loaded like any model.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from skill1.nano.prompts.alfworld import MARKS, compact

PAD, UNKNOWN, END = "<pad>", "<unk>", "<end>"
_MANY = ("cabinet", "drawer", "shelf")  # receptacle types of which real homes have up to 30
_ENGINE_WORDS = (
    "go_to open close take move put use clean heat cool slice examine look inventory help nothing happens closed pick "
    "turn middle room looking quickly around hot cold sliced normal special about not anything two find"
)


def vocabulary(receptacles: Iterable[str], objects: Iterable[str], *, many: int = 30, few: int = 8) -> list[str]:
    """All words of compact prompts: marks, verbs, numbers, types, and numbered entities.

    Args:
        receptacles, objects: type names in lower case.
        many: highest number of the receptacle types that homes have many of; `few`: of every other type.
    """
    places, things = sorted(set(receptacles)), sorted(set(objects))
    entities = [f"{kind}_{n}" for kind in places for n in range(1, (many if kind in _MANY else few) + 1)]
    entities += [f"{kind}_{n}" for kind in things if kind not in places for n in range(1, few + 1)]
    words = [*MARKS, *_ENGINE_WORDS.split(), *compact(_ENGINE_WORDS).split(), *map(str, range(51))]
    return list(dict.fromkeys([*words, *places, *things, *entities]))


def make_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A whitespace-splitting word-level tokenizer whose answers end with `<end>`."""
    vocab = {word: i for i, word in enumerate(dict.fromkeys([PAD, UNKNOWN, END, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, padding_side="left"
    )


def make_model(
    tokenizer: PreTrainedTokenizerFast, *, width: int, layers: int, heads: int, seed: int, context: int = 1024
) -> Qwen2ForCausalLM:
    """A Qwen2 of `layers` blocks of `width`, embeddings tied, initialised from `seed`."""
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
