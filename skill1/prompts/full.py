"""The paper's four templates (appendix) in our own words, wrapped in the model's chat template.

Every call is one user message; `conversation` has the words for the other context. Differs from the paper in: the
wording and the order, in which what stays the same over an episode comes first; the rerank call is skipped with fewer
than two candidates (the released code generates a dummy one).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from skill1.envs.base import Observation
from skill1.envs.spec import EnvironmentSpec
from skill1.prompts.answers import checked, json_object, labelled, lesson_fields, lessons, one_line, ranking
from skill1.prompts.base import Context, Parsed
from skill1.prompts.conversation import ConversationPrompts
from skill1.prompts.instruct import NOWHERE, InstructPrompts
from skill1.records import Lesson


def _tag(name: str, text: str) -> str | None:
    found = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return found.group(1).strip() if found else None


class FullPrompts(InstructPrompts):
    """Single calls: answers stand between tags, a lesson is a JSON object."""

    context: Context = "window"
    lists_admissible = True

    def parse_query(self, text: str, start: Observation) -> Parsed:
        """See `PromptSet.parse_query`."""
        tagged = _tag("query", text)
        value = text.strip() if tagged is None else tagged
        return Parsed(value or start.instruction, bool(tagged))

    def parse_rerank(self, text: str, count: int) -> tuple[tuple[int, ...], bool]:
        """See `PromptSet.parse_rerank`."""
        return ranking(_tag("rank", text) or "", count)

    def parse_action(self, text: str, admissible: Sequence[str]) -> Parsed:
        """See `PromptSet.parse_action`."""
        tagged = _tag("action", text)
        value = text.strip() if tagged is None else tagged
        return Parsed(self.words.command(value, admissible), bool(tagged))

    def parse_distill(self, text: str, start: Observation) -> Lesson | None:
        """See `PromptSet.parse_distill`."""
        fields = json_object(text)
        if fields is None:
            return None
        head, lesson = fields.get("description_head"), lessons(fields)
        if not isinstance(head, str) or not head.strip() or lesson is None:
            return None
        return Lesson(head.strip(), lesson)

    # -- the other way round, see `base.Answers` ---------------------------------------------------------------------

    def write_query(self, text: str) -> str:
        """Write a query, on one line."""
        line = one_line(text)
        written = f"<query>{line}</query>"
        return checked(written, self.parse_query(written, NOWHERE), Parsed(line, True))

    def write_ranking(self, order: Sequence[int]) -> str:
        """See `Answers.write_ranking`."""
        written = f"<rank>{','.join(str(i + 1) for i in order)}</rank>"
        return checked(written, self.parse_rerank(written, len(order)), (tuple(order), True))

    def write_action(self, command: str, thought: str = "") -> str:
        """See `Answers.write_action`."""
        considered = f"<think>{thought.strip()}</think>" if thought else ""
        written = f"{considered}<action>{command}</action>"
        return checked(written, self.parse_action(written, (command,)), Parsed(command, True))

    def write_lesson(self, lesson: Lesson, won: bool) -> str:
        """Write the JSON object. A strategy without the labels of `parse_distill` gets that of actions."""
        meant = Lesson(lesson.desc.strip(), labelled(lesson.strategy.strip()))
        fields = {"task_success": won, **lesson_fields(meant.strategy), "description_head": meant.desc}
        written = json.dumps(fields, ensure_ascii=False)
        return checked(written, self.parse_distill(written, NOWHERE), meant)


def make(spec: EnvironmentSpec, context: Context, folder: Path | None = None) -> FullPrompts | ConversationPrompts:
    """Build the prompts in an environment's words, with the templates of a folder where it has any."""
    return (FullPrompts if context == "window" else ConversationPrompts)(spec.words, folder)
