"""Stand-ins for 01_train and 02_evaluate that leave what a run leaves, within a second and without a model.

The runner, the kernels, the processes and the run directories are the real ones. `pause` files beside a run let a test
hold it in the middle of its training; a `fail` file makes it fail.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import nbformat
import pandas as pd
from nbformat.v4 import new_code_cell, new_notebook

from skill1.checkpoints import mark_complete
from skill1.config import Config, load_config
from skill1.runs import RunDirectory

STEPS, SAVE_EVERY = 4, 2
GAMES = [f"{split}/game{i}/trial" for split in ("valid_seen", "valid_unseen") for i in range(3)]
OVERRIDES = {"train.steps": STEPS, "train.save_every": SAVE_EVERY}
_HEAD = "import sys\nsys.path.insert(0, {tests!r})\nimport study_runs\n"
_PARAMETERS = {
    "01_train": "out = ''\npreset = 'nano'\nvariant = 'full'\nseed = 0\nnproc = 1\ndata = ''\noverrides = {}",
    "02_evaluate": "run = ''\npasses = 1\nsplits = []\nbaseline = True",
}
_CALLS = {
    "01_train": "study_runs.train(out, preset, variant, {'train.seed': seed, 'environment.data': data, **overrides})",
    "02_evaluate": "study_runs.evaluate(run, passes, splits)",
}


def make_notebooks(folder: Path) -> Path:
    folder.mkdir()
    for name, parameters in _PARAMETERS.items():
        first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        head = _HEAD.format(tests=str(Path(__file__).parent))
        nbformat.write(new_notebook(cells=[first, new_code_cell(head + _CALLS[name])]), folder / f"{name}.ipynb")
    return folder


def train(out: str, preset: str, variant: str, fields: dict) -> None:
    """Steps and checkpoints of a run; continues one that stopped."""
    path, config = Path(out), load_config(preset, variant, fields)
    opening = RunDirectory.resume if (path / "config.json").exists() else RunDirectory.create
    run = opening(path, config, "data")
    latest = run.latest_checkpoint()
    for step in range(latest.step + 1 if latest else 1, STEPS + 1):
        if (path.parent / "fail").exists():
            raise ValueError(f"step {step} met a fail file")
        with (path.parent / "steps.txt").open("a") as file:
            file.write(f"{step} ")
        run.log(step, metrics(config, step))
        if step % SAVE_EVERY == 0:
            run.checkpoint_dir(step).mkdir()
            mark_complete(run.checkpoint_dir(step), step, {})
        while (path.parent / f"pause{step}").exists():
            time.sleep(0.05)
    run.close()


def metrics(config: Config, step: int) -> dict[str, float]:
    found = {"reward": (step + config.train.seed) / 10, "loss": float("nan")}
    return found | ({"library/size": 3.0 * step} if config.library.enabled else {})


def evaluate(run: str, passes: int, splits: list[str]) -> None:
    opened = RunDirectory.open(Path(run))
    arms = [(0, "step0"), (STEPS, f"step{STEPS}"), (STEPS, "none")]
    if not opened.config.library.enabled:
        arms = [(0, "none"), (STEPS, "none")]
    for step, library in arms:
        for split in splits:
            rows = [(game, number) for game in GAMES if game.startswith(f"{split}/") for number in range(passes)]
            frame = pd.DataFrame(rows, columns=["game", "pass"]).assign(
                variant=opened.config.variant, seed=opened.config.train.seed, step=step, split=split, category="Pick",
                won=lambda f: (f.index + step) % 2 == 0, score=1.0, steps=4, invalid_actions=1,
                inadmissible_actions=2, library=library,
            )  # fmt: skip
            opened.write_evaluation(f"evaluation_{library}", frame)
    opened.write_evaluation("validation", frame)  # of training: no part of a study


def make_study(folder: Path, asked: dict[str, list[int]], done: dict[str, list[int]]) -> Path:
    """A sweep's folder with the `done` runs, without processes: their notebooks are empty but finished."""
    settings = {"preset": "nano", "overrides": OVERRIDES, "passes": 2, "splits": ["valid_seen", "valid_unseen"]}
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"settings": settings, "runs": asked}))
    empty = folder.parent / "empty.ipynb"
    nbformat.write(new_notebook(), empty)
    for variant, seeds in done.items():
        for seed in seeds:
            home = folder / variant / f"seed{seed}"
            home.mkdir(parents=True)
            train(str(home / "run"), "nano", variant, {"train.seed": seed, **OVERRIDES})
            evaluate(str(home / "run"), settings["passes"], settings["splits"])
            for name in _PARAMETERS:
                _finish(empty, home / f"{name}.ipynb")
            (home / "seconds.json").write_text(json.dumps({"train": 60.0 + seed, "evaluate": 30.0}))
    return folder


def _finish(source: Path, output: Path) -> None:
    node = nbformat.read(source, as_version=4)
    node.metadata["skill1"] = {"source": "", "parameters": {}}
    nbformat.write(node, output)


def steps_done(experiment_folder: Path) -> list[int]:
    """Every training step that was run, also those of attempts that were killed."""
    file = experiment_folder / "steps.txt"
    return [int(word) for word in file.read_text().split()] if file.exists() else []
