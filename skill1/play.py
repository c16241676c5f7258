"""Playing tasks with a policy that does not learn: evaluation, validation, demonstrations.

The random stream of an episode is named by (evaluation seed, game, pass), so an outcome depends on neither the batch
size nor the number of processes (up to float rounding of the logits).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate.utils import gather_object
from tqdm import tqdm

from skill1.config import Config, ConfigError, method_of
from skill1.distributed import join_processes
from skill1.envs.base import VectorEnvironment
from skill1.policy import Policy, load_model
from skill1.prompts import make_prompts
from skill1.records import Rollout, Task
from skill1.rollout import Ask, RolloutLoop, Stages


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to play: a task in one pass."""

    task: Task
    number: int  # of the pass, from 0


def jobs(tasks: Iterable[Task], passes: int) -> list[Job]:
    """List every task in every pass."""
    return [Job(task, number) for number in range(passes) for task in tasks]


def missing(todo: Sequence[Job], played: pd.DataFrame) -> list[Job]:
    """List the jobs that outcomes, or their columns game and pass, lack."""
    there = set(zip(played["game"], played["pass"], strict=True))
    return [job for job in todo if (job.task.game, job.number) not in there]


def play(
    todo: Sequence[Job],
    policy: Any,
    environment: VectorEnvironment,
    stages: Stages,
    config: Config,
    *,
    progress: bool = False,
) -> list[Rollout]:
    """Play all jobs, `policy.generate_batch` episodes at a time; rollouts come back in the order of the jobs.

    Args:
        policy: what answers (`policy.Policy`, or an endpoint's).
        stages: a method's frozen view; `Stages()` acts without skills.
    """
    loop = RolloutLoop(Ask(policy, config.evaluation.temperature), environment, stages, config)
    size = config.policy.generate_batch
    rollouts: list[Rollout] = []
    with tqdm(total=len(todo), unit="episode", disable=not progress, mininterval=2.0) as bar:

        def show(turn: int, live: int) -> None:
            """Count an episode that is not over as the share of its actions that were played."""
            left = live * (1 - turn / config.environment.max_steps)
            bar.update(max(0, int(len(rollouts) + len(batch) - left) - bar.n))

        for first in range(0, len(todo), size):
            batch = todo[first : first + size]
            rollouts += loop.run(
                [job.task for job in batch],
                groups=[0] * len(batch),
                indices=[job.number for job in batch],
                seed=(config.evaluation.seed,),
                progress=show,
            )
            bar.update(len(rollouts) - bar.n)
    return rollouts


def play_together(todo: Sequence[Job], *given: Any, progress: bool = False) -> list[Rollout]:
    """Share `play` between all processes; every one of them gets all rollouts, in the order of the jobs.

    Args:
        given: policy, environment, stages and configuration, as for `play`.
    """
    state = join_processes()
    mine = range(state.process_index, len(todo), state.num_processes)
    rollouts = play([todo[i] for i in mine], *given, progress=progress and state.is_main_process)
    played = dict(gather_object(list(zip(mine, rollouts, strict=True))))
    return [played[i] for i in range(len(todo))]


def outcomes(todo: Sequence[Job], rollouts: Sequence[Rollout], config: Config, step: int, library: str) -> pd.DataFrame:
    """Tabulate outcomes: one row per (game, pass), columns of `outcomes.EVALUATION_SCHEMA`."""
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


def load_policy(config: Config, model: Path | None = None) -> Policy:
    """Load a policy ready to play, on this process's GPU if there is one.

    Args:
        model: a checkpoint's folder, `policy.model` by default.

    Raises:
        ConfigError: see `policy.load_model` and `check_policy`.
    """
    loaded, tokenizer = load_model(config.policy, model)
    check_policy(config, loaded, tokenizer)
    return make_policy(config, loaded.eval().to(join_processes().device), tokenizer)


def check_policy(config: Config, model: Any, tokenizer: Any) -> None:
    """Check that a model can be asked as the run asks.

    Raises:
        ConfigError: it cannot read the prompts, or a conversation as long as the run allows is longer than it reads;
            or vLLM is to write and cannot, see `check_vllm`.
        ServerError: see `check_vllm`.
    """
    if config.policy.vllm:
        from skill1.generation.vllm_server import check_vllm  # TRL takes a second to import

        check_vllm(config.policy)
    prompts = make_prompts(config.policy.prompts, config.environment.name, config.rollout.context)
    prompts.check(tokenizer)
    if config.rollout.context == "window":
        return
    longest = config.rollout.max_prompt_tokens + max(method_of(config).trained_stages(config).values())
    reads = getattr(model.config, "max_position_embeddings", longest)
    if longest > reads:
        raise ConfigError(
            f"rollout.max_prompt_tokens={config.rollout.max_prompt_tokens}: with an answer a conversation may have {longest} "
            f"tokens, and {config.policy.model} reads {reads}: lower it"
        )


def make_policy(config: Config, model: Any, tokenizer: Any) -> Policy:
    """Wrap loaded weights into a policy that speaks the run's prompts."""
    prompts = make_prompts(config.policy.prompts, config.environment.name, config.rollout.context)
    return Policy(model, tokenizer, prompts, config.policy, config.rollout.max_prompt_tokens)
