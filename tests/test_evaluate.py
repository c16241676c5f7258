"""Evaluation: fixed per-game seeds, whatever the batch; a library that is read and never written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from distributed_train import easy_environment, two_ranks
from nano_runs import configure, environment, load_policy, success

import skill1.play
from skill1 import evaluate
from skill1.analysis.library.source import read_entries
from skill1.cli import main as cli
from skill1.config import ConfigError
from skill1.encoder import HashEncoder
from skill1.errors import RunError
from skill1.evaluate import evaluate_run
from skill1.library import SkillLibrary
from skill1.methods.skill1 import FrozenSkill1, Skill1
from skill1.play import jobs, outcomes, play
from skill1.rollout import Stages
from skill1.stats import success_rate, summarise, wilson
from skill1.store.run_directory import RunDirectory
from skill1.store.skill_folders import write_skill_folders


@pytest.fixture(autouse=True)
def easy(monkeypatch):
    monkeypatch.setattr(evaluate, "make_environment", easy_environment)


def frames(directory: Path, **options) -> dict[str, pd.DataFrame]:
    return {e.split: e.frame for e in evaluate_run(directory, progress=False, **options)}


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_batch(trained, monkeypatch):
    """In double precision: in single, rounding may draw another token on some machine."""
    load = skill1.play.load_model
    monkeypatch.setattr(skill1.play, "load_model", lambda *given: (load(*given)[0].double(), load(*given)[1]))
    whole = frames(trained)
    assert list(whole) == ["valid_seen", "valid_unseen"]
    for size in (1, 5):
        for split, frame in frames(trained, batch=size).items():
            pd.testing.assert_frame_equal(frame, whole[split])
    for split, frame in whole.items():
        assert len(frame) == 12 and sorted(frame["pass"].unique()) == [0, 1] and set(frame["split"]) == {split}
        assert frame["game"].nunique() == 6
    both = pd.concat(whole.values())
    assert 0 < both["won"].mean() < 1 and both["steps"].nunique() > 1


@pytest.mark.slow
def test_two_processes_play_what_one_plays_and_one_writes(trained, tmp_path, capfd):
    whole, place = frames(trained), tmp_path / "run"
    shutil.copytree(trained, place)
    for file in (place / "evaluations").iterdir():
        file.unlink()

    def act() -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main(["evaluate", "--out", str(place), "--batch", "5"])
        assert not ended.value.code

    assert two_ranks(act) == 0
    stored = RunDirectory.open(place).evaluations("evaluation_step2")
    for split, frame in whole.items():
        mine = stored[stored["split"] == split].sort_values(["pass", "game"], ignore_index=True)
        pd.testing.assert_frame_equal(mine, frame.sort_values(["pass", "game"], ignore_index=True))
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    assert [json.loads(line)["split"] for line in lines] == list(whole)


def test_the_bar_moves_with_every_turn(world, warm, monkeypatch):
    places = []

    class Bar(skill1.play.tqdm):
        def update(self, n=1):
            super().update(n)
            places.append(self.n)

    monkeypatch.setattr(skill1.play, "tqdm", Bar)
    config = configure(world, warm, environment__max_steps=6, policy__generate_batch=8)
    place = environment(config)
    todo = jobs(place.tasks("train"), 1)
    play(todo, load_policy(config), place, Stages(), config, progress=True)
    assert places == sorted(places) and places[-1] == len(todo) == 12
    assert len(set(places)) > 2  # between the ends of the two batches too


def test_passes_differ_and_the_first_is_the_same_however_many_there_are(trained):
    two, one = frames(trained, passes=2)["valid_seen"], frames(trained, passes=1)["valid_seen"]
    first, second = (two[two["pass"] == n].reset_index(drop=True) for n in (0, 1))
    pd.testing.assert_frame_equal(first, one)
    columns = ["steps", "won", "invalid_actions", "inadmissible_actions"]
    assert not first[columns].equals(second[columns])


def test_outcomes_are_stored_with_what_they_depend_on(trained):
    [found] = evaluate_run(trained, splits=["valid_seen"], passes=1, progress=False)
    assert (found.split, found.step, found.library) == ("valid_seen", 2, "step2")
    stored = RunDirectory.open(trained).evaluations("evaluation_step2")
    mine = stored[stored["split"] == "valid_seen"].reset_index(drop=True)
    assert mine["game"].tolist() == sorted(found.frame["game"])
    assert mine.set_index("game")["won"].to_dict() == found.frame.set_index("game")["won"].to_dict()
    assert mine[["variant", "seed", "step", "library"]].drop_duplicates().values.tolist() == [["full", 0, 2, "step2"]]


@pytest.mark.parametrize(
    "library, step, label", [("final", None, "step2"), ("final", 1, "step1"), ("final", 0, "step0"),
                             ("none", None, "none"), ("step:1", 2, "step1"), ("step:0", 1, "step0")]
)  # fmt: skip
def test_the_library_asked_for_is_used(trained, monkeypatch, library, step, label):
    seen = []
    own = evaluate.play_together

    def watched(todo, policy, environment, stages, config, **kwargs):
        rollouts = own(todo, policy, environment, stages, config, **kwargs)
        seen.append((stages, rollouts))
        return rollouts

    monkeypatch.setattr(evaluate, "play_together", watched)
    [found] = evaluate_run(trained, splits=["valid_seen"], passes=1, library=library, step=step, progress=False)
    [(used, rollouts)] = seen
    size = len(used._library) if isinstance(used, FrozenSkill1) else None
    assert found.library == label and found.step == (2 if step is None else step)
    stages = {t.stage for r in rollouts for t in r.turns}
    if label == "none":
        assert type(used) is Stages and stages == {"act"}
    elif label == "step0":
        assert size == 0 and stages == {"query", "act"}
    else:
        checkpoint = RunDirectory.open(trained).checkpoint(int(label[-1])).path / "library"
        config = RunDirectory.open(trained).config.library
        assert size == len(SkillLibrary.load(checkpoint, config, HashEncoder())) > 0
        assert stages == ({"query", "rerank", "act"} if size > 1 else {"query", "act"})
        assert all(r.selected for r in rollouts) and all(r.lesson is None for r in rollouts)


def test_the_policy_of_the_step_asked_for_is_used(trained):
    def played(step):
        return frames(trained, library="none", step=step)["valid_seen"].drop(columns=["step"])

    assert played(2).equals(played(2))
    run = RunDirectory.open(trained)
    with_steps = [evaluate._policy(run, run.config, n) for n in (0, 1, 2)]
    norms = {float(p.model.model.embed_tokens.weight.detach().double().sum()) for p in with_steps}
    assert len(norms) == 3 and not any(p.model.training for p in with_steps)


def test_evaluation_changes_nothing_in_the_run(trained):
    def written() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in trained.rglob("*") if p.is_file() and "evaluations" not in p.parts}

    before = written()
    frames(trained, passes=1)
    assert written() == before


def test_exported_skills_play_as_the_library_that_they_come_from(trained, tmp_path):
    write_skill_folders(tmp_path / "mine", {e.id: e.skill for e in read_entries(trained)})
    asked = {"splits": ["valid_seen"], "passes": 1, "progress": False}
    places = ("final", str(tmp_path / "mine"), str(trained / "checkpoint-2" / "library"))
    [own], [mine], [theirs] = (evaluate_run(trained, library=wanted, **asked) for wanted in places)
    for given in (mine, theirs):
        assert given.library.startswith("given-") and set(given.frame["library"]) == {given.library}
        pd.testing.assert_frame_equal(given.frame.drop(columns="library"), own.frame.drop(columns="library"))
    [again] = evaluate_run(trained, library=str(tmp_path / "mine"), reuse=True, **asked)
    assert again.library == mine.library
    edited = next((tmp_path / "mine").glob("*/SKILL.md"))
    edited.write_text(f"{edited.read_text()}Now.\n")
    assert evaluate_run(trained, library=str(tmp_path / "mine"), **asked)[0].library != mine.library


def test_a_frozen_library_stays_as_it_is(world, warm):
    config = configure(world, warm, evaluation__temperature=1.0)
    method = Skill1(config)
    method.learn([success(f"look for thing {i}", f"it is on shelf_{i}") for i in range(4)], 1, "train")
    library = method.skills
    before, frozen = library.state_hash(), library.frozen()
    env = easy_environment(config.environment)
    todo = jobs(env.tasks("valid_seen"), 2)
    rollouts = play(todo, load_policy(config), env, method.frozen(), config)
    assert any(r.outcome for r in rollouts) and all(r.candidates for r in rollouts)
    assert library.state_hash() == before and library.frozen() is frozen
    assert [s.count for s in frozen] == [1] * 4
    assert [r.task for r in rollouts] == [job.task for job in todo]
    assert [r.index for r in rollouts] == [job.number for job in todo]


def test_the_summary_by_hand():
    rows = [
        ("a", "Pick", 0, True, 1.0, 4, 0, 1),
        ("a", "Pick", 1, True, 1.0, 6, 0, 0),
        ("b", "Pick", 0, False, 0.0, 20, 3, 10),
        ("b", "Pick", 1, True, 1.0, 10, 0, 1),
        ("c", "Look", 0, False, 0.5, 20, 1, 8),
        ("c", "Look", 1, False, 0.0, 20, 0, 20),
    ]
    columns = ["game", "category", "pass", "won", "score", "steps", "invalid_actions", "inadmissible_actions"]
    frame = pd.DataFrame(rows, columns=columns)
    found = summarise(frame)
    assert found["success"] == 0.5 and (found["n"], found["games"], found["passes"]) == (6, 3, 2)
    assert found["score"] == pytest.approx(3.5 / 6) and found["steps"] == pytest.approx(80 / 6)
    assert (found["ill_formed"], found["inadmissible"]) == (4 / 80, 40 / 80)
    naive, over_games = wilson(3, 6), success_rate(frame["won"], frame["game"])
    assert found["wilson"] == [naive.low, naive.high] and found["interval"] == [over_games.low, over_games.high]
    assert found["interval"][0] <= 0.5 <= found["interval"][1]
    assert {k: (v["success"], v["n"], v["games"]) for k, v in found["categories"].items()} == {
        "Pick": (0.75, 4, 2), "Look": (0.0, 2, 1),
    }  # fmt: skip
    json.dumps(found)


def test_rows_of_outcomes(world, warm):
    config = configure(world, warm, "no_library", train__seed=3)
    env = environment(config)
    todo = jobs(env.tasks("valid_seen")[:2], 2)
    expected = [(t.game, n) for n in (0, 1) for t in env.tasks("valid_seen")[:2]]
    assert [(job.task.game, job.number) for job in todo] == expected
    rollouts = [
        replace(success("d", "s"), task=job.task, outcome=float(i == 0), score=0.5, steps=i)
        for i, job in enumerate(todo)
    ]
    frame = outcomes(todo, rollouts, config, 7, "step7")
    assert frame["won"].tolist() == [True, False, False, False] and frame["steps"].tolist() == [0, 1, 2, 3]
    assert frame["pass"].tolist() == [0, 0, 1, 1] and frame["category"].tolist() == [j.task.category for j in todo]
    for name, value in {"variant": "no_library", "seed": 3, "step": 7, "library": "step7", "score": 0.5}.items():
        assert frame[name].unique().tolist() == [value]


def test_stored_outcomes_are_reused(trained, monkeypatch):
    fresh = frames(trained, passes=1, splits=["valid_unseen"])["valid_unseen"]
    monkeypatch.setattr(evaluate, "play_together", None)
    again = frames(trained, passes=1, splits=["valid_unseen"], reuse=True)["valid_unseen"]
    assert again.set_index("game")["steps"].to_dict() == fresh.set_index("game")["steps"].to_dict()


def test_stored_outcomes_of_other_data_are_played_again(trained, monkeypatch):
    """Also where the games were changed in place: the run's folder of games, and their names, are the same."""
    asked = {"passes": 1, "splits": ["valid_unseen"], "reuse": True}
    frames(trained, **asked)
    played, own = [], evaluate.play_together
    monkeypatch.setattr(evaluate, "play_together", lambda todo, *a, **k: played.append(todo) or own(todo, *a, **k))
    folder = Path(RunDirectory.open(trained).config.environment.data) / "json_2.1.1" / "valid_unseen"
    file = next(folder.rglob("*.tw-pddl"))
    content = file.read_text()
    file.write_text(content + " ")
    try:
        frames(trained, **asked)
        frames(trained, **asked)
    finally:
        file.write_text(content)
    assert [len(todo) for todo in played] == [6], "all of them, once"


def test_passes_that_are_not_stored_are_added(trained, monkeypatch):
    fresh = frames(trained, passes=3, splits=["valid_unseen"])["valid_unseen"]
    frames(trained, passes=1, splits=["valid_unseen"])  # without reuse it replaces what is stored
    played, own = [], evaluate.play_together
    monkeypatch.setattr(evaluate, "play_together", lambda todo, *a, **k: played.append(todo) or own(todo, *a, **k))
    added = frames(trained, passes=3, splits=["valid_unseen"], reuse=True)["valid_unseen"]
    assert [{job.number for job in todo} for todo in played] == [{1, 2}]
    by_job = ["game", "pass"]
    expected = fresh.sort_values(by_job, ignore_index=True)
    pd.testing.assert_frame_equal(added.sort_values(by_job, ignore_index=True), expected)
    fewer = frames(trained, passes=2, splits=["valid_unseen"], reuse=True)["valid_unseen"]
    assert len(played) == 1 and set(fewer["pass"]) == {0, 1}
    stored = RunDirectory.open(trained).evaluations("evaluation_step2")
    assert (stored["split"] == "valid_unseen").sum() == len(added)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"library": "finale"}, ConfigError, "library 'finale': use 'final', 'none' or 'step:N'"),
        ({"library": "step:x"}, ConfigError, "library 'step:x'"),
        ({"library": "step:9"}, RunError, "no complete checkpoint-9"),
        ({"step": 9}, RunError, "no complete checkpoint-9"),
    ],
)
def test_wrong_options_are_refused(trained, options, error, message):
    with pytest.raises(error, match=message):
        evaluate_run(trained, progress=False, **options)


def test_the_command_prints_a_line_per_split(trained, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "--out", str(trained), "--passes", "1", "--library", "none"])
    assert not ended.value.code
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["split"], line["library"], line["step"], line["n"]) for line in lines] == [
        ("valid_seen", "none", 2, 6), ("valid_unseen", "none", 2, 6),
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "--out", str(trained), "--split", "valid_sen"])
    assert ended.value.code == 2 and "valid_sen" in capsys.readouterr().err
