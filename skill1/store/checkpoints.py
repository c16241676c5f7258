"""When a checkpoint can be trusted: complete, and of the same architecture.

transformers writes checkpoint-N in several files; a run killed in between leaves a folder that looks like a checkpoint.
A marker written last tells the difference, and records what the weights fit.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safetensors import SafetensorError, safe_open

from skill1.errors import UserError
from skill1.store.json_file import read_json, write_json

if TYPE_CHECKING:  # readers of runs need not wait for torch
    from torch import nn

MARKER = "COMPLETE"  # in checkpoint-N: {"step": N, "architecture": {...}}


class CheckpointState(Protocol):
    """Something besides the policy that a checkpoint must hold (the skill library, a log position)."""

    def save(self, folder: Path) -> None:
        """Write into checkpoint-N. Called on rank 0."""
        ...

    def load(self, folder: Path) -> None:
        """Read from checkpoint-N. Called on every rank."""
        ...


class CheckpointError(UserError, ValueError):
    """A checkpoint cannot be written or resumed from. The message names the folder, the reason and the fix."""


def complete_checkpoints(output_dir: Path) -> list[Path]:
    """List the complete checkpoints, by step."""
    steps = {folder: marker["step"] for folder in output_dir.glob("checkpoint-*") if (marker := _read(folder))}
    return sorted(steps, key=steps.__getitem__)


def mark_complete(folder: Path, step: int, architecture: dict[str, Any]) -> None:
    """Write the marker, whole or not at all, once everything else in the folder is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    write_json(folder / MARKER, {"step": step, "architecture": architecture}, indent=None)


@contextmanager
def writing(folder: Path, trainable: int) -> Iterator[None]:
    """Inside, `folder` is being written; if the disk does not take it, it is removed and the error says why.

    Args:
        trainable: number of trained parameters.

    Raises:
        CheckpointError: no space, or another error of the disk.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch.save hides the reason: "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        whole = complete_checkpoints(folder.parent)
        raise CheckpointError(
            f"{folder} could not be written ({str(error).splitlines()[0]}): it needs about {12 * trainable:,} bytes for "
            f"weights and optimiser, {shutil.disk_usage(folder.parent).free:,} are free; make room and continue with "
            f"--resume from {whole[-1].name if whole else 'the start: no checkpoint is complete'}"
        ) from error


def check_resumable(folder: Path, architecture: dict[str, Any]) -> None:
    """Raise CheckpointError unless the checkpoint is complete, of this architecture, and its weights are whole files.

    transformers alone would only warn of missing weights, and train on from a mixture.
    """
    marker = _read(folder)
    if marker is None:
        raise CheckpointError(f"{folder} has no {MARKER} marker: it was not finished; use a complete one")
    if marker["architecture"] != architecture:
        raise CheckpointError(
            f"{folder} holds another architecture: {_describe(marker['architecture'])}, but this run has "
            f"{_describe(architecture)}; use the same policy.model and policy.lora_rank, or a new run"
        )
    for weights in folder.glob("*.safetensors"):
        try:
            with safe_open(weights, "pt"):
                pass
        except SafetensorError as error:
            raise CheckpointError(
                f"{weights} is damaged ({error}): restore it, or remove {folder} to resume from the one before"
            ) from error


def check_shards(folder: Path, processes: int) -> None:
    """Raise CheckpointError if the optimiser's state is in DeepSpeed's parts, one a process, of other processes than these."""
    parts = len([*folder.glob("global_step*/*_optim_states.pt")])
    if parts not in (0, processes):
        raise CheckpointError(
            f"{folder} was written by {parts} processes with train.sharding=deepspeed3, which continues on as many only, not "
            f"on {processes}: start {parts}"
        )


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint if it exists. The marker goes first: a half-deleted checkpoint never looks complete."""
    (folder / MARKER).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def architecture_of(model: nn.Module) -> dict[str, Any]:
    """Describe what must agree for a checkpoint to fit: names and shapes of parameters, and what is trained."""
    parameters = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    return {
        "parameters": sum(math.prod(shape) for _, shape, _ in parameters),
        "trainable": sum(math.prod(shape) for _, shape, trained in parameters if trained),
        "digest": hashlib.sha256(repr(sorted(parameters)).encode()).hexdigest()[:16],
    }


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / MARKER
    return read_json(path) if path.exists() else None


def _describe(architecture: dict[str, Any]) -> str:
    return "{parameters:,} parameters, {trainable:,} trained (digest {digest})".format(**architecture)
