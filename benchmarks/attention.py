"""Attention behind padding on a CPU: `skill1.generation.attention` against transformers' own, in one run.

    OMP_NUM_THREADS=1 python -P benchmarks/attention.py

One layer of SmolLM2-135M (9 query heads, 3 of keys and values, 64 wide): 16 conversations of 1,000 tokens, a quarter of them
padded, each writing one token or reading 5 or 24. CPU-milliseconds of a call, the mean of ten after one that is not counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from skill1.generation.attention import grouped_attention

CALLS = 10


def milliseconds(attend: Callable[..., Any], *given: Any) -> float:
    attend(*given)
    started = time.process_time()
    for _ in range(CALLS):
        attend(*given)
    return (time.process_time() - started) / CALLS * 1e3


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    module: Any = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    for dtype in (torch.bfloat16, torch.float32):
        for new in (1, 5, 24):
            query = torch.randn(16, 9, new, 64).to(dtype)
            key, value = (torch.randn(16, 3, 1000, 64).to(dtype) for _ in range(2))
            mask = torch.ones(16, 1, new, 1000, dtype=torch.bool).tril(1000 - new)
            mask[:4, ..., :100] = False
            own, ours = (
                milliseconds(attend, module, query, key, value, mask)
                for attend in (sdpa_attention_forward, grouped_attention)
            )
            print(
                f"{dtype!s:15} {new:2} new tokens: {own:5.1f} against {ours:5.1f} CPU ms, {own / ours:.1f} times faster"
            )


if __name__ == "__main__":
    main()
