"""Notebooks and experiments in this process: no kernel, no imports, the same cells. Kernels are tested once a notebook."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
from IPython.core.formatters import DisplayFormatter

from skill1.analysis.comparison import write_summary
from skill1.running.evaluation import evaluate_arms
from skill1.running.experiment import EVALUATE, TRAIN, Experiment
from skill1.running.jobs import Executor, Failure
from skill1.train import train


def run_cells(notebook: Path, parameters: dict[str, Any], *, dpi: int = 75) -> str:
    """Execute a notebook's cells with other parameters; all text that they show, as their outputs would hold it.

    Args:
        dpi: of the figures' png; with a quarter of the notebook's own, 300, a figure takes two thirds of the time.
    """
    formatter, shown, names = DisplayFormatter(), [], {}

    def show(*objects: Any) -> None:
        formats = [formatter.format(each)[0] for each in objects if each is not None]
        shown.extend(text for each in formats for kind, text in each.items() if kind.startswith("text/"))

    names["display"] = show
    with patch("IPython.display.display", show), patch("skill1.analysis.figures.style.DPI", dpi):
        for cell in nbformat.read(notebook, as_version=4).cells:
            if cell.cell_type != "code":
                continue
            body = ast.parse(cell.source).body
            last = body.pop() if isinstance(body[-1], ast.Expr) else None
            exec(compile(ast.Module(body, []), notebook.name, "exec"), names)
            if last is not None:
                show(eval(compile(ast.Expression(last.value), notebook.name, "eval"), names))
            if "parameters" in cell.metadata.get("tags", []):
                assert parameters.keys() <= names.keys()
                names.update(parameters)
    return "\n".join(shown)


def execute(experiments: Sequence[Experiment], executor: Executor, say: Callable[[str], None]) -> list[Failure]:
    """What `skill1.running.jobs.execute` leaves, by what the cells of 01_train and 02_evaluate call."""
    for experiment in experiments:
        train(experiment.config, experiment.run)
        frames = evaluate_arms(experiment.run, splits=experiment.splits, passes=experiment.passes, progress=False)
        write_summary(experiment.run, frames, experiment.run)
        (experiment.run / "figures").mkdir()
        for name in (TRAIN, EVALUATE):
            (experiment.folder / name).touch()
    return []
