"""Keeps what is asked and answered while episodes are played, as chats to learn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from skill1.config import Config
from skill1.envs.base import Episodes
from skill1.generation.calls import Completion
from skill1.models.demonstrations import Call, Chat
from skill1.play import Job
from skill1.records import Rollout, Stage, Task
from skill1.rollout import Ask, Episode, RolloutLoop, Stages


class Recorder(Ask):
    """Asks a policy and keeps the texts of every episode's calls."""

    def __init__(self, policy: Any, temperature: float) -> None:
        """See `Ask`."""
        super().__init__(policy, temperature)
        self._asked: defaultdict[tuple[Task, int], list[str]] = defaultdict(list)
        self._slips: set[tuple[Task, int, int]] = set()  # the last is the number of the call

    def __call__(
        self, stage: Stage, episodes: Sequence[Episode], texts: Sequence[str], max_tokens: int
    ) -> list[Completion]:
        """See `Ask.__call__`."""
        answers = super().__call__(stage, episodes, texts, max_tokens)
        for e, text in zip(episodes, texts, strict=True):
            self._asked[e.task, e.index].append(text if e.chat is None else e.chat.said[-1][0])
        return answers

    def slipped(self, e: Episode) -> None:
        """Note, while a call is answered, that its answer is not to be learnt."""
        self._slips.add((e.task, e.index, len(e.turns)))

    def chats(self, rollout: Rollout, context: str) -> list[Chat]:
        """Return what is to be learnt of an episode: a conversation, or in the window each call by itself.

        An ill-formed answer and an inadmissible action are not learnt, as a slip is not: in a conversation they are context.
        """
        named, won = (rollout.task, rollout.index), bool(rollout.outcome)
        calls = [
            Call(
                stage=turn.stage,
                prompt=text,
                completion=turn.text,
                learn=turn.well_formed and turn.admissible and (*named, number) not in self._slips,
            )
            for number, (turn, text) in enumerate(zip(rollout.turns, self._asked[named], strict=True))
        ]
        if context == "window":
            return [Chat((call,), rollout.task.game, rollout.index, won) for call in calls if call.learn]
        return [Chat(tuple(calls), rollout.task.game, rollout.index, won)] if any(c.learn for c in calls) else []


def play(
    part: Sequence[Job], asked: Recorder, environment: Episodes, stages: Stages, config: Config
) -> list[tuple[Rollout, list[Chat]]]:
    """Play jobs together, each with what is to be learnt of it, in their order."""
    rollouts = RolloutLoop(asked, environment, stages, config).run(
        [job.task for job in part],
        groups=[0] * len(part),
        indices=[job.number for job in part],
        seed=(config.evaluation.seed,),
    )
    return [(rollout, asked.chats(rollout, config.rollout.context)) for rollout in rollouts]
