"""SkillRL in the loop: its rows are plain GRPO's, its bank is shown, grows, survives restarts and is evaluated frozen."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed_train import easy_environment, run, run_two
from nano_runs import configure, contents, forked, load_policy, settings
from test_skillrl_bank import tree
from test_skillrl_evolution import Numbers

import skill1.train
from skill1.analysis.comparison import FIRST_BANK
from skill1.analysis.trajectories.read import load_step
from skill1.analysis.trajectories.viewer import show
from skill1.cli import main as cli
from skill1.config import Config, ConfigError, load_config, method_of, method_of_variant
from skill1.encoder import HashEncoder
from skill1.envs.alfworld.spec import ALFWORLD
from skill1.evaluate import evaluate_run
from skill1.methods.skillrl import method as skillrl
from skill1.methods.skillrl.bank import BankError, Mistake, Principle, SkillBank
from skill1.methods.skillrl.events import BankJournal
from skill1.methods.skillrl.live import LiveBank
from skill1.methods.skillrl.method import INITIAL_BANK, JOURNAL, SkillRL
from skill1.methods.skillrl.prompts import FullBank
from skill1.methods.skillrl.retrieval import FrozenBank
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.policy import Policy
from skill1.prompts.full import FullPrompts
from skill1.records import Rollout
from skill1.rollout import Ask, RolloutLoop
from skill1.running.evaluation import evaluate_arms
from skill1.store.run_directory import RunDirectory

pytestmark = pytest.mark.slow

STEPS = 6
OPTIONS = {
    "environment__max_steps": 3, "method__evolve_every": 2, "method__weak_rollouts": 1, "method__weak_below": 1.0,
    "method__similarity_floor": -1.0, "train__steps": STEPS, "train__save_every": 3, "train__validate_every": 3,
}  # fmt: skip


def play(world: Path, warm: Path, variant: str, bank: SkillBank | None, **changed: Any) -> tuple[list[Rollout], Policy]:
    config = configure(world, warm, variant, environment__max_steps=5, **changed)
    policy, environment = load_policy(config), easy_environment(config.environment)
    method = method_of(config)(config)
    if bank is not None:
        method.skills = LiveBank(config, HashEncoder(), bank)
    loop = RolloutLoop(Ask(policy, 1.0), environment, method, config)
    tasks = environment.tasks("train")
    named = [(group, index) for group in range(2) for index in range(4)]
    return loop.run([tasks[g] for g, _ in named], [g for g, _ in named], [i for _, i in named], (0, 0)), policy


def rows(rollouts: list[Rollout], variant: str) -> list[tuple[Any, ...]]:
    found = method_of_variant(variant).rows(rollouts, load_config("nano", variant))
    return [(r.stage, r.rollout, r.turn, r.advantage, r.weight, r.completion_ids.tolist()) for r in found]


# -- rows -------------------------------------------------------------------------------------------------------------


def test_with_an_empty_bank_it_is_plain_grpo(world, warm):
    (grpo, _), (skillrl, _) = play(world, warm, "grpo", None), play(world, warm, "skillrl", SkillBank())
    assert [contents(r) for r in skillrl] == [contents(r) for r in grpo]
    assert rows(skillrl, "skillrl") == rows(grpo, "grpo") and len({row[3] for row in rows(grpo, "grpo")}) > 2


BANK = SkillBank(
    general=(Principle("gen_001", "Anywhere", "mug in cabinet"), Principle("dyn_001", "Learnt", "egg in fridge")),
    specific=tuple(
        Principle(f"sp_{name}", f"Only {name}", f"{name} in shelf", when="cold", category=name)
        for name in ("clean", "heat", "cool", "pick_and_place", "look_at_obj_in_light")
    ),
    mistakes=(Mistake("err_001", "open open", "look"),),
)


def test_the_block_is_in_every_prompt_and_moves_no_credit(world, warm):
    rollouts, policy = play(world, warm, "skillrl", BANK, method__retrieval="template", method__mistakes=5)
    for rollout in rollouts:
        assert {turn.stage for turn in rollout.turns} == {"act"} and rollout.lesson is None
        [general, evolved, specific, mistake] = [c.skill for c in rollout.candidates]
        assert (general, evolved, mistake) == ("gen_001", "dyn_001", "err_001") and specific.startswith("sp_")
        block = f"mug in cabinet ; egg in fridge ; {specific[3:]} in shelf ; not open open"
        assert rollout.skill == block
        expected = policy.tokenizer.decode(policy.tokenizer.encode(f"<skill> {block} <write>"))
        for turn in rollout.turns:  # the first one too
            assert policy.tokenizer.decode(turn.prompt_ids).endswith(expected)
    bare = [replace(r, candidates=(), ranking=(), skill="") for r in rollouts]
    assert rows(rollouts, "skillrl") == rows(bare, "grpo")


def test_the_released_prompts_lack_it_before_the_first_action(world, warm):
    rollouts, policy = play(world, warm, "skillrl_released", BANK)
    shown = [["egg in fridge" in policy.tokenizer.decode(t.prompt_ids) for t in r.turns] for r in rollouts]
    assert all(s == [False] + [True] * (len(s) - 1) for s in shown) and any(len(s) > 1 for s in shown)


def test_the_blocks_words():
    shown = (BANK.general, BANK.specific[:1], BANK.mistakes)
    full_bank = FullBank(FullPrompts(ALFWORLD.words))
    full = full_bank.bank_block(*shown)
    assert "Principles for every task:\n- Anywhere: mug in cabinet\n- Learnt: egg in fridge\n" in full
    assert "Principles for this kind of task:\n- Only clean: clean in shelf (when: cold)\n" in full
    assert full.endswith("Mistakes to avoid:\n- open open Instead: look")
    assert "this kind" not in full_bank.bank_block(BANK.general, (), ())
    assert full_bank.bank_block((), (), ()) == CompactPrompts().bank_block((), (), ()) == ""


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bank") / "bank.json"
    path.write_text(json.dumps(tree()))
    return path


@pytest.fixture(scope="module")
def config(world, warm, file) -> Config:
    return configure(world, warm, "skillrl", method__bank=str(file), **OPTIONS)


def taught(more: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """A teacher whose answer depends on the question, and whatever else is done to the process."""

    def sabotage() -> None:
        skillrl.make_teacher = lambda *ignored: Numbers()
        more()

    return sabotage


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("straight") / "run"
    assert run(config, directory, sabotage=taught()) == 0
    return directory


def bank_at(run: RunDirectory, step: int) -> SkillBank:
    """The bank that the run had after a step, as an evaluation reads it."""
    method = method_of(run.config)(run.config)
    if step:
        method.load_skills(run.checkpoint(step).path / "library")
    else:
        method.load_initial(run.library_dir)
    return method.skills.bank


def record(directory: Path) -> dict[str, Any]:
    """Everything a run leaves that must not depend on how it got there."""
    found = RunDirectory.open(directory)
    last = found.checkpoint(STEPS).path
    lines = [json.loads(line) for line in found.metrics_file.read_text().splitlines()]
    return {
        "weights": (last / "model.safetensors").read_bytes(),
        "bank": {f.name: f.read_bytes() for f in (last / "library").iterdir()},
        "journal": (found.library_dir / JOURNAL).read_bytes(),
        "initial": (found.library_dir / INITIAL_BANK).read_bytes(),
        "metrics": [repr({k: v for k, v in line.items() if not k.startswith("time/")}) for line in lines],
        "rollouts": {step: [contents(r) for r in found.read_rollouts(step)] for step in found.rollout_steps()},
        "validation": found.evaluations("validation").to_csv(),
    }


def test_a_run_learns_from_its_training_failures(straight, config):
    found = RunDirectory.open(straight)
    events = BankJournal(found.library_dir / JOURNAL).events()
    assert [(e.step, e.source, e.error) for e in events] == [(2, "train", None), (4, "train", None), (6, "train", None)]
    metrics, added = found.metrics(), [len(e.added) for e in events]
    assert sum(added) > 0 and list(metrics["bank/added"]) == [0, added[0], 0, added[1], 0, added[2]]
    assert list(metrics["bank/size"]) == list(5 + metrics["bank/added"].cumsum())
    assert metrics["bank/failed_calls"].eq(0).all() and list(metrics["bank/calls"]) == [0, 1, 1, 2, 2, 3]
    before = {r.skill for r in found.read_rollouts(1)}
    learnt = [entry for event in events[:2] for entry in event.added]
    assert learnt and not any(entry.principle in skill for entry in learnt for skill in before)
    now = found.read_rollouts(STEPS)  # learnt in step 4: shown in step 5 and 6
    assert all(any(c.skill == entry.id for r in now for c in r.candidates) for entry in learnt)
    assert bank_at(found, 0).to_json()["metadata"] == tree()["metadata"]
    assert len(bank_at(found, STEPS)) == 5 + sum(added)
    assert "leak" not in found.manifest()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_call(count: int) -> Callable[[], None]:
    """Kill the process when the bank has learnt for the `count`-th time, before its journal says so."""

    def sabotage() -> None:
        own, calls = BankJournal.append, []

        def append(self, event):
            calls.append(event)
            return die() if len(calls) == count else own(self, event)

        BankJournal.append = append

    return sabotage


@pytest.mark.parametrize("count, kept", [(1, 0), (3, 3)])
def test_a_killed_run_resumes_bit_by_bit(straight, config, tmp_path, count, kept):
    directory = tmp_path / "run"
    assert run(config, directory, sabotage=taught(in_call(count))) == -signal.SIGKILL
    latest = RunDirectory.open(directory).latest_checkpoint()
    assert (latest.step if latest else 0) == kept  # checkpoint 3 is between two evolutions: it holds half a window
    assert run(config, directory, resume=True, sabotage=taught()) == 0
    expected, found = record(straight), record(directory)
    for name, value in expected.items():
        assert found[name] == value, name


def test_two_processes_do_the_work_of_one(straight, config, tmp_path):
    short = replace(config, train=replace(config.train, steps=2, save_every=2, validate_every=0))
    assert run_two(short, tmp_path / "two", prepare=taught()) == 0
    one, two = RunDirectory.open(straight), RunDirectory.open(tmp_path / "two")
    for step in (1, 2):
        a, b = ([(r.group, r.index, r.outcome, r.candidates, r.skill, [t.text for t in r.turns])
                 for r in found.read_rollouts(step)] for found in (one, two))  # fmt: skip
        assert a == b
    [event] = BankJournal(two.library_dir / JOURNAL).events()
    assert event == BankJournal(one.library_dir / JOURNAL).events()[0]
    np.testing.assert_allclose(one.metrics()["bank/size"][:2], two.metrics()["bank/size"])


def test_an_evaluation_reads_the_bank_of_its_checkpoint(straight, config, monkeypatch):
    monkeypatch.setattr("skill1.evaluate.make_environment", easy_environment)
    shown: list[int] = []
    own = FrozenBank.retrieve
    monkeypatch.setattr(FrozenBank, "retrieve", lambda self, texts: shown.append(len(self)) or own(self, texts))
    found = RunDirectory.open(straight)
    sizes = {step: len(bank_at(found, step)) for step in (0, 3, STEPS)}
    assert sizes[0] == 5 < sizes[STEPS]
    frames = evaluate_arms(straight, splits=["valid_seen"], passes=1, progress=False)
    assert shown == [sizes[STEPS], 5]  # its own bank, the first one; before training and withheld there is none
    assert [(frame["step"].iloc[0], frame["library"].iloc[0]) for frame in frames.values()] == [
        (0, "none"), (STEPS, f"step{STEPS}"), (STEPS, "none"), (STEPS, "step0")
    ]  # fmt: skip
    assert list(frames)[-1] == FIRST_BANK
    [middle] = evaluate_run(straight, splits=["valid_seen"], passes=1, library="step:3", progress=False)
    assert middle.library == "step3" and shown[-1] == sizes[3]
    assert len(bank_at(found, STEPS)) == sizes[STEPS]  # nothing was learnt from it


def test_the_viewer_shows_a_run_with_a_bank(straight):
    step = load_step(straight, 2)
    assert len(step.episodes) == 6 and all(e.fate.kind == "none" for e in step.episodes)
    assert "gen_001" in show("whole_step", step, 0)


def test_a_changed_bank_file_is_refused_before_the_first_checkpoint(config, file, tmp_path):
    directory, changed = tmp_path / "run", tmp_path / "bank.json"
    changed.write_text(file.read_text())
    mine = replace(config, method=replace(config.method, bank=str(changed)))
    run_directory = RunDirectory.create(directory, mine, "data")
    run_directory.close()
    SkillRL(mine, run_directory.library_dir).start()
    changed.write_text(file.read_text().replace("Never look twice", "Look twice"))
    begun = SkillRL(mine, run_directory.library_dir)
    with pytest.raises(BankError, match="was changed since this run started"):
        begun.start()


def test_learning_from_validation_is_flagged_in_the_manifest(world, warm, tmp_path):
    options = OPTIONS | {"train__steps": 3, "train__validate_every": 2}
    config = configure(world, warm, "skillrl_released", **options)
    assert run(config, tmp_path / "run") == 0
    found = RunDirectory.open(tmp_path / "run")
    assert "learns from episodes of the validation split" in found.manifest()["leak"]
    [event] = BankJournal(found.library_dir / JOURNAL).events()
    assert (event.step, event.source) == (2, "validation")  # not before training
    assert sum(played for _, played in event.success.values()) <= 4  # of the validation's games, not of training
    assert all(entry.category is None for entry in event.added)


# -- what can go wrong ------------------------------------------------------------------------------------------------


def test_a_teacher_that_fails_is_told_at_the_end(world, warm, tmp_path):
    """A nano policy cannot write JSON, and nobody listens at the endpoint: the run continues with the bank as it is."""
    for teacher, message in (("policy", "no JSON array in the answer"), ("endpoint", "there is no server at")):
        given = {
            "method__teacher": teacher, "method__teacher_url": "http://127.0.0.1:9", "method__teacher_model": "absent",
            "method__max_evolve_tokens": 8, "rollout__max_prompt_tokens": 2048, "train__steps": 2, "train__save_every": 2,
            "train__validate_every": 0,
        }  # fmt: skip
        config = configure(world, warm, "skillrl", **(OPTIONS | given))
        directory, printed = tmp_path / teacher, tmp_path / f"{teacher}.txt"

        def act() -> None:
            skill1.train.make_environment = easy_environment
            skill1.train.train(config, directory)

        assert forked(act, printed) == 0, printed.read_text()
        metrics = RunDirectory.open(directory).metrics()
        assert list(metrics["bank/failed_calls"]) == [0, 1] and metrics["bank/size"].eq(0).all()
        told = f"1 of 1 calls of the teacher ({teacher}) had no usable answer"
        assert told in printed.read_text() and message in printed.read_text()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"library.capacity": 9}, "library.capacity: the method skillrl keeps no library"),
        (
            {"method.evolve_from": "validation", "train.validate_every": 0},
            "needs validations: set train.validate_every",
        ),
        ({"method.teacher": "file"}, "needs method.bank"),
        ({"method.teacher": "endpoint"}, "needs method.teacher_url"),
    ],
)
def test_what_does_not_go_together_is_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        SkillRL.check_start(load_config("nano", "skillrl", changed))


def test_a_malformed_bank_stops_the_command_at_once(world, warm, tmp_path):
    path = tmp_path / "bank.json"
    path.write_text(json.dumps(tree() | {"task_specific_skills": {"heet": []}}))
    given = settings(world, warm, "skillrl") | {"method.bank": str(path)}
    sets = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    printed = tmp_path / "printed.txt"
    out = str(tmp_path / "run")
    status = forked(lambda: cli.main(["train", "--variant", "skillrl", "--out", out, *sets]), printed)
    assert status == 2 and "did you mean 'heat'?" in printed.read_text() and "Traceback" not in printed.read_text()
    assert not (tmp_path / "run").exists()
