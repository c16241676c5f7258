"""The planner's predictions against this machine: memory and time of an update, time of generation.

Run on one thread: OMP_NUM_THREADS=1 python benchmarks/plan.py
Randomly initialised Qwen2 models of three sizes in float32 on the CPU, trained by `RowTrainer` and sampled by `Policy`.
The predictions use this machine's rate of matrix products, copy bandwidth and time of a small operator, measured in the
same process just before; nothing is fitted but the share of the roofline that each kind of work reaches
(`skill1.plan.rates`): the roofline over the measured time, which is printed. Times are CPU seconds on one thread, the
better of two.

Memory is the growth of the resident set over a model that is there already (gradients, Adam, activations), measured in
a process of its own after a first training of another model. TRL's tile of logits is as wide as a chunk of a large
vocabulary; what a small vocabulary leaves untouched of it is never resident on a CPU and is taken off the prediction.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils.logging import disable_progress_bar
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

sys.path.pop(0)  # this script's folder, in which alfworld.py would stand for the alfworld package

from skill1.config import Config, load_config
from skill1.nano.model import make_tokenizer
from skill1.plan.duration import ADAM_TRAFFIC
from skill1.plan.passes import Passes, Weights
from skill1.plan.rates import peak_memory, this_machine
from skill1.policy import Policy
from skill1.prompts import make_prompts
from skill1.records import Row
from skill1.trainer import build_trainer

SIZES = {"1M": (128, 4, 1024), "10M": (320, 7, 4096), "30M": (512, 9, 8192)}  # width, layers, vocabulary
ROWS, PROMPT, COMPLETION = 8, 96, 32
MICRO_BATCHES = 2  # of an update: gradients are there when the second is computed
STEPS = 3  # the first makes the optimiser's state
# large blocks go back to the system at once, so that the resident set is what is in use
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def architecture(width: int, layers: int, vocabulary: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=width // 32, num_key_value_heads=width // 64, max_position_embeddings=1024,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip


def words(vocabulary: int) -> PreTrainedTokenizerFast:
    return make_tokenizer(f"w{i}" for i in range(vocabulary - 3))


def make_rows(vocabulary: int) -> list[Row]:
    rng = np.random.default_rng(0)

    def ids(count: int) -> np.ndarray:
        return rng.integers(3, vocabulary, count).astype(np.int32)

    return [
        Row(ids(PROMPT), ids(COMPLETION), np.zeros(COMPLETION, np.float32), "act", float(rng.normal()), 1.0, i, i, 0)
        for i in range(ROWS * MICRO_BATCHES)
    ]


def train(model: PreTrainedModel, config: Config) -> list[float]:
    """Seconds of every step but the first, of MICRO_BATCHES x ROWS rows."""
    vocabulary = model.config.vocab_size
    marks: list[float] = []

    def collect(step: int, policy: PreTrainedModel) -> tuple[list[Row], dict[str, float]]:
        marks.append(time.process_time())
        return make_rows(vocabulary), {}

    with tempfile.TemporaryDirectory() as folder:
        build_trainer(config, model, words(vocabulary), Path(folder), collect).train()
    return np.diff(marks)[1:].tolist()


def generate(model: PreTrainedModel, config: Config) -> float:
    vocabulary = model.config.vocab_size
    policy = Policy(model.eval(), words(vocabulary), make_prompts("compact", "alfworld"), config.policy, PROMPT + 8)
    texts = [" ".join(f"w{(i + j) % 500}" for j in range(PROMPT)) for i in range(ROWS)]
    times = []
    for repeat in range(2):
        started = time.process_time()
        policy.generate(texts, [(repeat, i) for i in range(ROWS)], temperature=1.0, max_new_tokens=COMPLETION)
        times.append(time.process_time() - started)
    return min(times)


def measure(size: str, checkpointing: bool) -> None:
    """Print one line per quantity."""
    disable_progress_bar()
    overrides = {
        "train.steps": STEPS, "train.kl": 0.0, "train.save_every": 1000, "train.rows_per_micro_batch": ROWS,
        "policy.gradient_checkpointing": checkpointing,
    }  # fmt: skip
    config = load_config("nano", overrides=overrides)
    train(Qwen2ForCausalLM(architecture(64, 1, 256)), config)  # loads whatever a first step loads
    shape = architecture(*SIZES[size])
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(shape)

    machine = this_machine(1, dtype="float32", clock=time.process_time)
    times: list[float] = []
    grown = peak_memory(torch.device("cpu"), lambda: times.extend(train(model, config)))
    passes = Passes(shape, Weights(torch.float32, None))
    step, parameters = passes.update(ROWS, PROMPT, COMPLETION, checkpointing), passes.parameters.total
    prefill, decode = passes.prefill(ROWS, PROMPT), passes.decode(ROWS, PROMPT + COMPLETION // 2)
    written = prefill.seconds(machine) + (COMPLETION - 1) * decode.seconds(machine)
    update, adam = MICRO_BATCHES * step.seconds(machine), ADAM_TRAFFIC * parameters / machine.bandwidth
    name = f"{size} ({parameters / 1e6:.1f} M{', checkpointing' if checkpointing else ''})"
    untouched = 4 * ROWS * COMPLETION * max(0, _CHUNKED_LOGPROB_CHUNK_SIZE - shape.vocab_size)
    predicted = 3 * 4 * parameters + step.peak - untouched
    report(name, "memory of an update, MB", grown / 1e6, predicted / 1e6)
    report_time(name, "update, ms", min(times) - adam, update, machine.training, adam)
    report_time(name, "generation, ms", generate(model, config), written, machine.generation)
    rates = f"{machine.flops / 1e9:.1f} GFLOP/s, {machine.bandwidth / 1e9:.1f} GB/s, {machine.host * 1e6:.2f} us an operator"
    print(f"{name:<26} rates of this machine      {rates}")


def report(name: str, what: str, measured: float, predicted: float, remark: str = "") -> None:
    ratio = predicted / measured
    print(f"{name:<26} {what:<26} measured {measured:8.1f}  predicted {predicted:8.1f}  ratio {ratio:5.2f}{remark}")


def report_time(name: str, what: str, measured: float, roofline: float, share: float, more: float = 0.0) -> None:
    """Report seconds, of which `roofline` is computed at the full rates, and `more` is not by a roofline."""
    reached = f"  ({roofline / measured:.2f} of the roofline reached)"
    report(name, what, 1e3 * (measured + more), 1e3 * (roofline / share + more), reached)


def main() -> None:
    if len(sys.argv) == 3:
        torch.set_num_threads(1)
        measure(sys.argv[1], json.loads(sys.argv[2]))
        return
    for size in SIZES:
        for checkpointing in ("false", "true") if size == "30M" else ("false",):
            command = [sys.executable, "-W", "ignore", __file__, size, checkpointing]
            subprocess.run(command, env=os.environ | ALLOCATOR, check=True)


if __name__ == "__main__":
    main()
