"""Skill1 (arXiv 2605.06130): query > retrieve > rerank > act > distill, all credited from one outcome.

Differs from the paper in:
    * With fewer than two candidates there is no rerank call and no row for it (the released code makes a dummy one).
    * A stage whose lambda is 0 gives no rows: its text is generated and used, its loss (and its KL) is off.
    * `rerank_credit="pick"` and `lesson_credit="use"` are ours (Skill1+): what the pick brought counts in a ranking's credit, and
      a lesson's is how later episodes end that are shown it (`methods.lessons`); at once it is only credited for parsing.
    * `rerank_credit="return"` is the released code: lambda_rerank * NDCG joins the return of the calls up to the ranking,
      whose rows are more rows of the trajectory; actions come after it, and their return is without.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from skill1.config import STRICT, Config, LibraryConfig, MethodConfig, knob
from skill1.credit import (
    check_rollouts,
    check_stages,
    distill_rewards,
    group_advantages,
    groups_of,
    mean,
    ndcgs_of,
    outcome_advantages,
    outcomes_of,
    rerank_advantages,
    returns_of,
    rollout_metrics,
    selection_metrics,
    std,
    u_hats_of,
)
from skill1.library import Library
from skill1.methods.base import Source
from skill1.methods.lessons import WaitingLessons
from skill1.methods.library_method import LibraryMethod
from skill1.methods.references import ReferenceTrajectories, SameTask
from skill1.records import Rollout, Row, Stage
from skill1.registry import ConfigError
from skill1.rollout import Ask, Episode, Stages
from skill1.rows import calls_of, make_rows
from skill1.store.journal import LibraryEvent

if TYPE_CHECKING:  # what only reads rollouts need not load torch
    from skill1.policy import Policy


@dataclass(frozen=True, config=STRICT)
class Skill1Config(MethodConfig):
    """Skill1's options: its stages and their credit (Skill1 Eq. 5-11)."""

    # The policy writes a query and ranks what comes back; off = retrieve by task text, take rank 1.
    selection: bool = knob(True, "switch", "paper")
    # The policy writes a lesson after every episode; off = a success admits its raw trajectory.
    distillation: bool = knob(True, "switch", "paper")
    # The distill prompt also shows the last episode of the same task with the opposite outcome.
    distill_reference: bool = knob(False, "switch", "paper; released shows it")
    # What makes two episodes of one task: the game, or its sentence, which other games can share.
    same_task: SameTask = knob("game", "game or task text", "ours; released text")
    # How much the ranking's loss counts beside the episode's (Eq. 11).
    lambda_rerank: float = knob(0.3, "weight of the rerank term", "paper", ge=0)
    # How much the lesson's loss counts beside the episode's (Eq. 11).
    lambda_distill: float = knob(0.3, "weight of the distill term", "paper", ge=0)
    # Whether lambda weighs the mean over a row's tokens, so that each counts lambda / length, or their sum.
    lambda_per: Literal["row", "token"] = knob("row", "what lambda weighs", "ours; the paper does not say")
    # Whether NDCG has a loss of its own, with or without what the pick brought, or joins the return up to the ranking.
    rerank_credit: Literal["loss", "return", "pick"] = knob(
        "loss", "where NDCG goes", "paper; released adds it to the return, pick is ours"
    )
    # What NDCG is compared with in its loss (Eq. 9).
    rerank_baseline: Literal["none", "batch_mean"] = knob("none", "REINFORCE baseline", "paper")
    # Whether a lesson is credited by its own episode's outcome (Eq. 7) or by later ones that were shown it.
    lesson_credit: Literal["outcome", "use"] = knob("outcome", "what a lesson earns", "paper; use is ours")
    # A lesson that nobody was shown is no longer waited for.
    lesson_patience: int = knob(10, "steps, of lesson_credit=use", "ours", gt=0)
    # What the library expected of the episode (Eq. 7).
    u_hat: Literal["max", "mean"] = knob("max", "over the K candidates' utilities", "paper")
    # What a lesson that does not parse earns; "lost" is what a readable one earns after r = 0.
    unparsed_distill: Literal["zero", "lost"] = knob("zero", "reward of unreadable text", "paper; lost is ours")
    # A longer query is cut.
    max_query_tokens: int = knob(2048, "tokens", "paper (response limit)", gt=0)
    # A longer ranking is cut.
    max_rerank_tokens: int = knob(2048, "tokens", "paper (response limit)", gt=0)
    # A longer lesson is cut.
    max_distill_tokens: int = knob(2048, "tokens", "paper (response limit)", gt=0)


# -- stages -----------------------------------------------------------------------------------------------------------


def query(episodes: Sequence[Episode], ask: Ask, max_tokens: int) -> None:
    """Let the policy write each episode's query (Skill1 Eq. 1-2)."""
    with ask.timed("query"):
        answers = ask("query", episodes, [ask.prompts.query(e.start) for e in episodes], max_tokens)
        for e, answer in zip(episodes, answers, strict=True):
            parsed = ask.prompts.parse_query(answer.text, e.start)
            e.query = parsed.value
            e.record("query", answer, parsed.value, parsed.well_formed)


def retrieve(episodes: Sequence[Episode], ask: Ask, library: Library, mode: Literal["ucb", "greedy"]) -> None:
    """Find each episode's candidates by its query (Skill1 Eq. 3); their ranking is the library's for now."""
    with ask.timed("retrieve"):
        found = library.retrieve([e.query for e in episodes], mode)
        for e, candidates in zip(episodes, found, strict=True):
            e.candidates, e.ranking = candidates, tuple(range(len(candidates)))


def rerank(episodes: Sequence[Episode], ask: Ask, library: Library, max_tokens: int) -> None:
    """Let the policy rank the candidates of every episode that has two or more."""
    with ask.timed("rerank"):
        asked = [e for e in episodes if len(e.candidates) >= 2]
        texts = [ask.prompts.rerank(e.start, [library[c.skill].strategy for c in e.candidates]) for e in asked]
        for e, answer in zip(asked, ask("rerank", asked, texts, max_tokens), strict=True):
            e.ranking, e.ranking_parsed = ask.prompts.parse_rerank(answer.text, len(e.candidates))
            e.record("rerank", answer, ",".join(str(i + 1) for i in e.ranking), e.ranking_parsed)


def show(episodes: Sequence[Episode], ask: Ask, library: Library, inject: Literal["top1", "all"]) -> None:
    """Put the first of each ranking (or all, in that order) into the episode's act prompts."""
    skilled = [e for e in episodes if e.candidates]
    selected = []
    for e in skilled:
        ranked = [e.candidates[i].skill for i in e.ranking]
        e.selected = ranked[0]
        selected.append(ranked[0])
        e.skill = ask.prompts.skill_block([library[s].strategy for s in (ranked if inject == "all" else ranked[:1])])
    if skilled:
        cosines = library.similarity([e.start.instruction for e in skilled], selected)
        for e, cosine in zip(skilled, cosines, strict=True):
            e.similarity = float(cosine)


def select(
    episodes: Sequence[Episode], ask: Ask, library: Library, mode: Literal["ucb", "greedy"], config: Config
) -> None:
    """Query, retrieve, rerank and show, as far as the run's options have them."""
    options = Skill1Config.of(config)
    if options.selection:
        query(episodes, ask, options.max_query_tokens)
    else:
        for e in episodes:
            e.query = e.start.instruction
    if not len(library):
        return
    retrieve(episodes, ask, library, mode)
    if options.selection:
        rerank(episodes, ask, library, options.max_rerank_tokens)
    show(episodes, ask, library, LibraryConfig.of(config).injected(mode))


def distill(episodes: Sequence[Episode], ask: Ask, references: ReferenceTrajectories | None, max_tokens: int) -> None:
    """Let the policy write a lesson of every episode, success or failure."""
    with ask.timed("distill"):
        shown = [None if references is None else references.opposite(e) for e in episodes]
        texts = [
            ask.prompts.distill(e.start, e.won, e.trajectory, reference)
            for e, reference in zip(episodes, shown, strict=True)
        ]
        for e, answer in zip(episodes, ask("distill", episodes, texts, max_tokens), strict=True):
            e.lesson = ask.prompts.parse_distill(answer.text, e.start)
            value = f"{e.lesson.desc}\n{e.lesson.strategy}" if e.lesson else ""
            e.record("distill", answer, value, e.lesson is not None)


class FrozenSkill1(Stages):
    """Skill1 at evaluation: greedy retrieval from a library that stays as it is, nothing distilled."""

    def __init__(self, config: Config, library: Library) -> None:
        self._config = config
        self._library = library

    def begin(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """See `select`."""
        select(episodes, ask, self._library, "greedy", self._config)


class DemonstratedSkill1(FrozenSkill1):
    """Skill1 as an expert demonstrates it: with skills that were drawn for each episode, and distilling."""

    def end(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """See `distill`; there is no earlier episode to refer to."""
        options = Skill1Config.of(self._config)
        if options.distillation:
            distill(episodes, ask, None, options.max_distill_tokens)


# -- the method -------------------------------------------------------------------------------------------------------


class Skill1(LibraryMethod):
    """The paper's method."""

    Options: ClassVar[type[MethodConfig]] = Skill1Config

    def __init__(self, config: Config, folder: Path | None = None) -> None:
        super().__init__(config, folder)
        self._options = Skill1Config.of(config)
        self._references = ReferenceTrajectories(self._options.same_task) if self._options.distill_reference else None

        self._waiting = WaitingLessons(self._options.lesson_patience) if self._options.lesson_credit == "use" else None
        self._seen: Sequence[Rollout] = ()  # of the step that is learnt, while lessons wait

    @classmethod
    def check(cls, config: Config) -> None:
        """See `Method.check`."""
        options = Skill1Config.of(config)
        if options.rerank_credit == "return" and options.rerank_baseline != "none":
            raise ConfigError("method.rerank_baseline has no effect with method.rerank_credit=return: set it to none")

    @classmethod
    def trained_stages(cls, config: Config) -> dict[Stage, int]:
        """See `Method.trained_stages`."""
        options = Skill1Config.of(config)
        chosen = {"query": options.max_query_tokens, "rerank": options.max_rerank_tokens} if options.selection else {}
        distilled = {"distill": options.max_distill_tokens} if options.distillation else {}
        return chosen | super().trained_stages(config) | distilled

    @classmethod
    def skills_shown(cls, config: Config) -> tuple[int, float]:
        """See `Method.skills_shown`."""
        settings = LibraryConfig.of(config)
        return settings.top_k if settings.inject == "all" else 1, 1.0

    def begin(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """See `select`."""
        select(episodes, ask, self.skills.frozen(), "ucb", self.config)

    def end(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """Distil every episode; with distillation off, keep the raw trajectory."""
        if self._options.distillation:
            distill(episodes, ask, self._references, self._options.max_distill_tokens)
        else:
            for e in episodes:
                e.lesson = ask.prompts.raw_lesson(e.start, e.trajectory)

    def frozen(self) -> Stages:
        """See `Method.frozen`."""
        return FrozenSkill1(self.config, self.skills.frozen())

    def demonstrated(self, skills: Library) -> Stages:
        """See `Method.demonstrated`."""
        return DemonstratedSkill1(self.config, skills)

    def credit(self, rollouts: Sequence[Rollout], step: int) -> list[Row]:
        """See `Method.credit`."""
        waited = self._waiting.credited(rollouts, step) if self._waiting is not None else []
        return self.rows(rollouts, self.config, waited)

    @classmethod
    def rows(cls, rollouts: Sequence[Rollout], config: Config, waited: Sequence[Row] = ()) -> list[Row]:
        """Credit a step's rollouts: utilisation, selection and distillation (Skill1 Eq. 4-12).

        Args:
            waited: lessons of earlier steps, with their advantages.

        Raises:
            ValueError: see `credit.check_rollouts`, or a wrong number of turns of a stage.
        """
        options, credit = Skill1Config.of(config), config.credit
        check_rollouts(rollouts)
        count = len(rollouts)
        check_stages(
            rollouts,
            {
                "query": [options.selection] * count,
                "rerank": [options.selection and len(r.candidates) >= 2 for r in rollouts],
                "distill": [options.distillation] * count,
            },
        )
        episode, ndcgs = outcome_advantages(rollouts, credit), ndcgs_of(rollouts)
        lessons = group_advantages(_distill_rewards(rollouts, config), groups_of(rollouts), credit.scale_by_std)
        by_stage: dict[Stage, np.ndarray] = {"query": episode, "act": episode, "distill": lessons}
        terms: dict[Stage, float] = {"distill": options.lambda_distill}
        if options.rerank_credit == "return":
            by_stage["query"] = by_stage["rerank"] = outcome_advantages(rollouts, credit, _bonus(ndcgs, options))
        else:
            by_stage["rerank"] = rerank_advantages(ndcgs, options.rerank_baseline)
            if options.rerank_credit == "pick":
                brought = group_advantages(outcomes_of(rollouts), groups_of(rollouts), credit.scale_by_std)
                by_stage["rerank"] = by_stage["rerank"] + brought
            terms["rerank"] = options.lambda_rerank
        calls = calls_of(rollouts, without=[stage for stage, factor in terms.items() if factor == 0])
        advantages = [by_stage[call.turn.stage][call.rollout] for call in calls]
        if not options.lambda_distill:
            waited = ()
        return make_rows(rollouts, calls, advantages, credit.token_mean, terms, options.lambda_per, waited)

    @classmethod
    def metrics(cls, rollouts: Sequence[Rollout], config: Config) -> dict[str, float]:
        """See `Method.metrics`: also what retrieval expected, how well it was ranked, and whom distillation rewards."""
        hats, ndcgs = u_hats_of(rollouts, Skill1Config.of(config).u_hat), ndcgs_of(rollouts)
        distilled = np.array([bool(r.turns_of("distill")) for r in rollouts])
        ranked = ndcgs[~np.isnan(ndcgs)]
        return (
            rollout_metrics(rollouts, _returns(rollouts, config))
            | selection_metrics(rollouts)
            | {
                "u_hat": mean(hats),
                "distill_positive_rate": mean((outcomes_of(rollouts) > hats)[distilled]),
                "ndcg/mean": mean(ranked),
                "ndcg/std": std(ranked),
            }
        )

    def observe(self, rollouts: Sequence[Rollout], step: int, source: Source, policy: Policy) -> None:
        """Remember the last trajectories, where the distill prompt shows them."""
        if source != "train":
            return
        if self._references is not None:
            self._references.learn(rollouts)
        self._seen = rollouts if self._waiting is not None else ()

    def learn(self, rollouts: Sequence[Rollout], step: int, source: Source) -> LibraryEvent | None:
        """See `Method.learn`; lessons that the library takes begin to wait."""
        event = super().learn(rollouts, step, source)
        self._wait(event)
        return event

    def apply(self, event: LibraryEvent) -> None:
        """See `Method.apply`."""
        super().apply(event)
        self._wait(event)

    def _wait(self, event: LibraryEvent | None) -> None:
        if self._waiting is not None and event is not None:
            self._waiting.wait(self._seen, event)
            self._seen = ()

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        super().save(folder)
        if self._waiting is not None:
            self._waiting.save(folder)
        if self._references is not None:
            self._references.save(folder)

    def load(self, folder: Path) -> None:
        """See `Method.load`."""
        super().load(folder)
        if self._waiting is not None:
            self._waiting.load(folder)
        if self._references is not None:
            self._references.load(folder)


def _returns(rollouts: Sequence[Rollout], config: Config) -> np.ndarray:
    """(N,) R of each rollout's first call: Eq. 4 with penalties, and NDCG where the released code adds it."""
    options, returns = Skill1Config.of(config), returns_of(rollouts, config.credit)
    if options.rerank_credit == "return":
        return returns + _bonus(ndcgs_of(rollouts), options)
    return returns


def _bonus(ndcgs: np.ndarray, options: Skill1Config) -> np.ndarray:
    """(N,) what the released code adds to the return, nothing where there was nothing to rank."""
    return options.lambda_rerank * np.nan_to_num(ndcgs, nan=0.0)


def _distill_rewards(rollouts: Sequence[Rollout], config: Config) -> np.ndarray:
    """(N,) rewards of the distill rows (Eq. 7)."""
    options = Skill1Config.of(config)
    parsed = np.array([all(turn.well_formed for turn in r.turns_of("distill")) for r in rollouts])
    if options.lesson_credit == "use":
        return parsed.astype(float)
    return distill_rewards(outcomes_of(rollouts), u_hats_of(rollouts, options.u_hat), parsed, options.unparsed_distill)
