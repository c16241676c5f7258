"""What GPUs can do at most, by the name that their driver gives."""

from __future__ import annotations

# NVIDIA's data sheets, operations a second of dense matrix products by `policy.dtype`: float32 without tensor cores.
_HOPPER = {"bfloat16": 989e12, "float32": 67e12}
_AMPERE = {"bfloat16": 312e12, "float32": 19.5e12}
PEAK_FLOPS = {"H100": _HOPPER, "H200": _HOPPER, "H800": _HOPPER, "A100": _AMPERE, "A800": _AMPERE}


def peak_flops(gpu: str, dtype: str) -> float | None:
    """Look up the operations a second of a GPU's matrix products; None where they are not known.

    Args:
        gpu: its name, as `torch.cuda.get_device_name` gives it. The rates are of SXM modules, not of PCIe cards.
        dtype: "bfloat16" or "float32".
    """
    return next((rates[dtype] for name, rates in PEAK_FLOPS.items() if name in gpu and "PCIe" not in gpu), None)
