"""The cold start with a bank's block in the prompt: what it shows, and that it changes nothing where it is off."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from shop_runs import make_shop

from skill1.envs.make import make_environment
from skill1.envs.webshop.options import WebShopConfig
from skill1.methods.skillrl.asking import Inputs
from skill1.methods.skillrl.bank import Principle
from skill1.methods.skillrl.evolution import Episode
from skill1.nano.alfworld import NANO as HOMES
from skill1.nano.demonstrator import Demonstration
from skill1.nano.model import nano_tokenizer
from skill1.nano.options import WarmStartConfig
from skill1.nano.teacher import ScriptedTeacher
from skill1.nano.webshop import NANO as SHOP
from skill1.nano.webshop.expert import ShopExpert
from skill1.nano.webshop.prompts import CompactShopPrompts
from skill1.nano.webshop.reading import brand
from skill1.prompts import ActContext

SMALL = WarmStartConfig(
    games=40, games_per_world=8, receptacles_high=12, noise=0.0, several_share=0.0, bank_share=0.0, reflect_share=0.0,
    wrong_share=0.0, raw_share=0.0,
)  # fmt: skip


def acts(share: float, relevant: float) -> list[Demonstration]:
    config = replace(SMALL, bank_share=share, relevant_share=relevant, first_moves=0, foreign_share=0.0)
    return [row for row in HOMES.demonstrator(config).demonstrations() if row.stage == "act"]


def block(row: Demonstration) -> list[str]:
    shown = row.prompt.partition("<skill> ")[2].removesuffix(" <write>")
    return [] if shown == "none" else shown.split(" ; ")


def word(row: Demonstration, mark: str) -> list[str]:
    return row.prompt.partition(f"<{mark}> ")[2].partition(" <")[0].split()


def test_the_expert_starts_where_the_principle_of_its_object_says():
    firsts = [row for row in acts(1.0, 1.0) if word(row, "step") == ["0"]]
    assert len(firsts) == 40
    for row in firsts:
        [own] = [text for text in block(row) if text.split()[0] == "this"]
        kind = own.split()[-1]
        there = [place for place in word(row, "room") if place.rpartition("_")[0] == kind]
        assert row.answer == f"go_to {there[0]}"
    sizes = [len(block(row)) for row in firsts]
    assert max(sizes) > 3 and all(text.split()[1] == "in" for row in firsts for text in block(row))
    places = [next(i for i, t in enumerate(block(row)) if t.split()[0] == "this") for row in firsts]
    assert len(set(places)) > 2  # not always first: only reading tells


def test_a_block_about_other_objects_is_ignored():
    """The expert then starts as it does without skills."""
    shown, bare = acts(1.0, 0.0), acts(0.0, 0.0)
    one, other = ([row for row in rows if word(row, "step") == ["0"]] for rows in (shown, bare))
    for a, b in zip(one, other, strict=True):
        assert a.answer == b.answer and not any(text.split()[0] == "this" for text in block(a))
    assert any(block(row) for row in one) and not any(block(row) for row in other)


def test_the_block_is_in_the_policys_vocabulary_at_every_step():
    tokenizer = nano_tokenizer("alfworld")
    for row in islice(acts(1.0, 0.5), 200):
        assert tokenizer.unk_token_id not in tokenizer.encode(row.prompt)
    by_task = {row.prompt.partition("<task> ")[2] for row in acts(1.0, 1.0)}
    assert len(by_task) <= 40  # task and block are the same in all prompts of an episode


def test_a_skill_among_others_is_followed_as_it_is_alone():
    """Every block holds one skill of this home and object where one alone would be shown, and others around it."""
    config = replace(SMALL, relevant_share=1.0, first_moves=0, several_share=1.0)
    firsts = [
        row for row in HOMES.demonstrator(config).demonstrations() if row.stage == "act" and word(row, "step") == ["0"]
    ]
    own = [[text.split() for text in block(row) if text.split()[:2] == ["this", "here"]] for row in firsts]
    assert all(
        len(found) == 1 and row.answer == f"go_to {found[0][-1]}" for row, found in zip(firsts, own, strict=True)
    )
    assert {len(block(row)) for row in firsts} == {1, 2, 3}
    assert (
        len({[text.split() for text in block(row)].index(found[0]) for row, found in zip(firsts, own, strict=True)})
        == 3
    )


# -- WebShop ----------------------------------------------------------------------------------------------------------


def first_searches(**changed) -> list[Demonstration]:
    config = replace(SMALL, games_per_world=40, max_steps=12, first_moves=0, **changed)
    return [
        row for row in SHOP.demonstrator(config).demonstrations() if row.stage == "act" and word(row, "step") == ["0"]
    ]


def own(row: Demonstration) -> list[int]:
    """Where in the block something is said about this very wish."""
    return [i for i, text in enumerate(block(row)) if text.split(" : ")[0] == "this"]


def test_a_shops_block_is_followed_where_one_principle_is_about_the_task():
    rows = first_searches(bank_share=1.0, relevant_share=1.0)
    assert len(rows) == 40
    for row in rows:
        [place] = own(row)
        assert row.answer == f"search {block(row)[place].split(' : ')[1]}" and row.kind == "search by skill"
        abouts = [text.split(" : ")[0] for text in block(row)]
        assert len(set(abouts)) == len(abouts)
    assert max(len(block(row)) for row in rows) > 4
    assert len({own(row)[0] for row in rows}) > 3  # not always first: only reading tells


def test_a_shops_block_about_other_wishes_is_ignored():
    rows = first_searches(bank_share=1.0, relevant_share=0.0)
    assert any(len(block(row)) > 4 for row in rows)
    for row in rows:
        assert not own(row) and row.answer == f"search {' '.join(word(row, 'task'))}"


def test_a_shops_skill_among_others_is_followed_as_it_is_alone():
    rows = first_searches(relevant_share=1.0, several_share=1.0)
    for row in rows:
        assert len(own(row)) == 1 and row.answer == f"search {block(row)[own(row)[0]].split(' : ')[1]}"
    assert {len(block(row)) for row in rows} == {1, 2, 3} and {own(row)[0] for row in rows} == {0, 1, 2}
    ignored = first_searches(relevant_share=0.0, foreign_share=1.0, several_share=1.0)
    assert any(len(block(row)) == 3 for row in ignored)
    assert all(row.answer == f"search {' '.join(word(row, 'task'))}" for row in ignored)


def test_what_the_scripted_teacher_writes_reads_as_a_demonstrations_block(tmp_path):
    shop = make_environment(WebShopConfig(
        name="webshop", data=str(make_shop(tmp_path / "shop")), observation="text_rich", held_out_goals=12,
    ))  # fmt: skip
    prompts, episodes = CompactShopPrompts(), []
    for task in shop.tasks("test")[:4]:
        [start] = shop.reset([task])
        right = brand(shop.goal(task).name)
        expert, now, steps, done = ShopExpert(start, right), start, [], False
        while not done:
            answer = expert.act(now)
            steps.append((now.text, prompts.parse_action(answer, now.admissible).value))
            step = shop.step([steps[-1][1]])[0]
            now, done = step.observation, step.done
            if not done:
                expert.moved(answer, now)
        assert step.won
        episodes.append((start, right, Episode(start.instruction, "other", True, tuple(steps))))
    for start, right, episode in episodes:
        [entry] = ScriptedTeacher().write("evolve", Inputs("webshop", counted=(episode,)))
        bank_block = prompts.bank_block([Principle("dyn_001", entry["title"], entry["principle"])], [], [])
        row = Demonstration("act", "search by skill", prompts.act(ActContext(start, bank_block, 0, (), start)), "")
        assert own(row) == [0] and block(row) == [f"this : {right}"]


def test_a_shops_block_is_in_the_policys_vocabulary_at_every_step():
    config = replace(SMALL, games=8, max_steps=12, first_moves=0, reranks=0, bank_share=1.0)
    tokenizer, rows = (
        nano_tokenizer("webshop"),
        [row for row in SHOP.demonstrator(config).demonstrations() if row.stage == "act"],
    )
    assert all(tokenizer.unk_token_id not in tokenizer.encode(row.prompt) for row in rows)
    assert len({row.prompt.partition("<task> ")[2] for row in rows}) <= 8  # task and block stay for the whole episode
    assert any(word(row, "step") != ["0"] and len(block(row)) > 2 for row in rows)
