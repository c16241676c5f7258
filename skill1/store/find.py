"""The run directories and the evaluations of other models in a folder of results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from skill1.errors import UserError
from skill1.store.evaluation_folder import EvaluationFolder, is_evaluation
from skill1.store.run_directory import RunDirectory


def find_runs(folder: Path) -> list[RunDirectory]:
    """Open every run directory in `folder`, at any depth, the one that was worked on last first.

    Runs that this version cannot read are left out: nobody asked for them by name.
    """
    return sorted(_readable(folder), key=lambda run: (_started(run), str(run.path)), reverse=True)


def find_evaluations(folder: Path) -> list[EvaluationFolder]:
    """Open every evaluation of a model that needed no run in `folder`, at any depth, by path; unreadable ones are left out."""
    found = []
    for place, inside, _ in os.walk(folder):
        inside.sort()
        if is_evaluation(Path(place)):
            with suppress(UserError):
                found.append(EvaluationFolder.open(Path(place)))
    return found


def _readable(folder: Path) -> Iterator[RunDirectory]:
    for place, inside, files in os.walk(folder):
        if {"config.json", "manifest.json"} <= set(files):
            inside.clear()  # a run holds no other
            try:
                run = RunDirectory.open(Path(place))
                _started(run)
            except (UserError, ValueError, LookupError):
                continue
            yield run


def _started(run: RunDirectory) -> str:
    return run.manifest()["sessions"][-1]["started"]
