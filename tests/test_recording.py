"""What is kept of episodes that a policy plays: its calls as they were sent, and which of them are to be learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skill1.config import Config, load_config
from skill1.envs.make import make_environment
from skill1.generation.calls import Completion
from skill1.models.demonstrate import demonstrate
from skill1.models.demonstrations import read_demonstrations
from skill1.models.recording import Recorder, play
from skill1.play import Job
from skill1.prompts import make_prompts
from skill1.rollout import Stages

CONTEXTS = pytest.mark.parametrize("context", ["window", "conversation"])


class Walker:
    """Walks through a game, after an empty answer, an inadmissible one and one more ("inventory")."""

    def __init__(self, config: Config, walkthrough: tuple[str, ...]) -> None:
        self.prompts = make_prompts("full", "alfworld", config.rollout.context)
        self._answers = ["", *map(self.prompts.write_action, ("fly away", "inventory", *walkthrough))]
        self.asked: list[str] = []

    def generate(self, texts, seeds, *, temperature, max_new_tokens, chats=None):
        self.asked += texts
        none = np.zeros(0, np.int32)
        return [
            Completion(none, none, np.zeros(0, np.float32), self._answers[min(seed[-1], len(self._answers) - 1)])
            for seed in seeds
        ]

    def __enter__(self) -> Walker:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def walker(world: Path, context: str, **overrides: Any) -> tuple[Config, Any, Walker]:
    given = {"environment.data": str(world), "rollout.context": context, "environment.max_steps": 30}
    config = load_config("small", "grpo", given | overrides)
    environment = make_environment(config.environment)
    game = environment.games.game(environment.tasks("train")[0].game)
    return config, environment, Walker(config, game.walkthrough)


@CONTEXTS
def test_calls_are_kept_as_they_were_sent(world, context):
    config, environment, policy = walker(world, context)
    [(rollout, chats)] = play(
        [Job(environment.tasks("train")[0], 4)], Recorder(policy, 1.0), environment, Stages(), config
    )
    assert rollout.outcome and all((c.game, c.number, c.won) == (rollout.task.game, 4, True) for c in chats)
    calls = [call for chat in chats for call in chat.calls]
    if context == "window":
        assert all(len(chat.calls) == 1 and chat.calls[0].learn for chat in chats)
        assert [call.prompt for call in calls] == policy.asked[2:]  # what was not read or not taken is not learnt
    else:
        assert len(chats) == 1 and [call.prompt for call in calls] == policy.asked
        assert [call.learn for call in calls] == [False, False] + [True] * (len(calls) - 2)
        assert calls[0].completion == "" and calls[0].prompt.startswith("Task: ")
    assert [call.completion for call in calls][-1] == policy.prompts.write_action(rollout.turns[-1].value)


@CONTEXTS
def test_what_a_policy_wins_is_read_again(world, context, tmp_path, monkeypatch):
    config, environment, policy = walker(world, context, **{"train.seed": 1})
    monkeypatch.setattr("skill1.models.demonstrate.load_policy", lambda config: policy)
    done = demonstrate(config, tmp_path / "made", 12, 1)
    chats = read_demonstrations(tmp_path / "made")
    assert done.won == len({chat.game for chat in chats}) >= 1 and done.chats == len(chats)
    assert done.calls == sum(call.learn for chat in chats for call in chat.calls)
