"""A scripted expert answers in the place of a policy: what is demonstrated is what a run asks, call for call. Ours.

The expert plays through `skill1.rollout.RolloutLoop` and the method's own stages. It sees what the policy sees; all that it
knows beside that, it counted on training games. Slips are played too, and are not to be learnt: what is learnt is how to
continue after them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import numpy as np

from skill1.config import Config, ConfigError
from skill1.envs.base import Episodes, Observation, Step, VectorEnvironment
from skill1.generation.calls import Completion
from skill1.methods.base import Method
from skill1.models.demonstrations import Chat
from skill1.models.experts.base import Expert, F, Player, Writers, kept, make_expert, make_writers
from skill1.models.experts.drawing import DrawnSkills, draw
from skill1.models.options import ExpertConfig
from skill1.models.recording import Recorder, play
from skill1.play import Job
from skill1.records import Lesson, Stage, Task
from skill1.rollout import Episode, Stages

_CUT = (3, 10)  # an episode that is cut short ends after so many actions


@dataclass(frozen=True, slots=True)
class _Words:
    """In the place of a policy: the prompts alone."""

    prompts: Writers


class ExpertAsk(Recorder, Generic[F]):
    """Answers every call of an episode as the expert does."""

    def __init__(
        self, prompts: Writers, expert: Expert[F], told: Mapping[str, F], options: ExpertConfig, seed: int
    ) -> None:
        """
        Args:
            told: what the skills say that episodes are shown, by `Skill.id`.
            seed: names the random streams, with each episode's task and index.
        """
        super().__init__(_Words(prompts), 0.0)
        self._writers = prompts
        self._expert = expert
        self._told = told
        self._options = options
        self._seed = seed
        self._thoughts = float(prompts.context == "window") if options.thoughts is None else options.thoughts
        self._streams: dict[tuple[Task, int], random.Random] = {}
        self._players: dict[tuple[Task, int], Player[F]] = {}
        self._stuck: dict[tuple[Task, int], str] = {}  # the impossible slip of the action before

    def answer(
        self, stage: Stage, episodes: Sequence[Episode], texts: Sequence[str], max_tokens: int
    ) -> list[Completion]:
        """Write the answers; they have no tokens.

        Raises:
            ConfigError: the stage is none of the four.
        """
        none = np.zeros(0, np.int32)
        return [Completion(none, none, none.astype(np.float32), self._write(stage, e)) for e in episodes]

    def _write(self, stage: Stage, e: Episode) -> str:
        prompts, expert, fact = self._writers, self._expert, self._expert.asked(e.start)
        rng = self._streams.setdefault((e.task, e.index), stream(self._seed, "play", e.task, e.index))
        match stage:
            case "query":
                return prompts.write_query(expert.query(fact, rng))
            case "rerank":
                far = [expert.distance(fact, self._told[c.skill]) for c in e.candidates]
                return prompts.write_ranking(sorted(range(len(far)), key=far.__getitem__))
            case "act":
                return self._act(e, rng)
            case "distill":
                taught = expert.lesson(self._player(e).fact(), e.won, rng)
                return prompts.write_lesson(taught.lesson(prompts.context), e.won)
        raise ConfigError(f"the expert has no answer to the stage {stage}: demonstrate another method")

    def _act(self, e: Episode, rng: random.Random) -> str:
        player = self._player(e)
        command, why = player.act(e.now)
        if slip := self._slip(e, player, command, rng):
            self.slipped(e)
            return self._writers.write_action(slip, "")
        return self._writers.write_action(command, why if rng.random() < self._thoughts else "")

    def _slip(self, e: Episode, player: Player[F], command: str, rng: random.Random) -> str | None:
        """Draw another action than the expert's, or none: an impossible one may come again and again."""
        slip = self._stuck.pop((e.task, e.index), None)
        if slip is None or rng.random() >= self._options.stuck:
            slip = player.slip(e.now, rng) if rng.random() < self._options.slips else None
        if slip == command:
            return None
        if slip is not None and slip not in e.now.admissible:
            self._stuck[e.task, e.index] = slip
        return slip

    def _player(self, e: Episode) -> Player[F]:
        """The episode's player, who has seen what was done last."""
        key = (e.task, e.index)
        if key not in self._players:
            self._players[key] = self._expert.player(e.start, self._told.get(e.selected or ""))
        elif e.trajectory:
            self._players[key].moved(e.trajectory[-1][1], e.now)
        return self._players[key]


def stream(seed: int, use: str, task: Task, index: int) -> random.Random:
    """Name an episode's random stream: it depends on nothing that runs beside it."""
    return random.Random(f"{seed}/{use}/{task.game}/{task.seed}/{index}")


class CutShort:
    """Episodes of an environment, the i-th of which ends, if it is not won by then, after `limits[i]` actions."""

    def __init__(self, environment: Episodes, limits: Sequence[int]) -> None:
        self._environment = environment
        self._left = list(limits)

    def reset(self, tasks: Sequence[Task]) -> list[Observation]:
        """See `Episodes.reset`."""
        return self._environment.reset(tasks)

    def step(self, actions: Sequence[str | None]) -> list[Step | None]:
        """See `Episodes.step`."""
        self._left = [left - (action is not None) for left, action in zip(self._left, actions, strict=True)]
        steps = self._environment.step(actions)
        return [
            None if step is None else replace(step, done=step.done or left <= 0)
            for step, left in zip(steps, self._left, strict=True)
        ]


class ExpertPlayer:
    """Plays training tasks with a method's stages; a part of them comes out the same whatever else is played."""

    def __init__(self, config: Config, environment: VectorEnvironment, method: Method, options: ExpertConfig) -> None:
        """Raises ConfigError, DataError: see `make_expert` and `make_writers`."""
        self._config, self._environment, self._method, self._options = config, environment, method, options
        self._prompts = make_writers(config)
        self._expert = make_expert(config, environment)

    def knowledge(self) -> dict[str, Any]:
        """Return what was counted on the training games, in JSON values."""
        return {"games": len(self._expert.facts), **self._expert.knowledge()}

    def play(self, part: Sequence[Job]) -> list[Chat]:
        """Play; what is won is to be learnt, and what was cut short."""
        found: dict[Job, list[Chat]] = {}
        for without in (False, True):
            chosen = [job for job in part if (self._stream("plain", job).random() < self._options.plain) == without]
            found |= zip(chosen, self._play(chosen, without), strict=True)
        return [chat for job in part for chat in found[job]]

    def _play(self, part: Sequence[Job], without: bool) -> list[list[Chat]]:
        """Play with the method's own stages, or without; chats of each episode."""
        skills, limits = self._draw(part), [self._limit(job) for job in part]
        asked = ExpertAsk(self._prompts, self._expert, skills.facts, self._options, self._config.evaluation.seed)
        stages = Stages() if without else self._method.demonstrated(skills)
        played = play(part, asked, CutShort(self._environment, limits), stages, self._config)
        return [
            chats if rollout.outcome or rollout.steps == limit else []
            for (rollout, chats), limit in zip(played, limits, strict=True)
        ]

    def _limit(self, job: Job) -> int:
        """Draw after how many actions an episode ends."""
        rng = self._stream("cut", job)
        return rng.randint(*_CUT) if rng.random() < self._options.cut else self._environment.max_steps + 1

    def _draw(self, part: Sequence[Job]) -> DrawnSkills[Any]:
        """Draw every episode's skills, worded as a library keeps what the policy writes."""
        library, expert = self._config.library, self._expert
        drawn: list[list[tuple[Any, Lesson]]] = []
        for job in part:
            rng = self._stream("skills", job)
            facts = draw(expert, expert.facts[job.task.game], self._options, library.top_k, rng) if library else []
            drawn.append([(fact, kept(self._prompts, expert.lesson(fact, True, rng))) for fact in facts])
        return DrawnSkills(drawn, library.initial_utility if library else 0.0)

    def _stream(self, use: str, job: Job) -> random.Random:
        return stream(self._config.evaluation.seed, use, job.task, job.number)
