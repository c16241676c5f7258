"""A tiny Qwen2 policy and its tokenizer, made on the fly: no hub, no files but the folder asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from skill1.records import STAGES, Row

SPECIAL = ("<pad>", "<unk>", "<user>", "<assistant>", "<end>")
WORDS = "go to take put clean heat cool open close look apple mug drawer shelf fridge one two three done".split()
WORDS += ["<system>"]
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", padding_side="left"
    )
    tokenizer.chat_template = CHAT
    return tokenizer


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (  # begins with a token of its own, and trims
    "{{ '<|begin|>' }}{% for m in messages %}{{ '<|head|>' + m['role'] + '<|/head|>\n\n' + m['content'] | trim + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"
)
SPECIAL_OF = {
    CHATML: ("<|im_end|>", "<|im_start|>"),
    LLAMA3: ("<|eot|>", "<|head|>", "<|/head|>", "<|begin|>"),
}  # its end token first


def byte_tokenizer(template: str, special: tuple[str, ...] | None = None) -> PreTrainedTokenizerFast:
    """One token a byte, and the special tokens after them (ids 256, 257, ...), of which the first ends an answer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = special or SPECIAL_OF[template]
    core.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=special[0], pad_token=special[0])
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(
    seed: int = 0,
    *,
    hidden: int = 32,
    head: int = 16,
    layers: int = 2,
    vocabulary: int = 64,
    context: int = 512,
    dtype: torch.dtype = torch.float32,
) -> Qwen2ForCausalLM:
    """A randomly initialised Qwen2 with heads of `head` dimensions and tied embeddings."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // head,
        num_key_value_heads=max(1, hidden // head // 2),
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=0.2,  # far from uniform predictions, so that tests see gradients of a real size
        bos_token_id=None,
        eos_token_id=SPECIAL.index("<end>"),
        pad_token_id=SPECIAL.index("<pad>"),
    )
    model = Qwen2ForCausalLM(config).to(dtype)
    model.generation_config = GenerationConfig(
        eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id, do_sample=True
    )
    return model


def tiny_policy(folder: Path, seed: int = 0, **shape: int) -> Path:
    """Save model and tokenizer; returns the folder, to be loaded with from_pretrained."""
    tiny_model(seed, **shape).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def taught_policy(folder: Path, rows: list[tuple[str, str]], steps: int = 300, **shape: int) -> Path:
    """Save a tiny chat model fine-tuned on (prompt, answer) rows; its words are those of the rows, an answer is one."""
    words = dict.fromkeys(word for prompt, _ in rows for word in prompt.split())
    answers = [answer for _, answer in rows]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words, *answers, "<system>"]))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", padding_side="left"
    )
    tokenizer.chat_template = CHAT
    model = tiny_model(hidden=64, vocabulary=len(vocabulary), **shape)
    for parameter in model.parameters():
        parameter.data *= 0.2  # of `tiny_model`'s wide initialisation
    chats = [[{"role": "user", "content": prompt}] for prompt, _ in rows]
    prompts = [tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=4e-3), np.random.default_rng(0)
    for _ in range(steps):
        chosen = rng.integers(len(rows), size=16)
        ids = [[*prompts[i], vocabulary[answers[i]], vocabulary["<end>"]] for i in chosen]
        width = max(map(len, ids))
        batch = torch.tensor([[vocabulary["<pad>"]] * (width - len(row)) + row for row in ids])
        labels = torch.full_like(batch, -100)
        labels[:, -2:] = batch[:, -2:]
        model(input_ids=batch, attention_mask=batch != vocabulary["<pad>"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_rows(count: int, seed: int = 0, *, vocabulary: int = 64, prompt: int = 30, completion: int = 9) -> list[Row]:
    """Rows of uneven lengths with advantages of both signs and uneven weights."""
    rng = np.random.default_rng(seed)

    def ids(most: int) -> np.ndarray:
        return rng.integers(len(SPECIAL), vocabulary, rng.integers(1, most + 1)).astype(np.int32)

    rows = []
    for index in range(count):
        written = ids(completion)
        rows.append(
            Row(
                prompt_ids=ids(prompt),
                completion_ids=written,
                logprobs=np.zeros(len(written), dtype=np.float32),
                stage=STAGES[index % len(STAGES)],
                advantage=float(rng.normal()),
                weight=float(rng.choice([0.3, 1.0, 2.0])),
                group=index // 4,
                rollout=index // 2,
                turn=index % 2,
            )
        )
    return rows
