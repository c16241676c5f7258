"""One experiment: a run trained by `01_train` and evaluated by `02_evaluate`, the notebooks that a user would open.

    <home>/run/               the run directory (skill1.store.run_directory)
    <home>/01_train.ipynb     executed by the strict runner (skill1.running.batch)
    <home>/02_evaluate.ipynb  executed

An experiment that was stopped at any moment is continued by executing it again: finished notebooks are left alone,
training goes on from its last complete checkpoint, stored outcomes are not played again.
`python -m skill1.running.experiment JSON` executes one in a process of its own (skill1.running.sweep).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from skill1.config import Config, flatten, load_config
from skill1.errors import UserError
from skill1.running.batch import is_finished, run_notebook
from skill1.store.resources import resource
from skill1.store.run_directory import RunDirectory

TRAIN, EVALUATE = "01_train.ipynb", "02_evaluate.ipynb"
_FREE = ("nproc",)  # does not change what an experiment is


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What is run, and where. Paths inside the working folder are relative to it, so that it can be moved."""

    home: str  # folder
    preset: str
    variant: str
    seed: int
    data: str  # games folder; "" for an environment that has no files
    overrides: Mapping[str, Any]  # dotted field name -> value
    passes: int  # evaluation passes over all games of a split
    splits: tuple[str, ...]  # to evaluate
    nproc: int = 1  # processes that train, and evaluate
    notebooks: str = field(default_factory=lambda: str(resource("notebooks")))  # folder

    @property
    def label(self) -> str:
        return f"{self.variant} seed {self.seed}"

    @property
    def folder(self) -> Path:
        return Path(self.home)

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    @property
    def config(self) -> Config:
        """As `01_train` makes it. Raises ConfigError."""
        fields = {"train.seed": self.seed, "environment.data": self.data or None, **self.overrides}
        return load_config(self.preset, self.variant, fields)

    def train(self, progress: bool = False) -> None:
        """Execute `01_train`. Raises as `batch.run_notebook`."""
        if self.run.is_dir() and not (self.run / "config.json").exists():
            shutil.rmtree(self.run)  # killed while the directory was being made: it holds no step, and no run opens it
        self._execute(TRAIN, progress)

    def evaluate(self, progress: bool = False) -> None:
        """Execute `02_evaluate`. Raises as `batch.run_notebook`."""
        self._execute(EVALUATE, progress)

    def is_finished(self) -> bool:
        """Whether both notebooks are executed and the run is there.

        Raises:
            RunError: they were executed with other parameters or of another version, or the run has another
                configuration or is of another version.
        """
        done = all(
            is_finished(self._source(name), self.folder / name, self._parameters(name), free=_FREE)
            for name in (TRAIN, EVALUATE)
        )
        if done or (self.run / "config.json").exists():
            RunDirectory.open(self.run).check_config(self.config)
        return done

    def steps_logged(self) -> int:
        """Training steps that the run has logged; 0 before there is a run."""
        file = self.run / "metrics.jsonl"
        return file.read_bytes().count(b"\n") if file.exists() else 0

    def _execute(self, name: str, progress: bool) -> None:
        run_notebook(self._source(name), self.folder / name, self._parameters(name), free=_FREE, progress=progress)

    def _source(self, name: str) -> Path:
        return Path(self.notebooks) / name

    def _parameters(self, name: str) -> dict[str, Any]:
        run = portable(self.run)
        if name == EVALUATE:
            return {"run": run, "passes": self.passes, "splits": list(self.splits), "nproc": self.nproc}
        return {
            "out": run,
            "preset": self.preset,
            "variant": self.variant,
            "seed": self.seed,
            "nproc": self.nproc,
            "data": self.data,
            "overrides": dict(self.overrides),
        }


def portable(path: Path) -> str:
    """`path` relative to the working folder where it is inside, absolute elsewhere."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def config_hash(config: Config) -> str:
    """Of every field's value but the data's place."""
    values = {name: value for name, value in flatten(config).items() if name != "environment.data"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _main(text: str) -> None:
    """Execute the experiment described by its fields as JSON; what went wrong is the last line of output."""
    experiment = Experiment(**json.loads(text))
    try:
        experiment.train()
        experiment.evaluate()
    except UserError as error:
        sys.exit(f"error: {error}")


def command(experiment: Experiment) -> list[str]:
    """The words of `python -m skill1.running.experiment` that execute it."""
    return [sys.executable, "-m", "skill1.running.experiment", json.dumps(asdict(experiment))]


if __name__ == "__main__":
    _main(sys.argv[1])
