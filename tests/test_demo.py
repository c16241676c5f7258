"""The demo, whole, at a size of seconds: papermill, training, evaluation, figures, `summary.json`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from nano_runs import settings
from tiny import CHATML, byte_tokenizer, tiny_model
from without_kernels import execute

from skill1.nano.world import world_folder
from skill1.running.demo import demo


@pytest.mark.slow
def test_demo_leaves_notebooks_figures_and_a_summary(
    world: Path, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(world))
    overrides = settings(world, nano) | {"train.steps": 2}
    overrides.pop("environment.data")
    said: list[str] = []
    choices = {"nproc": 1, "overrides": overrides, "passes": 2, "results": tmp_path, "say": said.append}

    summary = json.loads(demo(4, **choices).read_text())

    run = tmp_path / "seed4-alfworld_data" / "run"
    begun, *_, done, result, end = said
    seen, unseen, costs = result.splitlines()
    assert begun == "[0/1] full seed 4: started" and done.startswith("[1/1] full seed 4: done, ")
    before, after, without = (
        "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * x for x in (rates["success"], *rates["interval"])))
        for rates in (summary["before"]["library"], summary["after"]["library"], summary["after"]["no_library"])
    )
    assert seen.startswith(f"seen homes, 6 games x 2: success {before} -> {after}, ")
    assert seen.endswith(f"library withheld {without}") and unseen.startswith("unseen homes, 6 games x 2: ")
    assert re.fullmatch(r"train \d+ s, evaluate \d+ s", costs)
    assert f"figures: {tmp_path / 'figures'}" in end and f"skill1 notebook 05_library -p run={run}" in end

    assert summary["seed"] == 4 and summary["data"] == "$ALFWORLD_DATA" and summary["steps"] == 2
    for moment in ("before", "after"):
        for library in ("library", "no_library"):
            entry = summary[moment][library]
            assert entry["n"] == 12 and entry["games"] == 6
            assert 0 <= entry["interval"][0] <= entry["success"] <= entry["interval"][1] <= 1
            assert sum(part["n"] for part in entry["categories"].values()) == 12
    assert summary["before"]["library"] == summary["before"]["no_library"]
    assert set(summary["valid_unseen"]) == {"before", "after"}
    assert set(summary["seconds"]) == {"train", "evaluate"} and summary["peak_memory_mb"] > 100
    for name in ("01_train.ipynb", "02_evaluate.ipynb", "figures/summary.png", "figures/learning_curve.pdf"):
        assert (tmp_path / name).is_file()

    said.clear()
    again = json.loads(demo(4, **choices).read_text())  # finished: nothing runs, the costs are those of the first time
    assert again == summary and said == [f"finished, see {run.parent}", result, end]


@pytest.mark.slow
def test_an_instruct_model_plays_the_games_that_the_environment_names_or_generated_ones(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its notebooks, which the test above and that of the garden execute, are replaced by what their cells call."""
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
