"""WebShop behind the vector environment protocol: won is a score of 1.0.

A step's reward is the purchase's graded score, 0.0 before it; an episode is done when something was bought or its steps
are used up. Admissible actions are in page order, which on a results page is the ranking: `click[x]` for what can be
clicked, and `search[<your query>]` where there is a search bar (any search counts as admissible there; elsewhere it
works too, but was not offered).
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

from skill1.envs.base import DataError, Observation
from skill1.envs.episodes import EpisodeEnvironment, TextEpisode
from skill1.envs.webshop.data import Files, load_catalogue
from skill1.envs.webshop.engine import Shop, parsed
from skill1.envs.webshop.goals import Goal, split_goals
from skill1.envs.webshop.options import WebShopConfig
from skill1.envs.webshop.pages import MODES, SEARCH, SEPARATOR, Mode, State
from skill1.records import Task

NAME = "webshop"
SPLITS = ("train", "test")
SEARCH_ACTION = "search[<your query>]"
_SEARCHES = "search["


Shown = Mode | Literal["quoted"]


class WebshopEpisode(TextEpisode):
    """One shopping trip."""

    def __init__(self, shop: Shop, goal: Goal, shown: Shown) -> None:
        self._shop, self._goal, self._shown = shop, goal, shown
        self._state = State()
        self.observation = self._observe()

    def act(self, action: str) -> float | None:
        before, self._state = self._state, self._shop.step(self._state, self._goal, action)
        if self._state is not before:
            self.observation = self._observe()
        return self._state.outcome.score if self._state.outcome else None

    def offers(self, action: str) -> bool:
        """Tell whether an action is admissible, whatever the case of its argument."""
        if action.startswith(_SEARCHES):
            return self._state.page == "index" and (parsed(action) or ("",))[0] == "search"
        name, bracket, argument = action.partition("[")
        return super().offers(f"{name}{bracket}{argument.lower()}")

    def _observe(self) -> Observation:
        goal = self._goal
        text = self._shop.observe(self._state, goal, "text" if self._shown == "quoted" else self._shown)
        clicks = (name for name in self._shop.clickables(self._state) if name != SEARCH.lower())
        admissible = (SEARCH_ACTION,) if self._state.page == "index" else tuple(f"click[{name}]" for name in clicks)
        return Observation(quoted(text, goal.text) if self._shown == "quoted" else text, admissible, goal.text)


class WebshopEnvironment(EpisodeEnvironment[WebshopEpisode]):
    """Any number of shopping episodes in one process and one shop. Task ids are "<kind>/<goal number>"."""

    def __init__(
        self,
        shop: Shop,
        max_steps: int = 15,
        observation: Shown = "text",
        held_out: int = 500,
        split_by: Literal["goal", "product"] = "goal",
    ) -> None:
        """`observation`: the original's "text" or "text_rich", or "quoted" as verl-agent shows "text" (see `quoted`).

        `held_out` goals, by number or by whole products (see `split_goals`), are the split "test", the others "train".

        Raises ValueError for a setting that is none, DataError if the split leaves nothing to train on.
        """
        super().__init__(max_steps)
        if observation not in (*MODES, "quoted"):
            raise ValueError(f"observation {observation!r} must be one of {', '.join(MODES)}, quoted")
        if split_by not in ("goal", "product") or held_out < 1:
            raise ValueError(f"split_by {split_by!r} must be goal or product, held_out {held_out} at least 1")
        self.shop = shop
        self._observation = observation
        self._test = split_goals(shop.goals, held_out, split_by)

    def has(self, split: str) -> bool:
        """Return whether it is "train" or "test"."""
        return split in SPLITS

    def tasks(self, split: str) -> tuple[Task, ...]:
        """Return the tasks of "train" or "test" in order. Raises DataError for another split."""
        chosen = self._numbers(split)
        categories = self.shop.categories[self.shop.goals.products[chosen]]
        return tuple(
            Task(NAME, split, self._id(int(number)), str(category))
            for number, category in zip(chosen, categories, strict=True)
        )

    def data_hash(self, split: str) -> str:
        """Hash all goals' texts in order, every product's price and the numbers of the split's goals by SHA-256."""
        digest = hashlib.sha256(self.shop.goals.sha256().encode())
        digest.update(self.shop.prices.tobytes())
        digest.update(self._numbers(split).tobytes())
        return digest.hexdigest()

    def _numbers(self, split: str) -> np.ndarray:
        """(T,) int64 numbers of the split's goals."""
        if split not in SPLITS:
            raise DataError(f"WebShop has no split {split!r}; it has {' and '.join(SPLITS)}")
        return (self._test if split == "test" else ~self._test).nonzero()[0]

    def _id(self, number: int) -> str:
        """Padded, so that ids sort as the goals do."""
        return f"{self.shop.goals.kind}/{number:08d}"

    def goal(self, task: Task) -> Goal:
        """Return what a task asks for, hidden parts included. Raises DataError for a task of another shop."""
        return self.shop.goals[self.number(task.game)]

    def number(self, game: str) -> int:
        """Read the goal's number from a task's id. Raises DataError if it is not one of this shop."""
        kind, _, number = game.partition("/")
        goals = self.shop.goals
        if kind != goals.kind or not number.isdecimal() or int(number) >= len(goals):
            raise DataError(
                f"{game!r} is no goal of this shop: it has {self._id(0)} to {self._id(len(goals) - 1)}, "
                f"{len(goals)} {goals.kind} goals"
            )
        return int(number)

    def begin(self, task: Task) -> WebshopEpisode:
        return WebshopEpisode(self.shop, self.goal(task), self._observation)


def open_webshop(config: WebShopConfig) -> WebshopEnvironment:
    """Open the shop that a configuration asks for, on its data folder or $WEBSHOP_DATA.

    Raises DataError if neither folder is given, files are missing or malformed, or there are no goals to split.
    """
    catalogue = load_catalogue(Files.find(config.data, config.catalogue))
    return WebshopEnvironment(
        Shop(catalogue, config.goals, config.shop_seed),
        config.max_steps,
        config.observation,
        config.held_out_goals,
        config.split_by,
    )


def quoted(text: str, instruction: str) -> str:
    """Write a plain observation as verl-agent shows it: the parts after the instruction, each in single quotes.

    >>> quoted("WebShop [SEP] Instruction: [SEP] buy a lamp [SEP] Search", "buy a lamp")
    "'Search'"
    """
    _, found, rest = text.partition(f"{SEPARATOR}{instruction.strip()}{SEPARATOR}")
    return SEPARATOR.join(f"'{part}'" for part in rest.split(SEPARATOR)) if found else text
