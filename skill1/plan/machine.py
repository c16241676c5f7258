"""The machine a plan is for: GPUs that need not be here, or this one as measured (`skill1.plan.rates`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skill1.config import ConfigError
from skill1.updates.devices import PEAK_FLOPS

GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """GPUs (or, on a CPU, processes) and what each of them does. Rates are by default those of the H100/H800 class."""

    name: str
    gpus: int
    memory: float  # bytes of each
    flops: float  # peak operations a second of matrix products
    mfu: float = 0.5  # share of the peak that matrix products reach
    bandwidth: float = 2.3e12  # bytes a second to and from memory, as reached: .7 of the data sheet's
    link: float = 150e9  # bytes a second from GPU to GPU, as reached, each way: .75 of an H800's
    host: float = 8e-6  # seconds to issue an operator: ours, eager PyTorch under transformers, Python included
    overlap: bool = True  # operators are issued while others run
    training: float = 1.0  # share of the roofline that passes over whole rows reach, forward and backward
    generation: float = 1.0  # share of it that generation reaches
    reserve: float = 0.08  # share of the memory left to the driver, communication and fragmentation
    sharded: bool = False  # weights, gradients, optimiser and reference spread over the GPUs (FSDP2)

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise ConfigError(f"gpus = {self.gpus}: a plan needs at least 1")
        for name in ("memory", "flops", "mfu", "bandwidth", "link", "training", "generation"):
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
    **rates: Any,
) -> Machine:
    """Describe GPUs of the H100/H800 class, unless told otherwise.

    Args:
        memory: bytes of each.
        dtype: `policy.dtype`, for the peak rate.
        sharded: FSDP2; by default where there are several GPUs.
        rates: other fields of `Machine`.

    Raises:
        ConfigError: a number that no machine has.
    """
    return Machine(
        name="GPUs of the H100/H800 class (assumed)" if flops is None else "GPUs of the given rate",
        gpus=gpus,
        memory=memory,
        flops=PEAK_FLOPS["H100"][dtype] if flops is None else flops,
        sharded=gpus > 1 if sharded is None else sharded,
        **rates,
    )
