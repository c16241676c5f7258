"""What training and the library contribute: evaluations of a run before, after, and with its skills withheld."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from skill1.analysis import variants
from skill1.analysis.comparison import BEFORE, FIRST_BANK, WITH_LIBRARY, WITHHELD, WITHOUT
from skill1.config import Config, method_of
from skill1.errors import RunError, UserError
from skill1.registry import listed
from skill1.running.launch import launch_torchrun
from skill1.store.run_directory import RunDirectory


def arms(config: Config, baseline: bool = True) -> dict[str, dict[str, Any]]:
    """List the evaluations of a run in the order of drawing: label -> options of `evaluate_run`."""
    method = method_of(config)
    starts_with_skills = method.starts_with_skills(config)
    # one untrained policy for all variants, also where training starts with skills
    before = {BEFORE: {"step": 0, "library": "none"} if starts_with_skills else {"step": 0}} if baseline else {}
    if not method.keeps_skills:
        return before | {WITHOUT: {}}
    first = {FIRST_BANK: {"library": "step:0"}} if starts_with_skills else {}
    return before | {WITH_LIBRARY: {}, WITHHELD: {"library": "none"}} | first


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
        nproc: processes that share the games, as those of `skill1 evaluate --nproc` do.

    Returns:
        Label -> outcomes of all splits (columns of `outcomes.EVALUATION_SCHEMA`), in the order of drawing.

    A run that was kept without its weights gives the outcomes that it stores, whatever is asked for, and says so.

    Raises:
        RunError: the run has no complete checkpoint, and stores no outcomes: there is no "after".
        LaunchError: one of several processes failed.
        Otherwise see `evaluate.evaluate_run`.
    """
    from skill1.evaluate import evaluate_run  # not at the top: a sweep asks for `arms` alone and need not load torch

    run = RunDirectory.open(path)
    if run.latest_checkpoint() is None:
        if not (stored := _stored(run)):
            raise RunError(
                f"{path} has no complete checkpoint to evaluate: train it first (a run saves every train.save_every "
                "steps)"
            )
        print(f"{path} was kept without its weights: shown are the outcomes that it stores")
        return stored
    if nproc > 1:  # these play; what they store is read below
        given = {"path": str(path), "splits": list(listed(splits or ())), "passes": passes, "baseline": baseline}
        launch_torchrun([json.dumps(given)], nproc, module="skill1.running.evaluation")
    frames = {}
    for label, choice in arms(run.config, baseline).items():
        done = evaluate_run(path, splits=splits, passes=passes, progress=progress, reuse=True, **choice)
        frames[label] = pd.concat([evaluation.frame for evaluation in done], ignore_index=True)
    return frames


def with_result_of(path: Path, frames: Mapping[str, pd.DataFrame], **asked: Any) -> dict[str, pd.DataFrame]:
    """Add another run's result after training, with its library if it has one, to the evaluations of a run.

    Args:
        frames: of `evaluate_arms`.
        asked: splits, passes and nproc of `evaluate_arms`.

    Raises:
        RunError: it played other games, or a run of its variant is there already; otherwise see `evaluate_arms`.
    """
    label = f"after, {variants.label(RunDirectory.open(path).config.variant)}"
    found = evaluate_arms(path, baseline=False, **asked)
    frame = found.get(WITH_LIBRARY, found.get(WITHOUT))
    if frame is None:
        raise RunError(f"{path} has no evaluation after training: make one with `skill1 evaluate --out {path}`")
    if label in frames:
        raise RunError(f"{path} is the second run of its variant: name one run a variant")
    games = [set(zip(one["split"], one["game"], strict=True)) for one in (frame, *frames.values())]
    if any(games[0] != others for others in games[1:]):
        raise RunError(f"{path} played other games than the run that it is to stand beside: evaluate both on the same")
    return {**frames, label: frame}


def _stored(run: RunDirectory) -> dict[str, pd.DataFrame]:
    """The outcomes of those arms that were played, at the last step that was evaluated."""
    outcomes = run.evaluations("evaluation_*")
    found = {}
    for label, choice in arms(run.config).items():
        step = choice.get("step", outcomes["step"].max())
        library = choice.get("library", f"step:{step}" if method_of(run.config).keeps_skills else "none").replace(
            ":", ""
        )
        played = outcomes[outcomes["step"] == step]
        if step == 0 and library not in set(played["library"]):
            library = "none"  # nothing has been learnt yet: it is the same
        frame = played[played["library"] == library]
        if not frame.empty:
            found[label] = frame.reset_index(drop=True)
    return found


def main(text: str) -> None:
    """Evaluate as one of several processes; `text` holds the arguments of `evaluate_arms` as JSON."""
    given = json.loads(text)
    try:
        evaluate_arms(Path(given.pop("path")), **given)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
