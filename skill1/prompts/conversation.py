"""The stages as one chat per rollout. Ours, not the paper's.

    user       task, first observation, request    assistant  where are mugs kept, and how is one cleaned
    user       candidates, request                 assistant  2,1,3
    user       skill, request                      assistant  go to cabinet 3
    user       observation                         assistant  take mug 1 from cabinet 3
    user       outcome, request                    assistant  When: … / Do: …

Answers are plain text. An action may follow lines of thought, of which the first begins with "Thought:"; it is the last
line. No observation, skill or action is written twice, so a turn costs a tenth of the tokens of a single call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from skill1.envs.base import Observation
from skill1.prompts.answers import checked, one_line, ranking
from skill1.prompts.base import Context, Parsed
from skill1.prompts.instruct import NOWHERE, InstructPrompts
from skill1.records import Lesson

_MAX_QUERY = 500  # characters; a longer line is no query
_THOUGHT = "Thought:"
_LESSON = re.compile(r"When: *(\S.*)\nDo: *(\S.*)")


class ConversationPrompts(InstructPrompts):
    """Calls of one chat: only what is new is said, answers are plain text."""

    context: Context = "conversation"
    lists_admissible = False

    def opening(self, start: Observation) -> str:
        """See `PromptSet.opening`."""
        return self._fill("opening", **self._seen(start))

    def parse_query(self, text: str, start: Observation) -> Parsed:
        """Read one line; of several, the first is what is searched for."""
        lines = _lines(text)
        value = lines[0] if lines else start.instruction
        return Parsed(value, len(lines) == 1 and len(value) <= _MAX_QUERY)

    def parse_rerank(self, text: str, count: int) -> tuple[tuple[int, ...], bool]:
        """See `PromptSet.parse_rerank`."""
        return ranking(text, count)

    def parse_action(self, text: str, admissible: Sequence[str]) -> Parsed:
        """Read the last line; lines before it must be a thought."""
        *before, said = _lines(text) or [""]
        thought = not before or before[0].startswith(_THOUGHT)
        well_formed = bool(said) and thought and not said.startswith(_THOUGHT)
        return Parsed(self.words.command(said, admissible), well_formed)

    def parse_distill(self, text: str, start: Observation) -> Lesson | None:
        """Read the two lines of a lesson."""
        found = _LESSON.fullmatch("\n".join(_lines(text)))
        return Lesson(found[1], found[2]) if found else None

    # -- the other way round, see `base.Answers` ---------------------------------------------------------------------

    def write_query(self, text: str) -> str:
        """Write a query, on one line."""
        written = one_line(text)
        return checked(written, self.parse_query(written, NOWHERE), Parsed(written, True))

    def write_ranking(self, order: Sequence[int]) -> str:
        """See `Answers.write_ranking`."""
        written = ",".join(str(i + 1) for i in order)
        return checked(written, self.parse_rerank(written, len(order)), (tuple(order), True))

    def write_action(self, command: str, thought: str = "") -> str:
        """See `Answers.write_action`; a thought becomes one line."""
        written = f"{_THOUGHT} {one_line(thought)}\n{command}" if thought else command
        return checked(written, self.parse_action(written, (command,)), Parsed(command, True))

    def write_lesson(self, lesson: Lesson, won: bool) -> str:
        """Write the two lines; the outcome stands in the request already."""
        meant = Lesson(one_line(lesson.desc), one_line(lesson.strategy))
        written = f"When: {meant.desc}\nDo: {meant.strategy}"
        return checked(written, self.parse_distill(written, NOWHERE), meant)


def _lines(text: str) -> list[str]:
    """The lines that are not blank."""
    return [line.strip() for line in text.splitlines() if line.strip()]
