"""An environment of one's own in one file: plants that bloom under the right care and wilt under any other.

    skill1 train --preset small --set environment.name=examples/garden.py:GARDEN \
        --set environment.validation_split=test --set train.validation_tasks=20 --set environment.max_steps=6 --name garden

Nothing in a garden tells what a plant needs, and there is one try: what helps is a skill from a garden seen before.
"""

from __future__ import annotations

import random

from skill1.envs.base import DataError, Observation
from skill1.envs.episodes import EpisodeEnvironment, TextEpisode
from skill1.envs.spec import EnvironmentSpec, PromptWords
from skill1.records import Task

NEEDS = {"rose": "prune", "tulip": "water", "fern": "shade", "lily": "water", "mint": "prune", "ivy": "shade"}
CARES = ("prune", "shade", "water")
GARDENS = {"train": range(40), "test": range(40, 60)}


class GardenEpisode(TextEpisode):
    """A visit to a garden of three plants, one of which is to bloom."""

    def __init__(self, garden: str) -> None:
        rng = random.Random(garden)
        self._plants = sorted(rng.sample(sorted(NEEDS), 3))
        self.wanted = rng.choice(self._plants)
        self._at = ""
        self._show(f"You are at the gate. You see a {', a '.join(self._plants)}.")

    def act(self, action: str) -> float | None:
        score, (verb, _, plant) = None, action.rpartition(" ")
        if not self.offers(action):
            text = "Nothing happens."
        elif verb == "go to":
            self._at, text = plant, f"You stand before the {plant}."
        elif NEEDS[plant] == verb:
            score, text = (1.0 if plant == self.wanted else None), f"The {plant} blooms."
        else:
            score, text = 0.0, f"The {plant} wilts."
        self._show(text)
        return score

    def _show(self, text: str) -> None:
        goes = [f"go to {plant}" for plant in self._plants if plant != self._at]
        cares = [f"{care} {self._at}" for care in CARES if self._at]
        self.observation = Observation(text, tuple(goes + cares), f"make the {self.wanted} bloom.")


class Garden(EpisodeEnvironment[GardenEpisode]):
    """Sixty gardens, a task in each."""

    def tasks(self, split: str) -> tuple[Task, ...]:
        if split not in GARDENS:
            raise DataError(f"the gardens have no split {split!r}; they have {' and '.join(GARDENS)}")
        ids = [f"{split}/{number:02d}" for number in GARDENS[split]]
        return tuple(Task("garden", split, garden, NEEDS[GardenEpisode(garden).wanted].title()) for garden in ids)

    def begin(self, task: Task) -> GardenEpisode:
        return GardenEpisode(task.game)


GARDEN = EnvironmentSpec(
    name="garden",
    open=lambda config: Garden(config.max_steps),
    splits={"train": "training gardens", "test": "new gardens"},
    words=PromptWords(
        setting="a gardening task in a text game",
        episode="a gardening task",
        navigation="which plants to go to",
        world="gardening tasks in a text game, where an agent walks between plants and cares for one",
        subtasks=("go to the plant", "care for it"),
        judged_subtasks=("find the plant", "make it bloom"),
    ),
    task="garden",
    tasks="gardens",
    categories=tuple(care.title() for care in CARES),
)
