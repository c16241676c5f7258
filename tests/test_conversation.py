"""One chat per rollout: what is read once, what is kept between calls, and the rows that come of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_made import rollout, turn
from tiny import tiny_model

from skill1.generation.calls import Prompt
from skill1.generation.padded import PaddedWriter
from skill1.rows import calls_of, make_rows

END = 2


class Counted(torch.nn.Module):
    """Counts the tokens that pass a model."""

    def __init__(self, model) -> None:
        super().__init__()
        self.passed = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs) -> None:
        self.passed += kwargs["input_ids"].numel()


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def talk(
    model, cache_tokens: int, *, kept: bool, batch: int = 8
) -> tuple[list[list[list[int]]], list[np.ndarray], int]:
    """Four turns of five conversations; the third leaves two out. -> tokens of each, log-probs, tokens that passed."""
    writer = PaddedWriter(model, batch=batch, cache_tokens=cache_tokens, pad=0, ends=frozenset({END}))
    counted, rng = Counted(model), np.random.default_rng(0)
    said: list[list[int]] = [[] for _ in range(5)]
    logprobs = []
    for number in range(4):
        new = [rng.integers(4, 64, rng.integers(1, 12)).tolist() for _ in said]
        live = [0, 2, 4] if number == 2 else range(5)
        prompts = [Prompt(said[i] + new[i], (1, number, i), (7, i) if kept else None) for i in live]
        for i, prompt, (ids, found) in zip(live, prompts, writer.write(prompts, 1.0, 6), strict=True):
            said[i] = [*prompt.ids, *ids.tolist()]
            logprobs.append(found)
    return said, logprobs, counted.passed


@pytest.mark.parametrize("room, batch", [(4096, 8), (4096, 2), (60, 8), (0, 8)])
def test_what_is_kept_of_a_conversation_changes_no_token(model, room, batch):
    said, logprobs, passed = talk(model, 4096, kept=False)
    others, found, fewer = talk(model, max(room, 1), kept=True, batch=batch)
    assert others == said
    for mine, other in zip(found, logprobs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)
    if room == 4096:
        assert fewer < passed / 2


def test_a_conversation_becomes_rows_that_continue_one_another():
    calls = [turn("query", tokens=2), turn("rerank", tokens=3), turn("act", tokens=4), turn("distill", tokens=5)]
    chat = tuple(replace(call, continues=number > 0, prompt_ids=call.prompt_ids + 10 * number)
                 for number, call in enumerate(calls))  # fmt: skip
    made = [replace(rollout(), turns=chat), replace(rollout(), turns=tuple(calls))]
    kept = calls_of(made, without=["rerank"])
    first, act, lesson, *apart = make_rows(made, kept, np.ones(6), "trajectory", {"distill": 0.5})
    assert [row.continues for row in (first, act, lesson)] == [False, True, True]
    assert first.prompt_ids is chat[0].prompt_ids and lesson.prompt_ids is chat[3].prompt_ids
    # the ranking is not trained: it is part of what the action's row reads
    assert act.prompt_ids.tolist() == [10, 11, 12, 0, 1, 2, 20, 21, 22]
    assert [row.continues for row in apart] == [False] * 3
    assert [row.prompt_ids.tolist() for row in apart] == [[0, 1, 2]] * 3
    # the weights are those of the same calls one by one
    assert [row.weight for row in (first, act, lesson)] == [row.weight for row in apart]


def test_a_conversation_without_its_first_call_still_reads_it():
    chat = tuple(replace(turn(stage), continues=stage != "query") for stage in ("query", "act"))
    [row] = make_rows(
        [replace(rollout(), turns=chat)], calls_of([replace(rollout(), turns=chat)], ["query"]), [1.0], "batch"
    )
    assert not row.continues and len(row.prompt_ids) == len(chat[0].prompt_ids) * 2 + len(chat[0].completion_ids)
