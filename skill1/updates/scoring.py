"""Log-probs and entropies of a micro-batch's completion tokens, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from torch import nn

from skill1.updates.layout import Batch


class CompletionScorer:
    """Puts a micro-batch's sequences through a model, and only the states that predict completion tokens through its LM head.

    Where Triton is missing TRL would project padding too; and the completions of a conversation are an action or a lesson.
    """

    batch: Batch  # whose completions are scored next
    entropies: torch.Tensor  # (1, N) of the N completion tokens that were scored last, with their gradient
    logprobs: torch.Tensor  # (1, N) likewise

    def __init__(self, accelerator: Accelerator, models: Sequence[nn.Module]) -> None:
        """`models`: those that will be scored, prepared by `accelerator`."""
        self._accelerator = accelerator
        self._scoring = False
        for scored in models:
            causal: Any = accelerator.unwrap_model(scored)
            causal = causal.get_base_model() if is_peft_model(causal) else causal
            causal.base_model.register_forward_hook(self._keep_completions)

    def score(
        self, model: nn.Module, completions: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return log-probs and entropies of `batch`'s completions (S, K), 0 where `mask` (S, K) is; no entropies of a reference."""
        real = mask.bool()
        self._scoring = True
        try:
            with self._accelerator.autocast():  # where weights are sharded
                output = model(
                    input_ids=self.batch["sequences"], shift_labels=completions[real].unsqueeze(0), fused_lm_head=True
                )
        finally:
            self._scoring = False

        def spread(values: torch.Tensor) -> torch.Tensor:
            return values.new_zeros(real.shape).masked_scatter(real, values)

        self.entropies, self.logprobs = output.entropy, output.log_probs
        return spread(output.log_probs), None if output.entropy is None else spread(output.entropy)

    def _keep_completions(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Forward hook of the backbone: (B, W, H) -> (1, N, H), of N completion tokens, while they are scored."""
        if self._scoring:
            row, token = self.batch["completion_mask"].nonzero(as_tuple=True)  # (N,) each
            sequence, start = self.batch["placed"][row].T
            output.last_hidden_state = output.last_hidden_state[sequence, start + token].unsqueeze(0)
        return output
