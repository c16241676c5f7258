"""Spreading weights, gradients and optimiser over the ranks: the standard configuration files, and where they apply.

`train.sharding` picks the file: `fsdp2.json` goes into transformers' `TrainingArguments(fsdp_config=...)`,
`deepspeed3.json` (ZeRO-3) into `TrainingArguments(deepspeed=...)`. Checkpoints hold whole weights in HF layout. With
ZeRO-3 those are in `policy.dtype`, gradients add up and are applied in float32, and each process has a part of the
optimiser's state in the checkpoint.
"""

from __future__ import annotations

import json
import os
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import torch

from skill1.config import Config, ConfigError

_ENVIRONMENT = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}  # set by `accelerate launch`


def sharding_arguments(config: Config) -> dict[str, Any]:
    """Return the fields of `TrainingArguments` that `train.sharding` sets."""
    kind = config.train.sharding
    if kind == "none":
        return {}
    settings = json.loads(files(__package__).joinpath(f"{kind}.json").read_text())
    return {"fsdp": True, "fsdp_config": settings} if kind == "fsdp2" else {"deepspeed": settings}


def check_sharding(config: Config, processes: int) -> None:
    """Raise ConfigError where sharding was asked for but accelerate would train otherwise, most of it in silence."""
    for name, what in _ENVIRONMENT.items():
        if os.environ.get(name, "false").lower() in ("1", "true"):
            raise ConfigError(
                f"{name} is set (by `accelerate launch`?), which asks for {what} behind the configuration's back: "
                "launch with torchrun or `skill1 train --nproc` and set train.sharding instead"
            )
    kind = config.train.sharding
    if kind == "none":
        return
    if processes == 1:
        raise ConfigError(
            f"train.sharding={kind} with one process has nothing to spread: set train.sharding to none, or start several"
        )
    if kind == "deepspeed3" and find_spec("deepspeed") is None:
        raise ConfigError(
            "train.sharding=deepspeed3 needs the package deepspeed: pip install 'skill1[deepspeed]', or use fsdp2"
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"train.sharding={kind} needs GPUs: on CPUs accelerate would silently give every process a whole copy, or "
            "fail; set train.sharding to none"
        )
