"""The skill loop (Algorithm 1, lines 3-8; method section 1): query > retrieve > rerank > act ... act > distill.

All groups of a step run together: at every turn, all live episodes are answered in one generation call. Random
streams are named by (seed, step, task, rollout, stage, turn), so a rollout does not depend on what runs beside it.

With `rollout.reflection` the last stage is RetroAgent's: the policy reflects on its episode (arXiv 2603.08561). With
`memory` some of the rollouts play without the library, which the others are compared with.

Differs from the paper in: no rerank call with fewer than two candidates.
"""

from __future__ import annotations

import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from skill1.config import Config
from skill1.envs.base import Observation, VectorEnvironment
from skill1.library import FrozenLibrary, SkillLibrary
from skill1.methods.references import ReferenceTrajectories, task_name
from skill1.methods.retroagent import Potentials
from skill1.methods.skillrl.retrieval import FrozenBank
from skill1.policy import Completion, Policy, Seed
from skill1.prompts import ActContext, history_of
from skill1.prompts.base import Exchange, Reflected
from skill1.records import STAGES, Candidate, Lesson, Reflection, Rollout, Stage, Task, Turn

Progress = Callable[[int, int], None]  # (turn of the act stage, live episodes)


@dataclass(slots=True)
class _Episode:
    """What one running rollout has gathered so far."""

    task: Task
    group: int
    index: int
    seed: Seed
    start: Observation
    now: Observation
    memory: bool = True
    query: str = ""
    candidates: tuple[Candidate, ...] = ()
    ranking: tuple[int, ...] = ()
    ranking_parsed: bool = True
    skill: str = ""
    selected: str | None = None
    similarity: float = math.nan
    turns: list[Turn] = field(default_factory=list)
    trajectory: list[Exchange] = field(default_factory=list)
    won: bool = False
    done: bool = False
    score: float = 0.0
    lesson: Lesson | None = None
    reflection: Reflection | None = None
    baseline: float = 0.0

    def call_seed(self, stage: Stage) -> Seed:
        return (*self.seed, STAGES.index(stage), len(self.trajectory))


def task_key(task: Task) -> int:
    """A stable 32-bit name of a task for random streams (Python's hash() differs between processes)."""
    return zlib.crc32(f"{task.environment}/{task.game}/{task.seed}".encode())


class SkillLoop:
    """Runs rollouts of tasks with one policy, one environment and one view of the library."""

    def __init__(
        self,
        policy: Policy,
        environment: VectorEnvironment,
        library: SkillLibrary | FrozenLibrary | FrozenBank | None,
        config: Config,
        *,
        temperature: float,
        retrieval: str,
        distill: bool,
        references: ReferenceTrajectories | None = None,
        potentials: Potentials | None = None,
    ) -> None:
        """
        Args:
            library: None = the loop without skills (no query, retrieval, rerank, skill block, distillation). A bank is
                shown to all rollouts, without query, rerank and distillation.
            temperature: sampling temperature (training 1.0, evaluation 0.4 in the paper).
            retrieval: "ucb" in training, "greedy" in evaluation.
            distill: training distils every episode; evaluation does not.
            references: last trajectories per task, for `rollout.distill_reference`.
            potentials: Phi of every task, for `rollout.reflection`.
        """
        self._policy = policy
        self._prompts = policy.prompts
        self._env = environment
        self._library = library
        self._config = config
        self._temperature = temperature
        self._retrieval = retrieval
        self._distills = distill and isinstance(library, SkillLibrary | FrozenLibrary)
        self._references = references
        self._potentials = potentials
        self.seconds: Counter[str] = (
            Counter()
        )  # wall clock of all runs: "query", "retrieve", "rerank", "act", "distill"

    def run(
        self,
        tasks: Sequence[Task],
        groups: Sequence[int],
        indices: Sequence[int],
        seed: Seed,
        *,
        memory: Sequence[bool] | None = None,
        skills: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> list[Rollout]:
        """One rollout per entry: `groups[i]` and `indices[i]` name it within the step, `seed` the run and step.

        Args:
            memory: which entries may use the library; None = all.
            skills: strategies to inject instead of selecting from a library ("" for none), one per entry; for probing.

        Raises:
            ValueError: `skills` given although there is a library to select from.
        """
        if skills is not None and self._library is not None:
            raise ValueError("skills are injected only into a loop without a library")
        starts = self._env.reset(tasks)
        episodes = [
            _Episode(task, group, index, (*seed, task_key(task), index), start, start)
            for task, group, index, start in zip(tasks, groups, indices, starts, strict=True)
        ]
        for e, remembers in zip(episodes, memory or (), strict=False):
            e.memory = remembers
        if isinstance(self._library, FrozenBank):
            with self._timed("retrieve"):
                self._show(episodes, self._library)
        elif self._library is not None:
            self._select([e for e in episodes if e.memory], self._library)
        for e, strategy in zip(episodes, skills or (), strict=False):
            e.skill = self._prompts.skill_block([strategy]) if strategy else ""
        with self._timed("act"):
            self._act(episodes, progress)
        if self._distills:
            with self._timed("distill"):
                self._distill(episodes)
        return [self._finish(e) for e in episodes]

    # -- stages ---------------------------------------------------------------------------------------------------

    def _select(self, episodes: list[_Episode], library: SkillLibrary | FrozenLibrary) -> None:
        """Stages query and rerank, with retrieval between them (Eq. 1-3)."""
        with self._timed("query"):
            self._query(episodes)
        if not len(library):
            return
        with self._timed("retrieve"):
            found = library.retrieve([e.query for e in episodes], self._retrieval)
            for e, candidates in zip(episodes, found, strict=True):
                e.candidates, e.ranking = candidates, tuple(range(len(candidates)))
        with self._timed("rerank"):
            self._rerank(episodes, library)
        skilled = [e for e in episodes if e.candidates]
        for e in skilled:
            ranked = [e.candidates[i].skill for i in e.ranking]
            e.selected = ranked[0]
            shown = ranked if self._config.library.inject == "all" else ranked[:1]
            e.skill = self._prompts.skill_block([library[s].strategy for s in shown])
        if skilled:
            cosines = library.similarity([e.start.instruction for e in skilled], [e.selected for e in skilled])
            for e, cosine in zip(skilled, cosines, strict=True):
                e.similarity = float(cosine)

    def _show(self, episodes: list[_Episode], bank: FrozenBank) -> None:
        """What the bank has for each task, from its sentence: no call of the policy."""
        for e, shown in zip(episodes, bank.retrieve([e.start.instruction for e in episodes]), strict=True):
            e.candidates, e.ranking = shown.candidates, tuple(range(len(shown.candidates)))
            e.skill = self._prompts.bank_block(shown.general, shown.specific, shown.mistakes)

    def _query(self, episodes: list[_Episode]) -> None:
        """The policy's query, or the task's sentence with selection off."""
        for e in episodes:
            e.query = e.start.instruction
        if not self._config.rollout.selection:
            return
        texts = [self._prompts.query(e.start) for e in episodes]
        answers = self._call(episodes, "query", texts, self._config.rollout.max_query_tokens)
        for e, answer in zip(episodes, answers, strict=True):
            parsed = self._prompts.parse_query(answer.text, e.start)
            e.query = parsed.value
            e.turns.append(_turn("query", answer, parsed.value, parsed.well_formed, observation=e.start.text))

    def _rerank(self, episodes: list[_Episode], library: SkillLibrary | FrozenLibrary) -> None:
        """The policy's ranking of two or more candidates; with selection off, retrieval's order stands."""
        if not self._config.rollout.selection:
            return
        asked = [e for e in episodes if len(e.candidates) >= 2]
        texts = [self._prompts.rerank(e.start, [library[c.skill].strategy for c in e.candidates]) for e in asked]
        answers = self._call(asked, "rerank", texts, self._config.rollout.max_rerank_tokens)
        for e, answer in zip(asked, answers, strict=True):
            e.ranking, e.ranking_parsed = self._prompts.parse_rerank(answer.text, len(e.candidates))
            value = ",".join(str(i + 1) for i in e.ranking)
            e.turns.append(_turn("rerank", answer, value, e.ranking_parsed, observation=e.start.text))

    def _act(self, episodes: list[_Episode], progress: Progress | None) -> None:
        """Stage act until every episode is won or out of steps."""
        turn = 0
        while live := [e for e in episodes if not e.done]:
            texts = [self._act_prompt(e) for e in live]
            answers = iter(self._call(live, "act", texts, self._config.rollout.max_act_tokens))
            parsed = [None] * len(episodes)
            for i, e in enumerate(episodes):
                if not e.done:
                    answer = next(answers)
                    parsed[i] = (answer, self._prompts.parse_action(answer.text, e.now.admissible))
            results = self._env.step([p[1].value if p else None for p in parsed])
            for e, p, result in zip(episodes, parsed, results, strict=True):
                if p is None or result is None:
                    continue
                answer, action = p
                e.turns.append(_turn("act", answer, action.value, action.well_formed, result.admissible, e.now.text))
                e.trajectory.append((e.now.text, action.value))
                e.now, e.won, e.done = result.observation, result.won, result.done
                e.score = max(e.score, result.reward)
            turn += 1
            if progress:
                progress(turn, sum(not e.done for e in episodes))

    def _act_prompt(self, e: _Episode) -> str:
        """The prompt of the next action; one longer than `environment.history_limit` is written without history."""
        environment = self._config.environment
        context = ActContext(
            start=e.start,
            skill=e.skill if e.trajectory or self._config.bank.first_step else "",
            steps=len(e.trajectory),
            history=history_of(e.trajectory, environment.history),
            observation=e.now,
        )
        text = self._prompts.act(context)
        if environment.history_limit is not None and len(text) > environment.history_limit:
            return self._prompts.act(replace(context, history=()))
        return text

    def _distill(self, episodes: list[_Episode]) -> None:
        """Stage distill: every rollout once, success or failure; with the stage off, the raw trajectory is kept."""
        if not self._config.rollout.distillation:
            for e in episodes:
                e.lesson = self._prompts.raw_lesson(e.start, e.trajectory)
            return
        if self._config.rollout.reflection != "none":
            self._reflect(episodes)
            return
        texts = [self._prompts.distill(e.start, e.won, e.trajectory, self._reference(e)) for e in episodes]
        answers = self._call(episodes, "distill", texts, self._config.rollout.max_distill_tokens)
        for e, answer in zip(episodes, answers, strict=True):
            e.lesson = self._prompts.parse_distill(answer.text, e.start)
            value = f"{e.lesson.desc}\n{e.lesson.strategy}" if e.lesson else ""
            e.turns.append(_turn("distill", answer, value, e.lesson is not None, observation=e.now.text))

    def _reflect(self, episodes: list[_Episode]) -> None:
        """RetroAgent's stage distill: how far every rollout came, whether it won, and what to remember."""
        told = self._config.rollout.reflection == "told"
        texts = [
            self._prompts.reflect(e.start, e.won if told else None, e.trajectory, self._reference(e)) for e in episodes
        ]
        answers = self._call(episodes, "distill", texts, self._config.rollout.max_distill_tokens)
        for e, answer in zip(episodes, answers, strict=True):
            found = self._prompts.parse_reflect(answer.text, e.start)
            e.reflection = Reflection(None, 0, 0) if found is None else found.reflection
            e.lesson = None if found is None else found.lesson
            value = "" if found is None else _reflected(found)
            e.turns.append(_turn("distill", answer, value, found is not None, observation=e.now.text))
            if self._potentials is not None:
                e.baseline = self._potentials[self._name(e)]

    def _reference(self, e: _Episode) -> Sequence[Exchange] | None:
        return None if self._references is None else self._references.opposite(self._name(e), e.won)

    def _name(self, e: _Episode) -> str:
        return task_name(e.task, e.start.instruction, self._config.rollout.same_task)

    # -- plumbing -------------------------------------------------------------------------------------------------

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - started

    def _call(self, episodes: list[_Episode], stage: Stage, texts: list[str], limit: int) -> list[Completion]:
        return self._policy.generate(
            texts,
            [e.call_seed(stage) for e in episodes],
            temperature=self._temperature,
            max_new_tokens=limit,
        )

    @staticmethod
    def _finish(e: _Episode) -> Rollout:
        return Rollout(
            task=e.task,
            instruction=e.start.instruction,
            group=e.group,
            index=e.index,
            query=e.query,
            turns=tuple(e.turns),
            candidates=e.candidates,
            ranking=e.ranking,
            ranking_parsed=e.ranking_parsed,
            selected=e.selected,
            skill=e.skill,
            skill_similarity=e.similarity,
            outcome=float(e.won),
            score=e.score,
            steps=len(e.trajectory),
            lesson=e.lesson,
            memory=e.memory,
            reflection=e.reflection,
            baseline=e.baseline,
        )


def _reflected(found: Reflected) -> str:
    """A parsed reflection as a turn's value: "success 2/4" and the lesson."""
    said = found.reflection
    lesson = [found.lesson.strategy] if found.lesson else []
    return "\n".join([f"{'success' if said.success else 'failure'} {said.completed}/{said.listed}", *lesson])


def _turn(
    stage: Stage, answer: Completion, value: str, well_formed: bool, admissible: bool = True, observation: str = ""
) -> Turn:
    return Turn(
        stage=stage,
        prompt_ids=answer.prompt_ids,
        completion_ids=answer.ids,
        logprobs=answer.logprobs,
        text=answer.text,
        value=value,
        well_formed=well_formed,
        admissible=admissible,
        observation=observation,
    )
