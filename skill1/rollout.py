"""The rollout loop (Skill1 Algorithm 1, lines 3-8): what the method does first > act ... act > what it does last.

All groups of a step run together: at every turn, all live episodes are answered in one generation call. Random streams
are named by (seed, step, task, rollout, stage, turn), so a rollout does not depend on what runs beside it.
"""

from __future__ import annotations

import math
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from skill1.config import Config
from skill1.envs.base import Episodes, Observation
from skill1.generation.calls import Chat, Completion, Seed
from skill1.prompts import ActContext, Exchange, PromptSet, history_of
from skill1.records import STAGES, Candidate, Lesson, Rollout, Stage, Task, Turn

if TYPE_CHECKING:  # what only reads rollouts need not load torch
    from skill1.policy import Policy

Progress = Callable[[int, int], None]  # (turn of the act stage, live episodes)


@dataclass(slots=True)
class Episode:
    """One running rollout: what the environment has said so far, and what the method has made of it."""

    task: Task
    group: int
    index: int
    seed: Seed
    start: Observation
    now: Observation
    chat: Chat | None = None  # the rollout's, in the context "conversation"
    turns: list[Turn] = field(default_factory=list)
    trajectory: list[Exchange] = field(default_factory=list)
    won: bool = False
    done: bool = False
    score: float = 0.0
    cut: bool = False  # ended because the conversation grew too long
    query: str = ""
    candidates: tuple[Candidate, ...] = ()
    ranking: tuple[int, ...] = ()
    ranking_parsed: bool = True
    selected: str | None = None
    similarity: float = math.nan  # of the task and the selected skill's description
    skill: str = ""  # the block of act prompts
    skill_from: int = 0  # number of actions after which the block appears
    lesson: Lesson | None = None
    extra: Any = None  # the method's own record

    def record(
        self, stage: Stage, answer: Completion, value: str, well_formed: bool, *, admissible: bool = True
    ) -> None:
        """Append a policy call to the episode; what the policy was shown is the current observation."""
        self.turns.append(
            Turn(
                stage=stage,
                prompt_ids=answer.prompt_ids,
                completion_ids=answer.ids,
                logprobs=answer.logprobs,
                text=answer.text,
                value=value,
                well_formed=well_formed,
                admissible=admissible,
                observation=self.now.text,
                continues=self.chat is not None and bool(self.turns),
            )
        )

    def rollout(self) -> Rollout:
        """Freeze a finished episode."""
        return Rollout(
            task=self.task,
            instruction=self.start.instruction,
            group=self.group,
            index=self.index,
            query=self.query,
            turns=tuple(self.turns),
            candidates=self.candidates,
            ranking=self.ranking,
            ranking_parsed=self.ranking_parsed,
            selected=self.selected,
            skill=self.skill,
            skill_similarity=self.similarity,
            outcome=float(self.won),
            score=self.score,
            steps=len(self.trajectory),
            lesson=self.lesson,
            cut=self.cut,
            extra=self.extra,
        )


class Ask:
    """The only way from a method to the policy: one batch of prompts of a stage, with that stage's random streams."""

    def __init__(self, policy: Policy, temperature: float) -> None:
        """`temperature` of sampling: 1.0 in training, 0.4 at evaluation in the paper."""
        self.seconds: defaultdict[str, float] = defaultdict(float)  # wall clock by stage, see `timed`
        self._policy = policy
        self._temperature = temperature

    @property
    def prompts(self) -> PromptSet:
        return self._policy.prompts

    def __call__(
        self, stage: Stage, episodes: Sequence[Episode], texts: Sequence[str], max_tokens: int
    ) -> list[Completion]:
        """Answer one prompt per episode, in their order.

        Args:
            stage: names the random streams, with each episode's number of actions.
            max_tokens: limit of an answer.
        """
        asked = [self._opened(e, text) for e, text in zip(episodes, texts, strict=True)]
        answers = self.answer(stage, episodes, asked, max_tokens)
        for e, text, answer in zip(episodes, asked, answers, strict=True):
            if e.chat is not None:
                e.chat.add(text, answer)
        return answers

    def answer(
        self, stage: Stage, episodes: Sequence[Episode], texts: Sequence[str], max_tokens: int
    ) -> list[Completion]:
        """Let the policy answer; a subclass lets somebody else.

        Args:
            texts: as they are sent, in a conversation the first with its opening.
        """
        seeds = [(*e.seed, _number(stage), len(e.trajectory)) for e in episodes]
        chats = [e.chat for e in episodes if e.chat is not None]
        given: dict[str, Any] = {"temperature": self._temperature, "max_new_tokens": max_tokens}
        if chats:
            given["chats"] = chats
        return self._policy.generate(texts, seeds, **given)

    def _opened(self, e: Episode, text: str) -> str:
        """Begin a conversation with its opening."""
        if e.chat is None or e.chat.said:
            return text
        return "\n\n".join(filter(None, (self.prompts.opening(e.start), text)))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count what happens within as the stage's time."""
        started = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - started


class Stages:
    """What a method does with running episodes around the act stage. This one does nothing: plain acting."""

    def begin(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """Act before the first action: ask the policy, set each episode's `skill` block."""

    def end(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """Act after the last action of every episode."""


def task_key(task: Task) -> int:
    """Name a task for random streams by a stable 32-bit number (Python's hash() differs between processes)."""
    return zlib.crc32(f"{task.environment}/{task.game}/{task.seed}".encode())


def _number(stage: Stage) -> int:
    """A stage's number in random streams; stages that a method adds lie above those of the paper."""
    return STAGES.index(stage) if stage in STAGES else len(STAGES) + zlib.crc32(stage.encode())


class RolloutLoop:
    """Runs rollouts of tasks in one environment."""

    def __init__(self, ask: Ask, environment: Episodes, stages: Stages, config: Config) -> None:
        """
        Args:
            ask: who answers.
            stages: a method in training, or its frozen view in evaluation.
        """
        self._env = environment
        self._stages = stages
        self._config = config
        self._ask = ask

    @property
    def seconds(self) -> Mapping[str, float]:
        """Wall clock of all runs by stage."""
        return self._ask.seconds

    def run(
        self,
        tasks: Sequence[Task],
        groups: Sequence[int],
        indices: Sequence[int],
        seed: Seed,
        progress: Progress | None = None,
    ) -> list[Rollout]:
        """Play one rollout per entry: `groups[i]` and `indices[i]` name it within the step, `seed` the run and step."""
        starts = self._env.reset(tasks)
        episodes = [
            Episode(task, group, index, name := (*seed, task_key(task), index), start, start, self._chat(name))
            for task, group, index, start in zip(tasks, groups, indices, starts, strict=True)
        ]
        self._stages.begin(episodes, self._ask)
        with self._ask.timed("act"):
            self._act(episodes, progress)
        self._stages.end(episodes, self._ask)
        return [e.rollout() for e in episodes]

    def _chat(self, name: Seed) -> Chat | None:
        return Chat(name) if self._config.rollout.context == "conversation" else None

    def _act(self, episodes: list[Episode], progress: Progress | None) -> None:
        """Stage act, until every episode is won or out of steps."""
        turn = 0
        while live := [e for e in episodes if not e.done]:
            texts = [self._act_prompt(e) for e in live]
            answers = self._ask("act", live, texts, self._config.rollout.max_act_tokens)
            actions = [
                self._ask.prompts.parse_action(a.text, e.now.admissible) for e, a in zip(live, answers, strict=True)
            ]
            commands = iter(actions)
            results = self._env.step([None if e.done else next(commands).value for e in episodes])
            played = [result for result in results if result is not None]
            for e, answer, action, result in zip(live, answers, actions, played, strict=True):
                e.record("act", answer, action.value, action.well_formed, admissible=result.admissible)
                e.trajectory.append((e.now.text, action.value))
                e.now, e.won, e.done = result.observation, result.won, result.done
                e.score = max(e.score, result.reward)
                if e.chat is not None and not e.done and len(e.chat.ids) > self._config.rollout.max_prompt_tokens:
                    e.done = e.cut = True
            turn += 1
            if progress:
                progress(turn, sum(not e.done for e in episodes))

    def _act_prompt(self, e: Episode) -> str:
        """The prompt of the next action; one longer than `environment.history_limit` is written without history.

        A conversation is shown the skill once.
        """
        environment, steps = self._config.environment, len(e.trajectory)
        shown = steps >= e.skill_from if e.chat is None else steps == e.skill_from
        context = ActContext(
            start=e.start,
            skill=e.skill if shown else "",
            steps=steps,
            history=history_of(e.trajectory, environment.history),
            observation=e.now,
        )
        text = self._ask.prompts.act(context)
        if environment.history_limit is not None and len(text) > environment.history_limit:
            return self._ask.prompts.act(replace(context, history=()))
        return text
