"""When a loss or a gradient is not a number: which rows are to blame, and what is kept of the step.

An update whose loss or gradient is NaN or infinite would spoil every weight at once. `RowTrainer` stops before its
optimiser step, saves the policy as it is then to `failed-step-N/`, and raises `Diverged`. (DeepSpeed steps within
backward, and skips the step itself.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from skill1.errors import NotFinite, UserError
from skill1.records import Row
from skill1.store.checkpoints import complete_checkpoints
from skill1.store.json_file import write_json
from skill1.updates.layout import Batch

FAILURE_FILE = "failure.json"  # in failed-step-N: step, update, loss, gradient norm, the rows to blame


class Diverged(UserError, RuntimeError):
    """A loss or gradient is not finite. The message names the step, the rows' stages and what was saved."""

    def __init__(self, message: str, step: int, folder: Path) -> None:
        super().__init__(message)
        self.step = step  # from 1, as in the logs
        self.folder = folder


@dataclass(frozen=True, slots=True)
class Attempt:
    """An update of which everything but the optimiser step is done."""

    number: int  # of the step's updates, from 0
    updates: int
    rows: Sequence[Row]  # of the step
    mine: Sequence[Sequence[int]]  # the rows of this rank, by micro-batch
    batches: Sequence[Batch]
    loss: torch.Tensor  # () this rank's

    def spoilt(self, score: Callable[[Batch], torch.Tensor]) -> list[int]:
        """Return this rank's rows without a finite loss. `score`: a micro-batch -> (B, K) log-probs, 0 at padding."""
        found = []
        for indices, batch in zip(self.mine, self.batches, strict=True):
            new = score(batch)
            old = batch.get("old_per_token_logps", new)
            reference = batch.get("ref_per_token_logps", new)
            terms = (new - old).exp() * batch["advantages"].unsqueeze(1) + (reference - new).exp()  # Eq. 13, in short
            finite = terms.isfinite().all(dim=1).tolist()
            found += [row for row, good in zip(indices, finite, strict=False) if not good]  # padding rows come last
        return found


def check_saved(folder: Path, spoilt: Sequence[int]) -> None:
    """Raise NotFinite if a policy that is to be saved in the checkpoint `folder` gives rows no finite loss."""
    if spoilt:
        whole = complete_checkpoints(folder.parent)
        raise NotFinite(
            f"{folder.name} is not written: after its step's last update the policy gives {len(spoilt)} rows no finite "
            f"loss; train again with a lower train.learning_rate, from {whole[-1] if whole else 'the start'}"
        )


def record(folder: Path, step: int, attempt: Attempt, spoilt: Sequence[int], loss: float, norm: float) -> Diverged:
    """Describe the failed update in `folder`, and as the error to raise. `step` counts from 1."""
    rows: list[dict[str, Any]] = [
        {"row": i, **{name: getattr(attempt.rows[i], name) for name in ("stage", "group", "rollout", "turn")}}
        for i in sorted(spoilt)
    ]
    described: dict[str, Any] = {"step": step, "update": attempt.number + 1, "updates": attempt.updates}
    described |= {"loss": repr(loss), "grad_norm": repr(norm), "rows": rows}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FAILURE_FILE, described)
    counts = Counter(row["stage"] for row in rows)
    if rows:
        blamed = f"rows without a finite loss: {', '.join(f'{counts[stage]} {stage}' for stage in sorted(counts))}"
    else:
        stages = sorted({row.stage for row in attempt.rows})
        blamed = f"every row's loss is finite, the gradient is not (stages {', '.join(stages)})"
    return Diverged(
        f"step {step}, update {attempt.number + 1} of {attempt.updates}: loss {loss}, gradient norm {norm}; {blamed}. "
        f"Stopped before the weights changed: the policy before this update is in {folder}",
        step,
        folder,
    )
