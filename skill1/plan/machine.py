"""The machine a plan is for: a described one, or this one as measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from skill1.config import ConfigError
from skill1.plan.graph import Graph, Speed, Weights

GB = 1e9
# NVIDIA's H100 SXM data sheet: dense bfloat16, and float32 without tensor cores; an H800 has the same.
_PEAK = {"bfloat16": 989e12, "float32": 67e12}
# Dense rates of NVIDIA's data sheets, by what the driver's name of the GPU holds: the SXM versions'.
_SHEETS = {
    **dict.fromkeys(("H100", "H200", "H800"), _PEAK),
    **dict.fromkeys(("A100", "A800"), {"bfloat16": 312e12, "float32": 19.5e12}),
}
_HOST = 8e-6  # ours: an eager transformers operator, Python included
_SIDE = 1024  # of the matrices multiplied to measure a rate
_COPIED = 2**26  # bytes copied to measure a bandwidth
_TINY = dict(
    vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=4, num_attention_heads=1, num_key_value_heads=1,
    tie_word_embeddings=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs (or, on a CPU, processes) and what each of them does."""

    name: str
    gpus: int
    memory: float  # bytes of each
    flops: float  # peak operations a second of matrix products
    mfu: float  # share of the peak that matrix products reach
    bandwidth: float  # bytes a second to and from memory, as reached
    link: float  # bytes a second from GPU to GPU, as reached, each way
    host: float  # seconds to issue an operator
    overlap: bool  # operators are issued while others run
    reserve: float  # share of the memory left to the driver, communication and fragmentation
    sharded: bool  # weights, gradients, optimiser and reference spread over the GPUs (FSDP2)

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise ConfigError(f"gpus = {self.gpus}: a plan needs at least 1")
        for name in ("memory", "flops", "mfu", "bandwidth", "link"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name):g}: must be more than 0")
        if self.mfu > 1 or not 0 <= self.reserve < 1 or self.host < 0:
            raise ConfigError(
                f"mfu = {self.mfu:g}, reserve = {self.reserve:g}, host = {self.host:g} s: the first two must be shares "
                "of 1 and the last at least 0"
            )

    @property
    def usable(self) -> float:
        """Bytes of each GPU that the plan may fill."""
        return self.memory * (1 - self.reserve)

    @property
    def shards(self) -> int:
        return self.gpus if self.sharded else 1

    @property
    def speed(self) -> Speed:
        return Speed(self.flops * self.mfu, self.bandwidth, self.host, self.overlap)


def gpu_machine(
    gpus: int,
    memory: float,
    *,
    dtype: str = "bfloat16",
    sharded: bool | None = None,
    flops: float | None = None,
    mfu: float = 0.5,
    bandwidth: float = 2.3e12,
    link: float = 150e9,
    host: float = _HOST,
    reserve: float = 0.08,
) -> Machine:
    """GPUs of the H100/H800 class, unless told otherwise; bandwidth .7 of the data sheet's, link .75 of an H800's.

    Args:
        memory: bytes of each.
        dtype: `policy.dtype`, for the peak rate.
        sharded: FSDP2; by default where there are several GPUs.

    Raises:
        ConfigError: a number that no machine has.
    """
    spread = gpus > 1 if sharded is None else sharded
    rate = _PEAK[dtype] if flops is None else flops
    name = "GPUs of the H100/H800 class (assumed)" if flops is None else "GPUs of the given rate"
    return Machine(
        name, gpus, memory, rate, mfu, bandwidth, link, host, True, reserve, spread
    )


def peak_flops(gpu: str, dtype: str) -> float | None:
    """Matrix-product operations a second of a GPU's data sheet; None where it is not known."""
    return next((sheet[dtype] for name, sheet in _SHEETS.items() if name in gpu and "PCIe" not in gpu), None)


def this_machine(processes: int, *, dtype: str, reserve: float = 0.08, sharded: bool = False) -> Machine:
    """The GPUs of this machine, or its measured CPU (under a second), shared by `processes`.

    Raises:
        ConfigError: more processes than GPUs.
    """
    if torch.cuda.is_available():
        if processes > torch.cuda.device_count():
            raise ConfigError(f"nproc = {processes}: this machine has {torch.cuda.device_count()} GPUs")
        free = min(torch.cuda.mem_get_info(device)[0] for device in range(processes))
        assumed = gpu_machine(processes, free, dtype=dtype, sharded=sharded, reserve=reserve)
        return replace(assumed, name=f"{torch.cuda.get_device_name()} (free memory measured, rates of an H100 assumed)")
    flops, bandwidth, host = measure_cpu(getattr(torch, dtype))
    memory = psutil.virtual_memory().available / processes
    name = f"this CPU, {torch.get_num_threads()} of {os.cpu_count()} cores (rates measured just now)"
    return Machine(name, processes, memory, flops, 1.0, bandwidth, bandwidth, host, False, reserve, sharded)


def measure_cpu(dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float, float]:
    """Operations a second of a matrix product, bytes a second of a copy, seconds to issue an operator.

    The last is taken from forward passes of a model so small that its operators do nothing else.
    """
    a, b = torch.randn(2, _SIDE, _SIDE, dtype=torch.float32).to(dtype)
    source = torch.ones(_COPIED // 4)
    target = torch.empty_like(source)
    tiny = Qwen2Config(**_TINY)
    model = AutoModelForCausalLM.from_config(tiny).eval()
    operators = Graph(tiny, Weights(torch.float32, torch.float32, None)).prefill(1, 1).operators
    token, mask = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.long)

    @torch.no_grad()
    def issue() -> None:
        model(input_ids=token, attention_mask=mask, use_cache=True, logits_to_keep=1)

    product = _best(lambda: a @ b, clock)
    copy = _best(lambda: target.copy_(source), clock)
    return 2 * _SIDE**3 / product, 2 * _COPIED / copy, _best(issue, clock) / operators


def _best(call: Callable[[], object], clock: Callable[[], float], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = clock()
        call()
        times.append(clock() - started)
    return min(times)
