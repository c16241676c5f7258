"""`benchmarks/gpu.py` at tiny size on the CPU: its numbers against a case worked out by hand, killed and repeated."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from nano_runs import forked

from skill1.plan.rates import REACHED

pytestmark = pytest.mark.slow

SCRIPT = str(Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py")


def run(*words: object) -> None:
    sys.argv = [SCRIPT, *map(str, words)]
    runpy.run_path(SCRIPT, run_name="__main__")


def test_a_killed_benchmark_goes_on_where_it_was(tmp_path):
    lines = tmp_path / "gpu.jsonl"
    words = ("--tiny", "--out", lines, "--policy")
    killed = os.fork()
    if not killed:
        torch.set_num_threads(1)  # an OpenMP pool does not survive a fork
        run(*words, "tiny")
        os._exit(1)
    try:
        while not lines.exists():
            assert os.waitpid(killed, os.WNOHANG) == (0, 0), "ended without a line"
            time.sleep(0.01)
    finally:
        os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    first = lines.read_text()
    update = json.loads(first.splitlines()[0])
    assert first.endswith("\n") and update["part"] == "update"

    for policy in ("tiny", "tiny, adapters"):
        assert forked(lambda policy=policy: run(*words, policy), tmp_path / "printed") == 0
    measured = [json.loads(line) for line in lines.read_text().splitlines()]
    assert lines.read_text().startswith(first)
    names = [(entry["policy"], entry["part"]) for entry in measured]
    parts = ("update", "generate", "continuous batching")
    assert names == [(policy, part) for policy in ("tiny", "tiny, adapters") for part in parts]
    assert forked(lambda: run(*words[:-1]), tmp_path / "printed") == 0  # all is there: nothing is measured again
    printed = (tmp_path / "printed").read_text().splitlines()
    assert [line.split(":")[0] for line in printed] == [", ".join(name) for name in names]

    training, generation = REACHED["cpu"]
    update, written, _, adapted, *_ = measured
    # embeddings (head tied), a block of four projections with biases, three of the MLP and two norms, the last norm
    width = 64
    attention = 2 * width * width + width + 2 * (width * 32 + 32)
    assert update["parameters"] == 256 * width + attention + 3 * width * 3 * width + 3 * width == update["trained"]
    assert update["tokens"] == 2 * 4 * (12 + 4) and written["tokens"] == 4 * 4
    # four tokens each: weights in float32, and keys and values of 12 + 2 tokens and the one written, of one head of 32
    read = 4 * (4 * written["parameters"] + 4 * (12 + 2 + 1) * 2 * 32 * 4)
    rates = written["machine"]
    assert written["of the bandwidth"] == pytest.approx(read / written["seconds"] / rates["bandwidth"])
    assert written["reached"] == pytest.approx(written["planned"] * generation / written["seconds"])
    adam = 28 * update["trained"] / update["machine"]["bandwidth"]
    assert (update["planned"] - adam) * training == pytest.approx(update["reached"] * (update["seconds"] - adam))
    assert 0 < adapted["trained"] < adapted["parameters"] and adapted["dtype"] == "bfloat16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_without_a_gpu_it_says_so(tmp_path):
    assert forked(lambda: run("--out", tmp_path / "gpu.jsonl"), tmp_path / "printed") == 1
    assert "without an NVIDIA GPU" in (tmp_path / "printed").read_text()
