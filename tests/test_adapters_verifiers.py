"""Environments under verifiers' own evaluation, against a server of ours. `make test-verifiers` has an environment for it."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from alfworld_room import room, write_game
from chat_server import Chat, chat_server
from pages import code

vf = pytest.importorskip("verifiers.v1", reason="verifiers is not installed here: make test-verifiers")

GARDEN = f"{Path(__file__).resolve().parents[1] / 'examples' / 'garden.py'}:GARDEN"
GAME = "pick_heat_then_place_in_recep-Apple-None-Fridge-1/trial_T1"


def reply(text: str, model: str) -> tuple[int, dict[str, str], bytes]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": model, "usage": usage}
    body["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
    return 200, {}, json.dumps(body).encode()


@pytest.fixture
def server():
    with chat_server() as chat:
        yield chat


def play(chat: Chat, count: int, **agent) -> list:
    """Play the first test gardens; returns episodes."""
    taskset = {"id": "skill1-envs", "environment": GARDEN, "split": "test", "options": {"max_steps": 3}}
    env = vf.load_environment(vf.resolve_env_config({"taskset": taskset, "agent": agent}))
    context = vf.ModelContext(
        model="tiny", client=vf.EvalClientConfig(base_url=chat.url, api_key_var="NONE"), sampling=vf.SamplingConfig()
    )

    async def run() -> list:
        async with env.serving():
            return [await env.run_episode(task, context) for task in list(env.taskset)[:count]]

    return asyncio.run(run())


def test_the_command_of_the_page_evaluates_a_home(server, tmp_path):
    """A model that knows the walkthrough wins; the record is verifiers' own."""
    write_game(tmp_path / "data" / "games", f"valid_seen/{GAME}")
    steps = room()["walkthrough"]
    server.behave = lambda number, body: reply(f"Let me see.\n{steps[len(body['messages']) // 2 - 1]}\n", body["model"])
    shown = code("environments.md", "verifiers").replace("\\\n", " ")
    words = shlex.split(shown.replace("http://localhost:8000/v1", server.url))
    assert words[0] == "vf-eval"
    words[0] = str(Path(sys.executable).with_name("vf-eval"))
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [record] = [file for file in (tmp_path / "outputs").rglob("traces.jsonl") if file.is_file()]
    [episode] = map(json.loads, record.read_text().splitlines())
    [trace] = episode["traces"]
    assert episode["ok"] and trace["rewards"]["score"]["score"] == 1.0
    assert trace["metrics"] == {"won": 1.0, "steps": 7.0, "inadmissible": 0.0}
    first = server.requests[0]["messages"]
    assert [message["role"] for message in first] == ["system", "user"] and "household task" in first[0]["content"]
    assert first[1]["content"].startswith("Task: put a hot apple in fridge.\n")
    assert len(server.requests) == 7 and len(server.requests[-1]["messages"]) == 14


def test_the_code_of_the_page_loads_the_same_environment(tmp_path, monkeypatch, capsys):
    write_game(tmp_path / "data" / "games", f"train/{GAME}")
    monkeypatch.chdir(tmp_path)
    exec(code("environments.md", "verifiers", "python"), {})
    assert capsys.readouterr().out == "1 tasks\n"


def test_a_lost_garden_and_replies_without_an_action(server):
    server.behave = lambda number, body: reply(" \n", body["model"])
    [episode] = play(server, 1)
    [trace] = episode.traces
    assert episode.ok and trace.rewards["score"].score == 0.0
    assert trace.metrics == {"won": 0.0, "steps": 3.0, "inadmissible": 3.0}
    assert episode.task.key == "garden/test/test/40"


def test_a_limit_on_turns_and_a_failing_server_end_an_episode(server):
    server.behave = lambda number, body: reply("wait", body["model"])
    [episode] = play(server, 1, max_turns=2)
    assert episode.ok and episode.traces[0].metrics["steps"] == 2.0
    server.behave = lambda number, body: (400, {}, b"no such model")
    [episode] = play(server, 1)
    assert not episode.ok and "no such model" in episode.traces[0].errors[0].message


def test_wrong_options_are_named():
    wrong = {"id": "skill1-envs", "environment": GARDEN, "options": {"max_step": 3}}
    with pytest.raises(ValueError, match=re.escape("'max_step'; did you mean 'max_steps'?")):
        vf.resolve_env_config({"taskset": wrong})
