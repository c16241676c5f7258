"""RetroAgent's reflection for instruction-tuned models (arXiv 2603.08561): one call per episode, in our own words.

The in-context variant is told the outcome and may see a trajectory of the other outcome; the one whose reflections are
trained is told nothing and must judge. Trajectories stand as in the act prompt's history, whole: the released limits
(50 steps in ALFWorld, 15 in WebShop) are the longest episodes.

Differs from the paper in: a subtask that does not apply is not counted (`Reflection.listed`); a model that must judge
is asked for the same subtasks in ALFWorld as one that is told, in the words of the released code's second list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from skill1.envs.base import Observation
from skill1.methods.retroagent.equations import Reflection
from skill1.prompts.answers import fenced_object, lessons
from skill1.prompts.base import Exchange, window_only
from skill1.prompts.full import FullPrompts
from skill1.prompts.instruct import write_steps
from skill1.records import Lesson

_DONE = "completed"
_NOT_APPLICABLE = ("n/a", "na", "not applicable")
_OUTCOME = "Outcome: the task was {}accomplished.\n"

_REFLECT = """You are an agent looking back at an episode of {episode} that you have just played.
Task: {task}
{outcome}Trajectory:
{trajectory}
{reference}
First see how far you came: the task has the subtasks {subtasks}; leave out none. Then {judge}. Last, write down what \
is worth remembering for the same or a similar task, after a success as after a failure. Answer with one JSON object \
with the keys:
"subtasks" (a list with an object per subtask: "name", "description" (what it meant here), "status" ("completed", \
"incomplete", or "n/a" for one that this task does not need)), "task_success" (true or false), "action_lesson" (which \
actions in which order work, or what to avoid; or null), "navigation_lesson" ({navigation}; or null).
Answer with the JSON object only."""
_JUDGE = "judge, by what the trajectory shows, whether the task was accomplished"
_EXPLAIN = "say what made the difference"


@dataclass(frozen=True, slots=True)
class Reflected:
    """A parsed reflection."""

    reflection: Reflection
    lesson: Lesson | None  # None: it had nothing to say


class Reflections(Protocol):
    """What RetroAgent asks of a prompt set beside acting."""

    def reflect(
        self,
        start: Observation,
        won: bool | None,
        trajectory: Sequence[Exchange],
        reference: Sequence[Exchange] | None,
    ) -> str:
        """Write the prompt. `won`: None where the policy is to judge; `reference`: an episode of the other outcome."""
        ...

    def parse_reflect(self, text: str, start: Observation) -> Reflected | None:
        """Read what a reflection says; None if it did not parse. Its lesson is keyed by the task text."""
        ...


class FullReflections:
    """Reflections in the words of the `full` prompts."""

    def __init__(self, prompts: FullPrompts) -> None:
        window_only("method.name=retroagent", prompts.context)
        self._prompts = prompts
        self._words = prompts.words

    def reflect(
        self,
        start: Observation,
        won: bool | None,
        trajectory: Sequence[Exchange],
        reference: Sequence[Exchange] | None,
    ) -> str:
        """See `Reflections.reflect`."""
        subtasks = self._words.subtasks if won is not None else self._words.judged_subtasks
        return _REFLECT.format(
            episode=self._words.episode,
            task=start.instruction,
            outcome="" if won is None else _OUTCOME.format("" if won else "not "),
            trajectory=write_steps(self._prompts.plain(trajectory, start)),
            reference=self._compared(won, reference, start),
            subtasks=", ".join(f'"{name}"' for name in subtasks),
            judge=_JUDGE if won is None else _EXPLAIN,
            navigation=self._words.navigation,
        )

    def _compared(self, won: bool | None, reference: Sequence[Exchange] | None, start: Observation) -> str:
        if reference is None:
            return ""
        other = "failed" if won else "successful"
        return f"\nFor comparison, an earlier {other} attempt:\n{write_steps(self._prompts.plain(reference, start))}\n"

    def parse_reflect(self, text: str, start: Observation) -> Reflected | None:
        """Read the judgement and the lesson, which is kept by the task's sentence; None without a judgement in JSON.

        A subtask counts as completed if its status says so, and not at all if it says that it does not apply; anything
        else in the list counts as one that is not completed.
        """
        fields = fenced_object(text)
        if fields is None or not isinstance(fields.get("task_success"), bool):
            return None
        listed = fields.get("subtasks")
        statuses = [_status(subtask) for subtask in listed] if isinstance(listed, list) else []
        counted = [status for status in statuses if status not in _NOT_APPLICABLE]
        lesson = lessons(fields)
        return Reflected(
            Reflection(fields["task_success"], counted.count(_DONE), len(counted)),
            None if lesson is None else Lesson(start.instruction, lesson),
        )


def _status(subtask: object) -> str:
    status = subtask.get("status") if isinstance(subtask, dict) else None
    return status.strip().lower() if isinstance(status, str) else ""
