"""`benchmarks/gpu.py` at tiny size on the CPU, and its arithmetic on a case worked out by hand."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nano_runs import forked

pytestmark = pytest.mark.slow

SCRIPT = str(Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py")


def run(words: list[str]) -> None:
    sys.argv = [SCRIPT, *words]
    runpy.run_path(SCRIPT, run_name="__main__")


def test_tiny_policies_go_through_the_whole_benchmark(tmp_path):
    assert forked(lambda: run(["--tiny", "--out", str(tmp_path / "gpu.md")]), tmp_path / "printed") == 0
    text = (tmp_path / "gpu.md").read_text()
    assert text in (tmp_path / "printed").read_text()
    assert re.search(r"Measured \d{4}-\d\d-\d\d by .* torch \d", text)
    tables = [line.split(" | ") for line in text.splitlines() if line.startswith("| tiny")]
    assert len(tables) == 4  # two policies in two tables
    for _, _, written, share, _, trained, update_share, _ in tables[:2]:
        assert float(written.replace(",", "")) > 0 and float(trained.replace(",", "")) > 0
        assert 0 < float(share.strip("%")) < 100 and 0 < float(update_share.strip("%")) < 100
    for _, peak, planned, ratio, *_ in tables[2:]:
        assert float(peak) > 0 and float(planned) > 0 and float(ratio) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_without_a_gpu_it_says_so(tmp_path):
    assert forked(lambda: run([]), tmp_path / "printed") == 1
    assert "no NVIDIA GPU is at hand" in (tmp_path / "printed").read_text()


def test_the_least_work_is_the_one_counted_by_hand(monkeypatch):
    monkeypatch.syspath_prepend("first")  # the script drops the first entry, its own folder
    script = runpy.run_path(SCRIPT)

    def turn(stage: str, prompt: int, completion: int) -> SimpleNamespace:
        return SimpleNamespace(stage=stage, prompt_ids=np.zeros(prompt), completion_ids=np.zeros(completion))

    rollouts = [  # two rollouts side by side: query, act, and a second act of the first alone
        SimpleNamespace(turns=(turn("query", 3, 2), turn("act", 5, 4), turn("act", 6, 1))),
        SimpleNamespace(turns=(turn("query", 3, 1), turn("act", 7, 3))),
    ]
    train = SimpleNamespace(tokens_per_micro_batch=50)
    config = SimpleNamespace(policy=SimpleNamespace(dtype="bfloat16"), train=train)
    plan = SimpleNamespace(parameters=SimpleNamespace(total=100, trained=10), config=config)
    model = SimpleNamespace(hidden_size=8, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3)
    work = script["generation_work"](rollouts, plan, model)
    assert work.tokens == 11
    assert work.operations == 2 * 100 * (24 + 11)
    # the longest answers have 2, 4 and 1 tokens; prompts and what was written before are read for every token written
    read = (2 * 3 + 1) + (4 * 5 + 6) + (1 * 6) + (1 * 3) + (3 * 7 + 3)
    assert work.traffic == (2 + 4 + 1) * 100 * 2 + read * (2 * 2 * 3 * 2 * 2)  # 2 x bytes x layers x heads x dimension

    entry = {"time/update_tokens_per_second": 40.0, "time/update": 2.0, "rows/updates": 1}
    work = script["update_work"](entry, plan)
    assert (work.tokens, work.operations) == (80, (4 * 100 + 2 * 10 + 2 * 100) * 80)
    assert work.traffic == 4 * 1.6 * 100 * 2 + 28 * 10
    fast, slow = SimpleNamespace(flops=1e9, bandwidth=1.0), SimpleNamespace(flops=1.0, bandwidth=1e9)
    assert work.seconds(fast) == work.traffic and work.bound(fast) == "bandwidth"
    assert work.seconds(slow) == work.operations and work.bound(slow) == "rate"
