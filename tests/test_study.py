"""The tables of a study: what they hold, that equal runs give equal bytes, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stand_ins import GAMES, STEPS
from study_runs import make_study

from skill1.analysis.study import EVALUATIONS, load
from skill1.errors import RunError
from skill1.running.collect import collect, copy_collected
from skill1.running.reproduce import STUDIED

FILES = ("evaluations.parquet", "metrics.parquet", "skills.parquet", "manifest.json")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """full with seeds 0 and 1, no_library with seed 0 of the seeds 0 and 1 asked for."""
    asked = {"no_library": [0, 1], "full": [0, 1]}
    folder = make_study(tmp_path_factory.mktemp("study") / "tiny", asked, {"full": [1, 0], "no_library": [0]})
    assert collect(folder) == [folder / name for name in FILES]
    return folder


@pytest.fixture
def tables(collected: Path, tmp_path: Path) -> Path:
    """The three files alone, as they are committed."""
    folder = tmp_path / "reference"
    assert set(copy_collected(collected, folder)) == {folder / name for name in FILES}
    return folder


def test_evaluations_hold_every_arm_of_every_run(collected: Path) -> None:
    found = pq.read_table(collected / "evaluations.parquet")
    assert found.schema.equals(EVALUATIONS, check_metadata=True)
    assert found.column_names == (
        "variant seed step split game category pass won score steps invalid_actions library".split()
    )
    frame = found.to_pandas()
    arms = frame.groupby(["variant", "seed", "step", "library"]).size()
    both = 2 * len(GAMES)  # passes x games
    assert arms.to_dict() == {
        **{
            ("full", seed, step, library): both
            for seed in (0, 1)
            for step, library in ((0, "step0"), (STEPS, "none"), (STEPS, f"step{STEPS}"))
        },
        **{("no_library", 0, step, "none"): both for step in (0, STEPS)},
    }
    one = frame[(frame["variant"] == "full") & (frame["seed"] == 1) & (frame["library"] == "none")]
    assert one["game"].tolist() == [game for game in GAMES for _ in range(2)] and one["pass"].tolist() == [0, 1] * 6


def test_metrics_hold_every_step_and_every_name(collected: Path) -> None:
    metrics = load(collected).metrics
    assert metrics.columns.tolist() == ["variant", "seed", "step", "library/size", "loss", "reward"]
    assert list(zip(metrics["variant"], metrics["seed"], metrics["step"], strict=True)) == [
        (variant, seed, step)
        for variant, seed in (("full", 0), ("full", 1), ("no_library", 0))
        for step in range(1, STEPS + 1)
    ]
    assert metrics["reward"].tolist() == [0.1, 0.2, 0.3, 0.4, 0.2, 0.3, 0.4, 0.5, 0.1, 0.2, 0.3, 0.4]
    assert metrics["library/size"].isna().tolist() == [False] * 8 + [True] * 4 and metrics["loss"].isna().all()


def test_the_manifest_says_what_is_missing_and_what_each_run_cost(collected: Path) -> None:
    study = load(collected)
    assert (study.name, study.variants, study.seeds("full"), study.seeds("no_library")) == (
        "tiny", ["full", "no_library"], [0, 1], [0],
    )  # fmt: skip
    assert study.missing == {"no_library": [1]}
    manifest = study.manifest
    assert manifest["preset"] == "nano" and manifest["passes"] == 2
    assert [run["seconds"]["train"] for run in manifest["runs"]] == [60.0, 61.0, 60.0]
    assert [run["steps"] for run in manifest["runs"]] == [STEPS] * 3
    assert len({run["config_hash"] for run in manifest["runs"]}) == 3
    [machine] = manifest["machines"]  # one session after the other on one machine
    assert machine["packages"]["papermill"] and "git" in machine
    assert [run["sessions"] for run in manifest["runs"]] == [[{"from_step": 0, "machine": 0}]] * 3
    assert str(collected) not in (collected / "manifest.json").read_text()


def test_equal_runs_give_equal_bytes(collected: Path) -> None:
    before = {name: (collected / name).read_bytes() for name in FILES}
    collect(collected)
    assert {name: (collected / name).read_bytes() for name in FILES} == before


def test_tables_load_without_the_runs(collected: Path, tables: Path) -> None:
    here, there = load(collected), load(tables)
    assert here.evaluations.equals(there.evaluations) and here.metrics.equals(there.metrics)
    assert here.manifest == there.manifest


def test_figures_are_copied_with_the_tables_and_runs_are_not(tables: Path, tmp_path: Path) -> None:
    for name in ("figures/a.png", "full/seed0/run/config.json"):
        (tables / name).parent.mkdir(parents=True, exist_ok=True)
        (tables / name).write_text(name)
    into = tmp_path / "kept" / "study"
    copies = copy_collected(tables, into)
    assert [p for p in sorted(into.rglob("*")) if p.is_file()] == sorted(copies)
    assert {p.name for p in copies} == {*FILES, "a.png"} and (into / "figures/a.png").read_text() == "figures/a.png"
    with pytest.raises(RunError, match="is the study itself"):
        copy_collected(tables, tables)


@pytest.mark.parametrize("cut", [0, 10, 500])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(tables: Path, name: str, cut: int) -> None:
    (tables / name).write_bytes((tables / name).read_bytes()[:cut])
    with pytest.raises(RunError, match=rf"{name} is (corrupt|damaged) .*skill1 collect .*restore the file"):
        load(tables)


def test_a_flipped_page_is_corrupt(tables: Path) -> None:
    data = bytearray((tables / "evaluations.parquet").read_bytes())
    data[8:200] = bytes(192)
    (tables / "evaluations.parquet").write_bytes(data)
    with pytest.raises(RunError, match="evaluations.parquet is corrupt"):
        load(tables)


def test_missing_columns_files_rows_and_other_formats_are_named(tables: Path) -> None:
    file = tables / "evaluations.parquet"
    whole = pq.read_table(file)
    pq.write_table(whole.drop_columns(["won", "library"]), file)
    with pytest.raises(RunError, match="evaluations.parquet lacks the columns won, library"):
        load(tables)
    pq.write_table(whole.set_column(7, "won", pa.array(["yes"] * len(whole))), file)
    with pytest.raises(RunError, match="lacks the columns won, or they have other types"):
        load(tables)
    pq.write_table(whole.slice(0, 0), file)
    with pytest.raises(RunError, match="evaluations.parquet is empty"):
        load(tables)
    file.unlink()
    with pytest.raises(RunError, match="evaluations.parquet is missing"):
        load(tables)
    (tables / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(RunError, match="has format 99, this version of skill1 reads 1"):
        load(tables)


def test_folders_that_are_no_study_are_named(tables: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no study at .*/refrence \(studies in .*: reference\)"):
        load(tmp_path / "refrence")
    with pytest.raises(RunError, match="holds no study .sweep.json is missing."):
        collect(tables)
    empty = make_study(tmp_path / "empty", {"full": [0]}, {})
    with pytest.raises(RunError, match="not collected yet: run `skill1 collect"):
        load(empty)
    with pytest.raises(RunError, match="the study .*/empty is empty: none of its runs is finished"):
        collect(empty)
    (empty / "sweep.json").write_text("{")
    with pytest.raises(RunError, match="sweep.json is damaged"):
        collect(empty)


def test_torn_runs_are_left_out(tmp_path: Path) -> None:
    study = make_study(tmp_path / "torn", {"full": [0, 1]}, {"full": [0, 1]})
    (study / "full" / "seed1" / "02_evaluate.ipynb").write_text('{"cells": [')
    collect(study)
    assert load(study).missing == {"full": [1]} and set(load(study).evaluations["seed"]) == {0}


def test_a_run_of_another_version_is_named(tmp_path: Path) -> None:
    study = make_study(tmp_path / "old", {"full": [0]}, {"full": [0]})
    file = study / "full" / "seed0" / "run" / "config.json"
    config = json.loads(file.read_text())
    config["library"]["colour"] = "red"
    file.write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"seed0/run was made by another version of skill1.*library.colour = 'red'"):
        collect(study)


def test_a_finished_run_without_outcomes_is_named(tmp_path: Path) -> None:
    study = make_study(tmp_path / "gone", {"full": [0]}, {"full": [0]})
    shutil.rmtree(study / "full" / "seed0" / "run" / "evaluations")
    with pytest.raises(RunError, match="seed0/run is finished but has no evaluations"):
        collect(study)


_METHODS = ("full", "no_library", "skillrl", "retroagent_in_context", "retroagent_rl")
_ABLATIONS = tuple(name for name in STUDIED if not name.startswith(("skillrl", "retroagent")))


@pytest.mark.parametrize(
    "name, variants, steps, games",
    [
        ("nano", STUDIED, 45, {"valid_seen": 120, "valid_unseen": 72}),
        ("nano-first-policy", _ABLATIONS, 45, {"valid_seen": 120, "valid_unseen": 72}),
        ("nano-webshop", ("full", "no_library"), 180, {"test": 120}),
        ("nano-baselines-webshop", _METHODS, 45, {"test": 120}),
    ],
)
def test_the_committed_studies_are_whole(
    name: str, variants: tuple[str, ...], steps: int, games: dict[str, int]
) -> None:
    study = load(Path(__file__).parents[1] / "results" / "reference" / name)
    assert study.missing == {} and {v: study.seeds(v) for v in study.variants} == {v: [0, 1, 2] for v in variants}
    trained = study.evaluations[study.evaluations["step"] == steps]
    own = trained.groupby(["variant", "seed", "library", "split"]).size()
    assert {split: set(own.loc[:, :, :, split]) for split in games} == {split: {4 * n} for split, n in games.items()}
    logged = study.metrics.groupby(["variant", "seed"])["step"].agg(list)
    assert len(logged) == 3 * len(variants) and all(found == list(range(1, steps + 1)) for found in logged)
