"""What a machine makes of learning and writing: against its own rate and bandwidth, and against the planner.

    python -P benchmarks/gpu.py --out results/reference/gpu.jsonl          one NVIDIA GPU of 24 GB or more
    python -P benchmarks/gpu.py --cpu --out results/reference/cpu.jsonl    one thread of a CPU, CPU-seconds

Nothing is downloaded. Without a network: `skill1 bundle --preset mini --without torch --add benchmarks/gpu.py --out bundle`
here, there `python3 bundle/install.py --out DIR`, what it prints about data/smollm2, and `python -P files/gpu.py --out gpu.jsonl`.

The policies of a GPU: nano; mini (SmolLM2-135M, data/smollm2 if it is there); Qwen2.5-1.5B with random weights and
adapters, as the preset small has them. Those of a CPU: three sizes with random weights, nano and mini. Of each these parts:
  update     a step of two micro-batches by the trainer, Adam included; memory beyond the weights that are there before
  writing    as many tokens for every prompt at once: by transformers' `generate`, by its continuous batching, and on a GPU by the
             same with CUDA graphs, without which each operator is issued by Python
A part that is done is a line of the file, with the rates of the machine (product of matrices, copy, issue of an operator),
measured in the same process just before. Repeated, the command measures what is not there yet. A policy has a process of its
own, and times are the better of two.

Of the bandwidth: bytes of the weights, once a token of all prompts together, and of keys and values. Of the peak: operations of the
passes, recomputed ones included. Roofline: what `skill1.plan` says for the measured rates. Planned: with `REACHED` of
skill1/plan/rates.py, the medians of `update` and `generate` that `benchmarks/plan.py` prints; memory: of the micro-batch.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from skill1.config import load_config
from skill1.errors import one_line
from skill1.generation.attention import group_heads
from skill1.generation.calls import Prompt, Writer
from skill1.generation.continuous import ContinuousWriter
from skill1.generation.padded import PaddedWriter
from skill1.generation.weights import generation_weights
from skill1.nano.model import nano_tokenizer
from skill1.plan.architecture import COPIED, Architecture, qwen2
from skill1.plan.duration import ADAM_TRAFFIC
from skill1.plan.machine import GB
from skill1.plan.memory import MICRO_BATCH, estimate_memory
from skill1.plan.plan import Planner
from skill1.plan.rates import peak_memory, this_machine
from skill1.plan.workload import Assumptions, make_workload
from skill1.records import Row
from skill1.store.atomic import replace_file
from skill1.store.resources import find_model
from skill1.trainer import build_trainer
from skill1.updates.trl_config import lora_config

MICRO_BATCHES = 2  # of an update: gradients are there when the second is computed
STEPS = 3  # the first makes the optimiser's state
UPDATE = "update"
GRAPHS = "continuous batching, CUDA graphs"
ENGINES = ("generate", "continuous batching", GRAPHS)
PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft")
# large blocks go back to the system at once, so that a CPU's resident set is what is in use; small models are slowed by it
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, and what is asked of it at once: a micro-batch, or a call, of so many rows."""

    folder: str | None  # of weights; None: random ones
    shape: PretrainedConfig | None  # of random ones
    rows: int
    prompt: int  # tokens of each
    completion: int
    given: dict[str, Any] = field(default_factory=dict)  # of the configuration


def small(width: int, layers: int, vocabulary: int) -> PretrainedConfig:
    """A Qwen2 of 1-30 M parameters."""
    return qwen2(vocabulary, width, 3 * width, layers, width // 32, width // 64, tied=True, context=1024)


BFLOAT16, CHECKPOINTING = {"policy.dtype": "bfloat16"}, {"policy.gradient_checkpointing": True}
ADAPTERS = {"policy.lora_rank": 32, "policy.lora_alpha": 64} | BFLOAT16 | CHECKPOINTING  # as the preset small
NANO, MINI = find_model("data/nano-policy"), "data/smollm2" if Path("data/smollm2").is_dir() else None
SMOLLM2 = COPIED["HuggingFaceTB/SmolLM2-135M-Instruct"]
POLICIES = {
    "cuda": {
        "nano": Policy(NANO, None, 256, 96, 32, BFLOAT16),
        "mini": Policy(MINI, SMOLLM2, 32, 512, 64, BFLOAT16),
        "1.5B": Policy(None, COPIED["Qwen/Qwen2.5-1.5B-Instruct"], 16, 448, 64, ADAPTERS),
    },
    "cpu": {
        "1M": Policy(None, small(128, 4, 1024), 8, 96, 32),
        "10M": Policy(None, small(320, 7, 4096), 8, 96, 32),
        "30M": Policy(None, small(512, 9, 8192), 8, 96, 32),
        "30M, checkpointing": Policy(None, small(512, 9, 8192), 8, 96, 32, CHECKPOINTING),
        "nano": Policy(NANO, None, 64, 96, 8),  # as its calls are
        "mini": Policy(MINI, SMOLLM2, 4, 120, 8),
    },
    "tiny": {
        "tiny": Policy(None, small(64, 1, 256), 4, 12, 4),
        "tiny, adapters": Policy(None, small(64, 2, 256), 4, 12, 4, ADAPTERS),
    },
}


# -- one policy -------------------------------------------------------------------------------------------------------


class Measuring:
    """Measures the parts of one policy on this machine."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        tokens = policy.rows * (policy.prompt + policy.completion)
        given = {
            "train.steps": STEPS, "train.kl": 0.0, "train.save_every": 1000, "train.rows_per_micro_batch": policy.rows,
            "train.tokens_per_micro_batch": tokens, "rollout.max_act_tokens": policy.completion,
        }  # fmt: skip
        self.config = load_config("nano", overrides=given | policy.given)
        self.dtype = getattr(torch, self.config.policy.dtype)
        planner = Planner.of(policy.folder) if policy.folder else Planner(Architecture(policy.shape, "given"))
        self.shape = planner.architecture.config
        self.passes = planner.passes(self.config)
        self.machine = this_machine(1, dtype=self.config.policy.dtype, clock=self.now)

    def now(self) -> float:
        """Seconds; on a CPU, which others use too, those of this process."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def take(self, part: str) -> dict[str, Any]:
        """Measure a part; returns its line."""
        size = self.passes.parameters
        return {
            "part": part, "weights": self.policy.folder or "random", "dtype": self.config.policy.dtype, "rows": self.policy.rows,
            "prompt": self.policy.prompt, "completion": self.policy.completion, "parameters": size.total,
            "trained": size.trained, **(self.update() if part == UPDATE else self.writing(part)), "machine": asdict(self.machine),
            "versions": {name: version(name) for name in PACKAGES}, "date": f"{datetime.now(UTC):%Y-%m-%d}",
        }  # fmt: skip

    def update(self) -> dict[str, Any]:
        policy, model = self.policy, self._model()
        held, marks = sum(p.nbytes for p in model.parameters()), list[float]()
        logprobs = np.zeros(policy.completion, np.float32)
        pairs = zip(self._ids(0, policy.prompt), self._ids(1, policy.completion), strict=True)
        rows = [Row(*pair, logprobs, "act", (-1.0) ** i, 1.0, i, i, 0) for i, pair in enumerate(pairs)]

        def collect(step: int, policy: PreTrainedModel) -> tuple[list[Row], dict[str, float]]:
            marks.append(self.now())
            return rows, {}

        def train() -> None:
            with tempfile.TemporaryDirectory() as folder:
                build_trainer(self.config, model, nano_tokenizer("alfworld"), Path(folder), collect).train()

        peak = peak_memory(self.device, train)
        checkpointing = self.config.policy.gradient_checkpointing
        micro = self.passes.update(policy.rows, policy.prompt, policy.completion, checkpointing)
        work = make_workload(self.config, Assumptions(prompt=policy.prompt, completion=policy.completion))
        planned = estimate_memory(self.config, self.passes, self.machine, work).phases[MICRO_BATCH] - held
        if self.device.type == "cpu":  # TRL's tile of logits has a large vocabulary's width; the rest is never touched
            planned -= 4 * policy.rows * policy.completion * max(0, _CHUNKED_LOGPROB_CHUNK_SIZE - self.shape.vocab_size)
        seconds, roofline = float(np.diff(marks)[1:].min()), MICRO_BATCHES * micro.seconds(self.machine)
        adam = ADAM_TRAFFIC * self.passes.parameters.trained / self.machine.bandwidth
        return {
            "tokens": len(rows) * (policy.prompt + policy.completion),
            "seconds": seconds,
            "planned": roofline / self.machine.training + adam,
            "reached": roofline / (seconds - adam),
            "of the peak": MICRO_BATCHES * micro.flops / seconds / self.machine.flops,
            "memory": peak,
            "memory planned": planned,
        }

    def writing(self, engine: str) -> dict[str, Any]:
        policy, model, adapter = self.policy, self._model(), lora_config(self.config)
        if adapter is not None:
            model = get_peft_model(model, adapter)
        model.eval()
        prompts = [Prompt(ids.tolist(), (0, i)) for i, ids in enumerate(self._ids(0, policy.prompt)[: policy.rows])]
        times = []
        with torch.no_grad(), generation_weights(model, self.dtype):
            writer = self._writer(engine, model)
            for _ in range(2):  # the first opens what is kept, and captures graphs
                started = self.now()
                writer.write(prompts, 1.0, policy.completion)
                times.append(self.now() - started)
            writer.close()
        machine = replace(self.machine, host=0.0) if engine == GRAPHS else self.machine
        prefill = self.passes.prefill(policy.rows, policy.prompt)
        decode = self.passes.decode(policy.rows, policy.prompt + policy.completion // 2)
        roofline = prefill.seconds(machine) + (policy.completion - 1) * decode.seconds(machine)
        read = policy.completion * (self.dtype.itemsize * self.passes.parameters.total + decode.cache)
        return {
            "tokens": policy.rows * policy.completion,
            "seconds": min(times),
            "planned": roofline / machine.generation,
            "reached": roofline / min(times),
            "of the bandwidth": read / min(times) / machine.bandwidth,
        }

    def _model(self) -> PreTrainedModel:
        """The policy as a run holds it: whole weights in float32."""
        dtype = self.dtype if self.config.policy.lora_rank else torch.float32
        if self.policy.folder:
            return AutoModelForCausalLM.from_pretrained(self.policy.folder, dtype=dtype).to(self.device)
        torch.manual_seed(0)
        with self.device:
            return AutoModelForCausalLM.from_config(copy.deepcopy(self.shape), dtype=dtype)

    def _ids(self, seed: int, count: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(
            3, self.shape.vocab_size, (self.policy.rows * MICRO_BATCHES, count), np.int32
        )

    def _writer(self, engine: str, model: PreTrainedModel) -> Writer:
        """All prompts at once, and answers that go on to their limit."""
        ends, rows = frozenset([self.shape.vocab_size]), self.policy.rows  # a token that there is not
        if engine == ENGINES[0]:
            if self.device.type == "cpu":
                group_heads(model)  # as `load_model` does
            return PaddedWriter(model, batch=rows, cache_tokens=10**9, pad=0, ends=ends)
        tokens = rows * (self.policy.prompt + self.policy.completion + 256)  # whole pages
        return ContinuousWriter(model, cache_tokens=tokens, ends=ends, graphs=engine == GRAPHS)


def measure(out: Path, name: str, policy: Policy) -> None:
    """Add the lines of a policy that are not there."""
    disable_progress_bar()
    measuring = Measuring(policy)
    for part in missing(out, name):
        try:
            line = {"policy": name, **measuring.take(part)}
        except Exception as error:  # the other parts can be measured nevertheless
            click.echo(f"{name}, {part}: failed: {one_line(error)}", err=True)
            continue
        replace_file(out, "".join(f"{json.dumps(entry)}\n" for entry in [*lines(out), line]).encode())
        click.echo(shown(line))


# -- all of them ------------------------------------------------------------------------------------------------------


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []


def missing(out: Path, name: str) -> list[str]:
    """The parts of a policy that are not measured."""
    parts = (UPDATE, *(ENGINES if torch.cuda.is_available() else ENGINES[:2]))
    done = {entry["part"] for entry in lines(out) if entry["policy"] == name}
    return [part for part in parts if part not in done]


def shown(entry: Mapping[str, Any]) -> str:
    """A line as text."""
    machine, speed = entry["machine"], entry["tokens"] / entry["seconds"]
    shares = "".join(f", {entry[name]:.1%} {name}" for name in ("of the bandwidth", "of the peak") if name in entry)
    memory = f"; {entry['memory'] / GB:.3g} GB, planned {entry['memory planned'] / GB:.3g}" if "memory" in entry else ""
    return (
        f"{entry['policy']}, {entry['part']}: {speed:,.0f} tokens/s{shares}, {entry['reached']:.2f} of the roofline; "
        f"{entry['seconds']:.3g} s, planned {entry['planned']:.3g}{memory}; {machine['flops'] / 1e12:.3g} TFLOP/s in "
        f"{entry['dtype']}, {machine['bandwidth'] / GB:.4g} GB/s, {machine['host'] * 1e6:.3g} us an operator"
    )


@click.command(help=__doc__.splitlines()[0])
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="file of JSON lines")
@click.option("--cpu", is_flag=True, help="the policies of a CPU, on one thread of it")
@click.option("--tiny", is_flag=True, help="two untrained models of a few thousand parameters, on whatever is there")
@click.option("--policy", "only", hidden=True, help="this one alone, in this process")
def main(out: Path, cpu: bool, tiny: bool, only: str | None) -> None:
    if cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        torch.set_num_threads(1)
    kind = "tiny" if tiny else "cpu" if cpu else "cuda"
    if kind == "cuda" and not torch.cuda.is_available():
        raise click.ClickException(
            "torch.cuda.is_available() is false: only --cpu and --tiny run without an NVIDIA GPU"
        )
    policies = POLICIES[kind]
    if only is not None:
        measure(out, only, policies[only])
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    for entry in lines(out):
        click.echo(shown(entry))
    again = [sys.executable, "-P", "-W", "ignore", __file__, "--out", str(out), *[f"--{kind}"] * (kind != "cuda")]
    for name in policies:
        if missing(out, name):
            subprocess.run([*again, "--policy", name], env=os.environ | ALLOCATOR, check=False)
    if left := [f"{name}, {part}" for name in policies for part in missing(out, name)]:
        raise click.ClickException(f"not measured: {'; '.join(left)}. Repeat the command to try these again.")


if __name__ == "__main__":
    main()
