"""The bank's category of a task, read off the task's sentence alone: never the game file or the shop's record.

Categories are the environment's kinds of tasks (`EnvironmentSpec.kind_of`), under the names of the published banks.

Differs from the paper in: the released keyword rules send "put a hot mug ..." to pick_and_place. "look at ... under"
and "examine ... with" are two wordings of one kind of task: both are shown the principles of either section.
"""

from __future__ import annotations

from skill1.envs.make import environment_spec

_ALSO = {"look_at_obj_in_light": ("examine",)}  # sections of the published banks that belong to the same category


def known_categories(environment: str) -> tuple[str, ...]:
    """List the categories of an environment's bank. Raises ConfigError for an unknown environment."""
    return environment_spec(environment).kinds


def category_of(environment: str, instruction: str) -> str:
    """Read the category off a task's sentence. Raises ValueError for a sentence of another environment."""
    return environment_spec(environment).kind_of(instruction)


def sections_of(category: str) -> tuple[str, ...]:
    """List the sections of a bank that a task of this category is shown; the first is its own."""
    return (category, *_ALSO.get(category, ()))
