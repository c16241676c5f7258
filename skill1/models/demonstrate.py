"""Demonstrations for a cold start: episodes won with the bank's block in the prompt (SkillRL's second stage).

    DIR/manifest.json       who plays what; a repeated command resumes only with the same
    DIR/part-00000.jsonl    a line per action: {"prompt", "completion", "game", "pass"}; a part per batch of episodes

The policy plays (rejection sampling), or the teacher behind `method.teacher_url`. A line's prompt is the text of the one
user message of a call; `coldstart` also reads a file of one's own with such lines. Under torchrun every process plays
parts of its own, to the same result.

Differs from the paper in: the demonstrator plays the environment, and what it won is kept, where the paper's teacher
writes demonstrations from recorded episodes; its tasks are training tasks, which reinforcement learning plays too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from skill1.config import Config, ConfigError, flatten, method_of
from skill1.distributed import join_processes
from skill1.envs.base import VectorEnvironment
from skill1.envs.make import make_environment
from skill1.generation.endpoint import EndpointPolicy
from skill1.methods.base import Method
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.methods.skillrl.teacher import endpoint_client
from skill1.play import Job, jobs, load_policy, play
from skill1.policy import Completion, Policy, Seed
from skill1.prompts import make_prompts
from skill1.records import STAGES, Rollout
from skill1.rollout import task_key
from skill1.store.atomic import replace_file
from skill1.store.run_directory import RunError

MANIFEST = "manifest.json"
By = Literal["policy", "teacher"]
# what playing does not depend on: a folder is resumed where only these differ
_UNREAD = ("train.", "credit.", "evaluation.passes", "evaluation.splits")


@dataclass(frozen=True, slots=True)
class Demonstrated:
    """What a folder of demonstrations holds."""

    episodes: int
    won: int
    lines: int


def training_jobs(config: Config, environment: VectorEnvironment, tasks: int, passes: int) -> list[Job]:
    """`tasks` training tasks, drawn with the run's seed, `passes` times. Raises ConfigError if there are fewer."""
    there = environment.tasks(config.environment.train_split)
    if tasks > len(there):
        raise ConfigError(f"tasks = {tasks}: the split {config.environment.train_split} has {len(there)}")
    chosen = np.random.default_rng(config.train.seed).permutation(len(there))[:tasks]
    return jobs([there[i] for i in sorted(chosen)], passes)


def demonstrate(
    config: Config, out: Path, tasks: int, passes: int, *, by: By = "policy", progress: bool = False
) -> Demonstrated:
    """Play, and keep what was won in the folder `out`. Parts that are there are not played again.

    Args:
        tasks: number of training tasks, drawn with the run's seed.
        passes: episodes of each.
        by: "teacher" is the model that `method.teacher_url` and `method.teacher_model` name.

    Raises:
        RunError: `out` holds something else, or nothing was won.
        ConfigError, BankError, LibraryError, DataError, EndpointError: see `Method.start`, `load_policy` and
            `endpoint_client`.
    """
    environment = make_environment(config.environment)
    todo = training_jobs(config, environment, tasks, passes)
    method = method_of(config)(config)
    method.start()
    size = config.policy.generate_batch
    parts = [todo[first : first + size] for first in range(0, len(todo), size)]
    state = join_processes(config.train.timeout)
    if state.is_main_process:
        _begin(out, config, environment, method, {"by": by, "tasks": tasks, "passes": passes, "parts": len(parts)})
    state.wait_for_everyone()
    files = [out / f"part-{number:05d}.jsonl" for number in range(len(parts))]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    state.wait_for_everyone()  # all have seen the same
    if mine := missing[state.process_index :: state.num_processes]:
        policy = load_policy(config) if by == "policy" else _teacher(config)
        player = _Remembering(policy)
        with policy if isinstance(policy, Policy) else nullcontext():  # an endpoint holds nothing between calls
            for number in tqdm(mine, unit="part", disable=not progress or not state.is_main_process):
                rollouts = play(parts[number], player, environment, method.frozen(), config)
                lines = [json.dumps(line) + "\n" for line in _won_lines(rollouts, config, player.texts)]
                replace_file(files[number], "".join(lines).encode())
                player.texts.clear()
    state.wait_for_everyone()
    kept = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
    if not kept:
        raise RunError(f"not one of {len(todo)} episodes was won: there is nothing to learn from in {out}")
    return Demonstrated(len(todo), len({(line["game"], line["pass"]) for line in kept}), len(kept))


def incomplete(folder: Path) -> str | None:
    """Why a folder's demonstrations are not all there; None if they are."""
    try:
        parts = json.loads((folder / MANIFEST).read_text())["parts"]
    except FileNotFoundError:
        return f"{folder} holds no demonstrations: make them with `skill1 demonstrate --out {folder}`, or give a file"
    there = len(list(folder.glob("part-*.jsonl")))
    return None if there == parts else f"{folder} holds {there} of {parts} parts: repeat `skill1 demonstrate` to go on"


def _teacher(config: Config) -> EndpointPolicy:
    if config.policy.prompts != "full":
        raise ConfigError(f"policy.prompts={config.policy.prompts}: a teacher reads the prompts 'full' alone")
    client = endpoint_client(SkillRLConfig.of(config), concurrent=config.policy.generate_batch)
    return EndpointPolicy(client, make_prompts(config.policy.prompts, config.environment.name, config.rollout.context))


class _Remembering:
    """A policy, and the texts that it was asked, by the names of their random streams."""

    def __init__(self, policy: Policy | EndpointPolicy) -> None:
        self._policy = policy
        self.prompts = policy.prompts
        self.texts: dict[Seed, str] = {}

    def generate(self, texts: Sequence[str], seeds: Sequence[Seed], **given: Any) -> list[Completion]:
        """See `Policy.generate`."""
        self.texts |= dict(zip(seeds, texts, strict=True))
        return self._policy.generate(texts, seeds, **given)


def _won_lines(rollouts: Sequence[Rollout], config: Config, texts: dict[Seed, str]) -> Iterator[dict[str, Any]]:
    """The actions of won episodes, without those that the environment did not take."""
    for rollout in rollouts:
        if not rollout.outcome:
            continue
        episode = (config.evaluation.seed, task_key(rollout.task), rollout.index, STAGES.index("act"))
        for number, turn in enumerate(rollout.turns_of("act")):
            if turn.well_formed and turn.admissible:
                yield {
                    "prompt": texts[(*episode, number)],
                    "completion": turn.text,
                    "game": rollout.task.game,
                    "pass": rollout.index,
                }


def _begin(out: Path, config: Config, environment: VectorEnvironment, method: Method, about: dict[str, Any]) -> None:
    """Make the folder with its manifest, or see that it is the same. Raises RunError if it is not."""
    values = {name: value for name, value in flatten(config).items() if not name.startswith(_UNREAD)}
    about |= {
        "data_hash": environment.data_hash(config.environment.train_split),
        "skills": None if method.skills is None else method.skills.state_hash(),
        "seed": config.train.seed,
        "config": values,
    }
    text = json.dumps(about, indent=1) + "\n"
    file = out / MANIFEST
    if file.exists():
        there, wanted = json.loads(file.read_text()), json.loads(text)
        if there != wanted:
            other = [name for name in wanted if there.get(name) != wanted[name] and name != "config"]
            other += [name for name in values if there["config"].get(name) != wanted["config"].get(name)]
            raise RunError(f"{out} was begun with other values of {', '.join(other)}: choose another folder")
        return
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} exists and holds no demonstrations: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    replace_file(file, text.encode())
