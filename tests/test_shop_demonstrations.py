"""The WebShop teacher: a scripted player for whom skills pay, demonstrations in which only reading a skill tells."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from pathlib import Path

import pytest

from skill1.config import load_config, load_section, method_of
from skill1.envs.make import make_environment
from skill1.envs.webshop.environment import WebshopEnvironment
from skill1.envs.webshop.generate import generate
from skill1.envs.webshop.options import WebShopConfig
from skill1.nano.model import nano_tokenizer
from skill1.nano.options import WarmStartConfig
from skill1.nano.warmstart import tokenize
from skill1.nano.webshop import NANO
from skill1.nano.webshop.expert import ShopExpert
from skill1.nano.webshop.prompts import CompactShopPrompts
from skill1.nano.webshop.reading import brand, read_page, read_wish
from skill1.records import Task

PROMPTS = CompactShopPrompts()


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> WebshopEnvironment:
    """As large as the nano preset's: in a small shop nothing is hard to find."""
    folder: Path = tmp_path_factory.mktemp("shop") / "shop"
    generate(folder, seed=1, **NANO.sizes)
    return make_environment(WebShopConfig(
        name="webshop", data=str(folder), observation="text_rich", held_out_goals=60, max_steps=12,
    ))  # fmt: skip


def demonstrations(games: int):
    changed = {"warm_start.games": games, "warm_start.games_per_world": 12}
    return NANO.demonstrator(load_section(WarmStartConfig, "warm_start", "nano-webshop", changed)).demonstrations()


@pytest.fixture(scope="module")
def rows():
    return list(demonstrations(24))


def play(
    shop: WebshopEnvironment, task: Task, hint: str | None, noise: float = 0.0
) -> tuple[bool, list[str], str | None]:
    """-> won, the answers given, what the expert says it opened last."""
    [start] = shop.reset([task])
    expert, now, answers, rng = ShopExpert(start, hint), start, [], random.Random(0)
    while True:
        wanted = expert.act(now)
        answers.append(expert.slip(now, rng) if rng.random() < noise else wanted)
        step = shop.step([PROMPTS.parse_action(answers[-1], now.admissible).value])[0]
        if step.done:
            return step.won, answers, expert.found
        now = step.observation
        expert.moved(answers[-1], now)


def test_a_hint_pays_and_the_player_is_imperfect_without_one(shop):
    tasks = shop.tasks("test")
    blind = [play(shop, task, None) for task in tasks]
    told = [play(shop, task, brand(shop.goal(task).name)) for task in tasks]
    assert all(won for won, _, _ in told)
    assert 0.3 < sum(won for won, _, _ in blind) / len(blind) < 0.8
    for task, (_, answers, opened) in zip(tasks, told, strict=True):
        goal = shop.goal(task)
        assert answers[0] == f"search {brand(goal.name)}" and answers[-1] == "buy" and opened == brand(goal.name)
        assert sorted(a for a in answers if a.startswith("choose")) == sorted(
            f"choose {v}" for v in read_wish(goal.text).options
        )
    for task, (_, answers, _) in zip(tasks, blind, strict=True):
        assert answers[0] == f"search {' '.join(read_wish(shop.goal(task).text).terms)}"


def test_a_hint_that_leads_nowhere_is_given_up(shop):
    task = shop.tasks("test")[0]
    _, answers, _ = play(shop, task, "~zen +zen +zen")
    assert answers[:2] == ["search ~zen +zen +zen", "back"]
    assert answers[2].startswith("search ") and "zen" not in answers[2]


def test_slips_do_not_confuse_the_player(shop):
    won = [play(shop, task, brand(shop.goal(task).name), noise=0.15)[0] for task in shop.tasks("test")]
    assert sum(won) / len(won) > 0.7


def test_demonstrations_stay_in_the_vocabulary_and_are_of_every_stage(rows):
    assert len(tokenize(iter(rows), nano_tokenizer("webshop"))) == len(rows)  # raises on an unknown word
    assert {row.stage for row in rows} == {"query", "rerank", "act", "distill"}
    config = load_config("nano-webshop")
    limits = method_of(config).trained_stages(config)
    assert all(len(row.answer.split()) < limits[row.stage] for row in rows)  # room for the end token
    assert all(len(row.prompt.split()) < config.rollout.max_prompt_tokens for row in rows)


def test_demonstrations_are_the_same_for_the_same_seed(rows):
    again = list(demonstrations(2))
    assert again == rows[: len(again)] and len(again) > 10


def test_only_reading_the_skill_tells_the_first_move(rows):
    firsts = [row for row in rows if row.kind in ("first move, relevant skill", "first move, foreign skill")]
    assert len({row.kind for row in firsts}) == 2
    for row in firsts:
        task, skill = re.search(r"<task> (.*) <want> .* <skill> (.*) <write>", row.prompt).groups()
        about, named = skill.split(" : ")
        assert row.answer == f"search {named if about == 'this' else task}"
        assert (about == "this") == (row.kind == "first move, relevant skill") and about != task


def test_rankings_name_the_skill_about_the_task(rows):
    positions = defaultdict(int)
    for row in (row for row in rows if row.kind.startswith("rerank, relevant")):
        shown = re.search(r"<cand> (.*) <write>", row.prompt)[1]
        abouts = [skill.split(" : ")[0] for skill in shown.split(" ; ")]
        assert row.answer == str(abouts.index("this") + 1 if "this" in abouts else 1)
        positions[row.answer] += 1
    assert len(positions) >= 3


def test_distillations_name_the_product_whose_page_was_seen_last(rows):
    distilled = [row for row in rows if row.kind == "distill"]
    assert len(distilled) == 24 and any(row.answer != "none" for row in distilled)
    for row in distilled:
        actions = re.search(r"<traj> (.*) (?:success|failure) <task>", row.prompt)[1].split(" ; ")
        opened = [a.removeprefix("open ") for a in actions[:-1] if a.startswith("open ")]  # the last page is unseen
        task = re.search(r"<task> (.*) <write>", row.prompt)[1]
        assert row.answer == (f"{task} | {opened[-1]}" if opened else "none")
    queries = [row for row in rows if row.stage == "query"]
    assert all(row.prompt == f"<query> <task> {row.answer} <write>" for row in queries)
    assert len({row.answer for row in queries}) > 12  # different products


def test_slips_are_what_a_page_offers(shop):
    [start] = shop.reset(shop.tasks("test")[:1])
    rng = random.Random(1)
    now = start
    for _ in range(12):
        answer = ShopExpert(start).slip(now, rng)
        command = PROMPTS.parse_action(answer, now.admissible)
        assert command.well_formed
        step = shop.step([command.value])[0]
        assert step.admissible and not step.won
        now = step.observation
        assert read_page(now.text, now.instruction).kind in ("index", "results", "item", "sub")
