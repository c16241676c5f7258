"""Environments under TRL's own GRPOTrainer: a model that calls the tool plays, is rewarded and learns from it."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import pytest
import torch
from pages import code
from tiny import byte_tokenizer, tiny_model
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM
from transformers.utils import get_json_schema
from trl.chat_template_utils import qwen3_instruct_2507_chat_template

from skill1.envs.adapters.shared import SharedEnvironment
from skill1.envs.adapters.trl import ToolEnvironment, rows
from skill1.envs.base import DataError

GARDEN = f"{Path(__file__).resolve().parents[1] / 'examples' / 'garden.py'}:GARDEN"


@pytest.fixture
def garden() -> SharedEnvironment:
    return SharedEnvironment(GARDEN, max_steps=3)


def call(action: str) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'act', 'arguments': {'action': action}})}\n</tool_call>"


def test_act_is_the_only_tool_and_its_schema_says_what_it_takes(garden):
    public = [name for name, _ in inspect.getmembers(ToolEnvironment, inspect.isfunction) if not name.startswith("_")]
    assert sorted(public) == ["act", "get_reward", "reset"]
    schema = get_json_schema(ToolEnvironment(garden).act)["function"]
    assert schema["parameters"]["required"] == ["action"] and "alone" in str(schema)


def test_an_episode_is_scored_by_its_end_alone(garden):
    row = rows(garden, "train")[0]
    first, second = ToolEnvironment(garden), ToolEnvironment(garden)
    text = first.reset(**row)
    wanted = text.splitlines()[0].removeprefix("Task: make the ").removesuffix(" bloom.")
    second.reset(**rows(garden, "train")[1])
    assert first.act(f" Go to {wanted.upper()} ").startswith(f"You stand before the {wanted}.")
    assert first.get_reward() == 0.0
    assert first.act(f"{row['category'].lower()} {wanted}").splitlines()[-1] == "The episode is over."
    assert (first.get_reward(), second.get_reward()) == (1.0, 0.0)
    with pytest.raises(ValueError, match="Take no more actions"):
        first.act("look")
    with pytest.raises(DataError, match="garden has no garden 'train/99' in its split 'train'"):
        first.reset(split="train", game="train/99")
    assert first.reset(**row) == text and first.get_reward() == 0.0


def bigrams(tokenizer: PreTrainedTokenizerFast, follows: dict[str, list[str]]) -> Qwen2ForCausalLM:
    """A model that writes one of the tokens that follow its last token, each as likely."""
    model = tiny_model(hidden=288, layers=1, vocabulary=288, context=4096)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(288, 288))
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(288))
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        for last, following in follows.items():
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(following), tokenizer.convert_tokens_to_ids(last)] = (
                1.0
            )
    return model


@pytest.mark.slow
def test_the_code_of_the_page_trains_with_trls_own_trainer(garden, tmp_path, monkeypatch):
    """One garden, a model that calls the tool at random: two steps of GRPO, rewarded by the episodes' scores."""
    monkeypatch.setitem(sys.modules[type(garden.environment).__module__].GARDENS, "train", range(7, 8))
    [row] = rows(garden, "train")
    wanted = ToolEnvironment(garden).reset(**row).split("make the ")[1].split(" bloom")[0]
    calls = [call(f"{verb} {wanted}") for verb in ("go to", row["category"].lower())]
    tokenizer = byte_tokenizer(qwen3_instruct_2507_chat_template, special=("<|im_end|>", "<|im_start|>"))
    tokenizer.add_tokens(calls)
    newline = tokenizer.tokenize("\n")[0]
    before = bigrams(tokenizer, {newline: calls} | {text: ["<|im_end|>"] for text in calls})
    before.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    monkeypatch.chdir(tmp_path)
    names = {"shared": garden}
    shown = code("environments.md", "TRL", "python").replace("Qwen/Qwen3-0.6B", "model")
    exec(shown.replace('"results/trl",', '"results/trl", use_cpu=True, bf16=False,'), names)
    steps = [log for log in names["trainer"].state.log_history if "rewards/ToolEnvironment/mean" in log]
    won = [4 * log["rewards/ToolEnvironment/mean"] for log in steps]  # of four rollouts a step, each is won with 1/2
    assert len(won) == 2 and {*won} <= {0, 1, 2, 3, 4} and 0 < sum(won) < 8
    assert all(log["tools/call_frequency"] == 3.0 and log["reward"] * 4 in won for log in steps)
    assert not torch.equal(names["trainer"].model.lm_head.weight.cpu(), before.lm_head.weight)
