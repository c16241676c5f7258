"""A tiny Qwen2 chat model as a GGUF file, written with the gguf package: no hub, no llama.cpp."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from tiny import tiny_model
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2ForCausalLM

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ("go", "to")
TOKENS = [*SPECIAL, *sorted(ByteLevel.alphabet()), *WORDS]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_Q8 = gguf.GGMLQuantizationType.Q8_0


def write_gguf(
    path: Path, *, architecture: str = "qwen2", chat: str | None = CHAT, parts: int = 1, without: str = ""
) -> Qwen2ForCausalLM:
    """Write the file; returns the model with the weights that it holds, matrices as Q8_0 rounds them.

    Args:
        parts: how many files it says it is one of.
        without: a tensor to leave out.
    """
    model = tiny_model(vocabulary=len(TOKENS))
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny Chat")
    writer.add_license("mit")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if token in SPECIAL else kinds.NORMAL for token in TOKENS])
    writer.add_token_merges([" ".join(word) for word in WORDS])
    writer.add_eos_token_id(TOKENS.index("<|im_end|>"))
    writer.add_pad_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    if chat:
        writer.add_chat_template(chat)
    if parts > 1:
        writer.add_uint16("split.count", parts)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, weight in model.named_parameters():  # tied: once
        stored = names.get_name(name, (".weight", ".bias"))
        if stored == without:
            continue
        values = weight.detach().numpy()
        if values.ndim == 1:
            writer.add_tensor(stored, values)
            continue
        packed = gguf.quantize(values, _Q8)
        writer.add_tensor(stored, packed, raw_dtype=_Q8)
        weight.data = torch.from_numpy(gguf.dequantize(packed, _Q8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model
