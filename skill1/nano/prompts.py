"""What the compact prompts of all environments share: frames of the calls, and parsers. Ours, not the paper's.

RetroAgent's reflection is the same everywhere:

    failure go_to take : move | mug here in cabinet_3

The judgement, the subtasks completed, those that were not (what does not apply is left out), the lesson or `none`. The
prompt is the distill prompt with the subtasks before the trajectory, and `none` for an outcome that is to be judged. A
policy whose warm start did not teach this form writes nothing that parses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from skill1.envs.base import Observation
from skill1.methods.retroagent.equations import Reflection
from skill1.methods.retroagent.prompts import Reflected
from skill1.methods.skillrl.bank import Mistake, Principle
from skill1.prompts.base import ActContext, Exchange, Parsed, complete_ranking
from skill1.records import Lesson
from skill1.registry import ConfigError

if TYPE_CHECKING:  # a study is planned without transformers
    from transformers import PreTrainedTokenizerBase

Trajectory = Sequence[Exchange]
WRITE = "<write>"  # where the policy starts
_JUDGEMENTS = {"success": True, "failure": False}
_NOTHING = "none"  # a lesson that says nothing


@dataclass(frozen=True, slots=True)
class Fact:
    """What an episode can teach: what is right where a task is about `about`, in ALFWorld in one home."""

    about: str  # object type; in WebShop the wish's words as tokens
    found: str  # entity token of the place where it was; in WebShop the brand as tokens
    home: str = ""  # name of the home

    @property
    def topic(self) -> tuple[str, str]:
        """Return what the fact is about: facts with one topic help with the same tasks."""
        return self.about, self.home


class CompactBase(ABC):
    """Prompts, parsers and what the warm start teaches, over an environment's compact words."""

    subtasks: ClassVar[tuple[str, ...]]  # of a reflection

    # -- what differs between environments --------------------------------------------------------------------------

    context = "window"

    @abstractmethod
    def vocabulary(self) -> list[str]:
        """List all words of prompts and answers in generated worlds."""

    @abstractmethod
    def _words(self, start: Observation) -> str:
        """Write the task."""

    def _first_seen(self, start: Observation) -> str:
        """Write what the first observation shows beside the task, for a ranking; "" where there is nothing."""
        return ""

    @abstractmethod
    def _scene(self, context: ActContext, past: str) -> str:
        """Write what an action depends on, the task last; `past`: observations and answers before."""

    @abstractmethod
    def _past(self, text: str, start: Observation) -> str:
        """Write an earlier observation."""

    @abstractmethod
    def _answer(self, action: str, text: str, start: Observation, *, named: bool = False) -> str:
        """Write an environment command, given on the observation `text`, as the policy would have written it.

        `named`: as one looks back on it.
        """

    @abstractmethod
    def _skill(self, text: str, start: Observation) -> str:
        """Write a strategy of the library as prompts show it."""

    @abstractmethod
    def _kept(self, text: str, start: Observation) -> str:
        """Write what the policy wrote as the library keeps it."""

    def _strategy(self, about: str, lesson: str) -> str:
        """Write what the library keeps of a lesson, with what it is about, both in the library's words."""
        return lesson

    def _avoided(self, mistakes: Sequence[Mistake]) -> list[str]:
        """Write a bank's mistakes; nothing where no word says what not to do."""
        return []

    @abstractmethod
    def _asked(self, start: Observation) -> str:
        """Write what a reflection is asked about: a mark, the subtasks, and what they depend on."""

    @abstractmethod
    def _progress(self, start: Observation, won: bool, trajectory: Trajectory) -> tuple[Mapping[str, bool], str]:
        """Tell which of the subtasks that the task has were completed, and the lesson, "" for none."""

    @abstractmethod
    def parse_action(self, text: str, admissible: Sequence[str]) -> Parsed: ...

    @abstractmethod
    def fact(self, start: Observation, found: str) -> Fact:
        """Return the fact that an episode teaches which found the place, or the brand, `found`."""

    @abstractmethod
    def write_query(self, fact: Fact) -> str:
        """Write the query that should find the fact."""

    @abstractmethod
    def write_lesson(self, fact: Fact) -> str:
        """Write the distillation of an episode that taught the fact."""

    @abstractmethod
    def write_skill(self, fact: Fact) -> str:
        """Write the strategy that the library keeps of it."""

    @abstractmethod
    def write_principle(self, fact: Fact) -> str:
        """Write the principle that a skill bank keeps of it."""

    # -- prompts ----------------------------------------------------------------------------------------------------

    def check(self, tokenizer: PreTrainedTokenizerBase) -> None:
        known = tokenizer.get_vocab()
        unknown = [word for word in self.vocabulary() if word not in known]
        if unknown:
            raise ConfigError(
                f"policy.model: {tokenizer.name_or_path!r} does not know {len(unknown)} words of this environment's compact "
                f"prompts ({', '.join(unknown[:3])}, ...): name a nano policy of this environment, or set policy.prompts=full"
            )

    def encode(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    def encode_next(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        raise ConfigError("policy.prompts=compact has no words for rollout.context=conversation: set it to window")

    def messages(self, said: Trajectory, text: str) -> list[dict[str, str]]:
        raise ConfigError("policy.prompts=compact is for the nano policies: another model needs policy.prompts=full")

    def opening(self, start: Observation) -> str:
        return ""

    def query(self, start: Observation) -> str:
        return f"<query> {self._task(start)} {WRITE}"

    def rerank(self, start: Observation, strategies: Sequence[str]) -> str:
        shown = " ; ".join(f"{self._skill(s, start)} : {i}" for i, s in enumerate(strategies, start=1))
        return f"<rerank> {self._first_seen(start)}{self._task(start)} <cand> {shown} {WRITE}"

    def act(self, context: ActContext) -> str:
        start = context.start
        past = (f"{self._past(text, start)} > {self._answer(action, text, start)}" for text, action in context.history)
        scene = self._scene(context, " ; ".join(past) or "none")
        return f"<act> {scene} <skill> {self._skill(context.skill, start) or 'none'} {WRITE}"

    def distill(self, start: Observation, won: bool, trajectory: Trajectory, reference: Trajectory | None) -> str:
        return self._looking_back("", start, won, trajectory, reference)

    def reflect(
        self, start: Observation, won: bool | None, trajectory: Trajectory, reference: Trajectory | None
    ) -> str:
        return self._looking_back(f"{self._asked(start)} ", start, won, trajectory, reference)

    def skill_block(self, strategies: Sequence[str]) -> str:
        return " ; ".join(strategies)

    def bank_block(
        self, general: Sequence[Principle], specific: Sequence[Principle], mistakes: Sequence[Mistake]
    ) -> str:
        return self.skill_block([*(entry.principle for entry in (*general, *specific)), *self._avoided(mistakes)])

    def _task(self, start: Observation) -> str:
        return f"<task> {self._words(start) or 'none'}"

    def _actions(self, start: Observation, trajectory: Trajectory) -> str:
        return " ; ".join(self._answer(action, text, start, named=True) for text, action in trajectory)

    def _looking_back(
        self, asked: str, start: Observation, won: bool | None, trajectory: Trajectory, reference: Trajectory | None
    ) -> str:
        """Frame what is asked after an episode; `won`: None where the policy is to judge."""
        shown = f"<ref> {self._actions(start, reference)} " if reference is not None else ""
        played = self._actions(start, trajectory)
        return f"<distill> {asked}{shown}<traj> {played} {_verdict(won)} {self._task(start)} {WRITE}"

    # -- parsers ----------------------------------------------------------------------------------------------------

    def parse_query(self, text: str, start: Observation) -> Parsed:
        return Parsed(self._kept(text.strip() or self._words(start), start), bool(text.strip()))

    def parse_rerank(self, text: str, count: int) -> tuple[tuple[int, ...], bool]:
        return complete_ranking(text.replace(",", " ").split(), count)

    def parse_distill(self, text: str, start: Observation) -> Lesson | None:
        words = text.split()
        bar = words.index("|") if words.count("|") == 1 else 0
        about, lesson = (self._kept(" ".join(part), start) for part in (words[:bar], words[bar + 1 :]))
        return Lesson(about, self._strategy(about, lesson)) if about and lesson else None

    def parse_reflect(self, text: str, start: Observation) -> Reflected | None:
        found = read_reflection(text, self.subtasks)
        if found is None:
            return None
        reflection, words = found
        about, lesson = self._kept(self._words(start), start), self._kept(" ".join(words), start)
        return Reflected(reflection, Lesson(start.instruction, self._strategy(about, lesson)) if lesson else None)

    def raw_lesson(self, start: Observation, trajectory: Trajectory) -> Lesson:
        words, actions = self._words(start), self._actions(start, trajectory)
        return Lesson(self._kept(words, start), self._kept(f"{words} : {actions}", start))

    # -- what the warm start teaches --------------------------------------------------------------------------------

    def write_reflection(self, start: Observation, won: bool, trajectory: Trajectory) -> str:
        """Write the reflection that the warm start teaches for an episode."""
        done, lesson = self._progress(start, won, trajectory)
        completed, left = [name for name in done if done[name]], [name for name in done if not done[name]]
        return " ".join([_verdict(won), *completed, ":", *left, "|", lesson or _NOTHING])


def read_reflection(text: str, subtasks: Sequence[str]) -> tuple[Reflection, list[str]] | None:
    """Read what was judged, and the words of the lesson; None if it is not of this form.

    >>> read_reflection("failure go_to take : move | mug here in cabinet_3", ("go_to", "take", "use", "move"))
    (Reflection(success=False, completed=2, listed=3), ['mug', 'here', 'in', 'cabinet_3'])
    """
    judged, bar, lesson = text.partition("|")
    first, *words = judged.split() or [""]
    if first not in _JUDGEMENTS or not bar or words.count(":") != 1 or "|" in lesson:
        return None
    colon = words.index(":")
    listed = words[:colon] + words[colon + 1 :]
    if len(set(listed)) < len(listed) or not set(listed) <= set(subtasks):
        return None
    said = lesson.split()
    return Reflection(_JUDGEMENTS[first], colon, len(listed)), [] if said == [_NOTHING] else said


def _verdict(won: bool | None) -> str:
    """Write an outcome as prompts tell it; None is one to be judged."""
    return "none" if won is None else "success" if won else "failure"
