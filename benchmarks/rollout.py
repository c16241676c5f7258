"""Share of a rollout's time outside the policy's forward passes, at the nano policy's size.

Run on one thread: OMP_NUM_THREADS=1 python benchmarks/rollout.py (--profile for the hot spots)
64 episodes of 18 steps with query, rerank and distillation, 100 skills, homes of about 18 receptacles. The weights are
untrained, so completions run to their length limits; the hash encoder stands for MiniLM, whose cost is not measured.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path

import torch

sys.path.pop(0)  # this script's folder, in which alfworld.py would stand for the alfworld package

from skill1.config import load_config, method_of
from skill1.envs.alfworld.generate import generate
from skill1.envs.make import make_environment
from skill1.library import SkillLibrary
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.model import make_model, nano_tokenizer
from skill1.policy import Policy
from skill1.records import Lesson, Rollout
from skill1.rollout import Ask, RolloutLoop

EPISODES, STEPS, SKILLS, REPEATS = 64, 18, 100, 3


@dataclass
class Stopwatch:
    """Forward hooks that add up the seconds between them."""

    seconds: float = 0.0
    calls: int = 0
    started: float = 0.0

    def start(self, *_: object) -> None:
        self.started = time.perf_counter()

    def stop(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self.started
        self.calls += 1


def teach(library: SkillLibrary, rollout: Rollout) -> None:
    """Admit SKILLS skills of the form the nano policy distils."""
    homes = ["".join(name) for name in islice(product(("ba", "ge", "ki", "lo"), repeat=3), SKILLS)]
    lessons = [Lesson(f"mug {home}", f"mug {home} in shelf_{i % 7}") for i, home in enumerate(homes)]
    library.learn([replace(rollout, outcome=1.0, lesson=lesson) for lesson in lessons], 1)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), seed=0, train=EPISODES, valid_seen=1, valid_unseen=1, receptacles=18)
        config = load_config(
            "nano", overrides={"environment.data": folder, "environment.max_steps": STEPS, "library.encoder": "hash"}
        )
        tokenizer = nano_tokenizer("alfworld")
        model = make_model(tokenizer, width=128, layers=3, heads=4, seed=0).eval()
        policy = Policy(model, tokenizer, CompactPrompts(), config.policy, config.rollout.max_prompt_tokens)
        environment = make_environment(config.environment)
        tasks = environment.tasks("train")
        method = method_of(config)(config)
        loop = RolloutLoop(Ask(policy, config.rollout.temperature), environment, method, config)
        teach(method.skills, loop.run(tasks[:1], [0], [0], (0,))[0])
        watch = Stopwatch()
        model.register_forward_pre_hook(watch.start)
        model.register_forward_hook(watch.stop)
        arguments = tasks, [0] * EPISODES, list(range(EPISODES))
        if "--profile" in sys.argv:
            profile = cProfile.Profile()
            profile.runcall(loop.run, *arguments, (0, 0))
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
            return
        shares = []
        for repeat in range(REPEATS):
            watch.seconds, watch.calls = 0.0, 0
            started = time.perf_counter()
            rollouts = loop.run(*arguments, (0, repeat))
            total = time.perf_counter() - started
            shares.append((1 - watch.seconds / total, total, watch.seconds))
        share, total, forward = min(shares)
        turns = sum(len(r.turns) for r in rollouts)
        print(
            f"outside the forward passes: {share:.1%} of {total:.2f} s ({turns} turns, {watch.calls} passes, "
            f"{1e3 * forward / watch.calls:.1f} ms a pass, {1e3 * (total - forward) / turns:.2f} ms a turn outside)"
        )


if __name__ == "__main__":
    main()
