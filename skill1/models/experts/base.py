"""What an environment's scripted expert is: it plays, words queries and lessons, and knows its training games. Ours."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from skill1.config import Config, ConfigError
from skill1.envs.base import Observation, VectorEnvironment
from skill1.envs.make import environment_spec
from skill1.prompts import Context, PromptSet, make_prompts
from skill1.prompts.base import Answers
from skill1.prompts.instruct import NOWHERE
from skill1.records import Lesson, Rollout, Task
from skill1.registry import find

F = TypeVar("F")  # what an episode can teach
APART = 3  # distance of facts that have nothing in common


class Player(ABC, Generic[F]):
    """Plays one episode."""

    @abstractmethod
    def act(self, now: Observation) -> tuple[str, str]:
        """Return the next command, and in a sentence why it is the next; changes nothing that the answer depends on."""

    @abstractmethod
    def moved(self, command: str, now: Observation) -> None:
        """Take note of what was really done, and of what was seen then."""

    @abstractmethod
    def slip(self, now: Observation, rng: random.Random) -> str:
        """Return a command that may be senseless or inadmissible."""

    @abstractmethod
    def fact(self) -> F:
        """Return what the episode teaches, so far."""


@dataclass(frozen=True, slots=True)
class Taught:
    """What an episode taught, in words."""

    desc: str  # when it helps
    actions: str
    navigation: str

    def lesson(self, context: Context) -> Lesson:
        """Word the lesson as the prompts of a context ask for it: in the window with the labels of its two parts."""
        if context == "window":
            return Lesson(self.desc, f"Actions: {self.actions} Navigation: {self.navigation}")
        return Lesson(self.desc, f"{self.navigation} {self.actions}")


class Expert(ABC, Generic[F]):
    """What an environment's expert knows of its training games, and how it words it. `EnvironmentSpec.expert` names it."""

    facts: Mapping[str, F]  # what each training game teaches, by `Task.game`

    @abstractmethod
    def __init__(self, environment: VectorEnvironment, tasks: Sequence[Task]) -> None:
        """`tasks`: all training games. Raises DataError for one without data."""

    @abstractmethod
    def knowledge(self) -> dict[str, Any]:
        """Return what was counted, in JSON values."""

    @abstractmethod
    def asked(self, start: Observation) -> F:
        """What an episode's task asks for, with nothing known of the game. Raises ValueError if it is no such task."""

    @abstractmethod
    def player(self, start: Observation, told: F | None) -> Player[F]:
        """Begin an episode; the player looks where `told` says, as far as this is about the same things."""

    @abstractmethod
    def distance(self, one: F, other: F) -> int:
        """How little two facts have in common: 0 if they are about the same task, up to `APART`."""

    @abstractmethod
    def query(self, fact: F, rng: random.Random) -> str:
        """Ask for the skill that would help where a task asks for `fact`."""

    @abstractmethod
    def lesson(self, fact: F, won: bool, rng: random.Random) -> Taught:
        """Word what an episode taught."""

    @abstractmethod
    def can_follow(self, fact: F, start: Observation) -> bool:
        """Whether the first moves of an episode can follow a fact."""

    @abstractmethod
    def follows(self, fact: F, rollout: Rollout) -> bool:
        """Whether those of a rollout do."""


@runtime_checkable
class Writers(PromptSet, Answers, Protocol):
    """A prompt set that also writes what it reads."""


def kept(prompts: Writers, taught: Taught) -> Lesson:
    """Return what a library keeps of a won episode's lesson, once a policy has written it."""
    lesson = prompts.parse_distill(prompts.write_lesson(taught.lesson(prompts.context), True), NOWHERE)
    assert lesson is not None  # writers check that what they write is read
    return lesson


def make_expert(config: Config, environment: VectorEnvironment) -> Expert[Any]:
    """Let the environment's expert study the training split.

    Raises:
        ConfigError: the environment has no expert.
        DataError: there are no training games.
    """
    spec = environment_spec(config.environment.name)
    if spec.expert is None:
        raise ConfigError(f"the environment {spec.name} has no expert: name one in its EnvironmentSpec.expert")
    return find("experts", spec.expert)(environment, environment.tasks(config.environment.train_split))


def make_writers(config: Config) -> Writers:
    """Build the run's prompt set. Raises ConfigError if it does not write what it reads, or see `make_prompts`."""
    prompts = make_prompts(config.policy.prompts, config.environment.name, config.rollout.context)
    if not isinstance(prompts, Writers):
        raise ConfigError(
            f"policy.prompts={config.policy.prompts} cannot write an expert's answers: it needs the methods "
            "write_query, write_ranking, write_action and write_lesson, which the prompts 'full' have"
        )
    return prompts
