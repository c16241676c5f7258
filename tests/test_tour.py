"""The tour's own pieces: a scripted policy in the real loop's place, and log-probabilities as the policy reports them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nano_runs import configure, load_policy

from skill1.analysis.tour import ScriptedPolicy, log_probabilities
from skill1.nano.model import nano_tokenizer
from skill1.prompts import make_prompts
from skill1.records import STAGES, Row


def test_script_is_followed_by_rollout_stage_and_step() -> None:
    script = {"query": ["mug"], "rerank": ["2 , 1"], "act": ["look", "go_to fridge_1"], "distill": ["mug | fridge_1"]}
    policy = ScriptedPolicy(
        nano_tokenizer("alfworld"), make_prompts("compact", "alfworld"), [script, {**script, "query": ["plate"]}]
    )
    seeds = [(0, 9, rollout, STAGES.index(stage), actions) for rollout, stage, actions in (
        (0, "query", 0), (1, "query", 0), (0, "act", 1), (1, "distill", 2),
    )]  # fmt: skip
    answers = policy.generate(["<query>", "<act>", "<act>", "<act>"], seeds, temperature=1.0, max_new_tokens=9)
    assert [answer.text for answer in answers] == ["mug", "plate", "go_to fridge_1", "mug | fridge_1"]
    tokenizer = nano_tokenizer("alfworld")
    assert answers[2].ids.tolist() == tokenizer.encode("go_to fridge_1 <end>", add_special_tokens=False)
    assert all(len(answer.ids) == len(answer.logprobs) and not answer.logprobs.any() for answer in answers)
    with pytest.raises(IndexError):
        policy.generate(["<act>"], [(0, 9, 0, STAGES.index("act"), 2)], temperature=1.0, max_new_tokens=9)


def test_log_probabilities_are_those_of_sampling(world: Path, nano: Path) -> None:
    policy = load_policy(configure(world, nano))
    answers = policy.generate(
        ["<query> mug", "<act> plate fridge_1"], [(0, 1), (0, 2)], temperature=1.0, max_new_tokens=5
    )
    rows = [Row(a.prompt_ids, a.ids, a.logprobs, "act", 1.0, 1.0, 0, i, 0) for i, a in enumerate(answers)]
    assert np.allclose(log_probabilities(policy.model, rows), [a.logprobs.sum() for a in answers], atol=1e-4)
