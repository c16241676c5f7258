"""Evaluation of a run: all games of a split, several passes, fixed per-game seeds, success by `won`; nothing is learnt.

Under torchrun every process plays its share with the whole policy, on a GPU of its own; the first one writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from skill1.config import Config, method_of, override
from skill1.distributed import join_processes
from skill1.envs.make import make_environment
from skill1.methods.base import Method
from skill1.play import jobs, load_policy, missing, outcomes, play_together
from skill1.policy import Policy
from skill1.registry import ConfigError, listed
from skill1.rollout import Stages
from skill1.stats import summarise
from skill1.store.run_directory import RunDirectory
from skill1.store.writable import check_writable


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Outcomes of one split with one library, and their summary."""

    split: str
    step: int
    library: str
    frame: pd.DataFrame
    summary: dict[str, Any]


def evaluate_run(
    path: Path,
    *,
    splits: Sequence[str] | None = None,
    passes: int | None = None,
    library: str = "final",
    step: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    batch: int | None = None,
    progress: bool = True,
    reuse: bool = False,
) -> list[Evaluation]:
    """Evaluate a checkpoint of a run and store the outcomes in the run directory.

    Args:
        library: "final" (the library of the evaluated checkpoint), "none", "step:N" (that checkpoint's library), or the
            path of others (`Method.load_skills`).
        step: training step of the policy; 0 = the policy before training (empty library); None = last checkpoint.
        overrides: where files and folders are now, by dotted names: they must hold what they held.
        batch: episodes at a time, in the place of policy.generate_batch.
        reuse: take the outcomes that an earlier call stored for the same step, library, split and data instead of playing
            them again; passes that it did not play are added.

    Raises:
        RunError, ConfigError, DataError, LibraryError: no such run, checkpoint, option value, data or library.
    """
    state = join_processes()
    run = RunDirectory.open(path)
    config = override(run.placed(overrides or {}), {"policy.generate_batch": batch, "evaluation.passes": passes})
    if step is None:
        latest = run.latest_checkpoint()
        step = latest.step if latest else 0
    label, skills = _skills(config, library, step)
    kind = f"evaluation_{label}"
    environment = make_environment(config.environment)
    if config.environment.data != run.config.environment.data:
        run.check_data(environment.data_hash(config.environment.train_split))
    todo = {
        split: jobs(environment.tasks(split), config.evaluation.passes)
        for split in listed(splits) or config.evaluation.splits
    }
    hashes = {split: environment.data_hash(split) for split in todo}
    frames = {split: _stored(run, kind, step, split, hashes[split]).iloc[: None if reuse else 0] for split in todo}
    lacking = {split: rest for split, wanted in todo.items() if (rest := missing(wanted, frames[split]))}
    if lacking:
        check_writable(run.evaluations_dir)
        stages = _stages(run, config, skills)
        with _policy(run, config, step) as policy:
            for split, rest in lacking.items():
                rollouts = play_together(rest, policy, environment, stages, config, progress=progress)
                fresh = outcomes(rest, rollouts, config, step, label)
                frames[split] = pd.concat([frames[split], fresh], ignore_index=True)
                if state.is_main_process:
                    run.write_evaluation(kind, frames[split], hashes[split])
    asked = {split: frame[frame["pass"] < config.evaluation.passes] for split, frame in frames.items()}
    return [Evaluation(split, step, label, frame, summarise(frame)) for split, frame in asked.items()]


def _stored(run: RunDirectory, kind: str, step: int, split: str, data_hash: str) -> pd.DataFrame:
    """The outcomes of a step and split that were played on this data."""
    frame = run.evaluations(kind, data_hash)
    return frame[(frame["step"] == step) & (frame["split"] == split)]


def _policy(run: RunDirectory, config: Config, step: int) -> Policy:
    """The policy after training step `step`."""
    return load_policy(config, run.weights(config, step))


def _skills(config: Config, wanted: str, step: int) -> tuple[str, int | Method | None]:
    """Label of the skills to evaluate with, and the step whose checkpoint holds them, or the method with those given."""
    method = method_of(config)
    stored = re.fullmatch(r"step:(\d+)", wanted)
    if wanted == "none" or (not method.keeps_skills and (stored or wanted == "final")):
        return "none", None
    if stored or wanted == "final":
        at = int(stored[1]) if stored else step
        return f"step{at}", at
    if not Path(wanted).exists():
        raise ConfigError(f"library {wanted!r}: use 'final', 'none' or 'step:N', or a path of skills")
    if not method.keeps_skills:
        raise ConfigError(
            f"the method {config.method.name} keeps no skills, but a library is given ({wanted}): leave it out"
        )
    given = method(config)
    given.load_skills(Path(wanted))
    return f"given-{given.skills.state_hash()[:12]}", given


def _stages(run: RunDirectory, config: Config, skills: int | Method | None) -> Stages:
    """The method with its skills, frozen; skills that should be there and are not: error."""
    if skills is None:
        return Stages()
    if isinstance(skills, Method):
        return skills.frozen()
    method = method_of(config)(config)
    if skills == 0:
        method.load_initial(run.library_dir)
    else:
        method.load_skills(run.checkpoint(skills).path / "library")
    return method.frozen()


def report(evaluation: Evaluation) -> dict[str, Any]:
    """Return what `skill1 evaluate` prints as a JSON line."""
    rest = {k: v for k, v in asdict(evaluation).items() if k not in ("frame", "summary")}
    return rest | evaluation.summary
