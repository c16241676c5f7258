"""The loop on one NVIDIA GPU: speed as a share of what the card can do, and memory against the planner's estimate.

Run: python benchmarks/gpu.py --out results/reference/gpu.md
Three policies (nano, and randomly initialised Qwen2 models of 100 M and 1.5 B parameters, the last with adapters) take
a few steps of `skill1 train` on generated games with continuous batching; nothing is downloaded. Meant for under 8
minutes on a card of 24 GB or more. `--tiny` runs untrained models of a few thousand parameters on whatever is there.

The limits come from the card's rates, measured first: dense matrix products in the compute dtype, and copies. Work is
the least that the method needs, so recomputed activations and padding count as waste:
  generation  2 operations a parameter and token; the weights read once per token of the longest answer of every call,
              keys and values of what was written so far read once per token written
  update      4 operations a parameter and token, 2 more per trained parameter, 2 more for the reference; the weights read
              four times a micro-batch (forward, twice backward, reference) and Adam's 28 bytes a trained parameter
The limit is the larger of operations / rate and bytes / bandwidth. Seconds of generation are those of the whole
rollouts, environment and library included. The first step warms up and counts for memory alone.
"""

from __future__ import annotations

import copy
import gc
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig, Qwen2Config

sys.path.pop(0)  # this script's folder, in which alfworld.py would stand for the alfworld package

from skill1.config import load_config
from skill1.envs.alfworld.generate import generate
from skill1.methods.skill1 import Skill1
from skill1.nano.model import END, PAD, nano_tokenizer
from skill1.plan.architecture import COPIED, qwen2
from skill1.plan.duration import ADAM_TRAFFIC
from skill1.plan.machine import GB, Machine
from skill1.plan.plan import Plan, Planner
from skill1.plan.rates import peak_memory, this_machine
from skill1.plan.workload import Assumptions
from skill1.records import STAGES, Rollout, Row
from skill1.store.run_directory import RunDirectory
from skill1.train import train

_rows = Skill1.rows


def _all_credited(rollouts: Sequence[Rollout], config: Any, waited: Sequence[Row]) -> list[Row]:
    """Credit every row, whatever its episode earned: untrained policies win nothing, and nothing would be trained."""
    return [replace(row, advantage=(-1.0) ** i) for i, row in enumerate(_rows(rollouts, config, waited))]


NANO = Path(__file__).resolve().parents[1] / "data" / "nano-policy"
_FULL = {"policy.gradient_checkpointing": True}
_ADAPTERS = _FULL | {"policy.lora_rank": 32, "policy.lora_alpha": 64}  # as the preset small
SIZES: dict[str, tuple[Qwen2Config | None, dict[str, Any]]] = {
    "nano": (None, {}),
    "100M": (qwen2(32768, 768, 2048, 12, 12, 4, tied=True, context=4096), _FULL),
    "1.5B": (COPIED["Qwen/Qwen2.5-1.5B-Instruct"], _ADAPTERS),
}
TINY: dict[str, tuple[Qwen2Config | None, dict[str, Any]]] = {
    "tiny": (qwen2(2048, 32, 96, 1, 2, 1, tied=True, context=1024), {}),
    "tiny, adapters": (qwen2(2048, 32, 96, 2, 2, 1, tied=True, context=1024), _ADAPTERS),
}
LIMITS = [f"{'rollout' if stage == 'act' else 'method'}.max_{stage}_tokens" for stage in STAGES]
SETTINGS = {
    "policy.backend": "continuous",
    "policy.cache_tokens": 65536,
    "environment.max_steps": 8,
    "library.encoder": "hash",
    **dict.fromkeys(LIMITS, 64),  # one for all stages, as in the presets for models of this size
    "train.steps": 4,
    "train.kl": 0.01,
    "train.validate_every": 0,
    "train.save_every": 4,
}
SHORT = {
    "policy.cache_tokens": 2048,
    "environment.max_steps": 2,
    "rollout.tasks_per_step": 2,
    "rollout.group_size": 2,
    **dict.fromkeys(LIMITS, 8),
    "train.steps": 2,
    "train.save_every": 2,
}


@dataclass(frozen=True, slots=True)
class Work:
    """The least that some passes take."""

    operations: float
    traffic: float  # bytes
    tokens: int  # those that a speed is stated for

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.traffic + other.traffic, self.tokens + other.tokens)

    def seconds(self, machine: Machine) -> float:
        return max(self.operations / machine.flops, self.traffic / machine.bandwidth)

    def bound(self, machine: Machine) -> str:
        return "rate" if self.operations / machine.flops > self.traffic / machine.bandwidth else "bandwidth"


@dataclass(frozen=True, slots=True)
class Measured:
    """A run of one policy, and what the planner says of it. Work and seconds are of all steps but the first."""

    name: str
    plan: Plan
    peak: int  # bytes
    generation: Work
    generation_seconds: float
    update: Work
    update_seconds: float
    steps: int


def make_model(folder: Path, shape: Qwen2Config, dtype: torch.dtype, device: torch.device) -> None:
    """Random weights and the nano tokenizer, whose words are the first of the model's vocabulary."""
    tokenizer, config = nano_tokenizer("alfworld"), copy.deepcopy(shape)
    ends = {"eos_token_id": tokenizer.convert_tokens_to_ids(END), "pad_token_id": tokenizer.convert_tokens_to_ids(PAD)}
    config.update(ends | {"bos_token_id": None})
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def generation_work(rollouts: Sequence[Rollout], plan: Plan, model: PretrainedConfig) -> Work:
    """All rollouts of a step make a call of the same stage at once."""
    calls: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)  # (prompt, completion) tokens
    for rollout in rollouts:
        numbers: dict[str, Iterator[int]] = defaultdict(count)
        for turn in rollout.turns:
            lengths = (len(turn.prompt_ids), len(turn.completion_ids))
            calls[turn.stage, next(numbers[turn.stage])].append(lengths)
    size = _itemsize(plan)
    prompts, written = np.array([lengths for call in calls.values() for lengths in call], dtype=np.float64).T
    passes = sum(max(written for _, written in call) for call in calls.values())
    seen = float((written * prompts + written * (written - 1) / 2).sum())  # tokens of cache read
    head = getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    cached = 2 * size * model.num_hidden_layers * model.num_key_value_heads * head  # bytes a token
    parameters = plan.parameters.total
    return Work(
        2.0 * parameters * float(prompts.sum() + written.sum()),
        float(passes * size * parameters + cached * seen),
        int(written.sum()),
    )


def update_work(metrics: Any, plan: Plan) -> Work:
    """Of one step, from its entry in metrics.jsonl."""
    total, trained = plan.parameters.total, plan.parameters.trained
    tokens = round(metrics["time/update_tokens_per_second"] * metrics["time/update"])
    micro_batches = max(metrics["rows/updates"], tokens / plan.config.train.tokens_per_micro_batch)
    weights = 4 * micro_batches * _itemsize(plan) * total
    return Work((4 * total + 2 * trained + 2 * total) * tokens, weights + metrics["rows/updates"] * ADAM_TRAFFIC * trained,
                tokens)  # fmt: skip


def _itemsize(plan: Plan) -> int:
    return getattr(torch, plan.config.policy.dtype).itemsize


def measure(
    name: str, shape: Qwen2Config | None, given: dict[str, Any], world: Path, folder: Path, machine: Machine
) -> Measured:
    device = _device()
    model = NANO if shape is None else folder / "model"
    if shape is not None:
        adapters = given.get("policy.lora_rank", 0) > 0
        make_model(model, shape, torch.bfloat16 if adapters else torch.float32, device)
    dtype = "bfloat16" if device.type == "cuda" else "float32"
    fixed = {"policy.model": str(model), "policy.dtype": dtype, "environment.data": str(world)}
    config = load_config("nano", overrides=SETTINGS | given | fixed)
    peak = peak_memory(device, lambda: train(config, folder / "run"))
    gc.collect()

    run = RunDirectory.open(folder / "run")
    steps = {step: run.read_rollouts(step) for step in run.rollout_steps()}
    acts = [turn for rollouts in steps.values() for r in rollouts for turn in r.turns if turn.stage == "act"]
    told = Assumptions(
        turns=len(acts) / sum(map(len, steps.values())),
        prompt=round(np.mean([len(turn.prompt_ids) for turn in acts])),
        completion=round(np.mean([len(turn.completion_ids) for turn in acts])),
        longest=1.0,
    )
    planner = Planner.of(str(model))
    plan = planner.plan(config, machine, told)
    metrics = run.metrics().iloc[1:]
    writing = [generation_work(steps[step], plan, planner.architecture.config) for step in sorted(steps)[1:]]
    training = [update_work(entry, plan) for _, entry in metrics.iterrows()]
    return Measured(
        name, plan, peak, sum(writing[1:], writing[0]), float(metrics["time/rollout"].sum()),
        sum(training[1:], training[0]), float(metrics["time/update"].sum()), len(metrics),
    )  # fmt: skip


def report(measured: Sequence[Measured], machine: Machine, seconds: float, command: str) -> str:
    """Markdown."""
    names = ("torch", "transformers", "trl", "accelerate", "peft")
    lines = [
        "# The loop on one GPU",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d} by `{command}` in {seconds:.0f} s; "
        + ", ".join(f"{name} {version(name)}" for name in names)
        + (f", CUDA {torch.version.cuda}." if torch.version.cuda else "."),
        f"{machine.name}: {machine.flops / 1e12:.3g} TFLOP/s of matrix products, {machine.bandwidth / GB:.4g} GB/s of "
        f"copies, {machine.host * 1e6:.3g} us to issue an operator.",
        "",
        "Share: of the limit that follows from these rates; by: what sets that limit. What counts as work is in the "
        "command's own text. Planned: `skill1.plan`, told the run's mean lengths.",
        "",
        "| policy | parameters (trained) | generation, tokens/s | share | by | update, tokens/s | share | by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for m in measured:
        size = m.plan.parameters
        writing, training = m.generation.seconds(machine), m.update.seconds(machine)
        lines.append(
            f"| {m.name} | {size.total / 1e6:,.4g} M ({size.trained / 1e6:,.4g} M) "
            f"| {m.generation.tokens / m.generation_seconds:,.0f} | {writing / m.generation_seconds:.2%} "
            f"| {m.generation.bound(machine)} | {m.update.tokens / m.update_seconds:,.0f} "
            f"| {training / m.update_seconds:.2%} | {m.update.bound(machine)} |"
        )
    lines += [
        "",
        "| policy | peak memory, GB | planned | planned / measured | generation, s a step | planned | update, s a step "
        "| planned |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for m in measured:
        memory, duration = m.plan.memory.peak, m.plan.duration
        lines.append(
            f"| {m.name} | {m.peak / GB:.3g} | {memory / GB:.3g} | {memory / m.peak:.2f} "
            f"| {m.generation_seconds / m.steps:.3g} | {duration.generation:.3g} "
            f"| {m.update_seconds / m.steps:.3g} | {duration.scoring + duration.update:.3g} |"
        )
    return "\n".join(lines) + "\n"


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@click.command(help=__doc__.splitlines()[0])
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="markdown file to write as well")
@click.option("--tiny", is_flag=True, help="tiny untrained models, on the CPU if there is no GPU")
def main(out: Path | None, tiny: bool) -> None:
    device = _device()
    if device.type == "cpu" and not tiny:
        raise click.ClickException(
            "no NVIDIA GPU is at hand (torch.cuda.is_available() is false): only --tiny runs here"
        )
    started = time.monotonic()
    machine = this_machine(1, dtype="bfloat16" if device.type == "cuda" else "float32")
    measured = []
    with tempfile.TemporaryDirectory() as folder, patch.object(Skill1, "rows", staticmethod(_all_credited)):
        world = Path(folder) / "world"
        generate(world, seed=0, train=32, valid_seen=1, valid_unseen=1, homes=4, unseen_homes=1)
        for number, (name, (shape, own)) in enumerate((TINY if tiny else SIZES).items()):
            place = Path(folder) / str(number)
            measured.append(measure(name, shape, (SHORT if tiny else {}) | own, world, place, machine))
    command = "python benchmarks/gpu.py" + " --tiny" * tiny
    text = report(measured, machine, time.monotonic() - started, command)
    click.echo(text, nl=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)


if __name__ == "__main__":
    main()
