"""Run directories: what create, resume and read promise, against real files."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from skill1.config import load_config
from skill1.errors import RunError
from skill1.records import STAGES, Candidate, Lesson, Rollout, Task, Turn
from skill1.store.outcomes import EVALUATION_SCHEMA
from skill1.store.rollout_log import read_rollouts, write_rollouts
from skill1.store.run_directory import RunDirectory

CONFIG = load_config("nano")


@pytest.fixture
def run(tmp_path: Path):
    made = RunDirectory.create(tmp_path / "results" / "a", CONFIG, data_hash="abc")
    yield made
    made.close()


def resumed(run: RunDirectory) -> RunDirectory:
    run.close()
    return RunDirectory.resume(run.path, CONFIG, data_hash="abc")


def checkpoint(run: RunDirectory, step: int) -> None:
    folder = run.checkpoint_dir(step)
    (folder / "library").mkdir(parents=True)
    (folder / "library" / "skills.jsonl").write_text("{}\n")
    (folder / "COMPLETE").write_text(f'{{"step": {step}}}')


def outcomes(step: int, split: str = "valid_seen", games: int = 2, passes: int = 2) -> pd.DataFrame:
    frame = pd.DataFrame([{"game": f"g{g}", "pass": p, "won": g == 0} for g in range(games) for p in range(passes)])
    return frame.assign(
        variant="full", seed=0, step=step, split=split, category="Pick", score=frame["won"].astype(float),
        steps=3, invalid_actions=0, inadmissible_actions=1, library="live",
    )  # fmt: skip


# -------------------------------------------------------------------- rollouts

text = st.text(max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)


def token_array(dtype, elements):
    return st_numpy.arrays(dtype, st.integers(0, 5), elements=elements)


tokens = token_array(np.int32, st.integers(0, 2**31 - 1))
turns = st.builds(
    Turn, st.sampled_from(STAGES), tokens, tokens, token_array(np.float32, st.floats(-50, 0, width=32)),
    text, text, st.booleans(), st.booleans(), text,
)  # fmt: skip
rollouts = st.builds(
    Rollout,
    task=st.builds(Task, text, text, text, text, st.integers(0, 2**63 - 1)),
    instruction=text,
    group=st.integers(0, 99),
    index=st.integers(0, 99),
    query=text,
    turns=st.lists(turns, max_size=3).map(tuple),
    candidates=st.lists(st.builds(Candidate, text, finite, finite, finite), max_size=3).map(tuple),
    ranking=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    ranking_parsed=st.booleans(),
    selected=st.none() | text,
    skill=text,
    skill_similarity=st.floats(),
    outcome=finite,
    score=finite,
    steps=st.integers(0, 50),
    lesson=st.none() | st.builds(Lesson, text, text),
)


def plain(record):
    """A record as nested tuples that compare by value, with dtypes, NaN equal to itself."""
    if isinstance(record, np.ndarray):
        return (str(record.dtype), record.tobytes())
    if isinstance(record, float):
        return ("float", np.float64(record).tobytes() if record == record else "nan")
    if isinstance(record, tuple):
        return tuple(plain(item) for item in record)
    if hasattr(record, "__dataclass_fields__"):
        return (type(record).__name__, *(plain(getattr(record, name)) for name in record.__dataclass_fields__))
    return (type(record).__name__, record)


@settings(max_examples=40, deadline=None)
@given(st.lists(rollouts, max_size=4))
def test_rollouts_round_trip_exactly(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("log") / "step_000001.parquet"
    write_rollouts(path, written)
    assert [plain(r) for r in read_rollouts(path)] == [plain(r) for r in written]
    assert list(path.parent.iterdir()) == [path]  # nothing partial stays


def example_rollout(index: int, outcome: float = 1.0) -> Rollout:
    ids = np.arange(index % 4, dtype=np.int32)
    turn = Turn("act", ids, ids + 1, np.zeros(len(ids), np.float32), f"t{index}", "go", True)
    task = Task("alfworld", "train", "train/a/b", "Pick2")
    return Rollout(
        task, "put two", 0, index, "q", (turn,) * (index % 3), (), (), True, None, "", float("nan"),
        outcome, outcome, 4, None,
    )  # fmt: skip


def test_rollouts_over_several_row_groups_keep_their_order(tmp_path):
    written = [example_rollout(i) for i in range(71)]
    write_rollouts(tmp_path / "s.parquet", written)
    assert [plain(r) for r in read_rollouts(tmp_path / "s.parquet")] == [plain(r) for r in written]


def test_rollout_columns_are_readable_without_this_project(tmp_path):
    write_rollouts(tmp_path / "s.parquet", [example_rollout(0, 1.0), example_rollout(1, 0.0)])
    table = pq.read_table(tmp_path / "s.parquet", columns=["outcome", "task.category"])
    assert table["outcome"].to_pylist() == [1.0, 0.0]
    assert table["category"].to_pylist() == ["Pick2", "Pick2"]


def test_wide_token_arrays_are_refused(tmp_path):
    ids = np.zeros(2, np.int64)
    turn = Turn("act", ids, ids, np.zeros(2, np.float32), "", "", True)
    bad = dataclasses.replace(example_rollout(0), turns=(turn,))
    with pytest.raises(TypeError, match="prompt_ids is int64, must be int32"):
        write_rollouts(tmp_path / "s.parquet", [bad])
    assert not (tmp_path / "s.parquet").exists()


def test_missing_step_names_those_there(run):
    run.write_rollouts(3, [example_rollout(0)])
    assert run.rollout_steps() == [3]
    assert len(run.read_rollouts(3)) == 1
    with pytest.raises(RunError, match=r"no rollouts of step 4 \(it has steps 3..3\)"):
        run.read_rollouts(4)


# -------------------------------------------------------------------- creating and opening


def test_a_new_run_records_what_its_results_depend_on(run):
    manifest = run.manifest()
    assert (manifest["preset"], manifest["variant"], manifest["seed"]) == ("nano", "full", 0)
    assert manifest["data_hash"] == "abc"
    (session,) = manifest["sessions"]
    assert session["from_step"] == 0
    assert session["packages"]["trl"] and session["packages"]["torch"].startswith("2.13.0")
    assert session["git"] is None or len(session["git"]["commit"]) == 40
    assert RunDirectory.open(run.path).config == CONFIG


def test_an_existing_run_is_not_overwritten(run):
    run.log(1, {"r": 0.5})
    with pytest.raises(RunError, match="already holds a run.*--resume"):
        RunDirectory.create(run.path, CONFIG, "abc")
    assert len(run.metrics()) == 1


def test_a_foreign_directory_is_not_used(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"exists and is not empty \(thesis.tex\)"):
        RunDirectory.create(tmp_path, CONFIG, "abc")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_directory_with_only_notebooks_is_accepted(tmp_path):
    (tmp_path / "02_train.ipynb").write_text("{}")
    RunDirectory.create(tmp_path, CONFIG, "abc").close()
    assert (tmp_path / "config.json").exists()


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the run directory .*/file/run: Not a directory"):
        RunDirectory.create(tmp_path / "file" / "run", CONFIG, "abc")


def test_opening_a_missing_run_lists_the_others(run):
    with pytest.raises(RunError, match=r"there is no run at .*/b \(runs in .*results: a\)"):
        RunDirectory.open(run.path.parent / "b")
    with pytest.raises(RunError, match="there is no run at"):
        RunDirectory.resume(run.path.parent / "b", CONFIG, "abc")


def test_resuming_with_another_configuration_lists_the_fields(run):
    run.close()
    other = load_config("nano", overrides={"library.top_k": 3, "train.kl": 0.5, "train.steps": 7})
    with pytest.raises(RunError) as error:
        RunDirectory.resume(run.path, other, "abc")
    assert "library.top_k: the run has 5, now 3" in str(error.value)
    assert "train.kl: the run has 0.0, now 0.5" in str(error.value)
    assert "train.steps" not in str(error.value)  # may change
    with pytest.raises(RunError, match="train.steps: the run has 60, now 7"):
        run.check_config(load_config("nano", overrides={"train.steps": 7}))


def test_a_run_of_another_method_is_another_configuration(tmp_path):
    mine = load_config("nano", "skillrl")
    with closing(RunDirectory.create(tmp_path / "run", mine, "hash")) as run:
        for check in (run.check_config, run.check_resumable):
            check(load_config("nano", "skillrl"))
            with pytest.raises(RunError, match="method.top_k: the run has 2, now 4"):
                check(load_config("nano", "skillrl", {"method.top_k": 4}))
            with pytest.raises(RunError, match="method.name: the run has 'skillrl', now 'grpo'"):
                check(load_config("nano", "grpo"))


def test_a_resumed_run_may_change_how_far_it_goes_and_records_it(run):
    checkpoint(run, 4)
    run.close()
    longer = load_config("nano", overrides={"train.steps": 90, "train.save_every": 5})
    RunDirectory.resume(run.path, longer, "abc").close()
    assert RunDirectory.open(run.path).config == longer
    RunDirectory.resume(run.path, longer, "abc").close()
    first, second, third = run.manifest()["sessions"]
    assert first["changed"] == third["changed"] == {}
    assert second["changed"] == {"train.steps": [60, 90], "train.save_every": [15, 5]}
    with pytest.raises(RunError, match="has done 4 steps, more than train.steps=3"):
        RunDirectory.resume(run.path, load_config("nano", overrides={"train.steps": 3}), "abc")
    RunDirectory.resume(run.path, load_config("nano", overrides={"train.steps": 4}), "abc").close()


def test_resuming_on_other_data_is_an_error(run):
    run.close()
    with pytest.raises(RunError, match="hash abc, now xyz"):
        RunDirectory.resume(run.path, CONFIG, "xyz")


def test_two_writers_are_an_error(run):
    writer = (
        "import sys; from pathlib import Path\n"
        "from skill1.config import load_config; from skill1.store.run_directory import RunDirectory, RunError\n"
        "try: RunDirectory.resume(Path(sys.argv[1]), load_config('nano'), 'abc')\n"
        "except RunError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", writer, run.path], capture_output=True, text=True, check=True)
    assert "another process is writing" in result.stdout


# -------------------------------------------------------------------- metrics


def test_metrics_keep_numpy_scalars_and_nan(run):
    run.log(1, {"r": np.float32(0.5), "kl": float("nan"), "rows": np.int64(3)})
    run.log(2, {"r": 1.0, "extra": 2})
    frame = run.metrics()
    assert frame["step"].tolist() == [1, 2]
    assert frame["r"].tolist() == [0.5, 1.0]
    assert frame["kl"].isna().tolist() == [True, True]
    assert frame["rows"][0] == 3 and frame["extra"][1] == 2


def test_a_new_run_has_no_metrics(run):
    assert run.metrics().empty and run.metrics().columns.tolist() == ["step"]


def test_a_step_is_logged_once(run):
    run.log(5, {})
    with pytest.raises(RunError, match="step 5 logged after step 5"):
        run.log(5, {})


def test_a_torn_last_line_is_owed_on_resume_and_an_error_when_read(run):
    run.log(1, {"r": 0.5})
    checkpoint(run, 1)
    with run.metrics_file.open("a") as file:
        file.write('{"step": 2, "r"')
    with pytest.raises(RunError, match="torn.*--resume"):
        run.metrics()
    again = resumed(run)
    assert again.metrics()["step"].tolist() == [1]
    again.log(2, {"r": 1.0})
    assert again.metrics()["r"].tolist() == [0.5, 1.0]
    again.close()


def test_a_corrupt_line_in_the_middle_is_an_error_even_on_resume(run):
    run.metrics_file.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(RunError, match="line 2 of 3 is corrupt"):
        resumed(run)


# -------------------------------------------------------------------- resume


def test_resume_removes_what_lies_beyond_the_last_complete_checkpoint(run):
    for step in range(1, 7):
        run.log(step, {"r": step})
        run.write_rollouts(step, [example_rollout(step)])
        run.write_evaluation("validation", outcomes(step))
    checkpoint(run, 2)
    checkpoint(run, 4)
    run.checkpoint_dir(6).mkdir()  # killed while saving
    (run.rollouts_dir / "step_000007.partial").write_text("torn")

    again = resumed(run)
    assert again.latest_checkpoint().step == 4
    assert again.metrics()["step"].tolist() == [1, 2, 3, 4]
    assert again.rollout_steps() == [1, 2, 3, 4]
    assert sorted(again.evaluations("validation")["step"].unique()) == [1, 2, 3, 4]
    assert not again.checkpoint_dir(6).exists()
    assert not list(run.path.rglob("*.partial"))
    assert [s["from_step"] for s in again.manifest()["sessions"]] == [0, 4]
    with pytest.raises(RunError, match="step 4 logged after step 4"):
        again.log(4, {})
    again.log(5, {})
    again.close()


def test_resume_without_a_checkpoint_starts_over(run):
    run.log(1, {"r": 1.0})
    run.write_rollouts(1, [example_rollout(1)])
    again = resumed(run)
    assert again.latest_checkpoint() is None and again.metrics().empty and again.rollout_steps() == []
    again.close()


# -------------------------------------------------------------------- checkpoints


def test_only_marked_checkpoints_count(run):
    for step in (10, 2):
        checkpoint(run, step)
    run.checkpoint_dir(30).mkdir()
    assert [c.step for c in run.checkpoints()] == [2, 10]
    assert run.checkpoint(2).path == run.path / "checkpoint-2"
    with pytest.raises(RunError, match=r"no complete checkpoint-30 \(it has 2, 10\)"):
        run.checkpoint(30)


# -------------------------------------------------------------------- evaluations


def test_evaluations_are_stored_typed_and_replaced_by_a_second_write(run):
    run.write_evaluation("validation", outcomes(2, passes=1))
    run.write_evaluation("evaluation", outcomes(2, "valid_unseen"))
    run.write_evaluation("evaluation", outcomes(2))
    path = run.write_evaluation("evaluation", outcomes(2))
    assert path.name == "evaluation.valid_seen.step_000002.parquet"
    frame = run.evaluations("evaluation")
    assert frame.columns.tolist() == EVALUATION_SCHEMA.names
    assert frame["split"].value_counts().to_dict() == {"valid_seen": 4, "valid_unseen": 4}
    assert frame["won"].dtype == bool
    assert run.evaluations("other").empty and run.evaluations("eval").empty
    assert len(run.evaluations("*")) == 10


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: f.drop(columns="won"), "evaluation columns are"),
        (lambda f: pd.concat([f, f]), "each .game, pass. once"),
        (lambda f: f.assign(split=["a", "b", "a", "b"]), "exactly one split"),
        (lambda f: f.assign(won="yes"), "wrong type"),
    ],
)
def test_malformed_evaluations_are_refused(run, spoil, message):
    with pytest.raises(RunError, match=message):
        run.write_evaluation("evaluation", spoil(outcomes(2)))
    assert not list(run.evaluations_dir.iterdir())


def test_the_configuration_on_disk_is_plain_json(run):
    assert json.loads((run.path / "config.json").read_text())["library"]["top_k"] == CONFIG.library.top_k
