"""The paper's four templates (appendix) in our own words, wrapped in the model's chat template.

Every call is one user message. Differs from the paper in: the wording; the rerank call is skipped with fewer than
two candidates (the released code generates a dummy one).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skill1.envs.base import Observation
from skill1.envs.spec import EnvironmentSpec, PromptWords
from skill1.prompts.answers import json_object, lessons
from skill1.prompts.base import ActContext, Exchange, Parsed, complete_ranking
from skill1.records import Lesson

if TYPE_CHECKING:  # a command that only reads a configuration need not load transformers
    from transformers import PreTrainedTokenizerBase

_QUERY = """You are an agent about to solve {setting}.
Task: {task}
What you see first:
{observation}

You keep a library of skills learned in earlier episodes. Write one sentence that describes the situation and the \
kind of skill that would help, so that the best skill can be found. Put it between <query> and </query>."""

_RERANK = """You are an agent about to solve {setting}.
Task: {task}
What you see first:
{observation}

These skills were retrieved from your library:
{candidates}

Order them from most to least useful for this task. Answer with the numbers separated by commas between <rank> and \
</rank>, for example <rank>2,1,3</rank>."""

_SKILL = """Skill from earlier experience:
{strategies}
(It may be outdated or from another situation: check it against what you see.)

"""

_ACT = """You are an agent solving {setting}.
{skill}Task: {task}
Actions taken so far: {steps}.{history}
Current observation: {observation}
Admissible actions: [{admissible}]{hint}

Think step by step between <think> and </think>, then give exactly one admissible action between <action> and \
</action>."""

_DISTILL = """You are an agent reviewing an episode of {episode} to learn from it.
Task: {task}
Outcome: {outcome}
Trajectory:
{trajectory}
{reference}
Write down what is worth remembering for similar tasks, as one JSON object with the keys:
"task_success" (true or false), "action_lesson" (which actions in which order work, or what to avoid), \
"navigation_lesson" ({navigation}), "description_head" (one or two sentences that say when \
this lesson helps). Answer with the JSON object only."""


def _tag(name: str, text: str) -> str | None:
    found = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return found.group(1).strip() if found else None


def write_steps(trajectory: Sequence[Exchange]) -> str:
    """Write a trajectory as numbered lines."""
    return "\n".join(
        f"[{i}] Observation: {observation}\n    Action: {action}"
        for i, (observation, action) in enumerate(trajectory, start=1)
    )


def write_comparison(won: bool | None, reference: Sequence[Exchange] | None) -> str:
    """Write an earlier trajectory of the opposite outcome as a paragraph, "" for none."""
    if reference is None:
        return ""
    return f"\nFor comparison, an earlier {'failed' if won else 'successful'} attempt:\n{write_steps(reference)}\n"


class FullPrompts:
    """Templates for instruction-tuned chat models, in the words of an environment."""

    def __init__(self, words: PromptWords) -> None:
        self.words = words

    def encode(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
        )

    def query(self, start: Observation) -> str:
        return _QUERY.format(setting=self.words.setting, task=start.instruction, observation=start.text)

    def rerank(self, start: Observation, strategies: Sequence[str]) -> str:
        candidates = "\n".join(f"{i}. {s}" for i, s in enumerate(strategies, start=1))
        return _RERANK.format(
            setting=self.words.setting, task=start.instruction, observation=start.text, candidates=candidates
        )

    def act(self, context: ActContext) -> str:
        history = ""
        if context.history:
            first = context.steps - len(context.history) + 1
            lines = [f"\n[{first + i}] Observation: {o}\n    Action: {a}" for i, (o, a) in enumerate(context.history)]
            history = " The most recent ones:" + "".join(lines)
        return _ACT.format(
            setting=self.words.setting,
            skill=context.skill,
            task=context.observation.instruction,
            steps=context.steps,
            history=history,
            observation=context.observation.text,
            admissible=", ".join(f"'{a}'" for a in context.observation.admissible),
            hint=self.words.hint,
        )

    def distill(
        self, start: Observation, won: bool, trajectory: Sequence[Exchange], reference: Sequence[Exchange] | None
    ) -> str:
        return _DISTILL.format(
            episode=self.words.episode,
            navigation=self.words.navigation,
            task=start.instruction,
            outcome="success" if won else "failure",
            trajectory=write_steps(trajectory),
            reference=write_comparison(won, reference),
        )

    def skill_block(self, strategies: Sequence[str]) -> str:
        return _SKILL.format(strategies="\n".join(strategies)) if strategies else ""

    def parse_query(self, text: str, start: Observation) -> Parsed:
        tagged = _tag("query", text)
        value = text.strip() if tagged is None else tagged
        return Parsed(value or start.instruction, bool(tagged))

    def parse_rerank(self, text: str, count: int) -> tuple[tuple[int, ...], bool]:
        return complete_ranking(re.findall(r"\d+", _tag("rank", text) or ""), count)

    def parse_action(self, text: str, admissible: Sequence[str]) -> Parsed:
        tagged = _tag("action", text)
        value = text.strip() if tagged is None else tagged
        return Parsed(value.lower() if self.words.lower_case else value, bool(tagged))

    def parse_distill(self, text: str, start: Observation) -> Lesson | None:
        fields = json_object(text)
        if fields is None:
            return None
        head, lesson = fields.get("description_head"), lessons(fields)
        if not isinstance(head, str) or not head.strip() or lesson is None:
            return None
        return Lesson(head.strip(), lesson)

    def raw_lesson(self, start: Observation, trajectory: Sequence[Exchange]) -> Lesson:
        return Lesson(start.instruction, write_steps(trajectory))


def make(spec: EnvironmentSpec) -> FullPrompts:
    """Build the prompts in an environment's words."""
    return FullPrompts(spec.words)
