"""What one chat per rollout saves: the tokens of a step as it was played, and of the same episodes call by call.

    python -P benchmarks/contexts.py results/mini/run [--step 1]

The step of a run in the context "conversation" is read from its rollout log. For the context "window" every call of the
same episodes is worded again by the prompt set `full`: same tasks, skills, observations and actions, but each call a
fresh chat. Answers count as they were written (the window's have tags, JSON and a thought on top). Printed are tokens
read before writing (prefill), and tokens that pass the model in the update.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from skill1.config import method_of
from skill1.envs.base import VectorEnvironment
from skill1.envs.make import make_environment
from skill1.policy import load_tokenizer
from skill1.prompts import ActContext, PromptSet, history_of, make_prompts
from skill1.records import Rollout, Skill, Turn
from skill1.store.run_directory import RunDirectory


def window_calls(
    rollout: Rollout, prompts: PromptSet, skills: Mapping[str, Skill], environment: VectorEnvironment, window: int
) -> Iterator[tuple[Turn, str]]:
    """Play an episode again, and word every call of it as a chat of its own."""
    [start] = environment.reset([rollout.task])
    now, past = start, []
    shown = prompts.skill_block([skills[rollout.selected].strategy] if rollout.selected else [])
    for turn in rollout.turns:
        if turn.stage == "query":
            yield turn, prompts.query(start)
        elif turn.stage == "rerank":
            yield turn, prompts.rerank(start, [skills[c.skill].strategy for c in rollout.candidates])
        elif turn.stage == "act":
            yield turn, prompts.act(ActContext(start, shown, len(past), history_of(past, window), now))
            past.append((now.text, turn.value))
            [step] = environment.step([turn.value])
            now = step.observation
        elif turn.stage == "distill":
            yield turn, prompts.distill(start, bool(rollout.outcome), past, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--step", type=int, default=1)
    given = parser.parse_args()
    run = RunDirectory.open(given.run)
    config, rollouts = run.config, run.read_rollouts(given.step)
    tokenizer = load_tokenizer(config.policy.model)
    prompts = make_prompts("full", config.environment.name)
    skills = method_of(config).skills_before(config, run.library_dir, given.step)
    environment = make_environment(config.environment)
    read, passed = Counter(), Counter()
    for rollout in rollouts:
        for turn, text in window_calls(rollout, prompts, skills, environment, config.environment.history):
            read["conversation"] += len(turn.prompt_ids)
            passed["conversation"] += len(turn.prompt_ids) + len(turn.completion_ids)
            prompt = len(prompts.encode(tokenizer, text))
            read["window"] += prompt
            passed["window"] += prompt + len(turn.completion_ids)
    calls = sum(len(r.turns) for r in rollouts)
    print(f"step {given.step}: {len(rollouts)} episodes, {calls} calls")
    for name, tokens in (("read before writing", read), ("through the model in the update", passed)):
        ratio = tokens["window"] / tokens["conversation"]
        print(
            f"{name:32} window {tokens['window']:>9,}   conversation {tokens['conversation']:>9,}   {ratio:.1f} times fewer"
        )


if __name__ == "__main__":
    main()
