"""The policy's weights while it writes: whole on every rank, and in the compute dtype, once a rollout.

Sharded weights (FSDP2) are gathered by one pass over one token and stay gathered until the end: afterwards no forward
pass is a collective operation, so ranks may call `generate` as often as their own episodes need, and a rollout costs one
all-gather instead of one a token. (DeepSpeed's ZeRO-3 is gathered by TRL's `unwrap_model_for_generation`.)

Whole float32 weights (full fine-tuning) would be cast again for every token under autocast, and leave float32 keys and
values in the cache: they are cast once, beside the originals, which come back unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel


@contextmanager
def generation_weights(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Inside, `model` generates with whole weights in `dtype`; afterwards it is as before, bit for bit.

    Every rank must enter, whether or not it has anything to generate. Sharded weights come in the dtype of their
    mixed-precision policy, which is `dtype` (`trl_config`).
    """
    if isinstance(model, FSDPModule):
        with _gathered(model):
            yield
    else:
        with _cast(model, dtype):
            yield


@contextmanager
def _gathered(model: PreTrainedModel) -> Iterator[None]:
    root, *inner = units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    # torch sets this and does not tell; the root keeps its weights between forward and backward in any case
    resharded = [unit for unit in inner if _reshards(unit)]
    root.set_reshard_after_forward(False)
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
        yield
    finally:
        for unit in units:
            unit.reshard()
        for unit in resharded:
            unit.set_reshard_after_forward(True, recurse=False)


def _reshards(unit: FSDPModule) -> bool:
    return any(group.post_forward_mesh_info is not None for group in unit._get_fsdp_state()._fsdp_param_groups)


@contextmanager
def _cast(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    # Copies in the parameters' places. Assigning to `parameter.data` instead would change its dtype for a while, at
    # which torch forgets the gradient hooks by which DDP exchanges gradients: training would continue without exchange.
    copies: dict[int, nn.Parameter] = {}  # tied weights stay tied
    places = []
    for module in model.modules():
        for name, master in module._parameters.items():
            if master is not None and master.is_floating_point() and master.dtype != dtype:
                if id(master) not in copies:
                    copies[id(master)] = nn.Parameter(master.detach().to(dtype), requires_grad=False)
                places.append((module, name, master, copies[id(master)]))
    try:
        for module, name, _, copy in places:
            module._parameters[name] = copy
        yield
    finally:
        for module, name, master, _ in places:
            module._parameters[name] = master
