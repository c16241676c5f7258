"""Whole weights in the compute dtype, for a while: copies in the places of the parameters, which stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from skill1.config import Config


def compute_weights(model: nn.Module, config: Config, *, learn: bool = False) -> AbstractContextManager[None]:
    """Inside, `model` computes in `policy.dtype`, see `cast_weights`; what shards its weights does that by itself."""
    if config.train.sharding != "none":
        return nullcontext()
    return cast_weights(model, getattr(torch, config.policy.dtype), learn=learn)


@contextmanager
def cast_weights(model: nn.Module, dtype: torch.dtype, *, learn: bool = False) -> Iterator[None]:
    """Inside, `model` computes with copies of its weights in `dtype`; afterwards it is as before, bit for bit.

    Autocast would cast every weight again in every forward pass, and keep norms and residuals in float32: on CPUs a
    model of 135M trains a fifth to a third slower under it.

    Args:
        learn: gradients add up in the model's own parameters, in their precision; else there are none. The copies do
            not follow an optimiser's step: leave before it.
    """
    # Copies in the parameters' places. Assigning to `parameter.data` instead would change its dtype for a while, at
    # which torch forgets the gradient hooks by which DDP exchanges gradients: training would continue without exchange.
    copies: dict[int, nn.Parameter] = {}  # tied weights stay tied
    places = []
    for module in model.modules():
        for name, own in module._parameters.items():
            if own is not None and own.is_floating_point() and own.dtype != dtype:
                if id(own) not in copies:
                    copies[id(own)] = _copy(own, dtype, learn)
                places.append((module, name, own, copies[id(own)]))
    try:
        for module, name, _, copy in places:
            module._parameters[name] = copy
        yield
    finally:
        for module, name, own, _ in places:
            module._parameters[name] = own


def _copy(own: nn.Parameter, dtype: torch.dtype, learn: bool) -> nn.Parameter:
    copy = nn.Parameter(own.detach().to(dtype), requires_grad=learn and own.requires_grad)

    def hand_over(copy: nn.Parameter) -> None:
        """Move the gradient of a backward pass to the parameter."""
        gradient, copy.grad = copy.grad, None
        if gradient is not None:
            own.grad = gradient.to(own.dtype) if own.grad is None else own.grad.add_(gradient)

    if copy.requires_grad:
        copy.register_post_accumulate_grad_hook(hand_over)
    return copy
