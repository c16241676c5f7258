"""Whole runs with one chat per rollout: the same for any batch and number of processes, resumed bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed_train import easy_environment, run, run_two
from safetensors.torch import load_file
from tiny import CHATML, byte_tokenizer, tiny_model

from skill1.config import Config, ConfigError, load_config, method_of
from skill1.play import make_policy
from skill1.policy import load_model
from skill1.records import Rollout
from skill1.rollout import Ask, RolloutLoop
from skill1.store.run_directory import RunDirectory
from skill1.train import train

SKILLS = Path(__file__).parents[1] / "examples" / "skills.jsonl"


@pytest.fixture(scope="module")
def chatty(tmp_path_factory) -> Path:
    """A chat model of bytes, which writes what chance has it write."""
    folder = tmp_path_factory.mktemp("chatty")
    tokenizer = byte_tokenizer(CHATML)
    tiny_model(vocabulary=len(tokenizer), context=8192).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def configure(world: Path, chatty: Path, variant: str = "full", **more: Any) -> Config:
    given = {
        "policy.model": str(chatty),
        "policy.dtype": "float32",
        "policy.gradient_checkpointing": False,
        "environment.data": str(world),
        "environment.max_steps": 4,
        "rollout.context": "conversation",
        "rollout.tasks_per_step": 2,
        "rollout.group_size": 3,
        "rollout.max_prompt_tokens": 7000,
        "rollout.max_act_tokens": 6,
        "train.steps": 2,
        "train.kl": 0.05,
        "train.learning_rate": 1e-5,
        "train.rows_per_update": 12,
        "train.sharding": "none",
        "train.validate_every": 0,
        "train.save_every": 1,
    }
    if variant == "full":
        given |= {f"method.max_{stage}_tokens": 9 for stage in ("query", "rerank", "distill")}
        given |= {"library.encoder": "hash", "library.start": str(SKILLS)}
    return load_config("paper", variant, given | {name.replace("__", "."): value for name, value in more.items()})


def play(config: Config, together: int | None = None) -> list[Rollout]:
    """Two groups of three, so many episodes of it at a time."""
    environment = easy_environment(config.environment)
    tasks = [task for task in environment.tasks("train")[:2] for _ in range(3)]
    policy = make_policy(config, *load_model(config.policy))
    method = method_of(config)(config)
    method.start()
    loop = RolloutLoop(Ask(policy, 1.0), environment, method, config)
    size = together or len(tasks)
    groups, indices = [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]
    with policy:
        return [
            r
            for first in range(0, len(tasks), size)
            for r in loop.run(tasks[first:][:size], groups[first:][:size], indices[first:][:size], (0, 0))
        ]


def said(rollouts: list[Rollout]) -> list[Any]:
    return [
        (r.group, r.index, r.outcome, r.cut, r.ranking, r.selected, r.lesson,
         [(t.stage, t.continues, t.prompt_ids.tolist(), t.completion_ids.tolist()) for t in r.turns])
        for r in rollouts
    ]  # fmt: skip


@pytest.mark.slow
def test_a_rollout_is_one_chat_whatever_runs_beside_it(world, chatty):
    config = configure(world, chatty)
    together = play(config)
    assert said(play(config, together=1)) == said(together)
    assert said(play(configure(world, chatty, policy__generate_batch=4, policy__cache_tokens=500))) == said(together)
    tokenizer = byte_tokenizer(CHATML)
    for r in together:
        assert [t.continues for t in r.turns] == [False] + [True] * (len(r.turns) - 1)
        assert [t.stage for t in r.turns][:3] == ["query", "rerank", "act"] and r.turns[-1].stage == "distill"
        text = tokenizer.decode([i for t in r.turns for i in (*t.prompt_ids, *t.completion_ids)])
        assert text.count(f"Task: {r.instruction}") == 1 and text.count("<|im_start|>system") == 1
        assert text.count(r.skill.strip()) == 1
        assert text.count("<|im_start|>assistant\n") == len(r.turns) == text.count("<|im_start|>user\n")


def test_a_conversation_that_grows_too_long_ends_its_episode_as_lost(world, chatty):
    whole = play(configure(world, chatty))
    limit = min(sum(len(t.prompt_ids) + len(t.completion_ids) for t in r.turns[:3]) for r in whole)
    config = configure(world, chatty, rollout__max_prompt_tokens=limit)
    short = play(config)
    assert not any(r.cut for r in whole) and any(r.cut for r in short)
    for r in short:
        assert not (r.cut and r.outcome) and r.turns[-1].stage == "distill"
        assert sum(len(t.prompt_ids) + len(t.completion_ids) for t in r.turns[:-2]) <= limit
    assert method_of(config).metrics(short, config)["conversation/cut"] == np.mean([r.cut for r in short])


def test_a_run_whose_conversations_the_model_cannot_read_is_refused(world, chatty, tmp_path):
    with pytest.raises(ConfigError, match="a conversation may have 8199 tokens, and .* reads 8192: lower it"):
        train(configure(world, chatty, rollout__max_prompt_tokens=8190), tmp_path / "run")
    with pytest.raises(ConfigError, match="conversation"):
        train(configure(world, chatty, policy__prompts="compact"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["full", "gigpo"])
def test_two_processes_and_a_resumed_run_do_the_same(world, chatty, tmp_path, variant):
    config = configure(world, chatty, variant=variant)
    assert run(config, tmp_path / "one") == 0
    shutil.copytree(tmp_path / "one", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-2")
    assert run(config, tmp_path / "again", resume=True) == 0
    assert run_two(config, tmp_path / "two") == 0
    one, again, two = (RunDirectory.open(tmp_path / name) for name in ("one", "again", "two"))
    for step in (1, 2):
        rollouts = one.read_rollouts(step)
        assert any(r.outcome for r in rollouts) and not all(r.outcome for r in rollouts)
        assert said(again.read_rollouts(step)) == said(rollouts) == said(two.read_rollouts(step))
    weights = [load_file(r.path / "checkpoint-2" / "model.safetensors") for r in (one, again, two)]
    start = load_file(chatty / "model.safetensors")
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in start)
    assert max(float((weights[0][name] - weights[2][name]).abs().max()) for name in start) < 1e-6
    assert max(float((weights[0][name] - start[name]).abs().max()) for name in start) > 1e-6
    metrics = one.metrics()
    assert (metrics["tokens/passed"] < metrics["tokens/prompt"] + metrics["tokens/generated"] + 1).all()
