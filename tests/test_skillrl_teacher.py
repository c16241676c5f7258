"""The four teachers: what they are asked, what they answer, and what happens when they cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from nano_runs import settings
from test_skillrl_bank import ALFWORLD

from skill1.cli import main as cli
from skill1.config import ConfigError
from skill1.errors import PromptTooLong
from skill1.generation.calls import Completion
from skill1.generation.endpoint import EndpointError
from skill1.methods.skillrl.asking import Inputs, first_inputs, question
from skill1.methods.skillrl.bank import load_bank, parse_bank
from skill1.methods.skillrl.evolution import Episode
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.methods.skillrl.teacher import (
    EndpointTeacher,
    PolicyTeacher,
    TeacherError,
    check_teacher,
    make_teacher,
)
from skill1.models.first_bank import ask_for_bank
from skill1.nano.alfworld.reading import compact
from skill1.nano.model import nano_tokenizer
from skill1.nano.teacher import ScriptedTeacher

HOT, COOL = "put a hot mug in shelf.", "put a cool egg in shelf."
ARRAY = '[{"title": "Heat first", "principle": "use the microwave", "when_to_apply": "hot"}]'
KEY = "SKILL1_TEST_TEACHER_KEY"
CONFIG = SkillRLConfig(teacher="endpoint", teacher_model="o-test", teacher_key=KEY)


def episode(task: str = HOT, category: str = "heat", won: bool = False, *steps: tuple[str, str]) -> Episode:
    return Episode(task, category, won, steps)


LOST = episode(HOT, "heat", False, ("On the cabinet 3, you see a mug 1.", "go to cabinet 3"), ("x " * 300, "look"))
EVOLVE = Inputs("alfworld", failures=(LOST,), category="heat", titles=("Search", "Go on"))


# -- prompts ----------------------------------------------------------------------------------------------------------


def test_the_question_about_failures_shows_them_and_all_titles():
    text = question("evolve", EVOLVE, 200)
    assert "household tasks" in text and "1 to 3 objects" in text and "- Search\n- Go on" in text
    assert f"Episode (lost, kind heat): {HOT}" in text and "did: go to cabinet 3" in text
    assert ("x " * 300).strip()[:200] in text and ("x " * 300).strip()[:202] not in text
    assert "- none" in question("evolve", replace(EVOLVE, titles=()), 200)
    assert "shopping tasks" in question("general", Inputs("webshop"), 200)
    assert "how_to_avoid" in question("mistakes", Inputs("webshop"), 200)
    assert 'of the kind "heat"' in question("category", EVOLVE, 200)


def test_the_first_bank_is_asked_for_with_episodes_of_all_categories():
    """In the release the first two categories fill the list."""
    played = [
        Episode(f"{name} {i}", name, won, tuple((f"s{k}", f"a{k}") for k in range(9)))
        for name in ("clean", "cool", "heat") for won in (True, False) for i in range(20)
    ]  # fmt: skip
    general = first_inputs("general", "alfworld", played)
    for pool in (general.successes, general.failures):
        assert [e.category for e in pool] == ["clean", "cool", "heat"] * 3 + ["clean"]
        assert all(len(e.steps) == 5 and e.steps[0] == ("s0", "a0") for e in pool)
    heat = first_inputs("category", "alfworld", played, "heat")
    assert len(heat.successes) == len(heat.failures) == 8 and heat.category == "heat"
    assert {e.category for e in (*heat.successes, *heat.failures)} == {"heat"}
    mistakes = first_inputs("mistakes", "alfworld", played)
    assert mistakes.successes == () and len(mistakes.failures) == 15
    assert first_inputs("mistakes", "alfworld", played[:20]).failures == ()


# -- without a model --------------------------------------------------------------------------------------------------


def test_the_script_counts_where_objects_lay():
    seen = [
        ("On the cabinet 3, you see a mug 1, and a plate 2.", "open drawer 1"),
        ("You open the drawer 1. In it, you see a mug 2.", "close drawer 1"),
        ("You arrive at cabinet 5. On the cabinet 5, you see a mug 1.", "go to shelf 2"),
        ("You arrive at shelf 2. On the shelf 2, you see a plate 1.", "take mug 1 from shelf 2"),
        ("Nothing happens.", "take mug 1 from shelf 2"),
        ("Nothing happens.", "go to shelf 1"),
    ]
    wanted = episode(HOT, "heat", False, *seen)
    eggs = episode(COOL, "cool", False, ("On the drawer 1, you see a egg 1.", "look"), ("Nothing happens.", "look"))
    answer = ScriptedTeacher().write("evolve", Inputs("alfworld", failures=(eggs, wanted)))
    assert [e["principle"] for e in answer] == [
        "mug in cabinet",
        "egg in drawer",
    ]  # 2 of 3 mugs; the more frequent first
    mistakes = ScriptedTeacher().write("mistakes", Inputs("alfworld", failures=(eggs, wanted)))
    assert [m["description"] for m in mistakes] == [compact("take mug 1 from shelf 2"), "look"]
    assert all(m["how_to_avoid"] for m in mistakes)
    put = episode("put a mug in shelf.", "pick_and_place", False, ("On the shelf 1, you see a mug 1.", "look"))
    heated = episode(HOT, "heat", False, ("On the microwave 1, you see a mug 1.", "look"))
    assert ScriptedTeacher().write("evolve", Inputs("alfworld", failures=(put, heated))) == []  # where it is brought


def test_the_script_counts_all_episodes_that_it_is_given_to_count():
    elsewhere = episode(HOT, "heat", True, ("On the drawer 4, you see a mug 1.", "look"))
    inputs = replace(EVOLVE, counted=(LOST, elsewhere, elsewhere))
    assert [e["title"] for e in ScriptedTeacher().write("evolve", inputs)] == ["mug in drawer"]
    assert question("evolve", inputs, 200) == question("evolve", EVOLVE, 200)  # a model sees the failures alone


def test_the_script_speaks_the_nano_policys_language():
    tokenizer = nano_tokenizer("alfworld")
    answer = ScriptedTeacher().write("general", Inputs("alfworld", failures=(LOST,)))
    for text in [e[k] for e in answer for k in ("title", "principle")]:
        assert tokenizer.unk_token_id not in tokenizer.encode(text)


# -- the policy -------------------------------------------------------------------------------------------------------


class Writer:
    """A policy with a fixed answer."""

    def __init__(self, text: str | Exception) -> None:
        self.text, self.calls = text, []

    def generate(self, texts, seeds, *, temperature, max_new_tokens) -> list[Completion]:
        self.calls.append((texts, seeds, temperature, max_new_tokens))
        if isinstance(self.text, Exception):
            raise self.text
        return [Completion(None, None, None, self.text)]


def test_the_policy_teaches_itself_with_a_stream_of_its_own():
    writer, config = Writer(ARRAY), SkillRLConfig(max_evolve_tokens=77, max_bank_tokens=99, teacher_temperature=0.5)
    teacher = make_teacher(config, writer, (3, 5), Path("unused"))
    assert isinstance(teacher, PolicyTeacher)
    assert teacher.write("evolve", EVOLVE) == json.loads(ARRAY)
    teacher.write("general", EVOLVE)
    assert writer.calls[0] == ([question("evolve", EVOLVE, 200)], [(3, 5, 1)], 0.5, 77)
    assert writer.calls[1][1:] == ([(3, 5, 2)], 0.5, 99)


@pytest.mark.parametrize("answer", ["go_to shelf_1", PromptTooLong("a prompt has 9 tokens")])
def test_a_policy_that_cannot_write_is_a_teacher_without_an_answer(answer):
    with pytest.raises(TeacherError, match="no JSON array|a prompt has 9 tokens"):
        PolicyTeacher(SkillRLConfig(), Writer(answer), (0,)).write("evolve", EVOLVE)


# -- an endpoint ------------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Answers every request with `reply`, as a chat completion, or with the status `reply` if it is a number."""

    reply: str | int = ARRAY

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[dict, dict]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.headers, body))
        reply = self.server.reply
        self.send_response(reply if isinstance(reply, int) else 200)
        self.end_headers()
        if isinstance(reply, str):
            self.wfile.write(json.dumps({"choices": [{"message": {"content": reply}}]}).encode())

    def log_message(self, *ignored: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv(KEY, "secret")
    found = Server()
    thread = Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def endpoint(server: Server, folder: Path) -> EndpointTeacher:
    return EndpointTeacher(replace(CONFIG, teacher_url=server.url), folder)


def test_an_endpoint_is_asked_once_for_the_same_thing(server, tmp_path):
    folder = tmp_path / "replies"
    assert endpoint(server, folder).write("evolve", EVOLVE) == json.loads(ARRAY)
    [(headers, body)] = server.seen
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("o-test", 1.0, 2048)
    assert body["messages"] == [{"role": "user", "content": question("evolve", EVOLVE, 200)}]
    server.reply = 500
    assert endpoint(server, folder).write("evolve", EVOLVE) == json.loads(ARRAY)  # another process, a resumed run
    assert len(server.seen) == 1 and len(list(folder.iterdir())) == 1
    assert not any("secret" in file.read_text() for file in folder.iterdir())
    server.reply = ARRAY
    endpoint(server, folder).write("evolve", replace(EVOLVE, titles=()))  # another question
    assert len(server.seen) == 2 and len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("reply, message", [("nonsense", "no JSON array in the answer 'nonsense'"), (404, "HTTP 404")])
def test_an_endpoint_without_an_answer_is_an_error_and_is_not_kept(server, tmp_path, reply, message):
    server.reply = reply
    with pytest.raises(TeacherError, match=message):
        endpoint(server, tmp_path / "replies").write("evolve", EVOLVE)
    assert not (tmp_path / "replies").exists()


def test_an_endpoint_that_is_down_is_an_error(server, tmp_path):
    teacher = endpoint(server, tmp_path)
    server.server_close()
    with pytest.raises(TeacherError, match="there is no server at"):
        teacher.write("evolve", EVOLVE)


@pytest.mark.parametrize(
    "config, error, message",
    [
        (replace(CONFIG, teacher_url="http://localhost:1"), EndpointError, f"{KEY} is not set: export {KEY}="),
        (replace(CONFIG, teacher_url="localhost"), EndpointError, "is no http\\(s\\) address"),
        (CONFIG, ConfigError, "needs method.teacher_url"),
        (replace(CONFIG, teacher_url="http://x", teacher_model=None), ConfigError, "needs method.teacher_model"),
        (SkillRLConfig(teacher="file"), ConfigError, "'file' needs method.bank"),
    ],
)
def test_a_teacher_that_cannot_work_is_refused_at_the_start(monkeypatch, config, error, message):
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(error, match=message):
        check_teacher(config)


def test_a_bank_file_is_asked_nothing():
    with pytest.raises(ConfigError, match="writes nothing: choose policy, endpoint or scripted"):
        make_teacher(SkillRLConfig(teacher="file", bank="bank.json"), Writer(ARRAY), (0,), Path("unused"))


# -- a first bank -----------------------------------------------------------------------------------------------------


class Scripted:
    """Answers by call; an exception is raised as often as it stands in a row."""

    def __init__(self, **answers: list) -> None:
        self.answers, self.asked = answers, []

    def write(self, call, inputs) -> list:
        self.asked.append((call, inputs.category))
        answer = self.answers[call].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_first_bank_is_asked_for_section_by_section():
    episodes = [episode(HOT, "heat", True, ("a", "b")), episode(COOL, "cool", False, ("a", "b"))]
    one, two = json.loads(ARRAY)[0], {"title": "Cool", "principle": "use the fridge"}
    teacher = Scripted(
        general=[[one, one | {"title": "HEAT FIRST"}, {"title": "no principle"}]],
        category=[
            TeacherError("first"),
            [two, two | {"title": "Ice", "skill_id": "mine"}],
            TeacherError("x"),
            TeacherError("y"),
        ],
        mistakes=[[{"description": "run", "how_to_avoid": "walk"}, one]],
    )
    written = ask_for_bank(teacher, "alfworld", episodes, {"source": "tests"})
    assert teacher.asked == [
        ("general", None), ("category", "cool"), ("category", "cool"), ("category", "heat"), ("category", "heat"),
        ("mistakes", None),
    ]  # fmt: skip
    assert [(e.id, e.title, e.category) for e in written.bank.principles] == [
        ("gen_001", "Heat first", None), ("coo_001", "Cool", "cool"), ("coo_002", "Ice", "cool")
    ]  # fmt: skip
    assert [(m.id, m.avoid) for m in written.bank.mistakes] == [("err_001", "walk")]
    assert (written.refused, written.failures) == (3, ("heat: y",))
    assert parse_bank(written.bank.to_json(), ALFWORLD) == written.bank
    won = Scripted(general=[[]], category=[[]])
    assert len(ask_for_bank(won, "alfworld", episodes[:1], {}).bank) == 0
    assert won.asked == [("general", None), ("category", "heat")]  # nothing was lost: no mistakes to ask for


def test_the_command_writes_a_bank_that_training_can_read(world, warm, tmp_path, capsys):
    given = settings(world, warm, "skillrl") | {"environment.max_steps": 12, "rollout.max_prompt_tokens": 9000}
    sets = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]

    def command(*words: str) -> int:
        with pytest.raises(SystemExit) as end:
            cli.main(["bank", "--out", str(tmp_path / "new" / "bank.json"), *sets, *words])
        return end.value.code or 0

    assert command("--tasks", "13") == 2 and "the split train has 12" in capsys.readouterr().err
    assert (
        command("--tasks", "2", "--passes", "1", "--set", "method.teacher=policy", "--set", "method.max_bank_tokens=4")
        == 2
    )
    assert "the teacher wrote nothing that can be used (general: no JSON array" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert command("--tasks", "12") == 0
    said = json.loads(capsys.readouterr().out)
    bank = load_bank(tmp_path / "new" / "bank.json", ALFWORLD)
    assert len(bank) == said["general"] + said["specific"] + said["mistakes"] > 0 and said["failed"] == 0
    assert bank.extra["metadata"]["episodes"] == 24
    assert command("--tasks", "12") == 2 and "bank.json exists: choose another file" in capsys.readouterr().err
