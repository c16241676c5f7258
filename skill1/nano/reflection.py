"""RetroAgent's reflection in compact words, the same for all environments. Ours, not the paper's.

    failure go_to take : move | mug here in cabinet_3

The judgement, the subtasks completed, those that were not (what does not apply is left out), the lesson or `none`. The
prompt is the distill prompt with the subtasks before the trajectory, and `none` for an outcome that is to be judged. A
policy whose warm start did not teach this form writes nothing that parses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from skill1.envs.base import Observation
from skill1.methods.retroagent.equations import Reflection
from skill1.methods.retroagent.prompts import Reflected
from skill1.nano.prompts import CompactBase, Trajectory, verdict
from skill1.records import Lesson

_JUDGEMENTS = {"success": True, "failure": False}
_NOTHING = "none"  # a lesson that says nothing


class CompactReflections(CompactBase):
    """Compact prompts that can also ask for a reflection."""

    subtasks: tuple[str, ...]

    @abstractmethod
    def _asked(self, start: Observation) -> str:
        """Write what a reflection is asked about: a mark, the subtasks, and what they depend on."""

    @abstractmethod
    def _progress(self, start: Observation, won: bool, trajectory: Trajectory) -> tuple[Mapping[str, bool], str]:
        """Which of the subtasks that the task has were completed, and the lesson, "" for none."""

    @abstractmethod
    def _strategy(self, words: Sequence[str], start: Observation) -> str:
        """What the library keeps of a lesson's words, "" for nothing."""

    def reflect(
        self, start: Observation, won: bool | None, trajectory: Trajectory, reference: Trajectory | None
    ) -> str:
        return self._looking_back(f"{self._asked(start)} ", start, won, trajectory, reference)

    def parse_reflect(self, text: str, start: Observation) -> Reflected | None:
        found = read_reflection(text, self.subtasks)
        if found is None:
            return None
        reflection, words = found
        strategy = self._strategy(words, start) if words else ""
        return Reflected(reflection, Lesson(start.instruction, strategy) if strategy else None)

    def write_reflection(self, start: Observation, won: bool, trajectory: Trajectory) -> str:
        """The reflection that the warm start teaches for an episode."""
        done, lesson = self._progress(start, won, trajectory)
        completed, left = [name for name in done if done[name]], [name for name in done if not done[name]]
        return " ".join([verdict(won), *completed, ":", *left, "|", lesson or _NOTHING])


def read_reflection(text: str, subtasks: Sequence[str]) -> tuple[Reflection, list[str]] | None:
    """What was judged, and the words of the lesson; None if it is not of this form.

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
