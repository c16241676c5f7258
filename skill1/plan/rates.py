"""What this machine does, measured: its rates, and the memory that a call takes."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM

from skill1.config import ConfigError
from skill1.plan.architecture import qwen2
from skill1.plan.machine import Machine
from skill1.plan.passes import Passes, Weights

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices multiplied to measure a rate
_COPIED = {"cpu": 2**26, "cuda": 2**30}  # bytes copied to measure a bandwidth: more than any cache holds
_TINY = qwen2(8, 8, 8, 4, 1, 1, tied=True)  # so small that its operators do nothing but be issued
# What updates and `generate` reach of the roofline of a machine's measured rates, by kind of device: medians of three runs of
# benchmarks/gpu.py at 1-30 M parameters, beside other processes (.33-.84 and .31-.80). No GPU has been measured. The roofline
# leaves out that small products and copies are slower than the large ones that are measured, and what generation does
# besides its passes.
REACHED = {"cpu": (0.61, 0.50)}


def this_machine(
    processes: int, *, dtype: str, sharded: bool = False, clock: Callable[[], float] = time.perf_counter
) -> Machine:
    """Describe the GPUs of this machine, or its CPU shared by `processes`; memory and rates are measured (seconds).

    Args:
        dtype: `policy.dtype`.
        clock: seconds; of the process's own time, where others share the CPU.

    Raises:
        ConfigError: more processes than GPUs.
    """
    cuda = torch.cuda.is_available()
    if cuda and processes > torch.cuda.device_count():
        raise ConfigError(f"nproc = {processes}: this machine has {torch.cuda.device_count()} GPUs")
    if cuda:
        name = f"{torch.cuda.get_device_name()} (free memory and rates measured just now)"
        memory = float(min(torch.cuda.mem_get_info(device)[0] for device in range(processes)))
    else:
        name = f"this CPU, {torch.get_num_threads()} of {os.cpu_count()} cores (rates measured just now)"
        memory = psutil.virtual_memory().available / processes
    device = torch.device("cuda" if cuda else "cpu")
    flops, bandwidth, host = _measure(device, getattr(torch, dtype), clock)
    training, generation = REACHED.get(device.type, (1.0, 1.0))
    own: dict[str, Any] = {} if cuda else {"link": bandwidth, "overlap": False}
    return Machine(
        name=name, gpus=processes, memory=memory, flops=flops, mfu=1.0, bandwidth=bandwidth, host=host,
        training=training, generation=generation, sharded=sharded, **own,
    )  # fmt: skip


def _measure(device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> tuple[float, float, float]:
    """Operations a second of a matrix product, bytes a second of a copy, seconds to issue an operator."""
    side, copied = _SIDE[device.type], _COPIED[device.type]
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    source = torch.ones(copied // 4, device=device)
    target = torch.empty_like(source)
    model = AutoModelForCausalLM.from_config(_TINY).eval().to(device)
    operators = Passes(_TINY, Weights(torch.float32, None)).prefill(1, 1).operators
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    mask = torch.ones_like(token)

    @torch.no_grad()
    def issue() -> None:
        model(input_ids=token, attention_mask=mask, use_cache=True, logits_to_keep=1)

    def best(call: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            started = now()
            call()
            times.append(now() - started)
        return min(times)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    # as layers multiply: some CPUs are ten times slower where bfloat16 does not lie that way
    product, copy = best(lambda: torch.nn.functional.linear(a, b)), best(lambda: target.copy_(source))
    return 2 * side**3 / product, 2 * copied / copy, best(issue) / operators


def peak_memory(device: torch.device, call: Callable[[], object]) -> int:
    """Measure the bytes in use at most while `call` runs, beyond those before.

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
