"""The preset mini within given minutes, at the size of a tiny chat model: run."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from nano_runs import forked
from tiny import CHATML, byte_tokenizer, tiny_model

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "speedrun.py"
MINUTES = 0.12  # the first evaluation takes seconds where other work runs


@pytest.mark.slow
def test_a_speedrun_trains_until_its_minutes_are_over(world, tmp_path):
    def speedrun(*words: object) -> tuple[int, str]:
        """In a process of its own, which need not import anything: its status, and what it printed."""
        status = forked(lambda: main([str(word) for word in words]), tmp_path / "printed")
        return status, (tmp_path / "printed").read_text()

    main = runpy.run_path(str(SCRIPT))["main"]
    tokenizer = byte_tokenizer(CHATML)
    tiny_model(vocabulary=len(tokenizer), context=8192).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    small = {
        "policy.dtype": "float32", "environment.max_steps": 2, "library.encoder": "hash", "rollout.tasks_per_step": 2,
        "rollout.group_size": 2, "rollout.max_prompt_tokens": 4096, "rollout.max_act_tokens": 4,
        "method.max_query_tokens": 4, "method.max_distill_tokens": 4,
    }  # fmt: skip
    given = [x for name, value in small.items() for x in ("--set", f"{name}={value}")]
    places = ("--data", world, "--model", tmp_path / "model", "--adapter", "none", "--out", tmp_path / "out")
    status, printed = speedrun(*places, *given, "--minutes", MINUTES)
    assert status == 0, printed[-3000:]
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["steps"] >= 1 and found["before"]["n"] == found["after"]["n"] == 6
    assert sum(found["seconds"].values()) < MINUTES * 60 + 30
    assert {"rollout", "update"} <= found["seconds a step"].keys()
