"""What a notebook shows by default, and what `skill1 runs` lists."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from nano_runs import configure
from without_kernels import run_cells

from skill1.analysis.chosen import choose_run, choose_study, figures_folder
from skill1.cli.main import cli
from skill1.config import Config
from skill1.errors import RunError
from skill1.store.run_directory import RunDirectory

CHECKOUT = Path(__file__).resolve().parents[1]
REFERENCE = CHECKOUT / "results" / "reference"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    return Path("results")


@pytest.fixture
def committed(results: Path) -> Path:
    """The committed reference results, in this empty folder."""
    (results / "reference").symlink_to(REFERENCE)
    return results / "reference"


def run_at(path: Path, config: Config, started: str) -> Path:
    RunDirectory.create(path, config, data_hash="0").close()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sessions"][-1]["started"] = started
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def played(run: Path, won: list[bool]) -> None:
    """Two games each played once, in homes that training knows, by the last step with its library."""
    outcomes = pd.DataFrame({"game": [f"g{i}" for i in range(len(won))], "won": won, "score": [float(w) for w in won]})
    same = {"variant": "full", "seed": 0, "step": 2, "split": "valid_seen", "category": "Pick", "pass": 0, "steps": 5}
    counts = {"invalid_actions": 0, "inadmissible_actions": 0, "library": "step2"}
    RunDirectory.open(run).write_evaluation("evaluation_step2", outcomes.assign(**same, **counts))


def test_the_newest_run_that_has_what_is_needed_is_chosen_and_named(world, nano, results, capsys):
    config = configure(world, nano)
    old = run_at(results / "demo" / "seed0" / "run", config, "2026-01-01T00:00:00+00:00")
    new = run_at(results / "try", config, "2026-02-01T00:00:00+00:00")
    with pytest.raises(RunError, match="no run in results has outcomes: `skill1 demo --preset nano` makes one"):
        choose_run("", "", "outcomes")
    played(old, [True, False])
    assert choose_run("", "", "outcomes") == choose_run("", "alfworld", "outcomes") == old
    assert "run: results/demo/seed0/run (the newest; name another as `run`)" in capsys.readouterr().out
    played(new, [True, True])
    assert choose_run("", "", "outcomes") == new and figures_folder(new) == new / "figures"
    with pytest.raises(RunError, match="no run in results has outcomes: `skill1 demo --preset nano-webshop` makes one"):
        choose_run("", "webshop", "outcomes")


def test_without_results_of_ones_own_committed_ones_stand_in_and_are_not_written_to(committed, capsys):
    run, study, shop = choose_run("", "", "skills"), choose_study("", ""), choose_study("", "webshop")
    assert run == committed / "mini" / "full-seed0" and study.path == committed / "worlds"
    assert shop.path == committed / "nano-webshop"
    assert capsys.readouterr().out.count("a committed reference: results has none of your own") == 3
    assert figures_folder(run) == Path("results/notebooks/mini/full-seed0/figures")
    before = {file: file.stat().st_mtime_ns for file in REFERENCE.rglob("*")}
    text = run_cells(CHECKOUT / "notebooks" / "02_evaluate.ipynb", {})
    assert "was kept without its weights" in capsys.readouterr().out
    assert "after, library withheld" in text and "80.0" in text
    assert {file: file.stat().st_mtime_ns for file in REFERENCE.rglob("*")} == before


def test_a_study_of_ones_own_goes_before_committed_ones(committed, results):
    for number, name in enumerate(("first", "second", "broken")):
        shutil.copytree(REFERENCE / "nano-webshop", results / name)
        os.utime(results / name / "evaluations.parquet", (number, number))
    (results / "broken" / "manifest.json").write_text('{"format": 0}')  # of another version
    assert choose_study("", "").path == choose_study("", "webshop").path == results / "second"
    assert choose_study("", "alfworld").path == committed / "worlds"
    with pytest.raises(RunError, match="results/broken has format 0"):
        choose_study("results/broken", "")


def test_runs_are_listed_with_their_success(world, nano, results):
    config = configure(world, nano)
    assert "no run in results: `skill1 demo` makes one" in CliRunner().invoke(cli, ["runs"]).output
    run_at(results / "new", config, "2026-02-01T00:00:00+00:00")
    played(run_at(results / "old", config, "2026-01-01T00:00:00+00:00"), [True, True, False, False])
    header, new, old = CliRunner().invoke(cli, ["runs"]).output.splitlines()
    assert header.split() == "path preset variant seed steps split success % n".split()
    assert new.split()[:2] == ["results/new", "nano"] and "%" not in new
    assert old.split()[-3:] == ["4", "x", "1"] and "valid_seen 50.0 [" in old
    first, second = map(json.loads, CliRunner().invoke(cli, ["runs", "--json"]).output.splitlines())
    assert (first["path"], first["success"], first["steps"]) == ("results/new", None, 0)
    assert (second["path"], second["success"], second["games"], second["passes"]) == ("results/old", 0.5, 4, 1)


def test_an_error_in_a_notebook_is_its_message_alone():
    assert RunError("there is no run at x")._render_traceback_() == ["error: there is no run at x"]
