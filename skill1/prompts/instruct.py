"""What the instruct prompts of both contexts have in common: templates, filled in with the words of an environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from skill1.envs.base import Observation
from skill1.envs.spec import PromptWords
from skill1.prompts.base import ActContext, Context, Exchange
from skill1.prompts.chat import encode_first, encode_next
from skill1.prompts.templates import load_templates
from skill1.records import Lesson

NOWHERE = Observation("", (), "")  # for parsers that are asked about no episode

if TYPE_CHECKING:  # a command that only reads a configuration need not load transformers
    from transformers import PreTrainedTokenizerBase


class InstructPrompts:
    """Templates for instruction-tuned chat models, in the words of an environment."""

    context: Context
    lists_admissible: ClassVar[bool]  # whether act prompts list the admissible actions

    def __init__(self, words: PromptWords, folder: Path | None = None) -> None:
        """
        Args:
            folder: templates that replace the built-in ones of their names.

        Raises:
            ConfigError: see `Templates`; or a template of the folder cannot be filled in.
        """
        self.words = words
        self._templates = load_templates(self.context, folder)
        self._constant = {
            "setting": words.setting,
            "episode": words.episode,
            "navigation": words.navigation,
            "hint": words.hint,
            "actions": words.actions,
        }
        self._system = self._fill("system")
        if folder is not None:
            self._try()

    def check(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """See `PromptSet.check`."""
        self.encode(tokenizer, "")
        if self.context == "conversation":
            self.encode_next(tokenizer, "")

    def encode(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        """See `PromptSet.encode`."""
        return encode_first(tokenizer, self._system, text)

    def messages(self, said: Sequence[Exchange], text: str) -> list[dict[str, str]]:
        """See `PromptSet.messages`."""
        before = [{"role": "system", "content": self._system}] if self._system else []
        for request, answer in said:
            before += [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
        return [*before, {"role": "user", "content": text}]

    def encode_next(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        """See `PromptSet.encode_next`."""
        return encode_next(tokenizer, text)

    def opening(self, start: Observation) -> str:
        """See `PromptSet.opening`."""
        return ""

    def query(self, start: Observation) -> str:
        """See `PromptSet.query`."""
        return self._fill("query", **self._seen(start))

    def rerank(self, start: Observation, strategies: Sequence[str]) -> str:
        """See `PromptSet.rerank`."""
        return self._fill("rerank", candidates=list(strategies), **self._seen(start))

    def act(self, context: ActContext) -> str:
        """See `PromptSet.act`."""
        now = context.observation
        return self._fill(
            "act",
            skill=context.skill,
            steps=context.steps,
            history=self.plain(context.history, now),
            list_admissible=self.lists_admissible,
            **self._seen(now),
        )

    def distill(
        self, start: Observation, won: bool, trajectory: Sequence[Exchange], reference: Sequence[Exchange] | None
    ) -> str:
        """See `PromptSet.distill`."""
        return self._fill(
            "distill",
            won=won,
            trajectory=self.plain(trajectory, start),
            reference=self.plain(reference or (), start),
            **self._seen(start),
        )

    def skill_block(self, strategies: Sequence[str]) -> str:
        """See `PromptSet.skill_block`."""
        return self._fill("skill", strategies=list(strategies)) if strategies else ""

    def raw_lesson(self, start: Observation, trajectory: Sequence[Exchange]) -> Lesson:
        """See `PromptSet.raw_lesson`."""
        return Lesson(start.instruction, write_steps(self.plain(trajectory, start)))

    def plain(self, trajectory: Sequence[Exchange], start: Observation) -> list[Exchange]:
        """Word a trajectory as prompts show it: its observations by `PromptWords.plain`."""
        return [(self.words.plain(text, start.instruction), action) for text, action in trajectory]

    def _seen(self, now: Observation) -> dict[str, Any]:
        """What every template but the system's and the skill's may show."""
        return {
            "task": now.instruction,
            "observation": self.words.plain(now.text, now.instruction),
            "admissible": now.admissible,
        }

    def _fill(self, name: str, **values: Any) -> str:
        return self._templates.fill(name, self._constant | values)

    def _try(self) -> None:
        """Fill in every template in all ways, so that a mistake is found before anything is played."""
        seen, pairs = (
            Observation("You see a lamp.", ("look", "go to lamp 1"), "look at the lamp."),
            (("Lamp.", "look"),),
        )
        self.opening(seen)
        self.query(seen)
        self.rerank(seen, ["look around", "go on"])
        for skill, steps, history in (("", 0, ()), (self.skill_block(["look around"]), 1, pairs)):
            self.act(ActContext(seen, skill, steps, history, seen))
        for won, reference in ((True, None), (False, pairs)):
            self.distill(seen, won, pairs, reference)


def write_steps(trajectory: Sequence[Exchange]) -> str:
    """Write a trajectory as numbered lines."""
    return "\n".join(
        f"[{i}] Observation: {observation}\n    Action: {action}"
        for i, (observation, action) in enumerate(trajectory, start=1)
    )
