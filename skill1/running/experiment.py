"""One experiment: a run trained by `01_train` and evaluated by `02_evaluate`, the notebooks that a user would open.

    <home>/run/               the run directory (skill1.store.run_directory)
    <home>/01_train.ipynb     executed by the strict runner (skill1.running.batch)
    <home>/02_evaluate.ipynb  executed

An experiment that was stopped at any moment is continued by executing it again: finished notebooks are left alone,
training resumes from its last complete checkpoint, stored outcomes are not played again.
`python -m skill1.running.experiment JSON` executes one in a process of its own (skill1.running.local). SIGTERM is passed
on to what runs in the notebook, which saves its step; the process then ends with status 143.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from skill1.config import Config, load_config
from skill1.distributed import TERMINATED, on_sigterm
from skill1.envs.make import make_environment
from skill1.errors import UserError
from skill1.running.batch import NotebookRun
from skill1.running.progress import Progress, last_metrics, training_progress
from skill1.store.resources import resource
from skill1.store.run_directory import RunDirectory

TRAIN, EVALUATE = "01_train.ipynb", "02_evaluate.ipynb"


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
    baseline: bool = True  # also the untrained policy, which is the same for all variants
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

    def train(self) -> None:
        """Execute `01_train` if it is not finished. Raises as `NotebookRun.execute`."""
        if self.run.is_dir() and not (self.run / "config.json").exists():
            shutil.rmtree(self.run)  # killed while the directory was being made: it holds no step, and no run opens it
        if not self._training.is_finished():
            self._training.execute()

    def evaluate(self) -> None:
        """Execute `02_evaluate` if it is not finished. Raises as `NotebookRun.execute`."""
        if not self._evaluation.is_finished():
            self._evaluation.execute()

    def is_finished(self) -> bool:
        """Return whether both notebooks are executed and the run is there.

        Raises:
            RunError: they were executed with other parameters or of another version, or the run has another
                configuration or is of another version.
        """
        done = self._training.is_finished() and self._evaluation.is_finished()
        if done or (self.run / "config.json").exists():
            RunDirectory.open(self.run).check_config(self.config)
        return done

    def phases(self) -> dict[str, Callable[[], Progress]]:
        """Return what follows training and evaluation, by their keys in skill1.running.collect.PHASES."""
        return {
            "train": lambda: training_progress(self.run, self.config.train.steps, self._evaluation_seconds()),
            "evaluate": self._evaluation_progress,
        }

    def _evaluation_progress(self) -> Progress:
        """Follow the evaluations, one per split of `evaluation.arms`, that the run stores."""
        stored = self.run / "evaluations"
        total = self._arms * len(self.splits)
        return Progress("evaluations", total, lambda: len(list(stored.glob("evaluation_*.parquet"))))

    @property
    def _arms(self) -> int:
        from skill1.running.evaluation import arms  # not at the top: every job of a sweep would load scipy for it

        return len(arms(self.config, self.baseline))

    def _evaluation_seconds(self) -> Callable[[], float]:
        """Estimate the evaluation's time: its episodes, each as long as one of the last training step."""
        config = self.config

        @cache
        def episodes() -> int:
            environment = make_environment(config.environment)
            return self._arms * self.passes * sum(len(environment.tasks(split)) for split in self.splits)

        def seconds() -> float:
            trained = config.rollout.tasks_per_step * config.rollout.group_size
            return episodes() * last_metrics(self.run).get("time/rollout", 0.0) / trained

        return seconds

    @property
    def _training(self) -> NotebookRun:
        same = {name: getattr(self, name) for name in ("preset", "variant", "seed", "data")}
        return self._notebook(TRAIN, {"out": portable(self.run), "overrides": dict(self.overrides), **same})

    @property
    def _evaluation(self) -> NotebookRun:
        given = {"run": portable(self.run), "passes": self.passes, "splits": list(self.splits)}
        return self._notebook(EVALUATE, {**given, "baseline": self.baseline}, free=("baseline",))

    def _notebook(self, name: str, parameters: Mapping[str, Any], free: tuple[str, ...] = ()) -> NotebookRun:
        """Args: free: which parameters do not change what an experiment is, besides the number of processes."""
        given = {**parameters, "nproc": self.nproc}
        return NotebookRun(Path(self.notebooks) / name, self.folder / name, given, free=(*free, "nproc"))


def portable(path: Path) -> str:
    """Make `path` relative to the working folder where it is inside, absolute elsewhere."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def command(experiment: Experiment) -> list[str]:
    """Return the words of `python -m skill1.running.experiment` that execute it."""
    return [sys.executable, "-m", "skill1.running.experiment", json.dumps(asdict(experiment))]


def main(text: str) -> None:
    """Execute the experiment described by its fields as JSON; what went wrong is the last line of output."""
    experiment = Experiment(**json.loads(text))
    asked: list[bool] = []

    def end() -> None:
        kernels = psutil.Process().children()
        for kernel in () if asked else kernels:
            kernel.terminate()
        asked.append(True)
        if not kernels:  # between the notebooks
            sys.exit(TERMINATED)

    try:
        with on_sigterm(end):
            experiment.train()
            experiment.evaluate()
    except UserError as error:
        sys.exit(TERMINATED if asked else f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
