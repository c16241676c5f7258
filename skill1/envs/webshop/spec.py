"""WebShop as the kit knows it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from skill1.envs.spec import Ceiling, EnvironmentSpec, PromptWords
from skill1.envs.webshop.ceiling import ceiling
from skill1.envs.webshop.environment import NAME, open_webshop
from skill1.envs.webshop.kinds import KINDS, kind_of
from skill1.envs.webshop.options import WebShopConfig
from skill1.envs.webshop.pages import SEPARATOR


def ceiling_of(config: WebShopConfig, games: Iterable[str]) -> Ceiling:
    """Count which goals, named by the ids of their tasks, can be met at all.

    Raises DataError if the configured shop is not there, or is another one.
    """
    environment = open_webshop(config)
    return ceiling(environment.shop, [environment.number(game) for game in sorted(set(games))])


def plain(text: str, instruction: str) -> str:
    """Leave out the instruction, with which every page begins that is not shown as "quoted".

    >>> plain("WebShop [SEP] Instruction: [SEP] buy a lamp [SEP] Search", "buy a lamp")
    'Search'
    >>> plain("You have clicked teal.\\nInstruction:\\nbuy a lamp\\n[button] < Prev [button_]", "buy a lamp")
    'You have clicked teal.\\n[button] < Prev [button_]'
    """
    between = rf"(?:{re.escape(SEPARATOR)}|\s*\n)"
    page = rf"(?:WebShop{between})?Instruction:{between}\s*{re.escape(instruction.strip())}\s*?{between}"
    return re.sub(page, "", text, count=1)


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
        hint="search[...] takes your own words in place of <your query>; click[...] takes one of those listed.",
        actions="search[words] where there is a search bar, click[what the page shows]",
        lower_case=True,
        plain=plain,
    ),
    kinds=KINDS,
    kind_of=kind_of,
    generator="skill1.envs.webshop.generate:GENERATOR",
    nano="skill1.nano.webshop:NANO",
)
