"""The stored notebooks are clean, and 00_tour, 01_train and 02_evaluate run strictly, on a tiny world, end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nano_runs import settings
from without_kernels import run_cells

from skill1.analysis.comparison import BEFORE, WITH_LIBRARY, WITHHELD
from skill1.errors import RunError
from skill1.running.batch import run_notebook
from skill1.running.evaluation import evaluate_arms, with_result_of
from skill1.running.launch import launch_training
from skill1.store.checkpoints import MARKER
from skill1.store.run_directory import RunDirectory

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
STORED = sorted(NOTEBOOKS.glob("*.ipynb"))
STEPS = 4


def shown(path: Path) -> str:
    """All text that an executed notebook shows."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    texts = [output.get("text", "") for output in outputs]
    texts += [text for output in outputs for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(texts)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_notebook_is_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    ids = [cell.id for cell in notebook.cells]
    assert ids == [f"{path.stem.replace('_', '-')}-{number:02d}" for number in range(len(ids))]
    assert all(f"**{word}.**" in notebook.cells[0].source for word in ("Question", "Inputs", "Outputs", "Time"))
    [parameters] = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    lines = parameters.source.splitlines()
    assert all(lines[i - 1].startswith("# ") for i, line in enumerate(lines) if "=" in line and line[0] != "#")


@pytest.mark.slow
def test_the_tour_shows_what_it_promises(tmp_path: Path) -> None:
    text = shown(run_notebook(NOTEBOOKS / "00_tour.ipynb", tmp_path / "00_tour.ipynb"))
    for hand_check in ("0.96", "1.2048", "0.9701", "0.7737", "0.7339", "0.8660254", "0.9545", "-1.4929", "0.8050"):
        assert hand_check in text, hand_check
    series = pd.Series(line.split() for line in text.splitlines() if line.startswith(("loss ", "-mean(a) ")))
    assert series[0][1] == series[1][1] != "0.0000"
    assert "admitted 1, merged 1, retired 0, now 5" in text
    assert "2 of 4 rollouts won; this one number gave 35 rows their credit" in text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, world: Path, nano: Path) -> dict[str, Any]:
    """Parameters of an executed 01_train; `out` is its run directory."""
    folder = tmp_path_factory.mktemp("notebooks")
    overrides = settings(world, nano) | {"train.steps": STEPS}
    data = overrides.pop("environment.data")
    parameters = {"out": str(folder / "run"), "seed": 3, "data": data, "overrides": overrides}
    run_notebook(NOTEBOOKS / "01_train.ipynb", folder / "01_train.ipynb", parameters)
    return parameters


def training(parameters: dict[str, Any]) -> dict[str, Any]:
    """The same run for `launch_training`."""
    fields = {"train.seed": parameters["seed"], "environment.data": parameters["data"], **parameters["overrides"]}
    return {"directory": Path(parameters["out"]), "overrides": fields}


@pytest.mark.slow
def test_train_writes_a_run_and_its_figures(trained: dict[str, Any]) -> None:
    run = RunDirectory.open(Path(trained["out"]))
    assert run.config.train.seed == 3 and run.config.environment.data == trained["data"]
    assert list(run.metrics()["step"]) == list(range(1, STEPS + 1))
    drawn = sorted(path.name for path in (run.path / "figures").iterdir())
    names = ("learning_curve", "library_growth", "utilities")
    assert drawn == [f"{name}.{kind}" for name in names for kind in ("pdf", "png")]
    text = shown(run.path.parent / "01_train.ipynb")
    assert f"{STEPS} of {STEPS} steps of 6 episodes are done" in text
    assert f"{run.path.name}: 100%" in text  # the end of the training log


@pytest.mark.slow
def test_training_is_left_alone_continued_or_refused(
    trained: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory.open(Path(trained["out"]))
    figures = {path: path.read_bytes() for path in (run.path / "figures").iterdir()}
    metrics, manifest = run.metrics(), run.manifest()
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if "figures" not in path.parts}
    run_cells(NOTEBOOKS / "01_train.ipynb", trained, dpi=300)
    after = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if "figures" not in path.parts}
    assert after == before  # finished: nothing was written
    assert f"{trained['out']} is finished: {STEPS} of {STEPS} steps are done" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in figures} == figures  # and redrawn byte by byte

    same = training(trained)
    with pytest.raises(RunError, match="library.top_k: the run has 5, now 3"):
        launch_training(same["directory"], overrides=same["overrides"] | {"library.top_k": 3})

    (run.checkpoint_dir(STEPS) / MARKER).unlink()  # as if stopped in the middle of writing it
    launch_training(**same)
    assert "100%" in capsys.readouterr().err
    assert [session["from_step"] for session in run.manifest()["sessions"]] == [0, 2]
    assert len(manifest["sessions"]) == 1
    deterministic = ["step", "reward", "return", "act/tokens", "query/tokens", "loss"]
    pd.testing.assert_frame_equal(run.metrics()[deterministic], metrics[deterministic])


@pytest.mark.slow
def test_evaluate_compares_and_reuses(trained: dict[str, Any]) -> None:
    path = Path(trained["out"])
    given = {"run": str(path), "passes": 2}
    run_cells(NOTEBOOKS / "02_evaluate.ipynb", given)
    summary = json.loads((path / "summary.json").read_text())
    assert list(summary["evaluations"]) == ["before", "after, with library", "after, library withheld"]
    for splits in summary["evaluations"].values():
        assert {split: (part["n"], part["games"], part["passes"]) for split, part in splits.items()} == {
            "valid_seen": (12, 6, 2),
            "valid_unseen": (12, 6, 2),
        }
    assert [(d["split"], d["against"]) for d in summary["differences"]] == [
        (split, against)
        for split in ("valid_seen", "valid_unseen")
        for against in ("after, library withheld", "before")
    ]
    names = {f"{name}.{kind}" for name in ("categories", "summary") for kind in ("pdf", "png")}
    assert names <= {drawn.name for drawn in (path / "figures").iterdir()}

    stored = {file: file.stat().st_mtime_ns for file in (path / "evaluations").iterdir()}
    frames = evaluate_arms(path, passes=2, progress=False)
    assert {file: file.stat().st_mtime_ns for file in (path / "evaluations").iterdir()} == stored
    assert set(frames["before"]["step"]) == {0} and set(frames["after, with library"]["step"]) == {STEPS}
    assert set(frames["after, library withheld"]["library"]) == {"none"}
    evaluate_arms(path, passes=3, splits=["valid_seen"], baseline=False, progress=False)  # one more: played
    changed = {file.name for file, time in stored.items() if file.stat().st_mtime_ns != time}
    assert changed == {f"evaluation_{label}.valid_seen.step_{STEPS:06d}.parquet" for label in (f"step{STEPS}", "none")}


def test_another_run_stands_beside_on_the_same_games() -> None:
    """Of committed runs without weights, whose stored outcomes stand for themselves."""
    full, plain = (NOTEBOOKS.parent / "results/reference/mini" / name for name in ("full-seed0", "no_library-seed0"))
    frames = evaluate_arms(full)
    assert list(frames) == [BEFORE, WITH_LIBRARY, WITHHELD]
    both = with_result_of(plain, frames)
    assert list(both) == [*frames, "after, no library (GRPO)"] and len(both["after, no library (GRPO)"]) == 140
    with pytest.raises(RunError, match="no_library-seed0 is the second run of its variant"):
        with_result_of(plain, both)
    with pytest.raises(RunError, match="no_library-seed0 played other games"):
        with_result_of(plain, {BEFORE: frames[BEFORE].head(-1)})
