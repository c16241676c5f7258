"""Evaluation (method section 8): all games of a split, several passes, fixed per-game seeds, success by `won`.

The random stream of an episode is named by (evaluation seed, game, pass), so an outcome depends on neither the batch
size nor the number of processes (up to float rounding of the logits). The library is read-only here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from skill1.config import Config, ConfigError
from skill1.encoder import load_encoder
from skill1.envs.alfworld.environment import make_environment
from skill1.envs.base import VectorEnvironment
from skill1.library import FrozenLibrary, SkillLibrary
from skill1.policy import Policy, load_model
from skill1.prompts import make_prompts
from skill1.records import Rollout, Task
from skill1.rollout import SkillLoop
from skill1.runs import RunDirectory
from skill1.stats import bootstrap_mean, wilson


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to play: a task in one pass."""

    task: Task
    number: int  # of the pass, from 0


def jobs(tasks: Iterable[Task], passes: int) -> list[Job]:
    """Every task in every pass."""
    return [Job(task, number) for number in range(passes) for task in tasks]


def play(
    todo: Sequence[Job],
    policy: Policy,
    environment: VectorEnvironment,
    library: FrozenLibrary | None,
    config: Config,
    *,
    skills: Sequence[str] | None = None,
    progress: bool = False,
) -> list[Rollout]:
    """Play all jobs, `policy.generate_batch` episodes at a time; rollouts come back in the order of the jobs.

    Args:
        library: None = without skills.
        skills: strategies to inject instead, one per job; for probing.
    """
    loop = SkillLoop(
        policy,
        environment,
        library,
        config,
        temperature=config.evaluation.temperature,
        retrieval="greedy",
        distill=False,
    )
    size = config.policy.generate_batch
    rollouts: list[Rollout] = []
    with tqdm(total=len(todo), unit="episode", disable=not progress, mininterval=2.0) as bar:
        for first in range(0, len(todo), size):
            batch = todo[first : first + size]
            rollouts += loop.run(
                [job.task for job in batch],
                groups=[0] * len(batch),
                indices=[job.number for job in batch],
                seed=(config.evaluation.seed,),
                skills=None if skills is None else skills[first : first + size],
            )
            bar.update(len(batch))
    return rollouts


def outcomes(todo: Sequence[Job], rollouts: Sequence[Rollout], config: Config, step: int, library: str) -> pd.DataFrame:
    """One row per (game, pass), columns of `runs.EVALUATION_SCHEMA`."""
    return pd.DataFrame(
        {
            "variant": config.variant,
            "seed": config.train.seed,
            "step": step,
            "split": job.task.split,
            "game": job.task.game,
            "category": job.task.category,
            "pass": job.number,
            "won": bool(r.outcome),
            "score": r.score,
            "steps": r.steps,
            "invalid_actions": r.invalid_actions,
            "inadmissible_actions": r.inadmissible_actions,
            "library": library,
        }
        for job, r in zip(todo, rollouts, strict=True)
    )


def summarise(frame: pd.DataFrame) -> dict[str, Any]:
    """Success of one evaluation: rate, n, Wilson and game-bootstrap 95 % intervals, overall and per category.

    "interval" is the bootstrap over games (passes of a game are not independent); "wilson" treats every episode as
    independent and is the narrower one when games differ in difficulty.
    """

    def rate(part: pd.DataFrame) -> dict[str, Any]:
        naive = wilson(int(part["won"].sum()), len(part))
        entry = {"success": naive.value, "n": len(part), "games": part["game"].nunique(), "wilson": [naive.low, naive.high]}
        if entry["games"] > 1:
            over_games = bootstrap_mean(part["won"].astype(float), part["game"])
            entry["interval"] = [over_games.low, over_games.high]
        else:
            entry["interval"] = entry["wilson"]
        return entry

    overall = rate(frame) | {
        "passes": int(frame["pass"].nunique()),
        "score": float(frame["score"].mean()),
        "steps": float(frame["steps"].mean()),
    }
    overall["categories"] = {name: rate(part) for name, part in frame.groupby("category")}
    return overall


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
    data: str | None = None,
    engine: str | None = None,
    batch: int | None = None,
    progress: bool = True,
) -> list[Evaluation]:
    """Evaluate a checkpoint of a run and store the outcomes in the run directory.

    Args:
        library: "final" (the library of the evaluated checkpoint), "none", or "step:N" (that checkpoint's library).
        step: training step of the policy; 0 = the policy before training (empty library); None = last checkpoint.
        data, engine, batch: override environment.data, environment.engine, policy.generate_batch.

    Raises:
        RunError, ConfigError, DataError, LibraryError: no such run, checkpoint, option value, data or library.
    """
    run = RunDirectory.open(path)
    config = run.config
    config = replace(
        config,
        environment=replace(
            config.environment, data=data or config.environment.data, engine=engine or config.environment.engine
        ),
        policy=replace(config.policy, generate_batch=batch or config.policy.generate_batch),
        evaluation=replace(config.evaluation, passes=passes or config.evaluation.passes),
    )
    if step is None:
        latest = run.latest_checkpoint()
        step = latest.step if latest else 0
    if step:
        model, tokenizer = load_model(config.policy, str(run.checkpoint(step).path))
    else:
        model, tokenizer = load_model(config.policy)
    policy = Policy(
        model.eval(),
        tokenizer,
        make_prompts(config.policy.prompts, config.environment.name),
        config.policy,
        config.rollout.max_prompt_tokens,
    )
    skills, label = _library(run, config, library, step)
    environment = make_environment(config.environment)
    done = []
    for split in splits or config.evaluation.splits:
        todo = jobs(environment.tasks(split), config.evaluation.passes)
        rollouts = play(todo, policy, environment, skills, config, progress=progress)
        frame = outcomes(todo, rollouts, config, step, label)
        run.write_evaluation(f"evaluation_{label}", frame)
        done.append(Evaluation(split, step, label, frame, summarise(frame)))
    return done


def _library(run: RunDirectory, config: Config, wanted: str, step: int) -> tuple[FrozenLibrary | None, str]:
    """The library to evaluate with and its label. A library that should exist but does not is an error."""
    if wanted == "none" or not config.library.enabled:
        return None, "none"
    if wanted == "final":
        at = step
    elif wanted.startswith("step:") and wanted[5:].isdigit():
        at = int(wanted[5:])
    else:
        raise ConfigError(f"library {wanted!r}: use 'final', 'none' or 'step:N'")
    encoder = load_encoder(config.library.encoder)
    if at == 0:
        return SkillLibrary(config.library, encoder).frozen(), "step0"
    return SkillLibrary.load(run.checkpoint(at).path / "library", config.library, encoder).frozen(), f"step{at}"


def report(evaluation: Evaluation) -> dict[str, Any]:
    """The JSON line `skill1 evaluate` prints."""
    rest = {k: v for k, v in asdict(evaluation).items() if k not in ("frame", "summary")}
    return rest | evaluation.summary
