"""WebShop's prompts: what is read from pages, what the compact and the full prompts show, what their parsers take."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop_runs import make_shop
from webshop_shop import open_shop, write_files

from skill1.envs.alfworld.spec import ALFWORLD
from skill1.envs.base import Observation
from skill1.envs.make import make_environment
from skill1.envs.webshop.environment import SEARCH_ACTION, WebshopEnvironment
from skill1.envs.webshop.goods import STOCK
from skill1.envs.webshop.options import WebShopConfig
from skill1.envs.webshop.spec import WEBSHOP
from skill1.nano.prompts import Fact
from skill1.nano.webshop.prompts import CompactShopPrompts
from skill1.nano.webshop.reading import Item, ShopPage, Wish, brand, read_page, read_wish, spoken, token, tokens
from skill1.prompts import ActContext
from skill1.prompts.full import FullPrompts
from skill1.records import Lesson

TASK = (
    "Find me slim fit men's shirts with chest pocket with color: teal, and size: small, and price lower than 40.00 "
    "dollars"
)
RESULTS = """Instruction:
{task}
[button] Back to Search [button_]
Page 1 (Total results: 3)
[button] Next > [button_]

[clicked button] B0AAAAAAA1 [clicked button_]
Berden Modern Henley, Slim Fit, Chest Pocket, Refined Men's Shirts For The Whole Family
$39.5

[button] B0AAAAAAA2 [button_]
Acme Henley, Slim Fit, Trusted Women's Boots
$40.5 to $45.0
"""
ITEM = """You have clicked teal.
Instruction:
{task}
[button] Back to Search [button_]
[button] < Prev [button_]
color
  [button] black [button_]
  [clicked button] teal [clicked button_]
size
  [button] small [button_]
Berden Modern Henley, Slim Fit, Refined Men's Shirts
Price: $12.0 to $60.0
Rating: N.A.
[button] Description [button_]
[button] Features [button_]
[button] Reviews [button_]
[button] Buy Now [button_]
"""
START = Observation(f"WebShop\nInstruction: \n{TASK}\n[button] Search [button_]\n", (SEARCH_ACTION,), TASK)
PROMPTS = CompactShopPrompts()


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    return make_shop(tmp_path_factory.mktemp("shop") / "shop")


@pytest.mark.parametrize("text, plain", [
    (START.text, "[button] Search [button_]\n"),
    (ITEM.format(task=TASK), "You have clicked teal.\n" + ITEM.partition("{task}\n")[2]),
    (f"WebShop [SEP] Instruction: [SEP] {TASK} [SEP] Search", "Search"),
    (f"Instruction: [SEP] {TASK} [SEP] Back to Search [SEP] {TASK} [SEP]", f"Back to Search [SEP] {TASK} [SEP]"),
    ("'Back to Search' [SEP] 'Page 1'", "'Back to Search' [SEP] 'Page 1'"),
])  # fmt: skip
def test_prompts_show_pages_without_the_instruction(text, plain):
    assert WEBSHOP.words.plain(text, f"{TASK} ") == plain


def listed(text: str, *admissible: str) -> Observation:
    return Observation(text.format(task=TASK), admissible, TASK)


def test_an_instruction_is_taken_apart():
    assert read_wish(TASK) == Wish(("slim_fit", "men's_shirts", "chest_pocket"), ("teal", "small"), 40.0)
    assert read_wish("Find me sofas") == Wish(("sofas",), (), float("inf"))
    assert read_wish("i need a henley in teal, and it should be slim fit").terms == ("henley", "teal", "slim_fit")


def test_pages_are_taken_apart():
    assert read_page(START.text, TASK) == ShopPage("index")
    assert read_page(RESULTS.format(task=TASK), TASK) == ShopPage(
        "results",
        (
            Item("~ber +den", ("slim_fit", "men's_shirts", "chest_pocket"), cheap=True, seen=True),
            Item("acme", ("slim_fit",), cheap=False),
        ),
        ("b0aaaaaaa1", "b0aaaaaaa2"),
    )
    page = read_page(ITEM.format(task=TASK), TASK)
    assert (page.kind, page.offered, page.chosen, page.missing) == ("item", ("small",), ("teal",), ())
    assert page.items == (Item("~ber +den", ("slim_fit", "men's_shirts"), cheap=True, seen=True),)
    other = read_page(ITEM.replace("small", "large").format(task=TASK), TASK)
    assert other.missing == ("small",) and other.offered == ()


def test_every_instruction_and_page_of_a_shop_is_read_whole_in_every_mode(shop):
    """Against the goals and products themselves, on pages of all kinds."""
    pages = {}
    for mode in ("text", "text_rich", "quoted"):
        config = WebShopConfig(name="webshop", data=str(shop), observation=mode, held_out_goals=20)
        environment = make_environment(config)
        for task in environment.tasks("test"):
            goal = environment.goal(task)
            wish = read_wish(goal.text)
            assert set(wish.terms) == {token(term) for term in (goal.query, *goal.attributes)}
            assert wish.options == tuple(token(value) for _, value in goal.options)
            [first] = environment.reset([task])
            assert WEBSHOP.words.plain(first.text, goal.text).strip() in (
                "Search",
                "'Search'",
                "[button] Search [button_]",
            )
            results = environment.step([f"search[{spoken(' '.join(wish.terms))}]"])[0].observation
            shown = WEBSHOP.words.plain(results.text, goal.text)
            assert goal.text not in shown and "Instruction" not in shown and "Back to Search" in shown.partition(".")[0]
            read = read_page(results.text, goal.text)
            found = [environment.shop.products[p] for p in environment.shop.search(spoken(" ".join(wish.terms)))[:10]]
            assert read.kind == "results" and read.ids == tuple(p.asin.lower() for p in found)
            assert [spoken(item.brand) for item in read.items] == [p.name.split()[0].lower() for p in found]
            assert [item.cheap for item in read.items] == [p.prices[0] <= goal.price_upper for p in found]
            item = environment.step([f"click[{read.ids[0]}]"])[0].observation
            own = {token(value) for values in found[0].options.values() for value in values}
            opened = read_page(item.text, goal.text)
            assert opened.offered == tuple(v for v in wish.options if v in own)
            assert opened.missing == tuple(v for v in wish.options if v not in own) and opened.chosen == ()
            features = environment.step(["click[features]"])[0].observation
            bullets = " ".join(found[0].bullets).lower()
            page = read_page(features.text, goal.text)
            assert page.kind == "sub" and page.terms == tuple(t for t in wish.terms if spoken(t) in bullets)
            pages.setdefault(task.game, []).append((read.items[0].terms, opened, page))
    assert all(first[1:] == [first[0]] * 2 for first in ([x[0] for x in p] for p in pages.values()))


def test_compact_prompts_show_what_matters():
    assert PROMPTS.query(START) == "<query> <task> slim_fit men's_shirts chest_pocket <write>"
    skills = ["slim fit men's shirts chest pocket : berden", "sofas : acme"]
    assert PROMPTS.rerank(START, skills) == (
        "<rerank> <task> slim_fit men's_shirts chest_pocket <cand> this : ~ber +den : 1 ; sofas : : 2 <write>"
    )
    results = listed(RESULTS, "click[back to search]", "click[next >]", "click[b0aaaaaaa1]", "click[b0aaaaaaa2]")
    shown = PROMPTS.act(ActContext(START, skills[0], 2, ((START.text, "search[berden henley]"),), results))
    assert shown == (
        "<act> <step> 2 <hist> index > search ~ber +den henley <obs> results "
        "1 slim_fit men's_shirts chest_pocket ok seen ; 2 slim_fit dear <task> slim_fit men's_shirts chest_pocket "
        "<want> teal small <skill> this : ~ber +den <write>"
    )
    item = listed(ITEM, "click[teal]", "click[small]", "click[buy now]")
    history = ((results.text, "click[b0aaaaaaa1]"), (item.text, "click[teal]"))
    shown = PROMPTS.act(ActContext(START, "", 3, history, item))
    assert "<hist> results > open 1 ; item > choose teal <obs> item slim_fit men's_shirts ok seen" in shown
    assert "<left> small <chosen> teal <missing> none" in shown and shown.endswith("<skill> none <write>")
    played = [(START.text, "search[slim fit]"), *history, (item.text, "click[buy now]")]
    assert PROMPTS.distill(START, True, played, None) == (
        "<distill> <traj> search slim_fit ; open ~ber +den ; choose teal ; buy success "
        "<task> slim_fit men's_shirts chest_pocket <write>"
    )
    raw = PROMPTS.raw_lesson(START, played)
    wish = "slim fit men's shirts chest pocket"
    assert raw == Lesson(wish, f"{wish} : search slim fit ; open berden ; choose teal ; buy")
    assert (
        tokens(raw.strategy)
        == "slim_fit men's_shirts chest_pocket : search slim_fit ; open ~ber +den ; choose teal ; buy"
    )


@pytest.mark.parametrize(
    "text, command, well_formed",
    [
        ("search ~ber +den polo_shirt", "search[berden polo shirt]", True),
        ("search", "search", False),
        ("open 2", "click[b0aaaaaaa2]", True),
        ("open 3", "click[product 3]", True),
        ("open 0", "open 0", False),
        ("open men", "open men", False),
        ("choose 4_fl_oz_|_118_ml", "click[4 fl oz | 118 ml]", True),
        ("choose", "choose", False),
        ("buy", "click[buy now]", True),
        ("prev", "click[< prev]", True),
        ("buy now", "buy now", False),
        ("", "", False),
    ],
)
def test_compact_answers_become_commands(text, command, well_formed):
    admissible = ("click[back to search]", "click[next >]", "click[b0aaaaaaa1]", "click[b0aaaaaaa2]")
    parsed = PROMPTS.parse_action(text, admissible)
    assert (parsed.value, parsed.well_formed) == (command, well_formed)


def test_a_number_opens_nothing_where_no_products_are_listed():
    on_item = ("click[back to search]", "click[< prev]", "click[buy now]", "click[teal]")
    assert PROMPTS.parse_action("open 1", on_item).value == "click[product 1]"


def test_lessons_and_queries_are_kept_in_plain_words():
    assert PROMPTS.parse_query("slim_fit men's_shirts", START).value == "slim fit men's shirts"
    assert PROMPTS.parse_query("", START).value == "slim fit men's shirts chest pocket"
    fact = Fact("slim_fit 4_fl_oz_|_118_ml", "~ber +den")
    lesson = PROMPTS.parse_distill(PROMPTS.write_lesson(fact), START)
    assert lesson == Lesson("slim fit 4 fl oz | 118 ml", PROMPTS.write_skill(fact))
    assert PROMPTS.fact(START, "~ber") == Fact("slim_fit men's_shirts chest_pocket", "~ber")
    for unreadable in ("", "none", "| ~ber", "slim_fit |", "slim_fit | ~ber | ~den", "slim_fit ~ber"):
        assert PROMPTS.parse_distill(unreadable, START) is None


@given(st.lists(st.sampled_from(STOCK.syllables), min_size=1, max_size=4).map("".join))
def test_a_brand_is_said_and_read_back(name):
    assert spoken(brand(name.title())) == name
    assert tokens(f"sofas : {name}") == f"sofas : {brand(name)}"
    assert set(brand(name).split()) <= set(CompactShopPrompts().vocabulary())


@given(st.text(max_size=200), st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_read(text, instruction, answer):
    now = Observation(text, ("click[next >]", "click[x]"), instruction)
    for prompts in (PROMPTS, FullPrompts(WEBSHOP.words)):
        prompts.act(ActContext(now, answer, 1, ((text, answer), (text, f"click[{answer}]")), now))
        prompts.distill(now, False, [(text, answer)], None)
        assert prompts.parse_action(answer, now.admissible).value is not None
        lesson = prompts.parse_distill(answer, now)
        assert lesson is None or (lesson.desc and lesson.strategy)


def test_pages_of_a_shop_with_other_words_are_read(tmp_path):
    """A catalogue that was not generated: unknown words are left out, nothing fails."""
    environment = WebshopEnvironment(open_shop(write_files(tmp_path / "shop")), 15, "text_rich", held_out=1)
    task = environment.tasks("train")[0]
    now = start = environment.reset([task])[0]
    rng = random.Random(0)
    history = []
    for _ in range(15):
        prompt = PROMPTS.act(ActContext(start, "", len(history), tuple(history[-2:]), now))
        assert prompt.startswith("<act>") and "\n" not in prompt
        action = rng.choice([a for a in now.admissible if "buy" not in a and a != SEARCH_ACTION] or ["search[lamp]"])
        history.append((now.text, action))
        now = environment.step([action])[0].observation
    actions = PROMPTS.distill(start, False, history, None).partition("<traj> ")[2].partition(" failure")[0].split(" ; ")
    assert len(actions) == 15
    verbs = "search open choose back prev next description features reviews".split()
    assert {action.split()[0] for action in actions} <= set(verbs)


def test_full_prompts_speak_of_the_shop_and_alfworld_ones_do_not():
    prompts = FullPrompts(WEBSHOP.words)
    context = ActContext(START, prompts.skill_block(["search first"]), 0, (), START)
    text = prompts.act(context)
    assert "shopping task in a web shop" in text and SEARCH_ACTION in text and "search first" in text
    assert "search[...] takes your own words" in text and "household" not in text
    for shown in (prompts.query(START), prompts.rerank(START, ["a", "b"]), prompts.distill(START, True, [], None)):
        assert "shopping task" in shown and "household" not in shown
    assert (
        "household" in FullPrompts(ALFWORLD.words).act(context)
        and "shop" not in FullPrompts(ALFWORLD.words).act(context).partition("Task:")[0]
    )
    parsed = prompts.parse_action("<think>hm</think><action>Click[Buy Now]</action>", ())
    assert (parsed.value, parsed.well_formed) == ("click[buy now]", True)
    assert not prompts.parse_action("Click[Buy Now]", ()).well_formed
