"""The evaluations that say what training and the library contribute: a run before, after, and with its skills withheld."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from skill1.analysis.comparison import BEFORE, FIRST_BANK, WITH_LIBRARY, WITHHELD, WITHOUT
from skill1.config import method_of
from skill1.evaluate import evaluate_run
from skill1.running.launch import launch_torchrun
from skill1.store.run_directory import RunDirectory, RunError


def evaluate_arms(
    path: Path,
    *,
    splits: Sequence[str] | None = None,
    passes: int | None = None,
    baseline: bool = True,
    nproc: int = 1,
    progress: bool = True,
) -> dict[str, pd.DataFrame]:
    """Evaluate a run before training, after it, and after it with the library withheld; stored outcomes are reused.

    Args:
        splits, passes: the run's own by default.
        baseline: also evaluate step 0.
        nproc: processes that play what is not stored (`skill1 evaluate --nproc`).

    Returns:
        Label -> outcomes of all splits (columns of `runs.EVALUATION_SCHEMA`), in the order of drawing.

    Raises:
        RunError: the run has no complete checkpoint: there is no "after".
        LaunchError: one of several processes failed.
        Otherwise see `evaluate.evaluate_run`.
    """
    run = RunDirectory.open(path)
    if run.latest_checkpoint() is None:
        raise RunError(
            f"{path} has no complete checkpoint to evaluate: train it first (a run saves every train.save_every steps)"
        )
    before: dict[str, Any] = {"step": 0}
    method = method_of(run.config)
    if method.starts_with_skills(run.config):
        before["library"] = "none"  # one untrained policy for all variants, also where training starts with skills
    arms = {BEFORE: before} if baseline else {}
    if method.keeps_skills:
        arms |= {WITH_LIBRARY: {}, WITHHELD: {"library": "none"}}
        if method.starts_with_skills(run.config):
            arms |= {FIRST_BANK: {"library": "step:0"}}
    else:
        arms |= {WITHOUT: {}}
    frames = {}
    for label, choice in arms.items():
        if nproc > 1:
            given = [("--split", split) for split in splits or ()] + [("--passes", passes)] * (passes is not None)
            given += [(f"--{name}", value) for name, value in choice.items()]
            words = ["evaluate", "--out", path, "--reuse", *(word for pair in given for word in pair)]
            launch_torchrun([str(word) for word in words], nproc)
        done = evaluate_run(path, splits=splits, passes=passes, progress=progress, reuse=True, **choice)
        frames[label] = pd.concat([evaluation.frame for evaluation in done], ignore_index=True)
    return frames
