"""Short runs of the row trainer, shared by test_trainer.py and its torchrun script."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from skill1.config import Config, load_config
from skill1.records import Row
from skill1.trainer import RowTrainer, build_trainer


class GradientTape(TrainerCallback):
    """Keeps the gradients of every Trainer step's last update, as the optimiser sees them."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        parameters = model.named_parameters()
        self.steps.append({name: p.grad.detach().clone() for name, p in parameters if p.grad is not None})


class Counter:
    """A checkpoint state that the rows depend on, as they depend on the skill library."""

    def __init__(self) -> None:
        self.calls = 0

    def save(self, folder: Path) -> None:
        (folder / "counter.json").write_text(json.dumps(self.calls))

    def load(self, folder: Path) -> None:
        self.calls = json.loads((folder / "counter.json").read_text())


def configure(**overrides: Any) -> Config:
    """float32, no weight decay, no effective gradient clipping, one update a step; `a__b` stands for `a.b`."""
    base = {
        "train.steps": 1,
        "train.kl": 0.05,
        "train.learning_rate": 1e-4,  # Adam turns the rounding of tiny gradients into steps of this size
        "train.warmup_steps": 0,
        "train.max_grad_norm": 1e9,
        "train.save_every": 1000,
    }
    return load_config("nano", overrides=base | {name.replace("__", "."): value for name, value in overrides.items()})


def make_trainer(
    policy: Path,
    output: Path,
    config: Config,
    collect: Callable[[int, Any], list[Row] | tuple[list[Row], dict[str, float]]],
    stateful: Sequence[Any] = (),
) -> tuple[RowTrainer, GradientTape]:
    """`collect` may leave out the metrics."""

    def collected(step: int, model: Any) -> tuple[list[Row], dict[str, float]]:
        found = collect(step, model)
        return found if isinstance(found, tuple) else (found, {})

    tape = GradientTape()
    model = AutoModelForCausalLM.from_pretrained(policy)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    return build_trainer(config, model, tokenizer, output, collected, stateful, [tape]), tape


def move_off_reference(trainer: RowTrainer) -> None:
    """Shift the trained weights, so that the KL and its gradient are of a real size from the first step."""
    generator = torch.Generator().manual_seed(1)
    for _, p in sorted(trainer.accelerator.unwrap_model(trainer.model).named_parameters()):
        if p.requires_grad:
            p.data += 0.05 * torch.randn(p.shape, generator=generator)


def weights(trainer: RowTrainer) -> dict[str, torch.Tensor]:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def fingerprint(trainer: RowTrainer) -> str:
    parts = sorted(weights(trainer).items())
    return hashlib.sha256(b"".join(p.cpu().numpy().tobytes() for _, p in parts)).hexdigest()


def entries(trainer: RowTrainer) -> list[dict[str, float]]:
    """The steps' log entries without times."""
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{name: value for name, value in entry.items() if not name.startswith("time/")} for entry in logs]


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys() and a
    return max(float((a[name] - b[name]).abs().max()) for name in a)
