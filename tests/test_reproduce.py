"""The whole study in one call, on stand-ins for its runs: what is trained, and which notebook reads what."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_runs import OVERRIDES, execute, make_notebooks, make_study

import skill1.running.reproduce as reproduce_module
from skill1.config import ConfigError
from skill1.errors import RunError
from skill1.presets import variants
from skill1.running.batch import NotebookRun
from skill1.running.reproduce import STUDIED, reproduce
from skill1.running.sweep import Sweep

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for 01_train and 02_evaluate, and the other notebooks as they are."""
    folder = make_notebooks(tmp_path_factory.mktemp("reproduce") / "notebooks")
    for file in NOTEBOOKS.glob("0[3-8]*.ipynb"):
        shutil.copy2(file, folder)
    return folder


def sweep(folder: Path, world: Path, notebooks: Path, *variants: str) -> Sweep:
    return Sweep(
        folder=folder, variants=variants, seeds=(3,), data=world, overrides=OVERRIDES, passes=1, notebooks=notebooks
    )


def test_every_notebook_reads_the_runs_that_it_is_about(
    tmp_path: Path, world: Path, notebooks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def recorded(notebook: Path, output: Path, parameters: dict[str, Any], again: bool) -> Path:
        NotebookRun(notebook, output, parameters)  # which refuses what the notebook has no parameter for
        given[notebook.stem] = parameters
        return output

    monkeypatch.setattr(reproduce_module, "run_notebook", recorded)
    monkeypatch.setattr("skill1.running.sweep.execute", execute)
    said: list[str] = []
    (tmp_path / "study-bank.json").write_text("{}")  # not written again
    study = sweep(tmp_path / "study", world, notebooks, "full", "lambdas_0", "skillrl")
    assert not reproduce(study, [2], say=said.append)
    assert [Path(line).stem for line in said if line.endswith(".ipynb")] == list(given)
    runs = {v: str(tmp_path / "study" / v / "seed3" / "run") for v in study.variants}
    smaller = tmp_path / "study-capacity-2" / "full" / "seed3" / "run"
    assert given == {
        "03_ablations": {"study": str(study.folder)},
        "04_per_category": {"study": str(study.folder)},
        "05_library": {"run": runs["full"], "against": runs["lambdas_0"], "capacities": [str(smaller)],
                       "bank": runs["skillrl"], "out": f"{study.folder}/figures"},
        "06_paper": {"study": str(study.folder)},
        "07_trajectories": {"run": runs["full"], "others": str(study.folder), "out": f"{study.folder}/trajectories.html"},
        "08_credit": {"run": runs["full"], "out": str(study.folder)},
    }  # fmt: skip
    assert json.loads((smaller / "config.json").read_text())["library"]["capacity"] == 2
    assert json.loads((Path(runs["skillrl"]) / "config.json").read_text())["method"]["bank"].endswith("study-bank.json")
    assert json.loads((Path(runs["full"]) / "config.json").read_text())["library"]["capacity"] == 5000


def test_the_first_bank_is_written_once(tmp_path: Path, world: Path, notebooks: Path, monkeypatch) -> None:
    asked: list[list[str]] = []

    def launch(words: list[str]) -> None:
        asked.append(words)
        Path(words[words.index("--out") + 1]).write_text("{}")

    monkeypatch.setattr(reproduce_module, "launch_torchrun", launch)
    monkeypatch.setattr(reproduce_module, "run_sweep", lambda *given, **more: [])
    monkeypatch.setattr(reproduce_module, "_notebooks", lambda *given: [])
    study = sweep(tmp_path / "study", world, notebooks, "full", "skillrl")
    for _ in range(2):
        reproduce(study, say=[].append)
    [words] = asked
    assert words[:3] == ["bank", "--out", str(tmp_path / "study-bank.json")] and words[3:5] == ["--preset", "nano"]
    assert f"environment.data={world}" in words and all(f"{name}={value}" in words for name, value in OVERRIDES.items())
    asked.clear()
    given = replace(study, folder=tmp_path / "other", overrides={**OVERRIDES, "method.bank": "mine.json"})
    reproduce(given, dry_run=True, say=[].append)
    assert not asked and not (tmp_path / "other").exists()


def test_a_failed_run_that_a_notebook_reads_is_named(tmp_path: Path, world: Path, notebooks: Path, monkeypatch) -> None:
    monkeypatch.setattr(reproduce_module, "run_sweep", lambda *given, **more: [])
    make_study(tmp_path / "study", {"full": [3], "lambdas_0": [3]}, {"full": [3]})
    study = sweep(tmp_path / "study", world, notebooks, "full", "lambdas_0")
    with pytest.raises(RunError, match="lambdas_0/seed3 is not finished, but the notebooks read it"):
        reproduce(study, say=[].append)
    assert not (study.folder / "notebooks").exists()


def test_a_dry_run_changes_nothing(tmp_path: Path, world: Path, notebooks: Path) -> None:
    said: list[str] = []
    reproduce(sweep(tmp_path / "study", world, notebooks, "full"), [2, 3], dry_run=True, say=said.append)
    assert len(said) == 3 and not list(tmp_path.iterdir())


def test_wrong_studies_are_refused(tmp_path: Path, world: Path, notebooks: Path) -> None:
    with pytest.raises(ConfigError, match="needs the variant full"):
        reproduce(sweep(tmp_path / "study", world, notebooks, "no_library"))
    with pytest.raises(ConfigError, match="given twice"):
        reproduce(sweep(tmp_path / "study", world, notebooks, "full"), [2, 2])
    with pytest.raises(ConfigError, match="library.capacity"):
        reproduce(sweep(tmp_path / "study", world, notebooks, "full"), [0])
    assert set(STUDIED) < set(variants()) and "grpo" not in STUDIED
