"""One update as several micro-batches: what RL and supervised fine-tuning on a variable number of rows share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from skill1.config import Config
from skill1.updates.precision import compute_weights

B = TypeVar("B")


class HasModel(Protocol):
    """A transformers Trainer with its model."""

    accelerator: Accelerator
    model: PreTrainedModel
    model_wrapped: Any  # the model as what shards it wraps it


def accumulate(
    trainer: HasModel, config: Config, batches: Sequence[B], backward: Callable[[nn.Module, B], torch.Tensor]
) -> torch.Tensor:
    """Add up the gradients of an update's micro-batches, and over the ranks.

    What shards the weights exchanges gradients in every micro-batch, since it would otherwise keep the whole model's on
    every rank (15 GB at 7B); those of whole weights are exchanged once, at the end, not by DDP's hooks.

    Args:
        backward: forward and backward of one micro-batch with the model that it is given; returns its loss.

    Returns:
        The sum of this rank's losses.
    """
    accelerator = trainer.accelerator
    total = torch.zeros((), device=accelerator.device)
    with computing(trainer, config, learn=True) as model:
        for number, batch in enumerate(batches, start=1):
            # DeepSpeed's engine tells the boundary by this and steps inside backward; the optimizer steps only if it is set
            accelerator.gradient_state._set_sync_gradients(number == len(batches))
            total += backward(model, batch)
    if config.train.sharding == "none":
        for parameter in trainer.model.parameters():
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")
    return total


@contextmanager
def computing(trainer: HasModel, config: Config, *, learn: bool = False) -> Iterator[nn.Module]:
    """Yield the model to pass batches through, in `policy.dtype`, see `compute_weights`."""
    with compute_weights(trainer.model, config, learn=learn):
        yield trainer.model if config.train.sharding == "none" else trainer.model_wrapped
