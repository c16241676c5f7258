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
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from skill1.updates.precision import cast_weights


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
        with cast_weights(model, dtype):
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
