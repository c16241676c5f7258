"""Rows as the tensors of a micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from trl.trainer.utils import pad

from skill1.records import Row

Batch = dict[str, Any]  # tensors, and the numbers "loss_scale" and "entropy_scale"


def layout(
    rows: Sequence[Row], mine: Sequence[range], advantages: np.ndarray, size: int, pad_id: int, *, sampled: bool
) -> Batch:
    """Lay out a rank's share of a micro-batch as TRL's loss wants it: TRL sees one row per policy call.

    Args:
        mine: this rank's sequences, as indices of rows.
        advantages: (N,) of all rows, times their weights.
        size: rows S of the rank that has the most: TRL's metrics need as many on every rank, and the missing ones have
            masked completions.
        sampled: take the log-probs with which the completions were sampled along as the old ones.

    Returns:
        "sequences" (B, W), "placed" (S, 2): sequence and start of each row in it, "completion_ids", "completion_mask" and, if
        `sampled`, "old_per_token_logps" (S, K), "advantages" (S,), and prompts of no length, which TRL need not see.
    """
    flat = [*chain(*mine)]
    missing = size - len(flat)
    # Two columns: TRL takes a single one for a value per sequence, and would count the missing rows in its means.
    nothing = torch.full((2,), pad_id)
    texts = [[ids for i in sequence for ids in (rows[i].prompt_ids, rows[i].completion_ids)] for sequence in mine]
    starts = [np.cumsum([0, *map(len, text)])[1:-1:2] - 1 for text in texts]  # of each completion: the token before
    completions = [torch.as_tensor(rows[i].completion_ids, dtype=torch.long) for i in flat]
    masks = [torch.ones_like(ids) for ids in completions] + [torch.zeros_like(nothing)] * missing
    folded = torch.zeros(size)
    folded[: len(flat)] = torch.as_tensor(advantages[flat])
    placed = torch.zeros(size, 2, dtype=torch.long)
    placed[: len(flat)] = torch.tensor([(b, start) for b, own in enumerate(starts) for start in own]).view(-1, 2)
    # padding stands to the right, where causal attention cannot see it: attention needs no mask
    sequences = [torch.as_tensor(np.concatenate(text), dtype=torch.long) for text in texts] or [nothing]
    none = torch.zeros(size, 0, dtype=torch.long)
    batch: Batch = {
        "sequences": pad(sequences, pad_id, "right"),
        "placed": placed,
        "prompt_ids": none,
        "prompt_mask": none,
        "completion_ids": pad(completions + [nothing] * missing, pad_id, "right"),
        "completion_mask": pad(masks, 0, "right"),
        "advantages": folded,
    }
    if sampled:
        logprobs = [torch.as_tensor(rows[i].logprobs) for i in flat] + [torch.zeros(2)] * missing
        batch["old_per_token_logps"] = pad(logprobs, 0, "right")
    return batch
