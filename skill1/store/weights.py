"""A model's weights, loaded whole and finite or not at all."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from skill1.errors import one_line
from skill1.registry import ConfigError

_SHOWN = 3  # names of what is wrong


def load_weights(name: str, dtype: torch.dtype, revision: str | None = None) -> PreTrainedModel:
    """Load a causal LM from a folder or the hub.

    Raises:
        ConfigError: it does not load, weights are missing (transformers would draw some), or are no finite numbers.
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, revision=revision or "main", output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # RuntimeError: of another shape
        raise ConfigError(f"policy.model: {name!r} does not load ({one_line(error)})") from error
    model, found = loaded
    if lacking := sorted(found["missing_keys"]):
        raise ConfigError(f"policy.model: {name!r} lacks {_some(lacking)}: fetch or make it again")
    check_finite(model, name)
    return model


def check_finite(model: PreTrainedModel, name: str) -> None:
    """Raise ConfigError if a parameter is no finite number: such a policy writes nothing, and would count as 0 %."""
    spoilt = [key for key, weight in model.named_parameters() if not torch.stack(weight.aminmax()).isfinite().all()]
    if spoilt:
        raise ConfigError(
            f"policy.model: {name!r} has weights that are no finite numbers ({_some(spoilt)}), as after a training that "
            "diverged: use an earlier checkpoint, or train again with a lower train.learning_rate"
        )


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
