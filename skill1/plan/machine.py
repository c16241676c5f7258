"""The machine a plan is for: GPUs that need not be here, or this one as measured (`skill1.plan.rates`)."""

from __future__ import annotations

from dataclasses import dataclass

from skill1.config import ConfigError
from skill1.devices import PEAK_FLOPS

GB = 1e9
_HOST = 8e-6  # ours: an operator of eager PyTorch under transformers, Python included


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
    """Describe GPUs of the H100/H800 class, unless told otherwise.

    Bandwidth is .7 of the data sheet's, link .75 of an H800's.

    Args:
        memory: bytes of each.
        dtype: `policy.dtype`, for the peak rate.
        sharded: FSDP2; by default where there are several GPUs.

    Raises:
        ConfigError: a number that no machine has.
    """
    spread = gpus > 1 if sharded is None else sharded
    rate = PEAK_FLOPS["H100"][dtype] if flops is None else flops
    name = "GPUs of the H100/H800 class (assumed)" if flops is None else "GPUs of the given rate"
    return Machine(name, gpus, memory, rate, mfu, bandwidth, link, host, True, reserve, spread)
