"""The ceiling of an environment's tasks: what share of them can be met at all.

It is shown beside graded scores. On WebShop's original small catalogue it is 93.4 % of the goals.
"""

from __future__ import annotations

from collections.abc import Iterable

from skill1.analysis.study import Study
from skill1.config import EnvironmentConfig
from skill1.envs.base import DataError
from skill1.envs.make import environment_spec
from skill1.envs.spec import Ceiling


def study_ceiling_note(study: Study) -> str:
    """Say how many of the evaluated tasks of a study can be met at all, as Markdown, a line per split."""
    tasks = study.environment.tasks
    return "\n".join(f"* Ceiling, {split}: {_in_words(found, tasks)}" for split, found in study.ceilings.items())


def ceiling_note(config: EnvironmentConfig, games: Iterable[str], done: str = "played") -> str:
    """Say how many of the tasks in `games` (ids) can be met at all; "" where the environment has no ceiling.

    What is read of a stored run must not need its data: where that is not there any more, the sentence says so.
    """
    spec = environment_spec(config.name)
    if spec.ceiling is None:
        return ""
    try:
        return f"Ceiling: {_in_words(spec.ceiling(config, games), spec.tasks, done)}"
    except DataError as error:
        return f"Ceiling: not known without the data that was {done} ({error})."


def _in_words(found: Ceiling, tasks: str, done: str = "evaluated") -> str:
    return (
        f"{found.reachable} of the {found.goals} {tasks} {done} ({100 * found.share:.1f} %) can reach a score of 1.0."
    )
