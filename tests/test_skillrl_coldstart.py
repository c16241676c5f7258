"""What is demonstrated, by whom, and that a cold start learns it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server
from distributed_train import EasyEnvironment, easy_environment, two_ranks
from nano_runs import configure, load_policy
from test_skillrl_run import BANK

from skill1.cli import main as cli
from skill1.config import Config, ConfigError, load_config
from skill1.errors import RunError
from skill1.models import demonstrate
from skill1.models.demonstrations import read_demonstrations

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def easy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrate, "make_environment", easy_environment)


@pytest.fixture(scope="module")
def banked(world: Path, warm: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    file = tmp_path_factory.mktemp("bank") / "bank.json"
    file.write_text(BANK.to_text())
    return configure(
        world, warm, "skillrl", method__bank=str(file), method__similarity_floor=-1.0, policy__generate_batch=7,
        evaluation__temperature=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(banked: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations of 10 tasks, 2 passes, in three parts."""
    out = tmp_path_factory.mktemp("demonstrations") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demonstrate, "make_environment", easy_environment)
        done = demonstrate.demonstrate(banked, out, 10, 2)
    assert done.episodes == 20 and 0 < done.won < 20 and done.calls == done.chats >= done.won
    return out


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The calls, each with its episode."""
    chats = [json.loads(line) for file in sorted(folder.glob("part-*")) for line in file.read_text().splitlines()]
    assert all(len(chat["chat"]) == 1 and chat["won"] for chat in chats)
    return [chat | chat["chat"][0] for chat in chats]


# -- demonstrations ---------------------------------------------------------------------------------------------------


def test_what_was_won_is_kept_as_the_policy_was_asked_and_answered(banked, folder, monkeypatch):
    played = []
    real = demonstrate.play
    monkeypatch.setattr(demonstrate, "play", lambda *given: played.append(real(*given)) or played[-1])
    again = folder.with_name("again")
    demonstrate.demonstrate(banked, again, 10, 2)
    policy = load_policy(banked)
    expected = [
        (turn.prompt_ids.tolist(), turn.completion_ids.tolist(), rollout.task.game, rollout.index)
        for part in played
        for rollout, _ in part
        if rollout.outcome
        for turn in rollout.turns_of("act")
        if turn.well_formed and turn.admissible
    ]
    end = policy.tokenizer.eos_token_id
    found = [
        (
            policy.prompts.encode(policy.tokenizer, line["prompt"]),
            policy.tokenizer.encode(line["completion"], add_special_tokens=False) + [end],
            line["game"],
            line["pass"],
        )
        for line in lines_of(again)
    ]
    assert found == expected and len(played) == 3
    # the bank's block, the first step's too; a task about a mug reads "this"
    assert all(" in cabinet ; " in line["prompt"] for line in lines_of(again))
    assert lines_of(again) == lines_of(folder)


def test_only_missing_parts_are_played_again(banked, folder, monkeypatch):
    part = folder / "part-00001.jsonl"
    before = part.read_bytes()
    part.unlink()
    with pytest.raises(ConfigError, match="2 of 3 parts: repeat"):
        read_demonstrations(folder)
    real, sizes = demonstrate.play, []
    monkeypatch.setattr(demonstrate, "play", lambda todo, *given: sizes.append(len(todo)) or real(todo, *given))
    demonstrate.demonstrate(banked, folder, 10, 2)
    assert sizes == [7] and part.read_bytes() == before
    monkeypatch.setattr(demonstrate, "load_policy", None)  # nothing is missing: no policy is loaded
    assert demonstrate.demonstrate(banked, folder, 10, 2).episodes == 20


def test_a_folder_of_other_demonstrations_is_refused(banked, folder, tmp_path):
    hot = replace(banked, evaluation=replace(banked.evaluation, temperature=0.5))
    with pytest.raises(RunError, match=r"other values of evaluation\.temperature: choose"):
        demonstrate.demonstrate(hot, folder, 10, 2)
    with pytest.raises(RunError, match="other values of passes, parts: choose"):
        demonstrate.demonstrate(banked, folder, 10, 3)
    faster = replace(banked, train=replace(banked.train, learning_rate=1.0))
    assert demonstrate.demonstrate(faster, folder, 10, 2).episodes == 20  # it is not read
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no demonstrations: choose another"):
        demonstrate.demonstrate(banked, tmp_path, 10, 2)
    with pytest.raises(ConfigError, match="tasks = 13: the split train has 12"):
        demonstrate.demonstrate(banked, tmp_path / "more", 13, 1)


def test_nothing_won_is_an_error(banked, tmp_path, monkeypatch):
    monkeypatch.setattr(demonstrate, "make_environment", lambda config: Lost.open(config))
    with pytest.raises(RunError, match="not one of 4 episodes was won"):
        demonstrate.demonstrate(banked, tmp_path / "none", 2, 2)


class Lost(EasyEnvironment):
    @classmethod
    def open(cls, config):
        made = easy_environment(config)
        made.__class__ = cls
        return made

    def _advance(self, running, action):
        step = super()._advance(running, action)
        return replace(step, reward=0.0, won=False, done=True)


def test_a_teacher_demonstrates_with_the_full_prompts(banked, world, tmp_path, monkeypatch):
    with chat_server() as chat:
        monkeypatch.setenv("TEACHER_KEY", "secret")
        config = load_config("nano", "skillrl", {
            "environment.data": str(world), "environment.max_steps": 4, "method.encoder": "hash",
            "policy.prompts": "full", "policy.generate_batch": 8, "method.bank": banked.method.bank,
            "method.similarity_floor": -1.0, "method.teacher": "endpoint", "method.teacher_url": chat.url,
            "method.teacher_model": "o-test", "method.teacher_key": "TEACHER_KEY",
        })  # fmt: skip
        done = demonstrate.demonstrate(config, tmp_path / "taught", 12, 1, by="teacher")
    assert done.won and all(request["model"] == "o-test" for request in chat.requests)
    asked = {request["messages"][0]["content"] for request in chat.requests}
    found = lines_of(tmp_path / "taught")
    assert all(line["prompt"] in asked and "Principles for every task" in line["prompt"] for line in found)
    assert all(line["completion"].startswith("<think>") for line in found)
    with pytest.raises(ConfigError, match="prompts=compact: a teacher reads"):
        demonstrate.demonstrate(banked, tmp_path / "compact", 2, 1, by="teacher")


def test_two_processes_play_together(banked, folder, tmp_path):
    assert two_ranks(lambda: demonstrate.demonstrate(banked, tmp_path / "made", 10, 2)) == 0
    assert lines_of(tmp_path / "made") == lines_of(folder)


def test_the_commands(banked, world, warm, tmp_path, capsys):
    given = {
        "environment.data": world, "policy.model": warm, "method.encoder": "hash", "environment.max_steps": 4,
        "method.bank": banked.method.bank, "evaluation.temperature": 1.0,
    }  # fmt: skip
    sets = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    skillrl = ("--variant", "skillrl", "--set", "cold_start.epochs=1")
    with pytest.raises(SystemExit) as done:
        cli.main(
            [
                "demonstrate",
                "--variant",
                "skillrl",
                "--out",
                str(tmp_path / "won"),
                "--tasks",
                "12",
                "--passes",
                "1",
                *sets,
            ]
        )
    assert not done.value.code
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["episodes"] == 12
    with pytest.raises(SystemExit) as done:
        cli.main(["coldstart", str(tmp_path / "won"), "--out", str(tmp_path / "policy"), *sets, *skillrl])
    assert not done.value.code
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["policy"], said["cold_start"]["epochs"]) == (str(tmp_path / "policy"), 1.0)
    assert said["cold_start"]["learning_rate"] == 1e-3  # the preset's
    with pytest.raises(SystemExit) as done:
        cli.main(["coldstart", str(tmp_path / "absent"), "--out", str(tmp_path / "other"), *sets, *skillrl])
    assert done.value.code == 2 and "no file or folder" in capsys.readouterr().err
