"""WebShop as the kit knows it."""

from __future__ import annotations

from collections.abc import Iterable

from skill1.config import EnvironmentConfig
from skill1.envs.spec import Ceiling, EnvironmentSpec, PromptWords
from skill1.envs.webshop.ceiling import ceiling
from skill1.envs.webshop.environment import NAME, open_webshop
from skill1.envs.webshop.kinds import KINDS, kind_of
from skill1.envs.webshop.options import WebShopConfig


def ceiling_of(config: EnvironmentConfig, games: Iterable[str]) -> Ceiling:
    """Count which goals, named by the ids of their tasks, can be met at all.

    Raises DataError if the configured shop is not there, or is another one.
    """
    environment = open_webshop(config)
    return ceiling(environment.shop, [environment.number(game) for game in sorted(set(games))])


_SUBTASKS = ("search", "filter", "select", "purchase")
WEBSHOP = EnvironmentSpec(
    name=NAME,
    open=open_webshop,
    options=WebShopConfig,
    task="goal",
    tasks="goals",
    splits={"train": "training goals", "test": "held-out goals"},
    data_variable="WEBSHOP_DATA",
    graded=True,
    ceiling=ceiling_of,
    benchmark="webshop",
    words=PromptWords(
        setting="a shopping task in a web shop that is shown as text",
        episode="a shopping task",
        navigation="which searches and pages lead to the right product, and what to choose there",
        world="shopping tasks in a text shop, where an agent searches, opens products, picks options and buys",
        subtasks=_SUBTASKS,
        judged_subtasks=_SUBTASKS,
        hint="\nsearch[...] takes your own words in place of <your query>; click[...] takes one of those listed.",
        lower_case=True,
    ),
    kinds=KINDS,
    kind_of=kind_of,
    generator="skill1.envs.webshop.generate:GENERATOR",
    nano="skill1.nano.webshop:NANO",
)
