"""The cold start: what of a chat is learnt, the update, held-out games, resuming after a kill, two processes."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed_train import begin_deepspeed, needs_deepspeed, two_ranks
from nano_runs import forked
from tiny import CHATML, byte_tokenizer, tiny_model, tiny_tokenizer
from torch.nn.functional import cross_entropy

from skill1.cli import main as cli
from skill1.config import Config, ConfigError, load_config
from skill1.errors import RunError
from skill1.models.chat_tokens import ChatTokens, tokenize
from skill1.models.chat_trainer import ChatTrainer
from skill1.models.coldstart import cold_start, split_by_game
from skill1.models.demonstrations import Call, Chat, write_chats
from skill1.models.options import ColdStartConfig
from skill1.policy import load_model

LEARNING = ColdStartConfig(epochs=3, learning_rate=3e-3, chats_per_step=3)


def make_base(folder: Path) -> Path:
    """A tiny chat model that reads bytes."""
    tokenizer = byte_tokenizer(CHATML)
    model = tiny_model(vocabulary=len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_prompts(folder: Path) -> Path:
    """The built-in templates, but no system message: short sequences."""
    folder.mkdir()
    (folder / "system.jinja").write_text("")
    return folder


def chat_config(base: Path, prompts: Path) -> Config:
    return load_config("small", "full", {
        "policy.model": str(base), "policy.prompts": str(prompts), "policy.dtype": "float32", "policy.lora_rank": 0,
        "policy.gradient_checkpointing": False, "rollout.context": "conversation", "train.tokens_per_micro_batch": 150,
    })  # fmt: skip


def make_chat(number: int) -> Chat:
    """A rollout of two to four calls; an action is context alone."""
    things = ("mug", "apple", "potato", "egg")[: 1 + number % 3]
    acts = [
        Call(prompt=f"You see a {thing}.", completion=f"take {thing} {number}", learn=thing != "apple")
        for thing in things
    ]
    lesson = Call(stage="distill", prompt="Won.", completion=f"When: {things[0]}\nDo: take it")
    return Chat((*acts, lesson), f"train/game-{number % 4}", number // 4, place=f"made:{number + 1}")


CHATS = [make_chat(number) for number in range(7)]  # of four games


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("models")
    return chat_config(make_base(folder / "base"), make_prompts(folder / "prompts"))


@pytest.fixture(scope="module")
def chats() -> list[Chat]:
    return CHATS


@pytest.fixture(scope="module")
def file(chats: list[Chat], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demonstrations") / "chats.jsonl"
    write_chats(out, chats)
    return out


def weights(folder: Path, config: Config) -> dict[str, torch.Tensor]:
    return load_model(config.policy, str(folder))[0].state_dict()


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_of_single_calls_the_answer_and_its_end_are_learnt():
    """By hand: <user> go to <end> <assistant> | take mug <end>."""
    config = load_config("small", overrides={"rollout.max_prompt_tokens": 5, "rollout.max_act_tokens": 3})
    tokenizer = tiny_tokenizer()
    two = [Chat((Call(prompt=p, completion=c),), place="x:1") for p, c in (("go to", "take mug"), ("look", "put"))]
    (one, other), left_out = tokenize(two, config, tokenizer)
    assert tokenizer.convert_ids_to_tokens(one.ids) == "<user> go to <end> <assistant> take mug <end>".split()
    assert one.labels.tolist() == [-100] * 5 + one.ids[5:].tolist() and one.learnt.tolist() == [5, 6, 7]
    assert tokenizer.convert_ids_to_tokens(other.ids) == "<user> look <end> <assistant> put <end>".split()
    assert other.labels.tolist() == [-100] * 4 + other.ids[4:].tolist() and not left_out


@pytest.mark.parametrize(
    ("learn", "marked"),
    [
        ((True, True), "......................mug].......................go]"),
        ((False, True), ".................................................go]"),
        ((True, False), "......................mug]"),  # nothing after the last answer is of use
    ],
)
def test_of_a_conversation_every_answer_to_be_learnt_is(config, learn, marked):
    """By hand, one token a byte, and one for each of the chat's marks, here written [ and ]."""
    tokenizer = byte_tokenizer(CHATML)
    calls = [
        Call(stage=stage, prompt=prompt, completion=completion, learn=yes)
        for stage, prompt, completion, yes in zip(("query", "act"), ("ask", "act"), ("mug", "go"), learn, strict=True)
    ]
    [tokens], _ = tokenize([Chat(tuple(calls), "game")], config, tokenizer)

    def shown(ids: np.ndarray) -> str:
        marks = {
            -100: ".",
            **dict(zip(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]), "[]", strict=True)),
        }
        return "".join(marks.get(i) or tokenizer.decode([i]) for i in ids.tolist())

    whole = "[user\nask]\n[assistant\nmug]\n[user\nact]\n[assistant\ngo]"
    assert (shown(tokens.ids), shown(tokens.labels)) == (whole[: len(marked)], marked)
    assert [answer.stage for answer in tokens.answers] == [call.stage for call in calls if call.learn]


def test_limits_are_those_of_the_stages(config):
    tokenizer, short = tiny_tokenizer(), load_config("small", overrides={
        "rollout.max_prompt_tokens": 5, "rollout.max_act_tokens": 3, "method.max_distill_tokens": 4,
    })  # fmt: skip

    def refused(message: str, *calls: Call, config: Config = short) -> None:
        with pytest.raises(ConfigError, match=message):
            tokenize([Chat(calls, place="x:1")], config, tokenizer)

    long = "take mug apple"
    refused(
        r"x:1: the prompt has 7 tokens, rollout\.max_prompt_tokens is 5",
        Call(prompt="go to take shelf", completion="go"),
    )
    refused(r"x:1: the completion has 4 tokens with its end, .* 'act' is 3", Call(prompt="go", completion=long))
    assert tokenize([Chat((Call(stage="distill", prompt="go", completion=long),))], short, tokenizer)[0]
    refused("x:1: the completion has a word that", Call(prompt="go", completion="fly"))
    refused("x:1: a chat of 2 calls, but with rollout.context=window", *[Call(prompt="go", completion="go")] * 2)
    plain = load_config("small", "grpo")
    refused("x:1: an answer of the stage 'query', but the run has act", Call(stage="query", prompt="go", completion="go"), config=plain)  # fmt: skip


def test_a_conversation_that_the_loop_would_end_is_left_out(config, chats):
    tokenizer = byte_tokenizer(CHATML)
    every, none = tokenize(chats, config, tokenizer)
    limit = sorted(tokens.answers[-1].start for tokens in every)[4]
    shorter = replace(config, rollout=replace(config.rollout, max_prompt_tokens=limit))
    kept, left_out = tokenize(chats, shorter, tokenizer)
    assert not none and all(tokens.answers[-1].start <= limit for tokens in kept)
    assert len(kept) + len(left_out) == len(chats) and len(left_out) in (1, 2)
    with pytest.raises(ConfigError, match="every one of 7 conversations is longer than rollout.max_prompt_tokens=9"):
        tokenize(chats, replace(config, rollout=replace(config.rollout, max_prompt_tokens=9)), tokenizer)


def test_a_folder_that_is_worded_otherwise_is_refused(config, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"parts": 1, "config": {"rollout.context": "window"}}))
    write_chats(tmp_path / "part-00000.jsonl", [make_chat(0)])
    with pytest.raises(ConfigError, match=r"was demonstrated with rollout\.context=window, not conversation: set it"):
        cold_start(config, LEARNING, tmp_path, tmp_path / "policy")
    assert not (tmp_path / "policy.checkpoints").exists()


# -- the update -------------------------------------------------------------------------------------------------------


def trainer_of(
    config: Config, folder: Path, chats: list[Chat], options: ColdStartConfig, held_out: int = 0
) -> ChatTrainer:
    model, tokenizer = load_model(config.policy)
    tokens, _ = tokenize(chats, config, tokenizer)
    rest = len(tokens) - held_out
    return ChatTrainer(config, options, model, tokenizer, folder, tokens[:rest], tokens[rest:], progress=False)


def logits_of(model: torch.nn.Module, tokens: ChatTokens) -> torch.Tensor:
    """(N, V) of the tokens to be learnt, in the plain way."""
    ids = torch.as_tensor(tokens.ids, dtype=torch.long)
    return model(input_ids=ids.unsqueeze(0)).logits[0, tokens.learnt - 1]


def test_all_answer_tokens_of_an_update_count_the_same(config, chats, tmp_path):
    trainer = trainer_of(config, tmp_path, chats, replace(LEARNING, chats_per_step=7))
    assert len(trainer._update(0).micro_batches) > 2  # of uneven sizes
    loss = trainer.training_step(trainer.model, {})
    plain, tokenizer = load_model(config.policy)
    tokens, _ = tokenize(chats, config, tokenizer)
    targets = [torch.as_tensor(each.ids[each.learnt], dtype=torch.long) for each in tokens]
    expected = cross_entropy(torch.cat([logits_of(plain, each) for each in tokens]), torch.cat(targets))
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    for (name, ours), theirs in zip(trainer.model.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6), name


def test_only_answers_pass_the_head(config, chats, tmp_path):
    trainer = trainer_of(config, tmp_path, chats, LEARNING)
    batch = trainer._batch(trainer._chats)
    output = trainer._score_answers(trainer.model, batch)
    learnt = sum(len(tokens.learnt) for tokens in trainer._chats)
    assert output.log_probs.shape == (1, learnt) and batch["input_ids"].numel() > 4 * learnt
    nothing = trainer._score_answers(trainer.model, trainer._batch([]))  # of a rank without a chat
    assert nothing.log_probs.tolist() == [[0.0]] and nothing.log_probs.requires_grad


def test_an_epoch_learns_every_chat_once_and_the_steps_are_as_asked(config, chats, tmp_path):
    trainer = trainer_of(config, tmp_path, chats, LEARNING)
    steps = [
        [i for micro in trainer._update(step).micro_batches for rank in micro.ranks for i in rank] for step in range(9)
    ]
    assert trainer.args.max_steps == 9
    for first in (0, 3, 6):
        assert sorted(len(step) for step in steps[first : first + 3]) == [2, 2, 3]
        assert sorted(i for step in steps[first : first + 3] for i in step) == list(range(7))
    assert not steps[:3] == steps[3:6] == steps[6:]
    assert [trainer.ends_epoch(done) for done in range(1, 7)] == [False, False, True] * 2
    assert trainer.tokens(0, 3) == sum(len(tokens.ids) for tokens in trainer._chats)
    capped = trainer_of(config, tmp_path, chats, replace(LEARNING, max_steps=4))
    assert capped.args.max_steps == 4 and capped.ends_epoch(4)
    half = trainer_of(config, tmp_path, chats, replace(LEARNING, epochs=0.5))
    assert half.args.max_steps == 2


def test_no_step_has_rate_zero(config, chats, tmp_path):
    trainer = trainer_of(config, tmp_path, chats, replace(LEARNING, learning_rate=1.0, epochs=20))  # 60 steps
    trainer.create_optimizer()
    schedule = trainer.create_scheduler(60)
    rates = []
    for _ in range(60):
        rates.append(schedule.get_last_lr()[0])
        trainer.optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([0.5, 1.0, 58 / 59]) and rates[-1] == pytest.approx(1 / 59)


# -- held-out games ---------------------------------------------------------------------------------------------------


def test_no_game_is_learnt_and_held_out(chats):
    learnt, held_out = split_by_game(chats, 0.5, seed=0)
    assert {chat.game for chat in learnt}.isdisjoint(chat.game for chat in held_out)
    assert len(learnt) + len(held_out) == 7 and len({chat.game for chat in held_out}) == 2
    assert split_by_game(chats, 0.5, seed=0) == (learnt, held_out) and split_by_game(chats, 0.0, 0) == (chats, [])
    assert any(split_by_game(chats, 0.5, seed=seed)[1] != held_out for seed in range(1, 5))
    with pytest.raises(ConfigError, match=r"cold_start\.held_out=0\.01 of 4 games is 0 games"):
        split_by_game(chats, 0.01, seed=0)
    with pytest.raises(ConfigError, match='held_out=0.5 holds out games, and mine:3 names none: add "game"'):
        split_by_game([*chats, Chat(chats[0].calls, place="mine:3")], 0.5, seed=0)


def test_scores_are_those_of_the_plain_model(config, chats, tmp_path):
    trainer = trainer_of(config, tmp_path, chats, LEARNING, held_out=4)
    found = trainer.score()
    counted: dict[str, list[tuple[bool, int, int, float]]] = {}
    for tokens in trainer._held_out:
        logits = logits_of(trainer.model, tokens).detach()
        targets = torch.as_tensor(tokens.ids[tokens.learnt], dtype=torch.long)
        right, losses = logits.argmax(-1) == targets, cross_entropy(logits, targets, reduction="none")
        at = 0
        for answer in tokens.answers:
            part = slice(at, at := at + answer.stop - answer.start)
            counted.setdefault(answer.stage, []).append(
                (bool(right[part].all()), int(right[part].sum()), len(right[part]), float(losses[part].sum()))
            )
    assert set(found) == set(counted) == {"act", "distill"}
    for stage, answers in counted.items():
        whole, right, tokens, loss = map(sum, zip(*answers, strict=True))
        assert found[stage] == {
            "answers": len(answers), "tokens": tokens, "loss": pytest.approx(loss / tokens, rel=1e-5),
            "token_accuracy": pytest.approx(right / tokens), "answer_accuracy": pytest.approx(whole / len(answers)),
        }  # fmt: skip


# -- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 4])
def test_the_demonstrations_become_likely(config, file, tmp_path, lora):
    config = replace(config, policy=replace(config.policy, lora_rank=lora, dtype="bfloat16" if lora else "float32"))
    options = replace(LEARNING, epochs=30, learning_rate=1e-2, held_out=0.25)
    about = cold_start(config, options, file, tmp_path / "policy")
    assert about["losses"][-1] < 0.2 * about["losses"][0] and len(about["losses"]) == 30
    scores = about["held_out"]["scores"]
    assert [entry["epoch"] for entry in scores] == list(range(31)) and about["held_out"]["games"] == 1
    assert scores[-1]["stages"]["distill"]["token_accuracy"] > scores[0]["stages"]["distill"]["token_accuracy"] + 0.5
    assert json.loads((tmp_path / "policy/cold_start.json").read_text()) == about
    assert not (tmp_path / "policy.checkpoints").exists()
    with pytest.raises(RunError, match="exists: choose another"):
        cold_start(config, options, file, tmp_path / "policy")


@pytest.mark.slow
def test_it_resumes_where_it_was_killed(config, file, tmp_path):
    """After its second epoch, in the middle of writing the checkpoint: the same weights and scores as without."""
    options = replace(LEARNING, held_out=0.25)
    whole = cold_start(config, options, file, tmp_path / "straight")
    out = tmp_path / "killed"

    def act() -> None:
        real = ChatTrainer._save_rng_state

        def die(trainer: ChatTrainer, folder: str) -> None:
            if trainer.state.global_step > 2:
                os.kill(os.getpid(), signal.SIGKILL)
            real(trainer, folder)

        ChatTrainer._save_rng_state = die
        cold_start(config, options, file, out)

    assert forked(act) == -signal.SIGKILL
    place = tmp_path / "killed.checkpoints"
    assert len(list(place.glob("checkpoint-*"))) == 2 and not out.exists()
    with pytest.raises(RunError, match="other values of cold_start: remove"):
        cold_start(config, replace(options, chats_per_step=4), file, out)
    resumed = cold_start(config, options, file, out)
    assert resumed == whole and len(whole["held_out"]["scores"]) == 4
    one, two = weights(tmp_path / "straight", config), weights(out, config)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", pytest.param("deepspeed3", marks=needs_deepspeed)])
@pytest.mark.parametrize("lora", [0, 4])
def test_two_processes_learn_the_same(config, file, tmp_path, lora, sharding):
    config = replace(config, policy=replace(config.policy, lora_rank=lora))
    options = replace(LEARNING, held_out=0.25)
    alone = cold_start(config, options, file, tmp_path / "alone")

    def act() -> None:
        if sharding == "deepspeed3":
            begin_deepspeed()
        cold_start(
            replace(config, train=replace(config.train, sharding=sharding)), options, file, tmp_path / "together"
        )

    assert two_ranks(act) == 0
    together = json.loads((tmp_path / "together/cold_start.json").read_text())
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    for one, two in zip(alone["held_out"]["scores"], together["held_out"]["scores"], strict=True):
        for stage, values in one["stages"].items():
            assert two["stages"][stage] == pytest.approx(values, rel=1e-3)
    one, two = weights(tmp_path / "alone", config), weights(tmp_path / "together", config)
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


@pytest.mark.slow
def test_the_command_shows_the_scores(config, chats, file, tmp_path, capsys):
    tokens, _ = tokenize(chats, config, byte_tokenizer(CHATML))
    limit = sorted(each.answers[-1].start for each in tokens)[4]
    given = {
        "policy.model": config.policy.model, "policy.prompts": config.policy.prompts, "policy.dtype": "float32",
        "policy.lora_rank": 0, "rollout.context": "conversation", "rollout.max_prompt_tokens": limit,
        "cold_start.held_out": 0.25, "cold_start.max_steps": 2,
    }  # fmt: skip
    sets = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    with pytest.raises(SystemExit) as done:
        cli.main(["coldstart", str(file), "--out", str(tmp_path / "policy"), "--preset", "small", *sets])
    assert not done.value.code
    out, err = capsys.readouterr()
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert said["cold_start"]["learning_rate"] == 1e-4 and said["left_out"] > 0  # the preset's
    assert (
        f"{said['left_out']} of 7 conversations are longer than rollout.max_prompt_tokens={limit} and left out" in err
    )
    table = [line.split() for line in err.splitlines() if " act " in line]
    assert "held out" in err and [row[0] for row in table] == ["0", "1", "2"]
    with pytest.raises(SystemExit) as done:
        cli.main(["coldstart", str(tmp_path / "absent"), "--out", str(tmp_path / "other"), *sets])
    assert done.value.code == 2 and "no file or folder" in capsys.readouterr().err
