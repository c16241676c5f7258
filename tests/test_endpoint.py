"""An endpoint's model in the skill loop, against a real server: requests, retries, refusals and nonsense."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
from chat_server import Chat, answer, chat_server, completion
from distributed_train import easy_environment
from nano_runs import success

from skill1.cli import main as cli
from skill1.config import ConfigError
from skill1.encoder import HashEncoder
from skill1.errors import RunError
from skill1.generation.endpoint import RETRIES, ChatClient, EndpointError
from skill1.library import SkillLibrary
from skill1.models import evaluate_model
from skill1.play import play
from skill1.store.evaluation_folder import EvaluationFolder


@pytest.fixture
def chat():
    with chat_server() as started:
        yield started


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """Seconds that the client would have waited before each retry."""
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("anyio.sleep", sleep)  # the `openai` client's
    monkeypatch.setattr(evaluate_model, "make_environment", easy_environment)
    return waited


def ask(client: ChatClient, *prompts: str, **options) -> list[str]:
    given = {"temperature": 0.4, "max_new_tokens": 32} | options
    return client.ask(prompts, range(len(prompts)), **given)


def settings(world, **more) -> dict:
    small = {"environment.data": str(world), "environment.max_steps": 4, "library.encoder": "hash"}
    return small | {"evaluation.passes": 2, "evaluation.splits": ["valid_seen"]} | more


def evaluated(chat: Chat, world, out, **options):
    config = evaluate_model.model_config("chatty", "paper", settings(world), endpoint=True)
    return evaluate_model.evaluate_model(config, out, endpoint=chat.url, progress=False, **options)


def test_a_request_holds_what_the_server_needs(chat, monkeypatch):
    monkeypatch.setenv("SOME_KEY", " secret\n")
    client = ChatClient(chat.url + "/", "chatty", "SOME_KEY")
    act = "Admissible actions: ['look']"
    assert ask(client, act, "<query>") == [answer(act), answer("<query>")]
    assert {h["Authorization"] for h in chat.headers} == {"Bearer secret"}
    assert sorted(chat.requests, key=lambda body: body["seed"])[1] == {
        "model": "chatty", "messages": [{"role": "user", "content": "<query>"}], "temperature": 0.4, "seed": 1,
        "max_tokens": 32,
    }  # fmt: skip
    assert (client.replies, client.unusable) == (2, 0)
    full = f"{chat.url}/chat/completions"
    assert ChatClient(full, "chatty").url == client.url == full
    ask(ChatClient(full, "chatty"), "<rank>")
    assert "Authorization" not in chat.headers[-1]


def test_answers_keep_the_order_of_the_prompts_and_no_more_are_asked_at_once_than_allowed(chat):
    def slow(number, body):
        time.sleep(0.02 * (number % 3))

    chat.behave = slow
    prompts = [f"Admissible actions: ['go to {i}']" for i in range(12)]
    assert ask(ChatClient(chat.url, "m", concurrent=3), *prompts) == [answer(p) for p in prompts]
    assert 2 <= chat.at_once <= 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_waited_out(chat, status):
    chat.behave = lambda number, body: (status, {}, b"busy") if number < 3 else None
    assert ask(ChatClient(chat.url, "m"), "<rank>") == ["<rank>2,1</rank>"]
    assert len(chat.requests) == 3 and chat.requests[0] == chat.requests[2]
    chat.behave = lambda number, body: (status, {}, b"busy")
    with pytest.raises(EndpointError, match=rf"failed {RETRIES + 1} times, the last time with HTTP {status}: busy"):
        ask(ChatClient(chat.url, "m"), "<rank>")
    assert len(chat.requests) == 3 + RETRIES + 1


def test_the_server_says_how_long_to_wait(chat, waits):
    chat.behave = lambda number, body: (429, {"Retry-After": "7"}, b"") if number == 1 else None
    ask(ChatClient(chat.url, "m"), "<rank>")
    assert waits == [7.0]


def test_the_limit_takes_the_name_that_the_server_wants(chat):
    def newer(number, body):
        if "max_tokens" in body:
            said = {"error": {"message": "Unsupported parameter: use 'max_completion_tokens' instead."}}
            return 400, {}, json.dumps(said).encode()

    chat.behave = newer
    client = ChatClient(chat.url, "m")
    assert ask(client, "<rank>") == ask(client, "<rank>") == ["<rank>2,1</rank>"]
    assert [body.get("max_completion_tokens") for body in chat.requests] == [None, 32, 32]


@pytest.mark.parametrize(
    "status, message",
    [
        (401, r"refuses the key in SOME_KEY \(HTTP 401: bad key\)"),
        (404, r"refuses a request to model 'm' \(HTTP 404: bad key\): check the address, model and options"),
        (400, r"HTTP 400: bad key"),
        (302, r"HTTP 302: bad key"),
    ],
)
def test_a_refusal_is_not_repeated(chat, monkeypatch, status, message):
    monkeypatch.setenv("SOME_KEY", "secret")
    said = json.dumps({"error": {"message": "bad key"}}).encode()
    chat.behave = lambda number, body: (status, {"Location": chat.url}, said)
    with pytest.raises(EndpointError, match=message):
        ask(ChatClient(chat.url, "m", "SOME_KEY"), "<rank>")
    assert len(chat.requests) == 1


def test_where_no_server_is_nothing_is_waited_for(waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(EndpointError, match=rf"there is no server at {url}/chat/completions .*start it"):
            ask(ChatClient(url, "m"), "<rank>")
    assert waits == []


def test_a_server_that_goes_away_is_named(chat):
    client = ChatClient(chat.url, "m")
    ask(client, "<rank>")
    chat.stop()
    with pytest.raises(EndpointError, match=rf"{chat.url}/chat/completions failed .* times, .* ConnectError: .*later"):
        ask(client, "<rank>")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://a b", "http://x:port"])
def test_a_wrong_address_is_refused(url):
    with pytest.raises(EndpointError, match="is no http"):
        ChatClient(url, "m")


@pytest.mark.parametrize(
    "value, message", [(None, "SOME_KEY is not set: export SOME_KEY="), ("", "is not set"), ("clé", "no key has")]
)
def test_a_missing_key_is_named(monkeypatch, value, message):
    monkeypatch.delenv("SOME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(EndpointError, match=message):
        ChatClient("http://x", "m", "SOME_KEY")


NONSENSE = [
    b"<html>",
    b"{}",
    b"[]",
    b'{"choices": []}',
    b"\xff",
    completion(None),
    completion(" \n"),
    b'{"choices": [{}]}',
]


@pytest.mark.parametrize("body", NONSENSE)
def test_nonsense_is_counted_and_an_empty_answer(chat, body):
    chat.behave = lambda number, asked: (200, {}, body) if "<rank>" in asked["messages"][0]["content"] else None
    client = ChatClient(chat.url, "m")
    assert ask(client, "<query>", "<rank>", "<query>")[1] == ""
    assert (client.replies, client.unusable) == (3, 1)
    assert ask(client, "<rank>") == [""]  # once it has made sense
    with pytest.raises(EndpointError, match="none of 2 replies is a chat completion with text; the first was"):
        ask(ChatClient(chat.url, "m"), "<rank>", "<rank>")


def test_every_game_is_played_zero_shot(chat, world, tmp_path):
    done = evaluated(chat, world, tmp_path / "out")
    [found] = done.evaluations
    assert (found.summary["n"], found.summary["passes"], found.library) == (12, 2, "none")
    assert found.summary["success"] > 0 and done.unusable == 0
    assert done.replies == len(chat.requests) == found.frame["steps"].sum()
    assert {body["max_tokens"] for body in chat.requests} == {2048}
    assert all("Think step by step" in body["messages"][0]["content"] for body in chat.requests)
    # a (game, pass, turn) has its seed, which no other has
    assert len({body["seed"] for body in chat.requests}) == len(chat.requests)
    first, seeds = found.frame, {body["seed"] for body in chat.requests}
    chat.requests.clear()
    assert evaluated(chat, world, tmp_path / "again").evaluations[0].frame.equals(first)
    assert {body["seed"] for body in chat.requests} == seeds


def test_with_a_library_it_queries_and_reranks(chat, world, tmp_path):
    config = evaluate_model.model_config("chatty", "paper", settings(world), endpoint=True)
    library = SkillLibrary(config.library, HashEncoder())
    library.learn([success(f"look for a mug {i}", f"the mug is on shelf {i}") for i in range(3)], 1)
    library.save(tmp_path / "library")
    seen = []
    original = play

    def watched(*args, **kwargs):
        seen.extend(original(*args, **kwargs))
        return seen[-len(args[0]) :]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluate_model, "play_together", watched)
        done = evaluated(chat, world, tmp_path / "out", library=str(tmp_path / "library"))
    assert done.evaluations[0].library == "given" and len(seen) == 12
    for rollout in seen:
        assert {t.stage for t in rollout.turns} == {"query", "rerank", "act"} and rollout.lesson is None
        assert rollout.query == "look for a mug" and rollout.ranking[:2] == (1, 0)
        assert rollout.selected == rollout.candidates[1].skill
        assert library[rollout.selected].strategy in rollout.skill
    acts = [b["messages"][0]["content"] for b in chat.requests if "Admissible" in b["messages"][0]["content"]]
    assert acts and all("the mug is on shelf" in text for text in acts)


def test_an_outage_costs_the_pass_it_falls_into_and_no_more(chat, world, tmp_path):
    whole = evaluated(chat, world, tmp_path / "whole").evaluations[0].frame
    first_pass = int(whole[whole["pass"] == 0]["steps"].sum())
    start = len(chat.requests)
    chat.behave = lambda number, body: (500, {}, b"gone") if number > start + first_pass + 3 else None
    with pytest.raises(EndpointError, match="HTTP 500: gone"):
        evaluated(chat, world, tmp_path / "out")
    assert set(EvaluationFolder.open(tmp_path / "out").outcomes()["pass"]) == {0}
    chat.behave = lambda number, body: None
    start = len(chat.requests)
    assert evaluated(chat, world, tmp_path / "out").evaluations[0].frame.equals(whole)
    assert len(chat.requests) - start == whole[whole["pass"] == 1]["steps"].sum()
    with pytest.raises(RunError, match="holds another evaluation .*model: it has 'chatty', now 'other'"):
        config = evaluate_model.model_config("other", "paper", settings(world), endpoint=True)
        evaluate_model.evaluate_model(config, tmp_path / "out", endpoint=chat.url, progress=False)


def test_the_command_is_loud_about_nonsense(chat, world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOME_KEY", "secret")
    chat.behave = lambda number, body: (200, {}, b"oops") if number % 10 == 5 else None
    sets = [word for k, v in settings(world).items() if k != "evaluation.splits" for word in ("--set", f"{k}={v}")]
    words = ["evaluate", "--model", "chatty", "--endpoint", chat.url, "--api-key-env", "SOME_KEY", "--preset", "small"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, *sets, "--split", "valid_seen", "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert not ended.value.code and json.loads(out)["n"] == 12 and json.loads(out)["model"] == "chatty"
    lost = sum(number % 10 == 5 for number in range(1, len(chat.requests) + 1))
    assert f"WARNING: {lost} of {len(chat.requests)} replies" in err and lost > 1
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (
        record["sessions"][0]["unusable"] == lost and "secret" not in (tmp_path / "out" / "evaluation.json").read_text()
    )


def test_the_nano_policy_s_prompts_are_not_for_an_endpoint(chat, world, tmp_path):
    config = evaluate_model.model_config("chatty", "nano", settings(world), endpoint=True)
    with pytest.raises(ConfigError, match="policy.prompts=compact is for the nano policies"):
        evaluate_model.evaluate_model(config, tmp_path / "out", endpoint=chat.url, progress=False)
    assert not (tmp_path / "out").exists() and not chat.requests


def test_no_thread_is_left_behind(chat):
    before = threading.active_count()
    ask(ChatClient(chat.url, "m", concurrent=8), *["<rank>"] * 20)
    chat.behave = lambda number, body: (401, {}, b"")
    with pytest.raises(EndpointError):
        ask(ChatClient(chat.url, "m", concurrent=8), *["<rank>"] * 20)
    time.sleep(0.05)
    assert threading.active_count() <= before
