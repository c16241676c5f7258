"""Studies made of stand-in notebooks: the runner, kernels, processes and run directories are the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from stand_ins import SAVE_EVERY, STEPS, evaluate, train

from skill1.running.experiment import Experiment
from skill1.running.jobs import Executor, Failure

OVERRIDES = {"train.steps": STEPS, "train.save_every": SAVE_EVERY}
_HEAD = "import sys\nsys.path.insert(0, {tests!r})\nimport stand_ins\nfrom skill1.store import run_directory as runs\n"
_PARAMETERS = {
    "01_train": "out = ''\npreset = 'nano'\nvariant = 'full'\nseed = 0\nnproc = 1\ndata = ''\noverrides = {}",
    "02_evaluate": "run = ''\npasses = 1\nsplits = []\nbaseline = True\nnproc = 1",
}
_CALLS = {
    "01_train": "runs.describe_session = dict  # it asks torch, which takes seconds to load\n"
    "stand_ins.train(out, preset, variant, {'train.seed': seed, 'environment.data': data, **overrides})",
    "02_evaluate": "stand_ins.evaluate(run, passes, splits)",
}


def make_notebooks(folder: Path) -> Path:
    folder.mkdir()
    for name, parameters in _PARAMETERS.items():
        first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        head = _HEAD.format(tests=str(Path(__file__).parent))
        nbformat.write(new_notebook(cells=[first, new_code_cell(head + _CALLS[name])]), folder / f"{name}.ipynb")
    return folder


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


def execute(experiments: Sequence[Experiment], executor: Executor, say: Callable[[str], None]) -> list[Failure]:
    """What `skill1.running.jobs.execute` leaves when it executes the stand-ins, without processes."""
    for each in experiments:
        each.folder.mkdir(parents=True)
        train(str(each.run), each.preset, each.variant, {"train.seed": each.seed, **each.overrides})
        evaluate(str(each.run), each.passes, list(each.splits))
        for name in _PARAMETERS:
            _finish(Path(each.notebooks) / f"{name}.ipynb", each.folder / f"{name}.ipynb")
        (each.folder / "seconds.json").write_text(json.dumps({"train": 60.0, "evaluate": 30.0}))
    return []


def _finish(source: Path, output: Path) -> None:
    node = nbformat.read(source, as_version=4)
    node.metadata["skill1"] = {"source": "", "parameters": {}}
    nbformat.write(node, output)


def steps_done(experiment_folder: Path) -> list[int]:
    """Every training step that was run, also those of attempts that were killed."""
    file = experiment_folder / "steps.txt"
    return [int(word) for word in file.read_text().split()] if file.exists() else []
