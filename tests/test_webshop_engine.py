"""The shop's pages and transitions, each against a page written out by hand, and under any action at all."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webshop_shop import open_shop, write_files

from skill1.envs.webshop.pages import State


@functools.cache
def shop_and_goal():
    with tempfile.TemporaryDirectory() as folder:
        shop = open_shop(write_files(Path(folder)))
    return shop, next(goal for goal in shop.goals if "white, and size: x-large" in goal.text)


@pytest.fixture
def play():
    """Play actions from the start; returns (state, observation)."""
    shop, goal = shop_and_goal()

    def run(*actions, mode="text", state=None):
        state = state or State()
        for action in actions:
            after = shop.step(state, goal, action)
            assert after is not state, f"{action!r} did nothing on {state}"
            state = after
        return state, shop.observe(state, goal, mode)

    return run


def parts(text):
    return text.split(" [SEP] ")


def test_the_index_page(play):
    shop, goal = shop_and_goal()
    state, text = play()
    assert parts(text) == ["WebShop", "Instruction:", goal.text, "Search"]
    assert shop.clickables(state) == ("search",)


def test_results_pages(play):
    shop, goal = shop_and_goal()
    state, text = play("search[LAMP number]")
    head = ["Instruction:", goal.text, "Back to Search"]
    assert state.query == "lamp number" and len(state.hits) == 23
    assert parts(text)[:5] == [*head, "Page 1 (Total results: 23)", "Next >"]
    assert parts(text)[5:8] == ["B100000000", "Lamp number 0", "$12.5"]
    assert shop.clickables(state) == ("back to search", "next >", *(f"b1000000{n:02d}" for n in range(10)))
    state, text = play("click[next >]", "click[next >]", state=state)
    assert parts(text)[3:6] == ["Page 3 (Total results: 23)", "< Prev", "Next >"]
    assert shop.clickables(state)[3:] == ("b000000002", "b000000001", "b000000003")  # the shorter, the better
    state, text = play("click[next >]", "click[Next >]", state=state)  # past the end
    assert parts(text) == [*head, "Page 5 (Total results: 23)", "< Prev", "Next >"]
    assert play("click[< prev]", state=state)[0].number == 4


def test_a_search_works_from_every_page_and_clears_options(play):
    item, _ = play("search[brass]", "click[b000000001]", "click[white]")
    sub, _ = play("click[features]", state=item)
    for state in (item, sub, play("search[oak]")[0]):
        after, _ = play("search[chair]", state=state)
        assert (after.page, after.number, after.options, after.product, after.sub) == ("results", 1, (), -1, "")


def test_the_item_page(play):
    shop, goal = shop_and_goal()
    state, text = play("search[brass]", "click[B000000001]")
    assert parts(text) == [
        "Instruction:", goal.text, "Back to Search", "< Prev", "color", "navy blue", "white", "size", "10 | 12 in",
        "x-large", "Brass Desk Lamp", "Price: $12.5", "Rating: N.A.", "Description", "Features", "Reviews", "Buy Now",
    ]  # fmt: skip
    assert shop.clickables(state) == (
        "back to search", "< prev", "description", "features", "reviews", "buy now", "navy blue", "white", "10 | 12 in",
        "x-large",
    )  # fmt: skip
    chosen, again = play("click[white]", "click[x-large]", "click[navy blue]", state=state)
    assert chosen.options == (("color", "navy blue"), ("size", "x-large")) and again == text  # the choice is not shown
    for action in ("click[purple]", "click[small]", "click[next >]", "click[b000000001]"):  # not on this page
        assert shop.step(state, goal, action) is state


def test_sub_pages_and_the_way_back(play):
    shop, goal = shop_and_goal()
    item, _ = play("search[lamp]", "click[next >]", "click[next >]", "click[b000000001]", "click[white]")
    for name, shown in (
        ("Description", ["A lamp."]),
        ("Features", ["Bright light.", "Easy to clean."]),
        ("Reviews", []),
    ):
        sub, text = play(f"click[{name}]", state=item)
        assert parts(text) == ["Instruction:", goal.text, "Back to Search", "< Prev", *shown]
        assert shop.clickables(sub) == ("back to search", "< prev")
        back, _ = play("click[< prev]", state=sub)
        assert back == item  # options kept
    results, _ = play("click[< prev]", state=item)
    assert (results.number, results.options, results.hits) == (3, (), item.hits)
    assert play("click[back to search]", state=item)[0] == State()


def test_blank_nodes_are_treated_as_the_parser_treats_them(play):
    state, text = play("search[plain more]", "click[b000000003]")
    assert parts(text)[4:6] == ["Plain <b>Lamp</b> & More", "Price: $100.0"]
    assert parts(play("click[features]", state=state)[1])[4:] == [""]  # ' ' stays, ' ' + ' \n ' goes
    assert len(parts(play("click[description]", state=state)[1])) == 4  # an empty text is no node


def test_options_that_share_names_with_others(play):
    shop, _ = shop_and_goal()
    state, _ = play("search[chair]", "click[b000000004]")
    assert shop.clickables(state)[6:] == ("oak", "next >")  # "description" stays where the button is
    assert play("click[oak]", state=state)[0].options == (("seat", "oak"),)  # under two names: the last
    assert play("click[description]", state=state)[0].page == "sub"
    assert play("click[next >]", state=state)[0].options == (("seat", "next >"),)


def test_buying_ends_it(play):
    shop, goal = shop_and_goal()
    state, text = play("search[brass]", "click[b000000001]", "click[white]", "click[x-large]", "click[buy now]")
    assert state.outcome.score == 1.0 and shop.clickables(state) == ()
    assert parts(text)[:9] == [
        "Thank you for shopping with us!", "Your code:", "None", "(Paste it in your MTurk interface.)", "Purchased",
        "asin", "B000000001", "options", '{"color": "white", "size": "x-large"}',
    ]  # fmt: skip
    assert parts(text)[-4:] == ["Your score (min 0.0, max 1.0)", "1.0", "Reward Details", "None"]
    for action in ("search[lamp]", "click[buy now]", "click[back to search]"):
        assert shop.step(state, goal, action) is state


@pytest.mark.parametrize(
    "action",
    [
        "", "search", "search[]", "click[]", "click[search]", "Search[lamp]", " search[lamp]", "click[b000000001]",
        "[x]", "click[back to search]", "click[buy now]", "click[search] click[search]", "search[a\nb]",
        "think[x] search[lamp]", "search[a[b]c]",
    ],
)  # fmt: skip
def test_anything_else_does_nothing(action):
    shop, goal = shop_and_goal()
    assert shop.step(State(), goal, action) == State()


def test_the_first_match_is_greedy(play):
    assert play("search[lamp] now]")[0].query == "lamp] now"
    assert play("search[lamp] and more")[0].query == "lamp"


def test_special_searches_are_plain_text(play):
    for query in ("<r>", "<c> garden", "<q> table lamps", "<a> lamp"):
        state, _ = play(f"search[{query}]")
        assert state.hits == shop_and_goal()[0].search(query.strip("<>").replace(">", ""))


def test_a_very_long_search(play):
    state, text = play(f"search[{'lamp ' * 2000}]")
    assert len(state.query) == 10_000 and len(state.hits) == 23
    state, _ = play(f"search[{' '.join(f'w{n}' for n in range(2500))} oak]")
    assert len(state.hits) == 2  # the lamp and the chair of oak, among 2,500 terms that nothing has
    assert play(f"search[{'x' * 10_000}]")[0].hits == ()


def test_rich_observations(play):
    _, goal = shop_and_goal()
    results, text = play("search[brass]", mode="text_rich")
    assert text == (
        f"Instruction:\n{goal.text}\n[button] Back to Search [button_]\nPage 1 (Total results: 1)\n"
        "[button] Next > [button_]\n\n[button] B000000001 [button_]\nBrass Desk Lamp\n$12.5\n"
    )
    item, text = play("click[b000000001]", "click[white]", mode="text_rich", state=results)
    assert text == (
        f"You have clicked white.\nInstruction:\n{goal.text}\n[button] Back to Search [button_]\n"
        "[button] < Prev [button_]\ncolor\n  [button] navy blue [button_]\n  [clicked button] white [clicked button_]\n"
        "size\n  [button] 10 | 12 in [button_]\n  [button] x-large [button_]\nBrass Desk Lamp\nPrice: $12.5\n"
        "Rating: N.A.\n"
        "[button] Description [button_]\n[button] Features [button_]\n[button] Reviews [button_]\n"
        "[button] Buy Now [button_]\n"
    )
    assert play("click[features]", mode="text_rich", state=item)[1].endswith("\n Bright light. \n Easy to clean. \n")
    assert "\n[clicked button] B000000001 [clicked button_]\n" in play("click[< prev]", mode="text_rich", state=item)[1]
    start = play(mode="text_rich")[1]
    assert start == f"WebShop\nInstruction: \n{goal.text}\n[button] Search [button_]\n"


ACTIONS = st.one_of(
    st.text(max_size=30),
    st.builds("{}[{}]".format, st.sampled_from(["search", "click", "Click", "buy", ""]), st.text(max_size=40)),
    st.builds("search[{}]".format, st.sampled_from(["lamp", "oak", "chair ★", "<r>", "B000000001", "😀", "the"])),
    st.integers(0, 60),  # click that clickable
)


@given(st.lists(ACTIONS, max_size=25), st.integers(0, 4))
@settings(max_examples=250, deadline=None)
def test_any_actions_at_all_leave_a_legal_state(actions, number):
    shop, _ = shop_and_goal()
    goal, state = shop.goals[number], State()
    for action in actions:
        offered = shop.clickables(state)
        if isinstance(action, int):
            action = f"click[{offered[action % len(offered)]}]" if offered else "click[x]"
        before, state = state, shop.step(state, goal, action)
        assert shop.step(before, goal, action) == state  # pure
        assert len(set(shop.clickables(state))) == len(shop.clickables(state))
        assert state.number >= 1 and len(state.hits) <= 50 and len(state.shown) <= 10
        assert (state.product >= 0) == (state.page in ("item", "sub", "done"))
        assert (state.outcome is not None) == (state.page == "done")
        assert state.page == "done" or state.outcome is None
        assert bool(state.sub) == (state.page == "sub")
        if state.options:
            options = shop.products[state.product].options
            assert all(value in options[name] for name, value in state.options)
        if state.outcome:
            assert 0.0 <= state.outcome.score <= 1.0
        for mode in ("text", "text_rich"):
            text = shop.observe(state, goal, mode)
            assert state.page == "done" or goal.text in text
