"""A tiny generated world, an untrained nano policy and configurations for them, shared by the skill loop's tests."""

from __future__ import annotations

import os
import sys
import traceback
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from skill1.config import Config, load_config, load_section, method_of_variant
from skill1.envs.alfworld.environment import AlfworldEnvironment
from skill1.envs.alfworld.generate import generate
from skill1.envs.base import Observation
from skill1.envs.make import make_environment
from skill1.methods.retroagent.equations import Reflection, Retrospect
from skill1.methods.retroagent.prompts import Reflected
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.model import make_model, nano_tokenizer
from skill1.nano.options import WarmStartConfig
from skill1.nano.warmstart import warm_start
from skill1.play import load_policy as load
from skill1.policy import Policy
from skill1.records import Lesson, Rollout, Task
from skill1.registry import find
from skill1.rollout import Episode

WORLD = dict(train=12, valid_seen=6, valid_unseen=6, homes=3, unseen_homes=2, receptacles=10, objects=8)


def make_world(folder: Path) -> Path:
    generate(folder, seed=5, **WORLD)
    return folder


def make_nano(folder: Path, *, width: int = 32, layers: int = 1, seed: int = 0) -> Path:
    tokenizer = nano_tokenizer("alfworld")
    make_model(tokenizer, width=width, layers=layers, heads=2, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_warm(folder: Path) -> Path:
    """A nano policy after seconds of warm start: it writes well-formed and ill-formed answers of every stage."""
    shape = {"width": 48, "layers": 2, "heads": 2}
    short = {
        "games": 60,
        "epochs": 3.0,
        "learning_rate": 6e-3,
        "rows_per_step": 32,
        "receptacles_high": 11,
        "held_out_games": 5,
    }
    given = {f"warm_start.{name}": value for name, value in (shape | short).items()}
    warm_start(load_section(WarmStartConfig, "warm_start", "nano", given), "alfworld", "nano", folder)
    return folder


def configure(world: Path, nano: Path, variant: str = "full", preset: str = "nano", **overrides: Any) -> Config:
    """Two groups of three, four actions, the hash encoder; `a__b` stands for `a.b`."""
    changed = {name.replace("__", "."): value for name, value in overrides.items()}
    given = settings(world, nano, variant, changed.get("method.name"))
    if preset != "nano":
        given.pop("library.similarity_floor", None)  # the preset's own is the subject
    return load_config(preset, variant, given | changed)


def settings(world: Path, nano: Path, variant: str = "full", method: str | None = None) -> dict[str, Any]:
    """The overrides of `configure`, as `--set` could say them: those that the method has fields for.

    Args:
        method: another one than the variant's.
    """
    owner = method_of_variant(variant) if method is None else find("methods", method)
    options = {field.name for field in fields(owner.Options)}
    own = {"encoder": "hash", "max_query_tokens": 8, "max_rerank_tokens": 8, "max_distill_tokens": 8,
           "max_reflect_tokens": 8}  # fmt: skip
    nano_policy = {
        "policy.prompts": "compact",
        "policy.dtype": "float32",
        "policy.gradient_checkpointing": False,
        "train.sharding": "none",
        "rollout.max_prompt_tokens": 512,
        "rollout.max_act_tokens": 4,
    } | {f"method.{name}": value for name, value in own.items() if name in options}
    library = {
        "library.encoder": "hash",
        "library.similarity_floor": None,  # an untrained policy's words have nothing in common
    }
    return nano_policy | {
        "policy.model": str(nano),
        "environment.data": str(world),
        "environment.max_steps": 4,
        **(library if owner.uses_library else {}),
        "rollout.tasks_per_step": 2,
        "rollout.group_size": 3,
        "train.steps": 4,
        "train.warmup_steps": 0,
        "train.save_every": 2,
        "train.validate_every": 2,
        "train.validation_tasks": 4,
    }


def load_policy(config: Config) -> Policy:
    return load(config)


def environment(config: Config) -> AlfworldEnvironment:
    return make_environment(config.environment)


def success(desc: str, strategy: str, instruction: str = "put a mug in shelf.") -> Rollout:
    """A won rollout without turns, judged as won, that teaches a library one lesson."""
    return Rollout(
        task=Task("alfworld", "train", "train/none/none", "Pick"), instruction=instruction, group=0, index=0, query="",
        turns=(), candidates=(), ranking=(), ranking_parsed=True, selected=None, skill="",
        skill_similarity=float("nan"), outcome=1.0, score=1.0, steps=0, lesson=Lesson(desc, strategy),
        extra=Retrospect(reflection=Reflection(True, 1, 1)),
    )  # fmt: skip


def contents(rollout: Rollout) -> tuple[Any, ...]:
    """All of a rollout in a form that `==` compares by value."""
    turns = tuple(
        (t.stage, t.prompt_ids.tolist(), t.completion_ids.tolist(), t.logprobs.tolist(), t.text, t.value, t.well_formed,
         t.admissible, t.observation)
        for t in rollout.turns
    )  # fmt: skip
    return (
        rollout.task, rollout.instruction, rollout.group, rollout.index, rollout.query, turns, rollout.candidates,
        rollout.ranking, rollout.ranking_parsed, rollout.selected, rollout.skill, repr(rollout.skill_similarity),
        rollout.outcome, rollout.score, rollout.steps, rollout.lesson, rollout.extra,
    )  # fmt: skip


def ended(rollout: Rollout, *, won: bool) -> Episode:
    """An episode of the rollout's task that ended so."""
    start = Observation("", (), rollout.instruction)
    return Episode(rollout.task, rollout.group, rollout.index, (0,), start, start, won=won, done=True)


def any_reflection(self: CompactPrompts, text: str, start: Observation) -> Reflected | None:
    """`CompactPrompts.parse_reflect` that takes most texts for a reflection: a policy that was not taught writes none."""
    number = zlib.crc32(text.encode())
    if number % 7 == 0:
        return None
    return Reflected(Reflection(bool(number & 8), number % 4, 4), Lesson(start.instruction, text.strip() or "look"))


def forked(act: Callable[[], None], output: Path | None = None) -> int:
    """Run `act` in a process of its own (without the imports' 10 s); its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if output is not None:
                file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
                os.dup2(file, 1)
                os.dup2(file, 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            torch.set_num_threads(1)  # an OpenMP pool does not survive a fork
            act()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
