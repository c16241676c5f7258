"""The expert: it plays a run's own calls, reads its skills, tells the truth in its lessons, and is resumed."""

from __future__ import annotations

import json
import random
import re
import tarfile
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed_train import two_ranks

from skill1.cli import main as cli
from skill1.config import Config, ConfigError, load_config
from skill1.encoder import load_encoder
from skill1.envs.alfworld.data import GameTree
from skill1.envs.alfworld.environment import AlfworldEnvironment
from skill1.envs.alfworld.generate import generate
from skill1.envs.base import Observation
from skill1.envs.make import make_environment
from skill1.errors import RunError
from skill1.generation.calls import Completion
from skill1.models.demonstrate import demonstrate
from skill1.models.demonstrations import Chat, read_chats, read_demonstrations
from skill1.models.experts.alfworld import Fact, HomeExpert
from skill1.models.experts.drawing import draw
from skill1.models.experts.probing import expert_arms
from skill1.models.options import ExpertConfig
from skill1.nano.alfworld.reading import read_request
from skill1.nano.probe import probe
from skill1.prompts import make_prompts
from skill1.records import Task

TASKS, PASSES = 20, 2
SAID = re.compile(
    r"An? (\w+) was (?:in|on) an? (\w+)(, which was closed: open it)?\.(?: Another one was (?:in|on) an? (\w+)\.)?"
)
MISSED = re.compile(r"No (\w+) was (.+): look elsewhere first\.")


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("homes")
    generate(
        folder, seed=5, train=40, valid_seen=6, valid_unseen=6, homes=6, unseen_homes=2, receptacles=12, objects=10
    )
    return folder


def configure(homes: Path, context: str = "conversation", variant: str = "full", **overrides: Any) -> Config:
    given = {"environment.data": str(homes), "library.encoder": "hash", "rollout.context": context,
             "policy.generate_batch": 16}  # fmt: skip
    given |= {name.replace("__", "."): value for name, value in overrides.items()}
    return load_config("small", variant, {name: value for name, value in given.items() if value is not None})


@pytest.fixture(scope="module", params=["conversation", "window"])
def made(request: pytest.FixtureRequest, homes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    config, out = configure(homes, request.param), tmp_path_factory.mktemp("demonstrations") / "made"
    done = demonstrate(config, out, TASKS, PASSES, by="expert")
    assert done.episodes == TASKS * PASSES and 0 < done.won <= done.episodes
    return config, out


@pytest.fixture(scope="module")
def chats(homes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Chat]:
    """Conversations with many slips and thoughts."""
    out = tmp_path_factory.mktemp("slips") / "made"
    demonstrate(
        configure(homes), out, 40, 3, by="expert", options=ExpertConfig(slips=0.25, thoughts=0.5, cut=0.3, plain=0.3)
    )
    return read_demonstrations(out)


def stored(out: Path) -> list[Chat]:
    """Every chat, also those that are there twice."""
    return [chat for file in sorted(out.glob("part-*")) for chat in read_chats(file)]


def expert_of(homes: Path) -> tuple[AlfworldEnvironment, HomeExpert]:
    environment = AlfworldEnvironment(GameTree(homes), 50)
    return environment, HomeExpert(environment, environment.tasks("train"))


# -- what is demonstrated ---------------------------------------------------------------------------------------------


def test_all_stages_of_a_run_are_demonstrated_and_read_as_written(made):
    config, out = made
    prompts = make_prompts("full", "alfworld", config.rollout.context)
    start = Observation("", (), "put a mug in shelf.")
    seen: Counter[str] = Counter()
    for call in (call for chat in stored(out) for call in chat.calls if call.learn):
        seen[call.stage] += 1
        match call.stage:
            case "query":
                assert prompts.parse_query(call.completion, start).well_formed
            case "rerank":
                count = max(map(int, re.findall(r"^(\d+)\. ", call.prompt, re.MULTILINE)))
                ranking, parsed = prompts.parse_rerank(call.completion, count)
                assert parsed and len(re.findall(r"\d+", call.completion)) == len(ranking) == count
            case "act":
                assert prompts.parse_action(call.completion, ()).well_formed
            case "distill":
                assert prompts.parse_distill(call.completion, start) is not None
    assert set(seen) == {"query", "rerank", "act", "distill"}
    assert seen["query"] == seen["distill"] <= TASKS * PASSES and seen["rerank"] < seen["query"]
    thought = "<think>" if config.rollout.context == "window" else "Thought:"
    acts = [c.completion for chat in stored(out) for c in chat.calls if c.stage == "act" and c.learn]
    assert {text.startswith(thought) for text in acts} == {config.rollout.context == "window"}


def test_a_window_line_is_one_call_and_a_conversation_one_episode(made):
    config, out = made
    sizes = {len(chat.calls) for chat in read_demonstrations(out)}
    assert sizes == {1} if config.rollout.context == "window" else min(sizes) > 2
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["by"] == "expert" and manifest["expert"]["slips"] == ExpertConfig().slips
    prior = json.loads((out / "prior.json").read_text())
    assert prior["games"] == 40 and all(sum(places.values()) > 0 for places in prior["objects a place"].values())


def commands_of(chat: Chat) -> list[str]:
    return [call.completion.splitlines()[-1] for call in chat.calls if call.stage == "act"]


def replayed(homes: Path, chat: Chat) -> list[tuple[str, Observation, bool]]:
    """(command, what was seen then, was admissible) of a conversation, played again."""
    environment = AlfworldEnvironment(GameTree(homes), 50)
    environment.reset([Task("alfworld", "train", chat.game, "")])
    steps = [(command, environment.step([command])[0]) for command in commands_of(chat)]
    assert steps[-1][1].won == chat.won
    return [(command, step.observation, step.admissible) for command, step in steps]


def test_a_conversation_is_what_happened(homes, chats):
    slips = lost = 0
    for chat in chats:
        acts, played = [c for c in chat.calls if c.stage == "act"], replayed(homes, chat)
        assert all(after.prompt == step[1].text for after, step in zip(acts[1:], played))
        for call, (command, _, admissible) in zip(acts, played, strict=True):
            slips += not call.learn
            assert admissible or not call.learn
            assert not call.completion.startswith("Thought:") or call.learn
        lost += not chat.won
        assert all(call.learn for call in chat.calls if call.stage != "act")
    learnt = [call for chat in chats for call in chat.calls if call.stage == "act"]
    assert 0.25 < slips / len(learnt) < 0.4 and 0.05 < lost / len(chats) < 0.3
    thoughts = [call.completion.startswith("Thought:") for call in learnt if call.learn]
    assert 0.4 < sum(thoughts) / len(thoughts) < 0.6


def test_after_a_slip_the_expert_does_something_else(chats):
    """An impossible slip may come again and again; what is learnt is to leave such a loop."""
    loops = 0
    for chat in chats:
        acts = [call for call in chat.calls if call.stage == "act"]
        for slip, after, seen in zip(acts, acts[1:], acts[1:]):
            if not slip.learn and after.learn and seen.prompt == "Nothing happens.":
                assert after.completion.splitlines()[-1] != slip.completion
            loops += not slip.learn and not after.learn and slip.completion == after.completion
    assert loops > len(chats) / 10


# -- lessons ----------------------------------------------------------------------------------------------------------


def test_lessons_are_true_of_their_trajectories(homes, chats):
    told = found = missed = 0
    whole = [chat for chat in chats if chat.calls[-1].stage == "distill"]
    plain = [chat for chat in chats if chat.calls[-1].stage != "distill"]
    assert all(call.stage == "act" for chat in plain for call in chat.calls)  # as a policy without a library plays
    assert 0.15 < len(plain) / len(chats) < 0.45
    for chat in whole:
        lesson, played = chat.calls[-1].completion, replayed(homes, chat)
        task = read_request(re.search(r"Task: (.+)", chat.calls[0].prompt)[1])
        opened, taken, seen, at, lit = set(), {}, {}, "", ""
        for command, now, admissible in played:
            if not admissible:
                continue
            words = command.split()
            if words[0] == "open":
                opened.add(" ".join(words[1:]))
            elif words[0] == "take" and words[1] == task.target:
                taken.setdefault(" ".join(words[1:3]), (words[4], " ".join(words[4:]) in opened))
            elif words[0] == "use":
                lit = at
            if looked := re.search(r"(?:On the|The) (\w+ \d+)(?: is open. In it)?, you see (.+)\.", now.text):
                at = looked[1].split()[0]
                seen[looked[1]] = looked[2]
        if said := SAID.search(lesson):
            target, place, closed, other = said.groups()
            kinds = list(dict.fromkeys(kind for kind, _ in taken.values()))
            assert target == task.target and kinds == [kind for kind in (place, other) if kind]
            assert bool(closed) == next(iter(taken.values()))[1]
            found += 1
        elif said := MISSED.search(lesson):
            assert said[1] == task.target and not taken and not chat.won
            for kind in re.findall(r"(?:in|on) an? (\w+)", said[2]):
                where = [things for place, things in seen.items() if place.split()[0] == kind]
                assert where and not any(re.search(rf"\b{task.target} \d", things) for things in where)
            missed += 1
        else:
            assert not taken and not chat.won
        if lamp := re.search(r"carry it to the \w+ (?:in|on) an? (\w+)", lesson):
            assert lamp[1] == lit
        assert ("It was found too late" in lesson) == (bool(taken) and not chat.won)
        assert f" {task.target}" in lesson.splitlines()[0] and task.place in lesson.splitlines()[0]
        told += 1
    assert told == len(whole) and found > 30 and missed


@pytest.mark.slow
@pytest.mark.minilm
def test_a_query_finds_the_lessons_of_its_object_and_task(homes):
    environment, expert = expert_of(homes)
    facts, rng, encoder = list(expert.facts.values()), random.Random(0), load_encoder("pinned")
    queries = encoder.encode([expert.query(fact, rng) for fact in facts for _ in range(5)])
    lessons = encoder.encode([expert.lesson(fact, True, rng).desc for fact in facts for _ in range(5)])
    cosines = queries @ lessons.T
    far = np.repeat(np.repeat([[expert.distance(a, b) for b in facts] for a in facts], 5, 0), 5, 1)
    assert cosines[far == 0].mean() > cosines[far == 1].mean() + 0.05 and (far == 1).any()
    assert cosines[far == 1].mean() > cosines[far > 1].mean() + 0.2
    own = np.diagonal(cosines)
    assert np.mean(own > np.where(far > 1, cosines, -1.0).max(axis=1)) > 0.99
    assert np.mean(own > np.where(far > 0, cosines, -1.0).max(axis=1)) > 0.8


# -- skills -----------------------------------------------------------------------------------------------------------


def test_the_relevant_skill_is_anywhere_and_as_often_as_asked(homes):
    environment, expert = expert_of(homes)
    fact, rng, options = next(iter(expert.facts.values())), random.Random(0), ExpertConfig()
    drawn = [draw(expert, fact, options, 4, rng) for _ in range(4000)]
    shown = [skills for skills in drawn if skills]
    assert abs(len(shown) / len(drawn) - options.skills) < 0.03
    assert {len(skills) for skills in shown} == {2, 3, 4}
    places = [[expert.distance(fact, skill) == 0 for skill in skills] for skills in shown]
    assert {sum(row) for row in places} == {0, 1}
    assert abs(sum(map(any, places)) / len(places) - options.relevant) < 0.03
    of_three = Counter(row.index(True) for row in places if any(row) and len(row) == 3)
    assert all(abs(of_three[i] / sum(of_three.values()) - 1 / 3) < 0.06 for i in range(3))
    assert [len(skills) for skills in (draw(expert, fact, options, 1, rng) for _ in range(50)) if skills]


def test_others_lessons_may_be_false(homes):
    environment, expert = expert_of(homes)
    fact = Fact("put", "mug", "shelf", ("drawer",))
    expert.facts = {
        "a": replace(fact, found=("desk",)),
        "b": replace(fact, target="pen"),
        "c": replace(fact, kind="heat"),
    }
    rng, always = random.Random(0), ExpertConfig(skills=1.0, relevant=1.0, true=0.7, near=0.5)
    drawn = [
        skill for _ in range(2000) for skill in draw(expert, fact, always, 2, rng) if not expert.distance(fact, skill)
    ]
    assert len(drawn) == 2000 and abs(sum(skill == fact for skill in drawn) / 2000 - 0.7) < 0.04


def first_place(command: str) -> str:
    return command.split()[-2]


def test_a_skill_is_read_not_obeyed(homes, tmp_path):
    """The first place is that of the skill if this is about the object, and the expert's own otherwise."""
    demonstrate(
        configure(homes), tmp_path / "made", 40, 4, by="expert", options=ExpertConfig(slips=0.0, cut=0.0, plain=0.3)
    )
    environment, expert = expert_of(homes)
    read = ignored = none = 0
    for chat in read_demonstrations(tmp_path / "made"):
        [start] = environment.reset([Task("alfworld", "train", chat.game, "")])
        target = read_request(start.instruction).target
        act = next(call for call in chat.calls if call.stage == "act")
        first, own = commands_of(chat)[0], expert.player(start, None).act(start)[0]
        said = SAID.search(act.prompt)
        if said is None:
            none += 1
            assert first == own
        elif said[1] != target:
            ignored += 1
            assert first == own
        elif any(said[2] == name.split()[-2] for name in start.admissible if name.startswith("go to")):
            read += 1
            assert first_place(first) in (said[2], said[4])
    assert min(read, ignored, none) > 10
    others = [call for chat in read_demonstrations(tmp_path / "made") for call in chat.calls if call.stage == "rerank"]
    assert others


def test_the_relevant_skill_is_ranked_first_then_what_is_near(chats, homes):
    _, expert = expert_of(homes)
    ranked = 0
    for chat in chats:
        call = next((call for call in chat.calls if call.stage == "rerank"), None)
        if call is None:
            continue
        fact, about = expert.facts[chat.game], re.findall(r"^\d+\. An? (\w+) was", call.prompt, re.MULTILINE)
        order = [int(number) - 1 for number in call.completion.split(",")]
        same = [about[i] == fact.target for i in order]
        assert same == sorted(same, reverse=True)
        ranked += any(same)
    assert ranked > 20


# -- methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "stages"),
    [
        ("grpo", {"act"}),
        ("no_selection", {"act", "distill"}),
        ("no_distillation", {"query", "rerank", "act"}),
        ("retroagent_rl", {"act"}),
    ],
)
def test_other_methods_ask_what_they_ask(homes, tmp_path, variant, stages):
    keeps = {} if variant != "grpo" else {"library__encoder": None}
    demonstrate(configure(homes, "window", variant, **keeps), tmp_path / "made", 12, 1, by="expert")
    assert {call.stage for chat in read_demonstrations(tmp_path / "made") for call in chat.calls} == stages


# -- folders ----------------------------------------------------------------------------------------------------------


def test_missing_parts_are_played_again_to_the_same_bytes(made):
    config, out = made
    files = sorted(out.glob("part-*"))
    before = [file.read_bytes() for file in files]
    assert len(files) == 3
    files[1].unlink()
    demonstrate(config, out, TASKS, PASSES, by="expert")
    assert [file.read_bytes() for file in files] == before
    with pytest.raises(RunError, match="other values of expert: choose"):
        demonstrate(config, out, TASKS, PASSES, by="expert", options=ExpertConfig(slips=0.2))
    with pytest.raises(RunError, match="other values of by"):
        demonstrate(config, out, TASKS, PASSES, by="policy")


def test_an_episode_does_not_depend_on_what_is_played_beside_it(made, tmp_path):
    config, out = made
    alone = replace(config, policy=replace(config.policy, generate_batch=7))
    demonstrate(alone, tmp_path / "made", TASKS, PASSES, by="expert")
    assert stored(tmp_path / "made") == stored(out)


@pytest.mark.slow
def test_two_processes_play_the_same(made, tmp_path):
    config, out = made
    assert two_ranks(lambda: demonstrate(config, tmp_path / "made", TASKS, PASSES, by="expert")) == 0
    assert [f.read_bytes() for f in sorted((tmp_path / "made").iterdir())] == [
        f.read_bytes() for f in sorted(out.iterdir())
    ]


def test_what_cannot_be_demonstrated_leaves_nothing(homes, tmp_path):
    garden = load_config("small", overrides={
        "environment.name": str(Path(__file__).parents[1] / "examples/garden.py:GARDEN"), "library.encoder": "hash",
        "environment.validation_split": "test"})  # fmt: skip
    with pytest.raises(ConfigError, match="the environment garden has no expert"):
        demonstrate(garden, tmp_path / "made", 4, 1, by="expert")
    compact = configure(homes, "window", policy__prompts="compact")
    with pytest.raises(ConfigError, match="prompts=compact cannot write an expert's answers"):
        demonstrate(compact, tmp_path / "made", 4, 1, by="expert")
    with pytest.raises(ConfigError, match="tasks = 41: the split train has 40"):
        demonstrate(configure(homes), tmp_path / "made", 41, 1, by="expert")
    with pytest.raises(ConfigError, match="method.name=skill1 has no teacher: demonstrate with --variant skillrl"):
        demonstrate(configure(homes), tmp_path / "made", 4, 1, by="teacher")
    assert not (tmp_path / "made").exists()


def test_the_command(homes, tmp_path, capsys):
    words = ["demonstrate", "--preset", "small", "--tasks", "8", "--passes", "1", "--out", str(tmp_path / "made"),
             "--set", f"environment.data={homes}", "--set", "library.encoder=hash", "--set", "expert.cut=0"]  # fmt: skip
    with pytest.raises(SystemExit) as done:
        cli.main([*words, "--by", "expert", "--set", "expert.slips=0"])
    said = json.loads(capsys.readouterr().out)
    assert not done.value.code and said["episodes"] == said["won"] == 8 and said["calls"] == said["chats"]
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    assert done.value.code == 2 and "expert.cut: only --by expert has these options" in capsys.readouterr().err


# -- the probe --------------------------------------------------------------------------------------------------------


class Reader:
    """Goes where the skill says that something was, and only looks around after that or without a skill."""

    def __init__(self, config: Config) -> None:
        self.prompts = make_prompts("full", "alfworld", config.rollout.context)

    def generate(self, texts, seeds, *, temperature, max_new_tokens, chats=None):
        said = [SAID.search(text) for text in texts]
        first = [seed[-1] == 0 for seed in seeds]
        answers = [f"go to {m[2]} 1" if m and begins else "look" for m, begins in zip(said, first, strict=True)]
        none = np.zeros(0, np.int32)
        return [Completion(none, none, np.zeros(0, np.float32), self.prompts.write_action(a)) for a in answers]


def test_a_policy_that_follows_every_skill_is_seen_to(made, homes):
    config, _ = made
    environment = make_environment(config.environment)
    report = probe(Reader(config), environment, config, expert_arms(config, environment), split="valid_seen", passes=2)
    followed = {arm: values["followed"].value for arm, values in report.arms.items()}
    assert followed == {"none": 0.0, "relevant": 1.0, "irrelevant": 1.0} and not report.passed
    assert report.gate["following: relevant - none"].value == 1.0


# -- published games --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 valid_seen games, and about every twelfth training game."""
    folder = tmp_path_factory.mktemp("published")
    for split, one_of in (("valid_seen", 1), ("train", 12)):
        with tarfile.open(shared_data / "alfworld" / f"{split}.tar.xz") as tar:
            for member in tar:
                if member.isfile() and zlib.crc32(member.name.rpartition("/")[0].encode()) % one_of == 0:
                    tar.extract(member, folder, filter="data")
    return folder


@pytest.mark.slow
def test_the_expert_wins_published_games(published):
    environment = AlfworldEnvironment(GameTree(published), 30)
    expert = HomeExpert(environment, environment.tasks("train"))
    steps = []
    for task in environment.tasks("valid_seen"):
        [now] = environment.reset([task])
        player, step = expert.player(now, None), None
        while step is None or not step.done:
            command, _ = player.act(now)
            assert command in now.admissible
            [step] = environment.step([command])
            now = step.observation
            player.moved(command, now)
        steps.append(environment._running[0].steps if step.won else 99)
    assert sum(n <= 30 for n in steps) >= 0.95 * 140
