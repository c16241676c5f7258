"""RetroAgent as a method: memory by task text for half of a group, a reflection on every episode, return-to-go credit.

The released code gives R_int to no action (`intrinsic_weight=0`), and to the reflections where these are trained
(`reflect_reward="intrinsic"`). Differs from the paper in: reflections are trained in the same update as actions, and
rows are averaged as Skill1's; the memory has the capacity and retirement of the skill library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from skill1.config import STRICT, Config, LibraryConfig, MethodConfig, knob
from skill1.credit import (
    check_rollouts,
    check_stages,
    group_advantages,
    groups_of,
    invalid_actions,
    mean,
    outcomes_of,
    returns_of,
    rollout_metrics,
    selection_metrics,
)
from skill1.library import FrozenLibrary
from skill1.methods.base import Source, refuse_price_apart
from skill1.methods.library_method import LibraryMethod
from skill1.methods.references import PerTask, ReferenceTrajectories, SameTask
from skill1.methods.retroagent.equations import (
    Potentials,
    Reflection,
    Retrospect,
    intrinsic_of,
    judged_right,
    memory_arm,
    potential,
    reflection_rewards,
    return_advantages,
    step_returns,
)
from skill1.methods.retroagent.prompts import Reflected, Reflections
from skill1.methods.skill1 import retrieve, show
from skill1.prompts import method_prompts
from skill1.records import Rollout, Row, Stage
from skill1.registry import ConfigError
from skill1.rollout import Ask, Episode, Stages
from skill1.rows import calls_of, make_rows

if TYPE_CHECKING:  # what only reads rollouts need not load torch
    from skill1.policy import Policy

STAGE = "distill"  # of the reflection: its random stream, its rows


@dataclass(frozen=True, config=STRICT)
class RetroAgentConfig(MethodConfig):
    """RetroAgent's options; "released" is its code's."""

    # Whether the policy is told the outcome of the episode it reflects on, or must judge it.
    reflection: Literal["told", "judged"] = knob("told", "reflection prompt", "told in context, judged if trained")
    # The reflection also sees the task's last episode of the opposite outcome.
    reference: bool = knob(False, "switch", "released: on in context")
    # What references and Phi are kept by.
    same_task: SameTask = knob("text", "game or task text", "released")
    # How much of a group retrieves in training; the rest is the control.
    memory_share: float = knob(0.5, "share of a group", "paper (rho)", gt=0, le=1)
    # How much R_int counts in the return, a win being 1.
    intrinsic_weight: float = knob(0.1, "weight", "paper (1 beside a win of 10); released 0", ge=0)
    # What a later reward is worth at an earlier step.
    gamma: float = knob(0.95, "discount per step", "paper", ge=0, le=1)
    # Whether an episode counts once in a group's mean and deviation, or once per step.
    statistics: Literal["episode", "row"] = knob("row", "mean and std over", "released")
    # How much the reflection's loss counts beside the actions'; 0 = not trained.
    lambda_reflect: float = knob(1.0, "weight", "released", ge=0)
    # What a reflection earns.
    reflect_reward: Literal["judged", "judged_won", "intrinsic"] = knob(
        "judged", "reward", "ours; judged_won is Eq. 12 read literally, released intrinsic"
    )
    # What a reflection's reward is compared with.
    reflect_baseline: Literal["group", "batch", "none"] = knob("none", "baseline", "paper (Eq. 13); released batch")
    # A longer reflection is cut.
    max_reflect_tokens: int = knob(2048, "tokens", "paper (response limit)", gt=0)


def remember(
    episodes: Sequence[Episode], ask: Ask, library: FrozenLibrary, mode: Literal["ucb", "greedy"], config: Config
) -> None:
    """Retrieve by the task's sentence and show what is found, without a call of the policy."""
    for e in episodes:
        e.query = e.start.instruction
    if len(library):
        retrieve(episodes, ask, library, mode)
        show(episodes, ask, library, LibraryConfig.of(config).injected(mode))


class FrozenRetroAgent(Stages):
    """RetroAgent at evaluation: every episode remembers, nothing is reflected on."""

    def __init__(self, config: Config, library: FrozenLibrary) -> None:
        self._config = config
        self._library = library

    def begin(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """See `remember`."""
        remember(episodes, ask, self._library, "greedy", self._config)


class RetroAgent(LibraryMethod):
    """Memory for half of a group, reflections, and credit for progress."""

    Options: ClassVar[type[MethodConfig]] = RetroAgentConfig
    Extra: ClassVar[type | None] = Retrospect

    def __init__(self, config: Config, folder: Path | None = None) -> None:
        super().__init__(config, folder)
        options = self._options = RetroAgentConfig.of(config)
        self._prompts: Reflections = method_prompts(config)
        self._potentials = Potentials(options.same_task)
        self._references = ReferenceTrajectories(options.same_task) if options.reference else None
        self._remembered: list[PerTask] = [m for m in (self._potentials, self._references) if m is not None]

    @classmethod
    def check(cls, config: Config) -> None:
        """See `Method.check`."""
        refuse_price_apart(config)
        options = RetroAgentConfig.of(config)
        if options.reflection == "judged" and options.reference:
            raise ConfigError(
                "method.reference shows an episode of the opposite outcome, which tells what method.reflection=judged "
                "asks for: set it to false"
            )

    @classmethod
    def check_start(cls, config: Config) -> None:
        """See `Method.check_start`. Raises ConfigError for a prompt set without words for a reflection."""
        super().check_start(config)
        method_prompts(config)

    @classmethod
    def trained_stages(cls, config: Config) -> dict[Stage, int]:
        """See `Method.trained_stages`."""
        return super().trained_stages(config) | {STAGE: RetroAgentConfig.of(config).max_reflect_tokens}

    @classmethod
    def skills_shown(cls, config: Config) -> tuple[int, float]:
        """See `Method.skills_shown`."""
        library = LibraryConfig.of(config)
        return library.top_k if library.inject == "all" else 1, RetroAgentConfig.of(config).memory_share

    @classmethod
    def admits(cls, rollout: Rollout) -> bool:
        """Tell whose lessons are kept: those of an episode that was judged right, won or lost."""
        return judged_right(rollout)

    # -- stages -------------------------------------------------------------------------------------------------------

    def begin(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """Let the memory half of every group remember."""
        remembers = memory_arm(self.config.rollout.group_size, self._options.memory_share)
        for e in episodes:
            e.extra = Retrospect(memory=remembers[e.index])
        remember([e for e in episodes if e.extra.memory], ask, self.skills.frozen(), "ucb", self.config)

    def end(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """Let the policy reflect: how far every rollout came, whether it won, and what to remember."""
        told = self._options.reflection == "told"
        with ask.timed(STAGE):
            shown = [None if self._references is None else self._references.opposite(e) for e in episodes]
            texts = [
                self._prompts.reflect(e.start, e.won if told else None, e.trajectory, reference)
                for e, reference in zip(episodes, shown, strict=True)
            ]
            answers = ask(STAGE, episodes, texts, self._options.max_reflect_tokens)
            for e, answer in zip(episodes, answers, strict=True):
                found = self._prompts.parse_reflect(answer.text, e.start)
                reflection = Reflection(None, 0, 0) if found is None else found.reflection
                e.lesson = None if found is None else found.lesson
                e.extra = replace(e.extra, reflection=reflection, baseline=self._potentials.of(e))
                e.record(STAGE, answer, "" if found is None else _value(found), found is not None)

    def frozen(self) -> Stages:
        """See `Method.frozen`."""
        return FrozenRetroAgent(self.config, self.skills.frozen())

    # -- credit -------------------------------------------------------------------------------------------------------

    @classmethod
    def rows(cls, rollouts: Sequence[Rollout], config: Config) -> list[Row]:
        """Credit actions by their returns to go and reflections by their judgement (RetroAgent Eq. 3, 11-13).

        Raises:
            ValueError: see `credit.check_rollouts`, or a rollout without its one reflection.
        """
        options, credit = RetroAgentConfig.of(config), config.credit
        check_rollouts(rollouts)
        check_stages(rollouts, {"query": [False] * len(rollouts), STAGE: [True] * len(rollouts)})
        groups, intrinsics = groups_of(rollouts), np.array([intrinsic_of(r) for r in rollouts])
        rewards = outcomes_of(rollouts) + options.intrinsic_weight * intrinsics
        taken = [
            step_returns(reward, invalid_actions(r, credit), credit.invalid_penalty, options.gamma)
            for r, reward in zip(rollouts, rewards, strict=True)
        ]
        steps = np.array([len(part) for part in taken])
        acts = iter(
            return_advantages(
                np.concatenate(taken), np.repeat(groups, steps), steps, options.statistics, credit.scale_by_std
            )
        )
        reflections = _reflect_advantages(rollouts, intrinsics, config)
        calls = calls_of(rollouts, without=[STAGE] if options.lambda_reflect == 0 else ())
        advantages = [next(acts) if call.turn.stage == "act" else reflections[call.rollout] for call in calls]
        return make_rows(rollouts, calls, advantages, credit.token_mean, {STAGE: options.lambda_reflect})

    @classmethod
    def metrics(cls, rollouts: Sequence[Rollout], config: Config) -> dict[str, float]:
        """See `Method.metrics`: also both halves' success, and how far and how rightly episodes were judged."""
        intrinsics = [intrinsic_of(r) for r in rollouts]
        weight = RetroAgentConfig.of(config).intrinsic_weight
        returns = returns_of(rollouts, config.credit) + weight * np.array(intrinsics)
        return (
            rollout_metrics(rollouts, returns)
            | selection_metrics(rollouts)
            | {
                "memory/success": mean(r.outcome for r in rollouts if r.extra.memory),
                "memory/control": mean(r.outcome for r in rollouts if not r.extra.memory),
                "reflection/potential": mean(potential(r.extra.reflection, bool(r.outcome)) for r in rollouts),
                "reflection/intrinsic": mean(intrinsics),
                "reflection/right": mean(judged_right(r) for r in rollouts),
            }
        )

    # -- learning -----------------------------------------------------------------------------------------------------

    def observe(self, rollouts: Sequence[Rollout], step: int, source: Source, policy: Policy) -> None:
        """Raise Phi (RetroAgent Eq. 5) and remember the last trajectories."""
        if source == "train":
            for memory in self._remembered:
                memory.learn(rollouts)

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        super().save(folder)
        for memory in self._remembered:
            memory.save(folder)

    def load(self, folder: Path) -> None:
        """See `Method.load`."""
        super().load(folder)
        for memory in self._remembered:
            memory.load(folder)


def _reflect_advantages(rollouts: Sequence[Rollout], intrinsics: np.ndarray, config: Config) -> np.ndarray:
    """(N,) advantages of the reflections."""
    options = RetroAgentConfig.of(config)
    right = np.array([judged_right(r) for r in rollouts])
    rewards = reflection_rewards(outcomes_of(rollouts), right, intrinsics, options.reflect_reward)
    if options.reflect_baseline == "none":
        return rewards
    compared = groups_of(rollouts) if options.reflect_baseline == "group" else np.zeros(len(rollouts), dtype=int)
    return group_advantages(rewards, compared, config.credit.scale_by_std)


def _value(found: Reflected) -> str:
    """A parsed reflection as a turn's value: "success 2/4" and the lesson."""
    said = found.reflection
    lesson = [found.lesson.strategy] if found.lesson else []
    return "\n".join([f"{'success' if said.success else 'failure'} {said.completed}/{said.listed}", *lesson])
