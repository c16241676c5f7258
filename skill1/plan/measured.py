"""What this machine does, measured: the rates that a plan is made from, and the memory that it is compared with."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from skill1.plan.graph import Graph, Weights

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices multiplied to measure a rate
_COPIED = {"cpu": 2**26, "cuda": 2**30}  # bytes copied to measure a bandwidth: more than any cache holds
_TINY = dict(
    vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=4, num_attention_heads=1, num_key_value_heads=1,
    tie_word_embeddings=True,
)  # fmt: skip


def measure_rates(
    device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float, float]:
    """Operations a second of a matrix product, bytes a second of a copy, seconds to issue an operator.

    The last is taken from forward passes of a model so small that its operators do nothing else.
    """
    side, copied = _SIDE[device.type], _COPIED[device.type]
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    source = torch.ones(copied // 4, device=device)
    target = torch.empty_like(source)
    tiny = Qwen2Config(**_TINY)
    model = AutoModelForCausalLM.from_config(tiny).eval().to(device)
    operators = Graph(tiny, Weights(torch.float32, torch.float32, None)).prefill(1, 1).operators
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    mask = torch.ones_like(token)

    @torch.no_grad()
    def issue() -> None:
        model(input_ids=token, attention_mask=mask, use_cache=True, logits_to_keep=1)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    product = _best(lambda: a @ b, now)
    copy = _best(lambda: target.copy_(source), now)
    return 2 * side**3 / product, 2 * copied / copy, _best(issue, now) / operators


def _best(call: Callable[[], object], clock: Callable[[], float], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = clock()
        call()
        times.append(clock() - started)
    return min(times)


def peak_memory(device: torch.device, call: Callable[[], object]) -> int:
    """Bytes that were in use at most while `call` ran, beyond those before.

    On a GPU those of tensors; on a CPU (Linux) the resident set, with whatever the first call of its kind loads.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)  # or freed pages would count as there already
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = psutil.Process().memory_info().rss
    call()
    marks = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(marks["VmHWM"].split()[0]) * 1024 - before
