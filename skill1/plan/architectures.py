"""The architecture of a policy: its `config.json`, from a folder, the hub, or the few that are shipped here.

The shipped ones stand in only where the hub cannot be reached, and a plan made from them says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from huggingface_hub import constants
from transformers import AutoConfig, PretrainedConfig, Qwen2Config

from skill1.config import ConfigError
from skill1.store.resources import find_model


@dataclass(frozen=True, slots=True)
class Shipped:
    """The fields of a Qwen2 `config.json` that its size and cost follow from."""

    source: str
    vocabulary: int
    width: int
    hidden: int  # of the MLP
    layers: int
    heads: int
    key_value_heads: int
    tied: bool  # one matrix for embeddings and head
    context: int = 32768

    def config(self) -> Qwen2Config:
        return Qwen2Config(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=self.tied,
        )


# Copied from config.json of the named repositories; tests check the published numbers of parameters.
SHIPPED: dict[str, Shipped] = {
    "Qwen/Qwen2.5-7B-Instruct": Shipped(
        "huggingface.co/Qwen/Qwen2.5-7B-Instruct, config.json", 152064, 3584, 18944, 28, 28, 4, tied=False
    ),
    "Qwen/Qwen2.5-1.5B-Instruct": Shipped(
        "huggingface.co/Qwen/Qwen2.5-1.5B-Instruct, config.json", 151936, 1536, 8960, 28, 12, 2, tied=True
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": Shipped(
        "huggingface.co/Qwen/Qwen2.5-0.5B-Instruct, config.json", 151936, 896, 4864, 24, 14, 2, tied=True
    ),
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model's configuration and where it came from."""

    config: PretrainedConfig
    source: str
    shipped: bool  # a copy of ours: the model itself is out of reach


def read_architecture(model: str) -> Architecture:
    """The architecture of a model, without its weights.

    Args:
        model: folder or hub id, as `policy.model`.

    Raises:
        ConfigError: the folder does not exist or holds no configuration, or the hub cannot be reached and the model
            is not among `SHIPPED`.
    """
    found = find_model(model)
    if Path(found).is_dir():
        return Architecture(_read(found), f"config.json of the folder {model}", shipped=False)
    hub = f"config.json of {model} on the hub (or its local cache)"
    try:
        return Architecture(AutoConfig.from_pretrained(model, local_files_only=True), hub, shipped=False)
    except OSError:
        pass  # not in the cache
    if _reachable():
        return Architecture(_read(model), hub, shipped=False)
    if model in SHIPPED:
        source = f"shipped copy of {SHIPPED[model].source} (the hub cannot be reached)"
        return Architecture(SHIPPED[model].config(), source, shipped=True)
    raise ConfigError(
        f"policy.model: {model!r} is no folder here, and the hub cannot be reached; shipped without it are "
        f"{', '.join(SHIPPED)}"
    )


def _reachable() -> bool:
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


def _read(model: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.model: no model configuration can be read from {model!r} ({str(error).splitlines()[0]})"
        ) from error


def with_depth(architecture: PretrainedConfig, layers: int) -> PretrainedConfig:
    """The same architecture with its first `layers` blocks only."""
    fields: dict[str, Any] = architecture.to_dict()
    fields["num_hidden_layers"] = layers
    if fields.get("layer_types"):
        fields["layer_types"] = fields["layer_types"][:layers]
    return type(architecture).from_dict(fields)


def is_uniform(architecture: PretrainedConfig) -> bool:
    """Whether all blocks are alike, so that cost grows linearly with depth."""
    return len(set(getattr(architecture, "layer_types", None) or ())) <= 1
