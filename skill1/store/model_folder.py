"""A model as a folder of its own, as AutoModelForCausalLM and AutoTokenizer load it: whole, or not there at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE

from skill1.errors import RunError
from skill1.registry import ConfigError
from skill1.store.json_file import read_json, write_json
from skill1.store.resources import find_model

_NO_REMOTE_CODE = ("auto_map", {"AutoTokenizer": [None, None]})  # of a tokenizer's configuration
BASE = "base.json"  # in an adapter's folder: what the base is called, and what its weights are


def merge_adapter(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Fold the adapter of a folder into a model's weights, which keep their precision."""
    dtype = base.dtype
    # float32 first: a sum of base and adapter in bfloat16 would lose most of a small adapter
    merged = PeftModel.from_pretrained(base.float(), adapter).merge_and_unload().to(dtype)
    return merged.requires_grad_(True)  # PEFT froze them


def save_adapter(adapter: Path, base: PreTrainedModel, name: str, folder: Path) -> str:
    """Write the adapter of a folder in bfloat16, with the base that it belongs to.

    Args:
        base: the model that it was trained on.
        name: what `policy.model` calls it.

    Returns:
        The base's `weights_sha256`.
    """
    weights = load_file(adapter / SAFETENSORS_WEIGHTS_NAME)
    save_file({key: weight.to(torch.bfloat16) for key, weight in weights.items()}, folder / SAFETENSORS_WEIGHTS_NAME)
    settings = read_json(adapter / CONFIG_NAME) | {"base_model_name_or_path": name}
    write_json(folder / CONFIG_NAME, settings)
    sha256 = weights_sha256(base)
    write_json(folder / BASE, {"model": name, "sha256": sha256})
    return sha256


def with_adapter(base: PreTrainedModel, name: str, adapter: Path) -> PreTrainedModel:
    """Fold an adapter that `save_adapter` wrote into its base.

    Args:
        name: what `policy.model` calls the base.

    Raises:
        ConfigError: the folder holds none, or one for another base.
    """
    try:
        there = read_json(adapter / BASE)
    except FileNotFoundError:
        raise ConfigError(
            f"policy.adapter: {adapter} does not say which base it belongs to ({BASE} is missing): name a folder that `skill1 "
            "coldstart --set cold_start.save=adapter` wrote"
        ) from None
    if (found := weights_sha256(base)) != there["sha256"]:
        raise ConfigError(
            f"policy.adapter: {adapter} is an adapter for another base: {there['model']} ({there['sha256'][:12]}), but "
            f"policy.model={name} has the weights {found[:12]}"
        )
    return merge_adapter(base, adapter)


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter instead of whole weights."""
    return (folder / CONFIG_NAME).is_file()


def adapter_base(folder: Path) -> str:
    """Find the base model of a folder's adapter, as the adapter itself names it. Raises ConfigError if it is not there."""
    base = read_json(folder / CONFIG_NAME)["base_model_name_or_path"]
    try:
        return find_model(base)
    except ConfigError:
        raise ConfigError(
            f"{folder} is an adapter for {base}, and there is no such folder: restore it, or correct its name in "
            f"{folder / CONFIG_NAME}"
        ) from None


def refuse_adapter(folder: Path) -> None:
    """Raise ConfigError for an adapter that `save_adapter` wrote: it is no model by itself."""
    if (folder / BASE).is_file():
        base = read_json(folder / BASE)["model"]
        raise ConfigError(
            f"policy.model: {folder} holds an adapter: set policy.adapter to it, and policy.model to its base ({base})"
        )


def weights_sha256(model: PreTrainedModel) -> str:
    """SHA-256 of a model's weights in bfloat16, however they are stored and in whatever precision they were loaded."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        plain = weight.detach().to("cpu", torch.bfloat16).contiguous().flatten()
        digest.update(f"{name} {tuple(weight.shape)}\n".encode())
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a model and its tokenizer, see `declare_tokenizer`."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    declare_tokenizer(tokenizer, folder)


def declare_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Let AutoTokenizer load the tokenizer that was saved in a model's folder.

    For some architectures, Qwen2 among them, transformers distrusts the class that a folder declares and builds the
    architecture's own, without a warning. A folder that names remote code it believes, with the remote code left alone.

    Raises:
        RunError: AutoTokenizer loads another one all the same.
    """
    file = folder / TOKENIZER_CONFIG_FILE
    saved = read_json(file)
    plain = {name: value for name, value in saved.items() if (name, value) != _NO_REMOTE_CODE}
    for declared in (plain, dict([*plain.items(), _NO_REMOTE_CODE])):  # an adapter's folder must not name any
        if declared != saved:
            write_json(file, declared)
        saved, found = declared, type(AutoTokenizer.from_pretrained(folder))
        if found is type(tokenizer):
            return
    raise RunError(f"AutoTokenizer reads the tokenizer as {found.__name__}, it is {type(tokenizer).__name__}")
