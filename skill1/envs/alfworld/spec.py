"""ALFWorld as the kit knows it."""

from __future__ import annotations

import re

from skill1.envs.alfworld.data import CATEGORIES
from skill1.envs.alfworld.environment import NAME, open_alfworld
from skill1.envs.alfworld.options import ALFWorldConfig
from skill1.envs.spec import EnvironmentSpec, PromptWords

# How a task's sentence begins -> its section in the published skill banks of SkillRL; the first that fits.
_KINDS = {
    r"(look at|examine) ": "look_at_obj_in_light",
    r"(put|find) two ": "pick_and_place",
    r"(put (a|an|some) )?clean ": "clean",
    r"((put (a|an|some) )?hot|heat) ": "heat",
    r"(put (a|an|some) )?cool ": "cool",
    r"put ": "pick_and_place",
}


def kind_of(instruction: str) -> str:
    """Return the kind of a task by its sentence. Raises ValueError for a sentence that is not of ALFWorld's grammar."""
    for beginning, kind in _KINDS.items():
        if re.match(beginning, instruction.strip().lower()):
            return kind
    raise ValueError(f"not a task sentence of the ALFWorld grammar: {instruction!r}")


def home_of(game: str) -> str:
    """Return the home that a game plays in, by its scene's number; a game of another form is its own.

    >>> home_of("valid_seen/pick_and_place_simple-Mug-None-Desk-308/trial_T20190908_145050_918567")
    '308'
    """
    scene = re.search(r"-(\d+)/", game)
    return scene[1] if scene else game


def plain(text: str, instruction: str) -> str:
    """Leave out the engine's banner and the task's sentence, which the first observation has.

    >>> plain("-= Welcome to TextWorld, ALFRED! =-\\n\\nYou see a bed 1.\\n\\nYour task is to: go.", "go.")
    'You see a bed 1.'
    """
    banner, task = "-= Welcome to TextWorld, ALFRED! =-\n\n", f"\n\nYour task is to: {instruction}"
    return text.removeprefix(banner).removesuffix(task)


ALFWORLD = EnvironmentSpec(
    name=NAME,
    open=open_alfworld,
    options=ALFWorldConfig,
    task="game",
    tasks="games",
    splits={"train": "training games", "valid_seen": "seen homes", "valid_unseen": "unseen homes"},
    categories=tuple(CATEGORIES.values()),
    data_variable="ALFWORLD_DATA",
    benchmark="alfworld",
    packages=("alfworld",),  # layouts and facts of homes; TextWorld, which it asks for, is built
    words=PromptWords(
        setting="a household task in a text environment",
        episode="a household task",
        navigation="where things are and how to search",
        world="household tasks in a text game, where an agent walks between receptacles and handles objects",
        subtasks=("pick up", "navigate", "use appliance", "place"),
        judged_subtasks=("locate", "acquire", "modify state", "place"),
        actions="go to X, open X, close X, take X from Y, move X to Y, clean X with Y, heat X with Y, cool X with Y, "
        "use X, examine X, look, inventory (X and Y as observations name them: mug 1, cabinet 2)",
        plain=plain,
    ),
    cluster=home_of,
    kinds=("pick_and_place", "look_at_obj_in_light", "clean", "heat", "cool", "examine"),
    kind_of=kind_of,
    generator="skill1.envs.alfworld.generate:GENERATOR",
    expert="skill1.models.experts.alfworld:HomeExpert",
    nano="skill1.nano.alfworld:NANO",
)
