"""A policy of rules in ALFWorld's full prompts, and how episodes are played with it or another one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nano_runs import environment, success

from skill1.config import Config, load_config
from skill1.envs.alfworld.spec import ALFWORLD
from skill1.generation.calls import Completion
from skill1.methods.skill1 import Skill1
from skill1.prompts.full import FullPrompts
from skill1.records import Rollout
from skill1.rollout import Ask, RolloutLoop, Stages

LESSONS = [("look for a mug", "mugs are in shelf 1"), ("look for an apple", "apples are in fridge 1"),
           ("put things away", "open what is closed"), ("examine a thing", "take it to the lamp")]  # fmt: skip
PROMPTS = FullPrompts(ALFWORLD.words)


class Scripted:
    """Answers each full prompt by rule and keeps what it was asked; tokens are the characters."""

    def __init__(self, walkthroughs: dict[str, list[str]], rank: str = "<rank>2,1</rank>") -> None:
        self.prompts = PROMPTS
        self.rank = rank
        self.walkthroughs = walkthroughs  # instruction -> commands
        self.calls: list[tuple[list[str], list[tuple[int, ...]], float, int]] = []

    def answer(self, text: str) -> str:
        if "between <query>" in text:
            return "<query>look for a mug</query>"
        if "between <rank>" in text:
            return self.rank
        if "JSON" in text:
            return json.dumps({"action_lesson": "did it well", "description_head": "whenever it is asked"})
        task = text.partition("Task: ")[2].partition("\n")[0]
        steps = int(text.partition("Actions taken so far: ")[2].partition(".")[0])
        commands = self.walkthroughs[task]
        return f"<action>{commands[steps]}</action>" if steps < len(commands) else "nothing left"

    def generate(self, texts, seeds, *, temperature, max_new_tokens):
        self.calls.append((list(texts), list(seeds), temperature, max_new_tokens))
        out = []
        for text, seed in zip(texts, seeds, strict=True):
            answer = self.answer(text)
            ids = np.frombuffer(answer.encode(), np.uint8).astype(np.int32)
            prompt = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
            out.append(Completion(prompt, ids, np.full(len(ids), -sum(seed), np.float32), answer))
        return out


def paper(world: Path, **overrides: Any) -> Config:
    """The paper's configuration in a generated world; `a__b` stands for `a.b`."""
    changed = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_config("paper", overrides={"environment.data": str(world), "library.encoder": "hash"} | changed)


def walker(config: Config) -> Scripted:
    """Wins the first train game and fails the second."""
    env = environment(config)
    first, second = env.tasks("train")[:2]
    starts = env.reset([first, second])
    assert starts[0].instruction != starts[1].instruction
    walk = env.games.game(first.game).walkthrough
    return Scripted({starts[0].instruction: list(walk), starts[1].instruction: ["fly away", "look"]})


def taught(config: Config, count: int) -> Skill1:
    """Skill1 with the first `count` lessons in its library."""
    method = Skill1(config)
    method.skills.learn([success(*lesson) for lesson in LESSONS[:count]], 1)
    return method


def loop(config: Config, policy: Any, stages: Stages, temperature: float = 1.0) -> RolloutLoop:
    return RolloutLoop(Ask(policy, temperature), environment(config), stages, config)


def play(
    config: Config,
    policy: Any,
    stages: Stages,
    groups: Sequence[int] = (0, 1),
    size: int = 1,
    seed: tuple[int, ...] = (0, 0),
    temperature: float = 1.0,
) -> list[Rollout]:
    """Play groups of the first train games, one game a group."""
    tasks = environment(config).tasks("train")
    named = [(g, i) for g in groups for i in range(size)]
    return loop(config, policy, stages, temperature).run(
        [tasks[g] for g, _ in named], [g for g, _ in named], [i for _, i in named], seed
    )


def shown(turn: Any) -> str:
    """The prompt of a scripted policy's turn."""
    return bytes(turn.prompt_ids.astype(np.uint8)).decode()
