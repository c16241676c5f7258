"""`evaluate --model --keep-rollouts`: the episodes beside the outcomes, and what went wrong with the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Chat, chat_server, completion
from distributed_train import easy_environment
from tiny import CHATML, byte_tokenizer, tiny_model

from skill1.cli import main as cli
from skill1.errors import RunError
from skill1.models import evaluate_model
from skill1.store.rollout_log import read_rollouts


@pytest.fixture(autouse=True)
def easy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_model, "make_environment", easy_environment)


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    with chat_server() as server:
        yield server


def settings(world: Path, **more: Any) -> dict[str, Any]:
    small = {"environment.data": str(world), "environment.max_steps": 4, "library.encoder": "hash"}
    return small | {"evaluation.passes": 2, "evaluation.splits": ["valid_seen"]} | more


def slip(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """Every third request is answered in words that no parser takes."""
    plain = body["messages"][0]["role"] == "system"
    usual = "look" if plain else "<think>Well.</think><action>look</action>"
    return 200, {}, completion("I\ncannot\nsay" if number % 3 == 0 else usual)


@pytest.mark.parametrize("context", ["window", "conversation"])
def test_an_endpoint_is_shown_with_all_it_said(chat, world, tmp_path, monkeypatch, context):
    chat.behave = slip
    chat.requests.clear()
    given = settings(world, **{"rollout.context": context})
    config = evaluate_model.model_config("chatty", "paper", given, endpoint=True)
    out = tmp_path / "out"
    done = evaluate_model.evaluate_model(config, out, endpoint=chat.url, keep_rollouts=True, progress=False)
    [evaluation] = done.evaluations
    kept = [
        rollout for number in (0, 1) for rollout in read_rollouts(out / f"rollouts/valid_seen_pass{number}.parquet")
    ]
    assert sorted((r.task.game, r.index, r.steps) for r in kept) == sorted(
        evaluation.frame[["game", "pass", "steps"]].itertuples(index=False, name=None)
    )
    turns = [turn for rollout in kept for turn in rollout.turns]
    assert len(turns) == len(chat.requests) and {turn.stage for turn in turns} == {"act"}
    wrong = [turn for turn in turns if not turn.well_formed]
    assert "I\ncannot\nsay" in {turn.text for turn in wrong}
    share = len(wrong) / len(turns)
    assert share > 0 and evaluation.summary["ill_formed"] == pytest.approx(share)
    assert evaluation.summary["ill_formed_by_stage"] == {"act": pytest.approx(share)}
    assert evaluation.summary["inadmissible"] == pytest.approx(np.mean([not turn.admissible for turn in turns]))
    stored = json.loads((out / "summary.json").read_text())["valid_seen"]
    assert stored["ill_formed_by_stage"] == evaluation.summary["ill_formed_by_stage"]
    roles = {tuple(message["role"] for message in body["messages"]) for body in chat.requests}
    assert (("system", "user", "assistant", "user") in roles) == (context == "conversation")


def test_rollouts_that_were_not_kept_are_missed(chat, world, tmp_path):
    chat.behave = lambda number, body: None
    config = evaluate_model.model_config("chatty", "paper", settings(world), endpoint=True)
    given = {"endpoint": chat.url, "progress": False}
    evaluate_model.evaluate_model(config, tmp_path / "out", **given)
    assert not (tmp_path / "out/rollouts").exists()
    with pytest.raises(RunError, match="outcomes of valid_seen, pass 0, whose rollouts were not kept: choose another"):
        evaluate_model.evaluate_model(config, tmp_path / "out", keep_rollouts=True, **given)


def test_the_command_keeps_the_texts_of_a_model_in_a_conversation(world, tmp_path, capsys):
    tokenizer, model = byte_tokenizer(CHATML), tiny_model(vocabulary=258, context=4096)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    given = settings(world, **{
        "rollout.context": "conversation", "rollout.max_act_tokens": 4, "policy.dtype": "float32", "evaluation.passes": 1,
        "evaluation.splits": '["valid_seen"]', "rollout.max_prompt_tokens": 3000,
    })  # fmt: skip
    sets = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    words = ["evaluate", "--model", str(tmp_path / "model"), "--preset", "small", "--keep-rollouts", *sets]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    said = json.loads(out)
    kept = read_rollouts(tmp_path / "out/rollouts/valid_seen_pass0.parquet")
    assert len(kept) == 6 and all(turn.continues for rollout in kept for turn in rollout.turns[1:])
    assert said["ill_formed_by_stage"] == {"act": said["ill_formed"]} and 0 <= said["inadmissible"] <= 1
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--out", str(tmp_path / "run"), "--keep-rollouts"])
    assert "--keep-rollouts is for a --model" in capsys.readouterr().err
