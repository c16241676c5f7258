"""One update as several micro-batches: what RL and supervised fine-tuning on a variable number of rows share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

B = TypeVar("B")


def accumulate(
    accelerator: Accelerator, model: nn.Module, batches: Sequence[B], backward: Callable[[B], torch.Tensor]
) -> torch.Tensor:
    """Add up the gradients of an update's micro-batches; whole gradients are exchanged at the last one.

    Args:
        backward: forward and backward of one micro-batch; returns its loss.

    Returns:
        The sum of the losses.
    """
    total = torch.zeros((), device=accelerator.device)
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        accelerator.gradient_state._set_sync_gradients(last)
        # DeepSpeed's engine tells the boundary from sync_gradients and steps inside backward; FSDP would keep the whole
        # model's gradients on every rank until the exchange (15 GB at 7B), so it reduces each micro-batch's
        exchange = last or accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP)
        with contextlib.nullcontext() if exchange else accelerator.no_sync(model):
            total += backward(batch)
    return total
