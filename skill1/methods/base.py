"""The protocol of a method: what the training loop calls, and when. The loop knows nothing else of a method.

    begin(episodes, ask)              before the first action: query, retrieve, show a skill
    end(episodes, ask)                after the last one: distil, reflect
    rows(rollouts, config), metrics   credit
    observe(rollouts, ...)            on every rank: what all of them see for themselves
    learn(...) -> event, apply(event) on rank 0, then on all others: what one rank authors
    frozen()                          a view that evaluation plays with and that learns nothing
    save(folder), load(folder)        checkpoint

`Method` itself does nothing but credit outcomes within groups: plain GRPO. Skill1 goes through the same door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from skill1.config import Config, ConfigError, MethodConfig
from skill1.credit import check_rollouts, outcome_advantages, returns_of, rollout_metrics
from skill1.library import Library
from skill1.records import Rollout, Row, Skill, Stage
from skill1.rollout import Stages
from skill1.rows import calls_of, make_rows

if TYPE_CHECKING:  # what only reads rollouts need not load torch
    from skill1.policy import Policy

Source = Literal["train", "validation"]


class Skills(Protocol):
    """What a checkpoint holds of a method and an evaluation can use or withhold: a library, a bank."""

    def __len__(self) -> int: ...

    def state_hash(self) -> str:
        """SHA-256 of all that counts: equal on all ranks and after a resume."""
        ...


class Method(Stages):
    """A method of a run, one object on every rank. Subclasses override what they do otherwise than GRPO."""

    Options: ClassVar[type[MethodConfig]] = MethodConfig  # the section `method` of a configuration
    Extra: ClassVar[type | None] = (
        None  # frozen dataclass of `Rollout.extra`; its fields are columns of the rollout log
    )
    uses_library: ClassVar[bool] = False  # the configuration has a section `library`
    keeps_skills: ClassVar[bool] = False  # checkpoints hold skills that an evaluation can use or withhold
    skills: Skills | None = None  # these, where they are kept

    def __init__(self, config: Config, folder: Path | None = None) -> None:
        """
        Args:
            folder: where rank 0 of a training run keeps what was learnt, step by step; None everywhere else.
        """
        self.config = config
        self.folder = folder

    @classmethod
    def check(cls, config: Config) -> None:
        """Check what the fields' own types cannot say, also of a run that is only read. Raises ConfigError."""

    @classmethod
    def check_start(cls, config: Config) -> None:
        """Check that what a run begins with is there: files, keys. Raises UserError."""

    @classmethod
    def starts_with_skills(cls, config: Config) -> bool:
        """Tell whether the run begins with skills that were written before it."""
        return False

    @classmethod
    def leak(cls, config: Config) -> str | None:
        """Say, for the run's manifest, how the run learns from what it is evaluated on; None if it does not."""
        return None

    @classmethod
    def trained_stages(cls, config: Config) -> dict[Stage, int]:
        """Stages that the policy writes in training -> limit of an answer in tokens, in the order of an episode."""
        return {"act": config.rollout.max_act_tokens}

    @classmethod
    def skills_shown(cls, config: Config) -> tuple[int, float]:
        """Say how many skills an act prompt of training shows at most, and in which share of the episodes."""
        return 0, 0.0

    # -- credit -------------------------------------------------------------------------------------------------------

    @classmethod
    def rows(cls, rollouts: Sequence[Rollout], config: Config) -> list[Row]:
        """Credit a step's rollouts (Skill1 Eq. 12): every call gets its episode's advantage within the group.

        Raises:
            ValueError: see `credit.check_rollouts`.
        """
        check_rollouts(rollouts)
        credit, calls = config.credit, calls_of(rollouts)
        advantages = outcome_advantages(rollouts, credit)
        return make_rows(rollouts, calls, [advantages[call.rollout] for call in calls], credit.token_mean)

    def credit(self, rollouts: Sequence[Rollout], step: int) -> list[Row]:
        """Make the rows of a step's update, on every rank alike: those of `rows`, and earlier ones that waited.

        Args:
            step: training step, from 1.
        """
        return self.rows(rollouts, self.config)

    @classmethod
    def metrics(cls, rollouts: Sequence[Rollout], config: Config) -> dict[str, float]:
        """Measure what a step's log says of its rollouts."""
        return rollout_metrics(rollouts, returns_of(rollouts, config.credit))

    # -- learning -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin at the first step, with the skills of `starts_with_skills`.

        What a run that died before its first checkpoint has left in `folder` is forgotten.
        """

    def observe(self, rollouts: Sequence[Rollout], step: int, source: Source, policy: Policy) -> None:
        """Take episodes into account, on every rank in the same way.

        Args:
            rollouts: of a training step, or of a validation after it; the same on every rank.
            step: training step, from 1.
            policy: as it played them; every rank must ask it alike.
        """

    def learn(self, rollouts: Sequence[Rollout], step: int, source: Source) -> Any:
        """Learn from them, on rank 0; the event says what changed. None: nothing did."""
        return None

    def apply(self, event: Any) -> None:
        """Repeat on another rank what `learn` did on rank 0, where it did anything."""

    def state(self, event: Any) -> dict[str, float]:
        """Measure what a step's log says of the method after `learn` or `apply`."""
        return {}

    def close(self) -> None:
        """End a run, also after an error: say what went wrong on the way without ending it."""

    # -- skills at evaluation -----------------------------------------------------------------------------------------

    def frozen(self) -> Stages:
        """View the method as evaluation plays it: with what it has learnt so far, learning nothing."""
        return Stages()

    def demonstrated(self, skills: Library) -> Stages:
        """View the method as an expert demonstrates it: all stages that it trains and an expert can answer.

        Args:
            skills: drawn for each episode, where the method reads what it retrieves.
        """
        return self.frozen()

    def save(self, folder: Path) -> None:
        """Write into checkpoint-N what a resumed run needs."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""

    def load_skills(self, folder: Path) -> None:
        """Read the skills alone, from the folder `library` of a checkpoint or of an exported model."""

    def load_initial(self, folder: Path) -> None:
        """Read the skills that a run started with, from its folder `library`."""

    def skill_table(self) -> list[dict[str, Any]]:
        """List the skills to read, best first: column -> value of each."""
        return []

    @classmethod
    def skills_before(cls, config: Config, folder: Path, step: int) -> Mapping[str, Skill]:
        """Read the skills as the rollouts of `step` were shown them, by id, from a run's folder `library`."""
        return {}


def refuse_price_apart(config: Config) -> None:
    """Raise ConfigError if invalid actions cost beside the advantage, for methods that reward single actions."""
    if config.credit.penalise == "advantage":
        raise ConfigError(
            f"credit.penalise=advantage has no meaning for {config.method.name}, which rewards every action by itself: "
            "set it to return"
        )
