"""Peak rates of GPUs, by the driver's name of them."""

from __future__ import annotations

import pytest

from skill1.updates.devices import peak_flops


@pytest.mark.parametrize(
    "gpu, dtype, rate",
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H800", "float32", 67e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A800-SXM4-80GB", "float32", 19.5e12),
        ("NVIDIA H100 PCIe", "bfloat16", None),
        ("Tesla T4", "bfloat16", None),
    ],
)
def test_the_rate_of_a_gpu_is_its_data_sheet_s(gpu, dtype, rate):
    assert peak_flops(gpu, dtype) == rate
