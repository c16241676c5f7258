"""Whole training runs: restarts are exact, processes agree, ablations run, and users' mistakes are told."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from distributed_train import easy_environment, run, run_two
from hypothesis import given
from hypothesis import strategies as st
from nano_runs import configure, ended, forked, make_nano, settings
from run_record import record
from safetensors.torch import load_file

import skill1.train
from skill1 import trainer
from skill1.cli import main as cli
from skill1.config import ConfigError
from skill1.envs.alfworld.environment import AlfworldEnvironment
from skill1.library import SkillLibrary
from skill1.methods.references import ReferenceTrajectories
from skill1.methods.skill1 import Skill1
from skill1.records import Task
from skill1.store.journal import Journal
from skill1.store.run_directory import RunDirectory
from skill1.train import Experience, step_tasks, train

OPTIONS = {"method__max_distill_tokens": 16, "environment__max_steps": 5}


# -- restarts ---------------------------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: object, name: str, count: int = 1) -> Callable[[], None]:
    """Kill the process when `owner.name` is called for the `count`-th time."""

    def sabotage() -> None:
        own, calls = getattr(owner, name), Counter()

        def killing(*args, **kwargs):
            calls["all"] += 1
            return die() if calls["all"] == count else own(*args, **kwargs)

        setattr(owner, name, killing)

    return sabotage


def after(owner: object, name: str, count: int = 1) -> Callable[[], None]:
    """Kill the process when the `count`-th call of `owner.name` has returned."""

    def sabotage() -> None:
        own, calls = getattr(owner, name), Counter()

        def killing(*args, **kwargs):
            result = own(*args, **kwargs)
            calls["all"] += 1
            return die() if calls["all"] == count else result

        setattr(owner, name, killing)

    return sabotage


def in_step(step: int) -> Callable[[], None]:
    """Kill the process after two actions of training step `step` (from 0)."""

    def sabotage() -> None:
        own = Experience._rollouts

        def armed(self, now, policy):
            if now == step:
                after(AlfworldEnvironment, "step", 2)()
            return own(self, now, policy)

        Experience._rollouts = armed

    return sabotage


def torn_metrics() -> None:
    """Kill the process while it writes the third step's metrics."""
    own = RunDirectory.log

    def log(self, step, metrics):
        if step == 3:
            self._metrics.write('{"step": 3, "lo')
            self._metrics.flush()
            die()
        own(self, step, metrics)

    RunDirectory.log = log


KILLS = {
    "in the first validation": (before(AlfworldEnvironment, "step", 3), 0),
    "between journal and rollouts": (after(Journal, "append", 3), 2),
    "between rollouts and update": (after(RunDirectory, "write_rollouts", 4), 2),
    "while logging": (torn_metrics, 2),
    "in the first checkpoint, before the library": (before(SkillLibrary, "save"), 0),
    "in the last checkpoint, before its marker": (before(trainer, "mark_complete", 2), 2),
    "after the first checkpoint": (after(trainer, "mark_complete"), 2),
}


@pytest.fixture(scope="module")
def config(world, warm):
    return configure(world, warm, **OPTIONS)


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "straight"
    assert run(config, directory) == 0
    return directory


@pytest.mark.slow
def test_a_run_leaves_what_it_says(config, straight):
    done = record(straight, 4)
    assert done["checkpoints"] == [2, 4]
    assert list(done["rollouts"]) == [1, 2, 3, 4] and all(len(step) == 6 for step in done["rollouts"].values())
    assert done["files"] == [f"validation.valid_seen.step_{step:06d}.parquet" for step in (0, 2, 4)]
    validation = RunDirectory.open(straight).evaluations("validation")
    assert validation.groupby("step")["game"].nunique().tolist() == [4, 4, 4]
    assert validation["library"].unique().tolist() == ["step0", "step2", "step4"]
    metrics = RunDirectory.open(straight).metrics()
    assert metrics["step"].tolist() == [1, 2, 3, 4]
    assert done["library"] == done["replayed"] and metrics["library/size"].iloc[-1] >= 2
    rollouts = [r for step in (1, 2, 3, 4) for r in RunDirectory.open(straight).read_rollouts(step)]
    assert {t.stage for r in rollouts for t in r.turns} == {"query", "rerank", "act", "distill"}
    assert 0 < np.mean([r.outcome for r in rollouts]) < 1
    for step in (1, 2, 3, 4):
        found = RunDirectory.open(straight).read_rollouts(step)
        assert metrics["reward"].iloc[step - 1] == pytest.approx(np.mean([r.outcome for r in found]))
        assert [(r.group, r.index) for r in found] == [(g, i) for g in range(2) for i in range(3)]
        assert all(len({r.task for r in found if r.group == g}) == 1 for g in range(2))
    start = load_file(Path(config.policy.model) / "model.safetensors")
    end = load_file(straight / "checkpoint-4" / "model.safetensors")
    assert any(not torch.equal(start[name], end[name]) for name in end)


@pytest.mark.slow
@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_run_resumes_exactly(config, straight, tmp_path, kill):
    sabotage, left = KILLS[kill]
    directory = tmp_path / "run"
    assert run(config, directory, sabotage=sabotage) == -signal.SIGKILL
    assert [c.step for c in RunDirectory.open(directory).checkpoints()] == ([left] if left else [])
    assert run(config, directory, resume=True) == 0
    assert record(directory, 4) == record(straight, 4)
    assert [s["from_step"] for s in RunDirectory.open(directory).manifest()["sessions"]] == [0, left]


@pytest.mark.slow
def test_a_run_killed_twice_resumes_exactly(config, straight, tmp_path):
    directory = tmp_path / "run"
    assert run(config, directory, sabotage=in_step(1)) == -signal.SIGKILL
    assert run(config, directory, resume=True, sabotage=in_step(3)) == -signal.SIGKILL
    assert run(config, directory, resume=True) == 0
    assert record(directory, 4) == record(straight, 4)


def test_resuming_a_finished_run_changes_nothing(config, straight, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(straight, directory)
    assert run(config, directory, resume=True) == 0
    assert record(directory, 4) == record(straight, 4)


@pytest.mark.slow
def test_references_survive_a_restart(world, warm, tmp_path):
    config = configure(world, warm, preset="released", train__steps=2, train__save_every=1, **OPTIONS)
    assert config.method.distill_reference
    assert run(config, tmp_path / "straight") == 0
    assert run(config, tmp_path / "run", sabotage=in_step(1)) == -signal.SIGKILL
    assert run(config, tmp_path / "run", resume=True) == 0
    assert record(tmp_path / "run", 2) == record(tmp_path / "straight", 2)
    assert config.method.same_task == "text"
    references = ReferenceTrajectories("text")
    references.load(tmp_path / "run" / "checkpoint-2")
    found = [r for step in (1, 2) for r in RunDirectory.open(tmp_path / "run").read_rollouts(step)]
    last = {(r.instruction, r.outcome): r for r in found}
    assert len(last) > 2
    for (_, outcome), r in last.items():
        assert references.opposite(ended(r, won=not outcome)) == [(t.observation, t.value) for t in r.turns_of("act")]


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_do_the_work_of_one(world, warm, tmp_path):
    options = OPTIONS | {"train__steps": 2, "train__kl": 0.05, "train__learning_rate": 1e-5}
    config = configure(world, warm, **options)
    assert run(config, tmp_path / "one") == 0
    assert run_two(config, tmp_path / "two") == 0
    one, two = RunDirectory.open(tmp_path / "one"), RunDirectory.open(tmp_path / "two")

    def sampled(run, step):
        return [
            (r.group, r.index, r.task, r.outcome, r.candidates, r.selected, r.lesson,
             [(t.stage, t.prompt_ids.tolist(), t.completion_ids.tolist()) for t in r.turns])
            for r in run.read_rollouts(step)
        ]  # fmt: skip

    for step in (1, 2):
        assert sampled(one, step) == sampled(two, step)
    assert record(tmp_path / "one", 2)["journal"] == record(tmp_path / "two", 2)["journal"]
    assert one.evaluations("validation").equals(two.evaluations("validation"))
    a, b = (load_file(run.path / "checkpoint-2" / "model.safetensors") for run in (one, two))
    start = load_file(warm / "model.safetensors")
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-6
    assert max(float((a[name] - start[name]).abs().max()) for name in a) > 1e-5
    for name in ("reward", "kl", "loss", "rows/total", "library/size", "tokens/trained"):
        np.testing.assert_allclose(one.metrics()[name], two.metrics()[name], atol=1e-5)


def test_fewer_groups_than_processes_is_an_error(config, monkeypatch, tmp_path):
    monkeypatch.setattr(skill1.train, "join_processes", lambda timeout: type("State", (), {"num_processes": 3})())
    with pytest.raises(ConfigError, match="rollout.tasks_per_step=2 is less than the 3 processes"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -- ablations --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset, variant, stages",
    [
        ("nano", "no_library", {"act"}),
        ("nano", "no_selection", {"act", "distill"}),
        ("nano", "no_distillation", {"query", "rerank", "act"}),
        ("nano", "lambdas_0", {"query", "rerank", "act", "distill"}),
        ("released", "full", {"query", "rerank", "act", "distill"}),
        ("released", "no_library", {"act"}),
    ],
)
def test_every_ablation_trains(world, warm, tmp_path, preset, variant, stages):
    plain = {"environment__max_steps": OPTIONS["environment__max_steps"]}
    config = configure(
        world, warm, variant, preset, train__steps=2, train__save_every=2, rollout__group_size=8,
        **(plain if variant == "no_library" else {"library__similarity_floor": None} | OPTIONS),
    )  # fmt: skip
    assert run(config, tmp_path / "run") == 0
    done = RunDirectory.open(tmp_path / "run")
    rollouts = [r for step in (1, 2) for r in done.read_rollouts(step)]
    assert {t.stage for r in rollouts for t in r.turns} == stages
    skilled = variant != "no_library"
    assert (done.library_dir / "journal.jsonl").exists() == skilled
    assert ("library/size" in done.metrics()) == skilled
    assert done.evaluations("validation")["library"].unique().tolist() == (["step0", "step2"] if skilled else ["none"])
    if skilled:
        assert done.metrics()["library/size"].iloc[-1] > 0
    if variant == "no_distillation":
        library = record(tmp_path / "run", 2)
        assert (
            all((r.lesson.desc and ";" in r.lesson.strategy) or r.steps == 1 for r in rollouts) and library["library"]
        )
    start, end = (load_file(at / "model.safetensors") for at in (warm, tmp_path / "run" / "checkpoint-2"))
    assert any(not torch.equal(start[name], end[name]) for name in end)


# -- tasks ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5))
def test_every_epoch_has_every_task_once(number, count, seed):
    tasks = [Task("alfworld", "train", f"train/{i}", "Pick") for i in range(number)]
    steps = -(-3 * number // count)
    drawn = [task.game for step in range(steps) for task in step_tasks(tasks, step, count, seed)]
    assert len(drawn) == steps * count
    for epoch in range(3):
        assert sorted(drawn[epoch * number : (epoch + 1) * number]) == sorted(t.game for t in tasks)
    if number > 8:
        assert drawn[:number] != drawn[number : 2 * number]


@given(st.integers(1, 12), st.integers(1, 30))
def test_a_task_drawn_twice_in_a_step_gets_other_random_streams(number, count):
    tasks = [Task("alfworld", "train", f"train/{i}", "Pick") for i in range(number)]
    for step in range(4):
        drawn = step_tasks(tasks, step, count, seed=0)
        assert len(set(drawn)) == count  # differ in game or seed
    assert all(task.seed == 0 for task in step_tasks(tasks, 0, min(count, number), seed=0))


def test_another_seed_draws_another_order():
    tasks = [Task("alfworld", "train", f"train/{i}", "Pick") for i in range(30)]
    assert step_tasks(tasks, 0, 8, 0) == step_tasks(tasks, 0, 8, 0) != step_tasks(tasks, 0, 8, 1)


# -- mistakes ---------------------------------------------------------------------------------------------------------


def command(tmp_path: Path, out: Path, given: dict, *words: str) -> tuple[int, str]:
    """`skill1 train` in a process of its own: status and what it printed."""
    sets = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    printed = tmp_path / "printed.txt"
    status = forked(lambda: cli.main(["train", "--out", str(out), *sets, *words]), printed)
    return status, printed.read_text()


@pytest.fixture
def short(world, nano, tmp_path):
    """Settings of a run of two steps from a policy that the test may change."""
    policy = tmp_path / "policy"
    shutil.copytree(nano, policy)
    return settings(world, policy) | {"train.steps": 2, "train.save_every": 1, "train.validate_every": 0}


def refused(printed: str, status: int) -> str:
    """The error line, checked to be one and without a traceback."""
    assert status == 2, printed
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in printed
    return errors[0]


@pytest.mark.slow
def test_an_existing_run_is_not_overwritten(tmp_path, short):
    out = tmp_path / "run"
    assert command(tmp_path, out, short)[0] == 0
    kept = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    status, printed = command(tmp_path, out, short)
    assert "already holds a run" in refused(printed, status) and "--resume" in printed
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == kept
    status, printed = command(tmp_path, out, short | {"train.learning_rate": 1e-9}, "--resume")
    assert "train.learning_rate: the run has 0.0005, now 1e-09" in refused(printed, status)
    status, printed = command(tmp_path, tmp_path / "other", short, "--resume")
    assert "there is no run at" in refused(printed, status)


def test_an_unwritable_place_is_refused(tmp_path, short):
    (tmp_path / "file").write_text("not a folder")
    status, printed = command(tmp_path, tmp_path / "file" / "run", short)
    assert "cannot write the run directory" in refused(printed, status)


def test_missing_data_and_policy_are_refused(tmp_path, short):
    status, printed = command(tmp_path, tmp_path / "run", short | {"environment.data": str(tmp_path / "none")})
    assert str(tmp_path / "none") in refused(printed, status)
    status, printed = command(tmp_path, tmp_path / "run", short | {"policy.model": str(tmp_path / "none")})
    assert "skill1 warmstart" in refused(printed, status)
    status, printed = command(tmp_path, tmp_path / "run", short | {"rollout.max_prompt_tokens": 9})
    assert "more than rollout.max_prompt_tokens=9" in refused(printed, status)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused(tmp_path, short):
    out = tmp_path / "run"
    assert command(tmp_path, out, short)[0] == 0
    snapshot = max((out / "checkpoint-2" / "library").iterdir(), key=lambda p: p.stat().st_size)
    whole = snapshot.read_bytes()
    snapshot.write_bytes(whole[: len(whole) // 2])
    status, printed = command(tmp_path, out, short, "--resume")
    assert str(out / "checkpoint-2" / "library") in refused(printed, status)
    snapshot.write_bytes(whole)
    assert command(tmp_path, out, short, "--resume")[0] == 0
    weights = out / "checkpoint-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    status, printed = command(tmp_path, out, short, "--resume")
    assert f"{weights} is damaged" in refused(printed, status)


@pytest.mark.slow
def test_a_failed_run_can_continue_in_the_same_process(config, straight, tmp_path):
    def twice() -> None:
        skill1.train.make_environment = easy_environment
        with patch.object(Skill1, "rows", None), pytest.raises(TypeError):
            train(config, tmp_path / "run")
        train(config, tmp_path / "run", resume=True)

    assert forked(twice) == 0
    assert record(tmp_path / "run", 4) == record(straight, 4)


@pytest.mark.slow
def test_a_policy_that_was_changed_since_is_refused(tmp_path, short):
    out = tmp_path / "run"
    assert command(tmp_path, out, short)[0] == 0
    make_nano(Path(short["policy.model"]), seed=1)
    status, printed = command(tmp_path, out, short, "--resume")
    message = refused(printed, status)
    assert f"was started from other weights than {short['policy.model']} holds" in message


@pytest.mark.slow
def test_other_data_is_refused(tmp_path, short, world):
    moved = tmp_path / "world"
    shutil.copytree(world, moved)
    given = short | {"environment.data": str(moved)}
    assert command(tmp_path, tmp_path / "run", given)[0] == 0
    game = sorted(moved.rglob("train/**/game.tw-pddl"))[0]
    game.write_text(game.read_text() + " ")
    status, printed = command(tmp_path, tmp_path / "run", given, "--resume")
    assert "was started on other data" in refused(printed, status)


# -- what a resumed run may find changed ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_resumes_where_it_its_policy_and_its_data_have_moved(tmp_path, short, world, monkeypatch):
    (tmp_path / "here").mkdir()
    shutil.copytree(world, tmp_path / "here" / "games")
    shutil.copytree(short["policy.model"], tmp_path / "here" / "policy")
    relative = short | {"environment.data": "games", "policy.model": "policy"}
    monkeypatch.chdir(tmp_path / "here")
    assert command(tmp_path, Path("run"), relative)[0] == 0
    straight = relative | {"train.steps": 3}
    assert command(tmp_path, Path("straight"), straight)[0] == 0
    monkeypatch.chdir(tmp_path)  # the same words name other places here: nothing is found
    status, printed = command(tmp_path, Path("here/run"), straight, "--resume")
    assert status == 2 and "there is no folder" in refused(printed, status)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = straight | {"environment.data": "there/games", "policy.model": str(tmp_path / "there" / "policy")}
    status, printed = command(tmp_path, Path("there/run"), moved, "--resume")
    assert status == 0, printed
    assert record(Path("there/run"), 3) == record(Path("there/straight"), 3)
    changed = RunDirectory.open(Path("there/run")).manifest()["sessions"][1]["changed"]
    assert changed == {
        "environment.data": [str(tmp_path / "here/games"), str(tmp_path / "there/games")],
        "policy.model": [str(tmp_path / "here/policy"), str(tmp_path / "there/policy")],
        "train.steps": [2, 3],
    }


@pytest.mark.slow
def test_a_run_that_was_out_of_memory_resumes_with_smaller_batches(world, warm, tmp_path):
    options = OPTIONS | {"train__kl": 0.05, "train__learning_rate": 1e-5}
    config = configure(world, warm, **options)
    assert run(config, tmp_path / "straight") == 0
    assert run(config, tmp_path / "run", sabotage=in_step(2)) == -signal.SIGKILL
    less = {
        "policy__gradient_checkpointing": True, "policy__generate_batch": 4, "policy__cache_tokens": 2000,
        "train__rows_per_micro_batch": 3, "train__tokens_per_micro_batch": 400,
    }  # fmt: skip
    assert run(configure(world, warm, **options, **less), tmp_path / "run", resume=True) == 0
    expected, found = record(tmp_path / "straight", 4), record(tmp_path / "run", 4)
    for name in ("checkpoints", "journal", "library", "validation", "files"):
        assert found[name] == expected[name], name
    a, b = (load_file(tmp_path / name / "checkpoint-4" / "model.safetensors") for name in ("straight", "run"))
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-6
    waste = [
        RunDirectory.open(tmp_path / name).metrics()["rows/padding_waste"].iloc[-1] for name in ("straight", "run")
    ]
    assert waste[1] < waste[0]  # the rows were cut otherwise
    changed = RunDirectory.open(tmp_path / "run").manifest()["sessions"][1]["changed"]
    assert set(changed) == {name.replace("__", ".") for name in less}
