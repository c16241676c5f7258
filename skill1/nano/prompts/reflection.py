"""RetroAgent's reflection in compact words, the same for all environments. Ours, not the paper's.

    failure go_to take : move | mug here in cabinet_3

The judgement, the subtasks completed, those that were not (what does not apply is left out), the lesson or `none`. The
prompt is the distill prompt with the subtasks before the trajectory, and `none` for an outcome that is to be judged. A
policy whose warm start did not teach this form writes nothing that parses.
"""

from __future__ import annotations

from collections.abc import Sequence

from skill1.records import Reflection

_JUDGEMENTS = {"success": True, "failure": False}


def verdict(won: bool | None) -> str:
    """The outcome as a prompt tells it."""
    return "none" if won is None else "success" if won else "failure"


def write_reflection(won: bool, done: Sequence[str], left: Sequence[str], lesson: str) -> str:
    """A reflection as the warm start teaches it; `lesson` is "none" where there is nothing to say."""
    return " ".join([verdict(won), *done, ":", *left, "|", lesson])


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
    return Reflection(_JUDGEMENTS[first], colon, len(listed)), [] if said == ["none"] else said
