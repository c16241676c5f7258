"""The cold start with a bank's block in the prompt: what it shows, and that it changes nothing where it is off."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest

from skill1.config import ConfigError, WarmStartConfig
from skill1.demonstrations import Demonstration
from skill1.warmstart import demonstrations, nano_tokenizer, warm_start

SMALL = WarmStartConfig(games=40, games_per_world=8, receptacles_high=12, noise=0.0)


def acts(share: float, relevant: float) -> list[Demonstration]:
    config = replace(SMALL, bank_share=share, relevant_share=relevant, first_moves=0, foreign_share=0.0)
    return [row for row in demonstrations(config) if row.stage == "act"]


def block(row: Demonstration) -> list[str]:
    shown = row.prompt.partition("<skill> ")[2].removesuffix(" <write>")
    return [] if shown == "none" else shown.split(" ; ")


def word(row: Demonstration, mark: str) -> list[str]:
    return row.prompt.partition(f"<{mark}> ")[2].partition(" <")[0].split()


def test_the_expert_starts_where_the_principle_of_its_object_says():
    firsts = [row for row in acts(1.0, 1.0) if word(row, "step") == ["0"]]
    assert len(firsts) == 40
    for row in firsts:
        [own] = [text for text in block(row) if text.split()[0] in word(row, "task")]
        target, _, kind = own.split()
        there = [place for place in word(row, "room") if place.rpartition("_")[0] == kind]
        assert row.answer == f"go_to {there[0]}"
    sizes = [len(block(row)) for row in firsts]
    assert max(sizes) > 3 and all(text.split()[1] == "in" for row in firsts for text in block(row))
    places = [next(i for i, t in enumerate(block(row)) if t.split()[0] in word(row, "task")) for row in firsts]
    assert len(set(places)) > 2  # not always first: only reading tells


def test_a_block_about_other_objects_is_ignored():
    """The expert then starts as it does without skills."""
    shown, bare = acts(1.0, 0.0), acts(0.0, 0.0)
    one, other = ([row for row in rows if word(row, "step") == ["0"]] for rows in (shown, bare))
    for a, b in zip(one, other, strict=True):
        assert a.answer == b.answer and not any(text.split()[0] in word(a, "task") for text in block(a))
    assert any(block(row) for row in one) and not any(block(row) for row in other)


def test_the_block_is_in_the_policys_vocabulary_at_every_step():
    tokenizer = nano_tokenizer()
    for row in islice(acts(1.0, 0.5), 200):
        assert tokenizer.unk_token_id not in tokenizer.encode(row.prompt)
    by_task = {row.prompt.partition("<task> ")[2] for row in acts(1.0, 1.0)}
    assert len(by_task) <= 40  # task and block are the same in all prompts of an episode


def test_a_skill_among_others_is_followed_as_it_is_alone():
    """Every block holds one skill of this home and object where one alone would be shown, and others around it."""
    config = replace(SMALL, relevant_share=1.0, first_moves=0, several_share=1.0)
    firsts = [row for row in demonstrations(config) if row.stage == "act" and word(row, "step") == ["0"]]
    own = [[text.split() for text in block(row) if text.split()[:2] == [text.split()[0], "here"]
            and text.split()[0] in word(row, "task")] for row in firsts]  # fmt: skip
    assert all(len(found) == 1 and row.answer == f"go_to {found[0][-1]}" for row, found in zip(firsts, own, strict=True))
    assert {len(block(row)) for row in firsts} == {1, 2, 3}
    assert len({[text.split() for text in block(row)].index(found[0]) for row, found in zip(firsts, own, strict=True)}) == 3


def test_a_shop_has_no_such_demonstrations(tmp_path):
    with pytest.raises(ConfigError, match="warm_start.bank_share=0.5: only ALFWorld's"):
        warm_start(replace(SMALL, bank_share=0.5), tmp_path, "webshop")
