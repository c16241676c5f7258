"""Demonstrations for a cold start: episodes played on training tasks, as chats to learn from (`demonstrations`).

Who plays: the policy itself (rejection sampling: what is won is kept), the teacher behind `method.teacher_url`, or the
environment's scripted expert (`expert`), whose lost episodes are kept where they were cut short on purpose. What is asked is
what the method asks of a policy: SkillRL's act prompts hold the bank's block (its second stage). Under torchrun every
process plays parts of its own, to the same result.

Differs from the paper in: the demonstrator plays the environment, and what it won is kept, where SkillRL's teacher writes
demonstrations from recorded episodes; its tasks are training tasks, which reinforcement learning plays too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from skill1.config import Config, ConfigError, flatten, method_of
from skill1.distributed import join_processes
from skill1.envs.base import VectorEnvironment
from skill1.envs.make import make_environment
from skill1.errors import RunError
from skill1.generation.endpoint import EndpointPolicy
from skill1.methods.base import Method
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.methods.skillrl.teacher import endpoint_client
from skill1.models.demonstrations import MANIFEST, Chat, part_file, read_chats, write_chats
from skill1.models.experts.playing import ExpertPlayer
from skill1.models.options import ExpertConfig
from skill1.models.recording import Recorder, play
from skill1.play import Job, jobs, load_policy
from skill1.prompts import make_prompts
from skill1.store.json_file import read_json, to_json, write_json
from skill1.store.writable import check_writable

PRIOR = "prior.json"  # what the expert counted on the training games
By = Literal["policy", "teacher", "expert"]
# what playing does not depend on: a folder is resumed where only these differ
_UNREAD = ("train.", "credit.", "evaluation.passes", "evaluation.splits")


@dataclass(frozen=True, slots=True)
class Demonstrated:
    """What a folder of demonstrations holds."""

    episodes: int  # played
    won: int
    chats: int
    calls: int  # to be learnt


def training_jobs(config: Config, environment: VectorEnvironment, tasks: int, passes: int) -> list[Job]:
    """Draw `tasks` training tasks with the run's seed, `passes` times. Raises ConfigError if there are fewer."""
    there = environment.tasks(config.environment.train_split)
    if tasks > len(there):
        raise ConfigError(f"tasks = {tasks}: the split {config.environment.train_split} has {len(there)}")
    chosen = np.random.default_rng(config.train.seed).permutation(len(there))[:tasks]
    return jobs([there[i] for i in sorted(chosen)], passes)


def demonstrate(
    config: Config,
    out: Path,
    tasks: int,
    passes: int,
    *,
    by: By = "policy",
    options: ExpertConfig | None = None,
    progress: bool = False,
) -> Demonstrated:
    """Play, and keep what is to be learnt in the folder `out`. Parts that are there are not played again.

    Args:
        tasks: number of training tasks, drawn with the run's seed.
        passes: episodes of each.
        by: "teacher" is the model that `method.teacher_url` and `method.teacher_model` name.
        options: the expert's; by default those of `ExpertConfig`.

    Raises:
        RunError: `out` holds something else, or nothing was won.
        ConfigError, BankError, LibraryError, DataError, EndpointError: see `Method.start`, `load_policy`,
            `endpoint_client` and `ExpertPlayer`.
    """
    if by == "teacher":
        _check_teacher(config)
    environment = make_environment(config.environment)
    todo = training_jobs(config, environment, tasks, passes)
    method = method_of(config)(config)
    method.start()
    options = options or ExpertConfig()
    expert = ExpertPlayer(config, environment, method, options) if by == "expert" else None
    size = config.policy.generate_batch
    parts = [todo[first : first + size] for first in range(0, len(todo), size)]
    state = join_processes(config.train.timeout)
    if state.is_main_process:
        about: dict[str, Any] = {"by": by, "tasks": tasks, "passes": passes, "parts": len(parts)}
        if expert:
            about["expert"] = asdict(options)
        _begin(out, config, environment, method, about)
        if expert:
            write_json(out / PRIOR, expert.knowledge(), indent=1)
    state.wait_for_everyone()
    files = [part_file(out, number) for number in range(len(parts))]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    state.wait_for_everyone()  # all have seen the same
    if mine := missing[state.process_index :: state.num_processes]:
        episodes, silent = sum(len(parts[number]) for number in mine), not progress or not state.is_main_process
        with (
            nullcontext(expert.play) if expert else _asking(by, config, environment, method) as played,
            tqdm(total=episodes, unit="episode", disable=silent) as bar,
        ):
            for number in mine:
                write_chats(files[number], played(parts[number]))
                bar.update(len(parts[number]))
    state.wait_for_everyone()
    chats = [chat for file in files for chat in read_chats(file)]
    if not chats:
        raise RunError(f"not one of {len(todo)} episodes was won: there is nothing to learn from in {out}")
    won = {(chat.game, chat.number) for chat in chats if chat.won}
    return Demonstrated(len(todo), len(won), len(chats), sum(call.learn for chat in chats for call in chat.calls))


@contextmanager
def _asking(
    by: By, config: Config, environment: VectorEnvironment, method: Method
) -> Iterator[Callable[[Sequence[Job]], list[Chat]]]:
    """Let the policy or the teacher play parts, of which what was won is kept."""

    def won(part: Sequence[Job]) -> list[Chat]:
        asked = Recorder(policy, config.evaluation.temperature)
        played = play(part, asked, environment, method.frozen(), config)
        return [chat for rollout, chats in played if rollout.outcome for chat in chats]

    if by == "teacher":
        policy: Any = _teacher(config)  # an endpoint holds nothing between calls
        yield won
    else:
        with load_policy(config) as policy:
            yield won


def _check_teacher(config: Config) -> None:
    """Raise ConfigError where a teacher cannot be asked."""
    if not isinstance(config.method, SkillRLConfig):
        raise ConfigError(f"method.name={config.method.name} has no teacher: demonstrate with --variant skillrl")
    if config.policy.prompts != "full":
        raise ConfigError(f"policy.prompts={config.policy.prompts}: a teacher reads the prompts 'full' alone")


def _teacher(config: Config) -> EndpointPolicy:
    client = endpoint_client(SkillRLConfig.of(config), concurrent=config.policy.generate_batch)
    return EndpointPolicy(client, make_prompts(config.policy.prompts, config.environment.name, config.rollout.context))


def _begin(out: Path, config: Config, environment: VectorEnvironment, method: Method, about: dict[str, Any]) -> None:
    """Make the folder with its manifest, or see that it is the same. Raises RunError if it is not."""
    values = {name: value for name, value in flatten(config).items() if not name.startswith(_UNREAD)}
    about |= {
        "data_hash": environment.data_hash(config.environment.train_split),
        "skills": None if method.skills is None else method.skills.state_hash(),
        "seed": config.train.seed,
        "config": values,
    }
    file = out / MANIFEST
    if file.exists():
        there, wanted = read_json(file), json.loads(to_json(about))
        if there != wanted:
            other = [name for name in wanted if there.get(name) != wanted[name] and name != "config"]
            other += [name for name in values if there["config"].get(name) != wanted["config"].get(name)]
            raise RunError(f"{out} was begun with other values of {', '.join(other)}: choose another folder")
        return
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} exists and holds no demonstrations: choose another folder")
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, about, indent=1)
