"""Evaluation (method section 8): all games of a split, several passes, fixed per-game seeds, success by `won`.

The random stream of an episode is named by (evaluation seed, game, pass), so an outcome depends on neither the batch
size nor the number of processes (up to float rounding of the logits). The library is read-only here.

Under torchrun every process plays its share with the whole policy, on a GPU of its own; the first one writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from skill1.config import Config, ConfigError
from skill1.encoder import load_encoder
from skill1.envs.base import VectorEnvironment
from skill1.envs.make import make_environment
from skill1.generation.endpoint import EndpointPolicy
from skill1.library import FrozenLibrary, SkillLibrary
from skill1.methods.skillrl.growth import stored_bank
from skill1.methods.skillrl.retrieval import FrozenBank
from skill1.policy import Policy, load_model
from skill1.processes import join_processes
from skill1.prompts import make_prompts
from skill1.records import Rollout, Task
from skill1.rollout import SkillLoop
from skill1.stats import success_rate, wilson
from skill1.store.run_directory import RunDirectory


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
    policy: Policy | EndpointPolicy,
    environment: VectorEnvironment,
    library: FrozenLibrary | FrozenBank | None,
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


def play_together(todo: Sequence[Job], *given: Any, progress: bool = False) -> list[Rollout]:
    """`play`, shared by all processes; every one of them gets all rollouts, in the order of the jobs.

    Args:
        given: policy, environment, library and configuration, as for `play`.
    """
    state = join_processes()
    mine = range(state.process_index, len(todo), state.num_processes)
    rollouts = play([todo[i] for i in mine], *given, progress=progress and state.is_main_process)
    played = dict(gather_object(list(zip(mine, rollouts, strict=True))))
    return [played[i] for i in range(len(todo))]


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

    "interval" is the one over games (`stats.success_rate`; passes of a game are not independent); "wilson" treats every
    episode as independent and is the narrower one when games differ in difficulty.
    """

    def rate(part: pd.DataFrame) -> dict[str, Any]:
        naive = wilson(int(part["won"].sum()), len(part))
        over_games = success_rate(part["won"], part["game"])
        return {
            "success": naive.value,
            "n": len(part),
            "games": over_games.n,
            "wilson": [naive.low, naive.high],
            "interval": [over_games.low, over_games.high],
        }

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
    reuse: bool = False,
) -> list[Evaluation]:
    """Evaluate a checkpoint of a run and store the outcomes in the run directory.

    Args:
        library: "final" (the library of the evaluated checkpoint), "none", or "step:N" (that checkpoint's library).
        step: training step of the policy; 0 = the policy before training (empty library); None = last checkpoint.
        data, engine, batch: override environment.data, environment.engine, policy.generate_batch.
        reuse: take the outcomes stored by an earlier call for the same step, library, split, games and passes instead
            of playing them again. Stored outcomes do not say on which data and engine they were played, so `reuse`
            cannot be combined with overriding these.

    Raises:
        RunError, ConfigError, DataError, LibraryError: no such run, checkpoint, option value, data or library.
    """
    state = join_processes()
    if reuse and (data or engine):
        raise ConfigError("stored outcomes cannot be reused with another environment.data or environment.engine")
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
    label, at = _library_step(config, library, step)
    kind = f"evaluation_{label}"
    environment = make_environment(config.environment)
    todo = {
        split: jobs(environment.tasks(split), config.evaluation.passes) for split in splits or config.evaluation.splits
    }
    stored = run.evaluations(kind) if reuse else pd.DataFrame({"step": [], "split": []})
    frames = {split: stored[(stored["step"] == step) & (stored["split"] == split)] for split in todo}
    missing = [split for split in todo if not _holds(frames[split], todo[split])]
    if missing:
        skills = _library(run, config, at)
        with _policy(run, config, step) as policy:
            for split in missing:
                rollouts = play_together(todo[split], policy, environment, skills, config, progress=progress)
                frames[split] = outcomes(todo[split], rollouts, config, step, label)
                if state.is_main_process:
                    run.write_evaluation(kind, frames[split])
    return [Evaluation(split, step, label, frame, summarise(frame)) for split, frame in frames.items()]


def _holds(frame: pd.DataFrame, todo: Sequence[Job]) -> bool:
    """`frame` holds the outcome of every job and nothing else."""
    if frame.empty:
        return False
    return sorted(zip(frame["game"], frame["pass"], strict=False)) == sorted(
        (job.task.game, job.number) for job in todo
    )


def load_policy(config: Config, model: str | None = None) -> Policy:
    """A policy ready to be evaluated, on this process's GPU if there is one.

    Args:
        model: folder or hub id, `policy.model` by default.

    Raises:
        ConfigError: it does not load, or has no chat template for the prompts to be wrapped in.
    """
    loaded, tokenizer = load_model(config.policy, model)
    if config.policy.prompts == "full" and tokenizer.chat_template is None:
        raise ConfigError(
            f"policy.model: {model or config.policy.model!r} has no chat template, which policy.prompts=full needs: use "
            "an instruction-tuned model"
        )
    return Policy(
        loaded.eval().to(join_processes().device),
        tokenizer,
        make_prompts(config.policy.prompts, config.environment.name),
        config.policy,
        config.rollout.max_prompt_tokens,
    )


def _policy(run: RunDirectory, config: Config, step: int) -> Policy:
    """The policy after training step `step`."""
    return load_policy(config, str(run.checkpoint(step).path) if step else None)


def _library_step(config: Config, wanted: str, step: int) -> tuple[str, int | None]:
    """Label of the library to evaluate with, and the step whose checkpoint holds it (None: no library)."""
    if wanted == "none" or not config.skilled:
        return "none", None
    if wanted == "final":
        return f"step{step}", step
    if wanted.startswith("step:") and wanted[5:].isdigit():
        return f"step{int(wanted[5:])}", int(wanted[5:])
    raise ConfigError(f"library {wanted!r}: use 'final', 'none' or 'step:N'")


def _library(run: RunDirectory, config: Config, at: int | None) -> FrozenLibrary | FrozenBank | None:
    """The library or bank after step `at`; before training a library is empty. One that should exist and does not: error."""
    if at is None:
        return None
    encoder = load_encoder(config.library.encoder)
    if config.bank.enabled:
        return stored_bank(run, encoder, at)
    if at == 0:
        return SkillLibrary(config.library, encoder).frozen()
    return SkillLibrary.load(run.checkpoint(at).path / "library", config.library, encoder).frozen()


def report(evaluation: Evaluation) -> dict[str, Any]:
    """The JSON line `skill1 evaluate` prints."""
    rest = {k: v for k, v in asdict(evaluation).items() if k not in ("frame", "summary")}
    return rest | evaluation.summary
