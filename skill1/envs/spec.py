"""What the kit has to know of an environment beside its episodes: names, words, what is reported, what belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skill1.config import EnvironmentConfig
from skill1.envs.base import VectorEnvironment

ANY_KIND = "any"  # kind of every task where kinds are not distinguished


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How many of some tasks can reach a score of 1.0 at all."""

    goals: int
    reachable: int

    @property
    def share(self) -> float:
        return self.reachable / self.goals


@dataclass(frozen=True, slots=True)
class PromptWords:
    """What an instruct model is told about the environment, as it stands in the templates of `prompts`."""

    setting: str  # what it solves: "a household task in a text environment"
    episode: str  # what it looks back at: "a household task"
    navigation: str  # what a navigation lesson is about: "where things are and how to search"
    world: str  # what a teacher's agent plays: "household tasks in a text game, where an agent …"
    subtasks: tuple[str, ...]  # of a reflection that is told the outcome (RetroAgent)
    judged_subtasks: tuple[str, ...]  # of one that must judge it
    hint: str = ""  # what the list of admissible actions does not say
    actions: str = ""  # the forms of all actions, for prompts that do not list them
    lower_case: bool = False  # actions that are not on the list are read in lower case
    # (observation's text, task's sentence) -> the text as prompts show it: the task stands beside it already
    plain: Callable[[str, str], str] = lambda text, instruction: text

    def command(self, text: str, admissible: Sequence[str]) -> str:
        """Find what is sent to the environment: the admissible command that `text` is, whatever its case, or `text`."""
        if text in admissible:
            return text
        known = {action.lower(): action for action in admissible}
        return known.get(text.lower(), text.lower() if self.lower_case else text)


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """An environment: how it is opened, what its tasks are called, which numbers and tables belong to it.

    `environment.name` says which: a name that this package or another provides, "module:OBJECT" or "file.py:OBJECT".
    """

    name: str  # also `Task.environment` of its tasks
    open: Callable[[Any], VectorEnvironment]  # of its `options`; raises DataError if data is missing or malformed
    splits: Mapping[str, str]  # split -> what figures call it ("seen homes"), in the order of tables and figures
    words: PromptWords
    options: type[EnvironmentConfig] = EnvironmentConfig  # the section `environment` of a configuration
    task: str = "task"  # what tables and texts call a task, singular and plural: "game", "games"
    tasks: str = "tasks"
    categories: tuple[str, ...] = ()  # of `Task.category`, in the order of tables and figures; others follow by name
    data_variable: str | None = None  # environment variable with the data folder where environment.data is not set
    graded: bool = False  # a lost task's score can be above 0: scores are reported beside success
    ceiling: Callable[[Any, Iterable[str]], Ceiling] | None = None  # of tasks, by their `Task.game`
    benchmark: str | None = None  # whose published numbers stand beside its results (data/paper); None: nobody's
    cluster: Callable[[str], str] = lambda game: game  # games with one name are alike: those of a home
    kinds: tuple[str, ...] = (ANY_KIND,)  # of tasks, as far as their sentence tells: a skill bank's sections (SkillRL)
    kind_of: Callable[[str], str] = lambda instruction: ANY_KIND  # raises ValueError for no sentence of its tasks
    packages: tuple[str, ...] = ()  # pinned ones that its games need, without what these depend on
    generator: str | None = None  # "module:OBJECT" of what writes games of one's own (`envs.generation.Generator`)
    expert: str | None = None  # "module:OBJECT" of its scripted player (`models.experts.base.Expert`)
    nano: str | None = None  # "module:OBJECT" of its world for policies trained from scratch (`skill1.nano`)

    def ordered_splits(self, present: Iterable[str]) -> list[str]:
        """Sort splits as `splits` has them; unknown ones follow by name."""
        return _ordered(present, self.splits)

    def ordered_categories(self, present: Iterable[str]) -> list[str]:
        """Sort categories as `categories` has them; unknown ones follow by name."""
        return _ordered(present, self.categories)

    def split_label(self, split: str) -> str:
        """Return what figures call a split; an unknown one by its name."""
        return self.splits.get(split, split)


def _ordered(present: Iterable[str], known: Iterable[str]) -> list[str]:
    left = set(present)
    return [name for name in known if name in left] + sorted(left.difference(known))
