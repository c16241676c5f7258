"""The architecture of a policy: its `config.json`, from a folder, the hub, or the few that are copied here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from huggingface_hub import constants
from transformers import AutoConfig, LlamaConfig, PretrainedConfig, Qwen2Config

from skill1.config import ConfigError
from skill1.errors import one_line
from skill1.store.resources import find_model


def qwen2(
    vocabulary: int, width: int, hidden: int, layers: int, heads: int, key_value_heads: int, *, tied: bool,
    context: int = 32768,
) -> Qwen2Config:  # fmt: skip
    """Build a Qwen2 model's configuration: `hidden` is the MLP's width, `tied` one matrix for embeddings and head."""
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
    )


# From config.json of huggingface.co/<name>: a plan of the presets needs no network.
COPIED: dict[str, PretrainedConfig] = {
    "Qwen/Qwen2.5-7B-Instruct": qwen2(152064, 3584, 18944, 28, 28, 4, tied=False),
    "Qwen/Qwen2.5-1.5B-Instruct": qwen2(151936, 1536, 8960, 28, 12, 2, tied=True),
    "Qwen/Qwen2.5-0.5B-Instruct": qwen2(151936, 896, 4864, 24, 14, 2, tied=True),
    "HuggingFaceTB/SmolLM2-135M-Instruct": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
    ),
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model's configuration and where it came from."""

    config: PretrainedConfig
    source: str


def read_architecture(model: str, revision: str | None = None) -> Architecture:
    """Read the architecture of a model (`policy.model`), without its weights.

    Raises:
        ConfigError: the folder does not exist or holds no configuration, or it would have to come from the hub, which
            does not answer.
    """
    place = find_model(model)
    if Path(place).is_dir():
        return Architecture(_read(place), f"config.json of the folder {model}")
    try:
        return Architecture(_config(model, revision, local_files_only=True), f"config.json of {model}, cached")
    except OSError:
        pass  # not in the hub's local cache
    if model in COPIED:
        return Architecture(COPIED[model], f"copy of config.json of huggingface.co/{model}")
    if not _hub_answers():
        raise ConfigError(
            f"policy.model: {model!r} is no folder here, and the hub cannot be reached; known without it are "
            f"{', '.join(COPIED)}"
        )
    return Architecture(_read(model, revision), f"config.json of {model} on the hub")


def _hub_answers() -> bool:
    """Whether the hub answers at all: its own client would try for half a minute."""
    if constants.is_offline_mode():
        return False
    try:
        urlopen(constants.ENDPOINT, timeout=5).close()
    except HTTPError:
        return True  # it answered
    except OSError:
        return False
    return True


def _config(model: str, revision: str | None, **given: Any) -> PretrainedConfig:
    return AutoConfig.from_pretrained(model, revision=revision or "main", **given)


def _read(model: str, revision: str | None = None) -> PretrainedConfig:
    try:
        return _config(model, revision)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.model: no model configuration can be read from {model!r} ({one_line(error)})"
        ) from error
