"""What SkillRL shows of its bank, in the words of the `full` prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from skill1.methods.skillrl.bank import Mistake, Principle
from skill1.prompts.base import window_only
from skill1.prompts.full import FullPrompts


class BankPrompts(Protocol):
    """What SkillRL asks of a prompt set beside acting."""

    def bank_block(
        self, general: Sequence[Principle], specific: Sequence[Principle], mistakes: Sequence[Mistake]
    ) -> str:
        """Write what stands in every act prompt, in the place of a skill; "" when there is nothing."""
        ...


class FullBank:
    """The bank's block for instruction-tuned models: three headed lists."""

    def __init__(self, prompts: FullPrompts) -> None:
        window_only("method.name=skillrl", prompts.context)
        self._prompts = prompts

    def bank_block(
        self, general: Sequence[Principle], specific: Sequence[Principle], mistakes: Sequence[Mistake]
    ) -> str:
        """See `BankPrompts.bank_block`."""
        whens = [f" (when: {entry.when})" if entry.when else "" for entry in specific]
        sections = {
            "Principles for every task:": [f"- {e.title}: {e.principle}" for e in general],
            "Principles for this kind of task:": [
                f"- {e.title}: {e.principle}{when}" for e, when in zip(specific, whens, strict=True)
            ],
            "Mistakes to avoid:": [f"- {mistake.description} Instead: {mistake.avoid}" for mistake in mistakes],
        }
        lines = [line for head, found in sections.items() if found for line in (head, *found)]
        return self._prompts.skill_block(lines)
