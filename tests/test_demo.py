"""The demo of an instruct model; that of the nano policy is executed whole in tests/test_installed.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import CHATML, byte_tokenizer, tiny_model
from without_kernels import execute

from skill1.nano.world import world_folder
from skill1.running.demo import demo


@pytest.mark.slow
def test_an_instruct_model_plays_the_games_that_the_environment_names_or_generated_ones(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its notebooks, which that test and the garden's execute, are replaced by what their cells call."""
    monkeypatch.setattr("skill1.running.demo.execute", execute)
    monkeypatch.setenv("ALFWORLD_DATA", str(world))
    tokenizer = byte_tokenizer(CHATML)
    tiny_model(vocabulary=len(tokenizer), context=8192).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    overrides = {
        "policy.model": str(tmp_path / "model"), "policy.adapter": None, "policy.dtype": "float32", "train.steps": 2,
        "environment.max_steps": 2, "library.encoder": "hash", "rollout.tasks_per_step": 2, "rollout.group_size": 2,
        "rollout.max_prompt_tokens": 4096, "rollout.max_act_tokens": 4, "method.max_query_tokens": 4,
        "method.max_distill_tokens": 4,
    }  # fmt: skip
    summary = json.loads(
        demo(0, preset="mini", overrides=overrides, results=tmp_path / "out", say=lambda line: None).read_text()
    )
    assert summary["data"] == "$ALFWORLD_DATA" and summary["steps"] == 2
    assert summary["after"]["library"]["n"] == 6 and "valid_unseen" not in summary
    assert world_folder(0, "mini") == Path("data/nano-world-0")  # where no games are named
