"""RetroAgent in the loop and in runs: who retrieves what, what is reflected on, restarts, processes, evaluation."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distributed_train import easy_environment, run, run_two
from nano_runs import any_reflection, configure, ended, environment, success
from run_record import record
from test_rollout import Scripted

from skill1.analysis.trajectories.read import load_step
from skill1.analysis.trajectories.viewer import show
from skill1.config import Config, load_config
from skill1.evaluate import evaluate_run
from skill1.library import FrozenLibrary
from skill1.methods.library_method import JOURNAL
from skill1.methods.references import ReferenceTrajectories
from skill1.methods.retroagent.equations import Reflection, Retrospect, intrinsic_of, judged_right
from skill1.methods.retroagent.method import RetroAgent
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.play import jobs, play
from skill1.records import Lesson
from skill1.rollout import Ask, RolloutLoop
from skill1.store.journal import Journal
from skill1.store.run_directory import RunDirectory

pytestmark = pytest.mark.slow

LESSONS = ("mugs are in shelf 1", "apples are in fridge 1", "open what is closed", "take it to the lamp")
SAID = {
    "subtasks": [{"status": "completed"}, {"status": "completed"}, {"status": "incomplete"}, {"status": "n/a"}],
    "task_success": False,
    "action_lesson": "walk before you fly",
}


class Reflecting(Scripted):
    """Plays as `Scripted` and judges every episode lost."""

    def answer(self, text: str) -> str:
        return json.dumps(SAID) if "looking back at an episode" in text else super().answer(text)


# -- the loop ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(world):
    """A policy that wins the first train game and fails the second, their tasks and a method taught four lessons."""
    given = {
        "environment.data": str(world), "environment.max_steps": 30, "library.encoder": "hash", "rollout.group_size": 3
    }  # fmt: skip
    env = environment(load_config("paper", overrides=given))
    tasks = env.tasks("train")[:2]
    starts = env.reset(tasks)
    walk = list(env.games.game(tasks[0].game).walkthrough)
    policy = Reflecting({starts[0].instruction: walk, starts[1].instruction: ["fly away", "look"]})

    def configured(variant: str) -> tuple[Config, RetroAgent]:
        config = load_config("paper", variant, given)
        method = RetroAgent(config)
        taught = [success(start.instruction, f"{lesson} {n}") for n, start in enumerate(starts) for lesson in LESSONS]
        method.learn(taught, 1, "train")
        return config, method

    return policy, tasks, starts, configured


def test_one_half_remembers_and_all_reflect(two, tmp_path):
    policy, tasks, starts, configured = two
    config, method = configured("retroagent_in_context")
    method.save(tmp_path)
    (tmp_path / "potentials.json").write_text(json.dumps({starts[1].instruction: 0.5}))
    method.load(tmp_path)
    loop = RolloutLoop(Ask(policy, 1.0), environment(config), method, config)
    named = [(g, i) for g in range(2) for i in range(3)]

    def roll():
        return loop.run([tasks[g] for g, _ in named], [g for g, _ in named], [i for _, i in named], (0, 0))

    rollouts, library = roll(), method.skills
    assert [r.extra.memory for r in rollouts] == [False, True, True] * 2
    assert [r.outcome for r in rollouts] == [1.0] * 3 + [0.0] * 3
    for r in rollouts:
        assert {t.stage for t in r.turns} == {"act", "distill"}
        assert len(r.candidates) == r.extra.memory and r.query == (r.instruction if r.extra.memory else "")
        assert r.extra.reflection == Reflection(False, 2, 3)
        assert r.lesson == Lesson(r.instruction, "Actions: walk before you fly")
        assert r.turns[-1].value == "failure 2/3\nActions: walk before you fly"
        assert judged_right(r) == (r.outcome == 0.0)
        if r.extra.memory:
            assert library[r.selected].strategy in r.skill and r.skill_similarity == pytest.approx(1.0)
        else:
            assert r.skill == "" and r.selected is None
    assert [r.extra.baseline for r in rollouts] == [0.0] * 3 + [0.5] * 3
    assert [intrinsic_of(r) for r in rollouts] == pytest.approx([1.0] * 3 + [2 / 3 - 0.5] * 3)
    asked = policy.calls[-1][0]
    assert all("task was accomplished" in text for text in asked[:3])
    assert all("task was not accomplished" in text for text in asked[3:])
    assert not any("For comparison" in text for text in asked)
    admitted = method.learn(rollouts, 2, "train").admitted
    assert len(admitted) == 1  # of the lost episodes, once; the won ones were judged wrong
    assert list(library)[-1].id == admitted[0].id and admitted[0].outcome == "failure"
    method.observe(rollouts, 2, "validation", policy)  # nothing is remembered of these
    method.observe(rollouts, 2, "train", policy)
    roll()
    assert not any("For comparison" in text for text in policy.calls[-1][0])  # of the same outcome only
    method.observe([replace(r, outcome=1.0 - r.outcome) for r in rollouts], 3, "validation", policy)
    roll()
    assert not any("For comparison" in text for text in policy.calls[-1][0])
    method.observe([replace(r, outcome=1.0 - r.outcome) for r in rollouts], 3, "train", policy)
    roll()
    assert all("For comparison, an earlier" in text for text in policy.calls[-1][0])


def test_a_policy_that_must_judge_is_told_nothing(two):
    policy, tasks, _, configured = two
    config, method = configured("retroagent_rl")
    RolloutLoop(Ask(policy, 1.0), environment(config), method, config).run(tasks, [0, 1], [0, 0], (0, 0))
    won, lost = policy.calls[-1][0]
    for text in (won, lost):
        assert "Outcome" not in text and "For comparison" not in text and "judge, by what" in text


def test_evaluation_shows_three_lessons_to_all_and_reflects_on_none(two):
    policy, tasks, _, configured = two
    config, method = configured("retroagent_rl")
    library, before = method.skills, method.skills.state_hash()
    rollouts = play(jobs(tasks, 2), policy, environment(config), method.frozen(), config)
    assert len(rollouts) == 4 and library.state_hash() == before
    for r in rollouts:
        assert len(r.candidates) == 3 and {t.stage for t in r.turns} == {"act"} and r.extra is None
        assert all(library[c.skill].strategy in r.skill for c in r.candidates)


# -- runs -------------------------------------------------------------------------------------------------------------


def read_anything() -> None:
    CompactPrompts.parse_reflect = any_reflection


def killed() -> None:
    """Read anything, and die when the journal has the third step but nothing else does."""
    read_anything()
    own = Journal.append

    def append(self, event):
        own(self, event)
        if event.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append


OPTIONS = {
    "method__max_reflect_tokens": 12, "environment__max_steps": 5, "library__similarity_floor": 0.4,
    "rollout__group_size": 4, "train__learning_rate": 1e-5,
}  # fmt: skip


@pytest.fixture(scope="module")
def config(world, warm) -> Config:
    return configure(world, warm, "retroagent_rl", **OPTIONS)


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("retroagent") / "straight"
    assert run(config, directory, sabotage=read_anything) == 0
    return directory


def test_a_run_leaves_what_it_says(straight):
    found = RunDirectory.open(straight)
    best: dict[str, float] = defaultdict(float)
    lessons, metrics = {}, found.metrics()
    for step in (1, 2, 3, 4):
        rollouts = found.read_rollouts(step)
        assert [r.extra.memory for r in rollouts] == [False, False, True, True] * 2
        assert all(r.extra.baseline == best[r.instruction] for r in rollouts)  # what earlier steps won, not this one
        for group in (0, 1):
            members = [r for r in rollouts if r.group == group]
            name = members[0].instruction
            best[name] = max(best[name], float(np.mean([r.outcome for r in members])))
        assert all(not r.candidates for r in rollouts if not r.extra.memory)
        for r in rollouts:
            assert {t.stage for t in r.turns} == {"act", "distill"} and len(r.candidates) <= 1
            assert all(lessons[c.skill] for c in r.candidates)
        admitted = Journal(found.library_dir / JOURNAL).events()[step - 1].admitted
        right = {(r.lesson.strategy, "success" if r.outcome else "failure") for r in rollouts if judged_right(r)}
        assert {(s.strategy, s.outcome) for s in admitted} <= right
        lessons |= {s.id: s.strategy for s in admitted}
        row = metrics.set_index("step").loc[step]
        assert row["cost/calls"] == sum(len(r.turns) for r in rollouts)
        assert row["cost/tokens"] == sum(len(t.completion_ids) for r in rollouts for t in r.turns)
        assert row["reflection/right"] == pytest.approx(np.mean([judged_right(r) for r in rollouts]))
        assert row["reflection/intrinsic"] == pytest.approx(np.mean([intrinsic_of(r) for r in rollouts]))
        assert row["rows/total"] == row["cost/calls"]  # reflections are rows
    kept = json.loads((found.checkpoint(4).path / "potentials.json").read_text())
    assert kept == pytest.approx(dict(best)) and any(best.values())
    assert {s.outcome for e in Journal(found.library_dir / JOURNAL).events() for s in e.admitted} == {
        "success", "failure"
    }  # fmt: skip
    assert any(r.candidates for r in found.read_rollouts(4))


def test_a_killed_run_resumes_exactly(config, straight, tmp_path):
    directory = tmp_path / "run"
    assert run(config, directory, sabotage=killed) == -signal.SIGKILL
    assert [c.step for c in RunDirectory.open(directory).checkpoints()] == [2]
    assert run(config, directory, resume=True, sabotage=read_anything) == 0
    expected, found = record(straight, 4), record(directory, 4)
    assert "potentials" in expected
    for name, value in expected.items():
        assert found[name] == value, name


def test_two_processes_do_the_work_of_one(config, straight, tmp_path):
    short = replace(config, train=replace(config.train, steps=2, save_every=2, validate_every=0))
    assert run_two(short, tmp_path / "two", read_anything) == 0
    one, two = RunDirectory.open(straight), RunDirectory.open(tmp_path / "two")
    for step in (1, 2):
        a, b = (
            [(r.group, r.index, r.outcome, r.candidates, r.extra, [t.text for t in r.turns])
             for r in found.read_rollouts(step)] for found in (one, two)
        )  # fmt: skip
        assert a == b and all(isinstance(extra, Retrospect) and extra.reflection for *_, extra, _ in a)
    events = [Journal(found.library_dir / JOURNAL).events()[:2] for found in (one, two)]
    assert events[0] == events[1]
    states = [(found.checkpoint(2).path / "potentials.json").read_text() for found in (one, two)]
    assert states[0] == states[1]
    for name in ("rows/total", "reflection/intrinsic", "library/size", "cost/tokens"):
        np.testing.assert_allclose(one.metrics()[name][:2], two.metrics()[name])


def test_in_context_trains_actions_alone_and_keeps_references_by_text(world, warm, tmp_path):
    options = OPTIONS | {"train__steps": 2, "train__validate_every": 0}
    config = configure(world, warm, "retroagent_in_context", **options)
    assert run(config, tmp_path / "run", sabotage=read_anything) == 0
    found = RunDirectory.open(tmp_path / "run")
    rollouts = [r for step in (1, 2) for r in found.read_rollouts(step)]
    assert found.metrics()["rows/total"].sum() == sum(r.steps for r in rollouts)
    references = ReferenceTrajectories("text")
    references.load(found.checkpoint(2).path)
    last = {(r.instruction, r.outcome): r for r in rollouts}
    for (_, outcome), r in last.items():
        assert references.opposite(ended(r, won=not outcome)) == [(t.observation, t.value) for t in r.turns_of("act")]


def test_an_evaluation_retrieves_by_similarity_and_utility_alone(straight, monkeypatch):
    monkeypatch.setattr("skill1.evaluate.make_environment", easy_environment)
    retrieved = []
    own = FrozenLibrary.retrieve

    def retrieve(self, queries, mode):
        found = own(self, queries, mode)
        retrieved.append((mode, len(queries), max(map(len, found))))
        return found

    monkeypatch.setattr(FrozenLibrary, "retrieve", retrieve)
    [with_memory] = evaluate_run(straight, splits=["valid_seen"], passes=1, progress=False)
    assert with_memory.library == "step4" and {mode for mode, _, _ in retrieved} == {"greedy"}
    assert sum(count for _, count, _ in retrieved) == len(with_memory.frame) and retrieved[0][2] > 1
    retrieved.clear()
    [without] = evaluate_run(straight, splits=["valid_seen"], passes=1, library="none", progress=False)
    assert without.library == "none" and not retrieved


def test_the_viewer_says_what_became_of_lessons(straight):
    step = load_step(straight, 2)
    kinds = {e.fate.kind for e in step.episodes}
    for e in step.episodes:
        right = judged_right(e.rollout)
        assert (e.fate.kind in ("admitted", "merged")) == right
        assert right or e.fate.kind == ("refused" if e.rollout.lesson else "unparsed")
        assert all(row is not None for row in e.rows)
    assert "admitted" in kinds and "refused" in kinds
    assert "not admitted" in show("whole_step", step, 0)
