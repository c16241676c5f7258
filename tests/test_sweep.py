"""Sweeps: real processes, kernels and kills on stand-in notebooks. A real one is in test_examples.py."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from study_runs import OVERRIDES, make_notebooks, make_study, steps_done

from skill1.analysis.study import SWEEP, load
from skill1.config import ConfigError
from skill1.envs.base import DataError
from skill1.errors import RunError
from skill1.running.collect import read_seconds
from skill1.running.local import Share
from skill1.running.sweep import Sweep, data_of, merged, plan, plan_table, run_sweep, settings_of
from skill1.store.run_directory import lock_folder

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_notebooks(tmp_path_factory.mktemp("stand-ins") / "notebooks")


@pytest.fixture
def sweep(tmp_path: Path, world: Path, notebooks: Path) -> Sweep:
    return Sweep(
        folder=tmp_path / "study", variants=("full", "no_library"), seeds=(0, 1), data=world, overrides=OVERRIDES,
        passes=2, nproc=1, jobs=1, notebooks=notebooks,
    )  # fmt: skip


def wait_until(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)


def killed(start: list[str], condition: Callable[[], object]) -> None:
    """Start a process, SIGKILL it once the condition holds, and see all its descendants end."""
    with subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: condition() or process.poll() is not None, "the moment to kill")
        assert process.poll() is None, "it ended before it could be killed"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2  # a job and its kernel
        process.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


# -- a sweep from kill to table ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_sweep_resumes_and_repeats_nothing(sweep: Sweep, tmp_path: Path) -> None:
    homes = [sweep.folder / variant / f"seed{seed}" for seed in sweep.seeds for variant in sweep.variants]
    for place in homes:
        place.mkdir(parents=True)
    jobs = min(2, Share.of_this_machine().cores)
    running, rest, last = homes[:jobs], homes[jobs:], homes[-1]
    for place in running:
        (place / "pause3").touch()
    (sweep.folder / "sweep.json").write_text(
        json.dumps({"settings": settings_of(sweep, data_of(sweep, generate=False)), "runs": {}})
    )
    script = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom pathlib import Path\nfrom skill1.running.sweep import *\n"
        f"run_sweep(Sweep(folder=Path({str(sweep.folder)!r}), variants={sweep.variants}, seeds={sweep.seeds}, "
        f"data=Path({str(sweep.data)!r}), overrides={OVERRIDES}, passes=2, jobs={jobs}, "
        f"notebooks=Path({str(sweep.notebooks)!r})))"
    )
    # kill -9 while all jobs are in their third step, which shows too that they run at the same time, and once their
    # cost so far is stored
    killed(
        [sys.executable, "-c", script],
        lambda: all(steps_done(place) == [1, 2, 3] and read_seconds(place) for place in running),
    )
    for place in running:
        (place / "pause3").unlink()

    said: list[str] = []
    assert run_sweep(sweep, dry_run=True, say=said.append) == []
    lines = said[0].splitlines()[1:]
    assert ["stopped at step 3 of 4" in line for line in lines] == [True] * jobs + [False] * (len(rest) + 1)
    assert lines[-1] == "4 runs, 0 done; 1 at a time: unknown until a run is done"
    torn_cost = read_seconds(running[0])["train"]

    (last / "run" / "rollouts").mkdir(parents=True)  # killed while the directory was being made
    (last / "fail").touch()
    said.clear()
    [failure] = run_sweep(replace(sweep, jobs=jobs), say=said.append)
    assert failure.label == "no_library seed 1" and failure.error == "ValueError: step 1 met a fail file"
    assert "fail file" in failure.log.read_text() and failure.log.parent == last
    assert [steps_done(place) for place in running] == [[1, 2, 3, 3, 4]] * jobs  # from the checkpoint of step 2
    assert read_seconds(running[0])["train"] > torn_cost > 0  # the cost of both attempts
    assert load(sweep.folder).missing == {"no_library": [1]}
    states = [line.partition(": ")[2].partition(",")[0] for line in said if "] full seed 1: " in line]
    assert states[0] == "started" and states[-1] == "done" and states.count("done") == 1

    (last / "fail").unlink()
    before = {file: file.stat().st_mtime_ns for place in homes[:-1] for file in place.rglob("*") if file.is_file()}
    said.clear()
    assert run_sweep(sweep, say=said.append) == []
    assert {file: file.stat().st_mtime_ns for file in before} == before  # finished: untouched
    assert all("no_library seed 1" in line for line in said if line[0] == "[")
    assert "3 done; 1 at a time: about " in said[0]
    study = load(sweep.folder)
    assert study.missing == {} and len(study.manifest["runs"]) == 4
    assert [steps_done(place) for place in rest] == [[1, 2, 3, 4]] * len(rest)

    tables = {file: file.read_bytes() for file in sweep.folder.glob("*.*")}
    said.clear()
    assert run_sweep(replace(sweep, nproc=jobs), say=said.append) == []  # all is done: no process is started
    assert {file: file.read_bytes() for file in tables} == tables and not [line for line in said if line[0] == "["]
    _refusals_of_a_finished_study(sweep, tmp_path)


def _refusals_of_a_finished_study(sweep: Sweep, tmp_path: Path) -> None:
    """What must not be mixed into the study that is there."""
    other = tmp_path / "other world"
    shutil.copytree(sweep.data, other)
    for change, message in (
        ({"passes": 3}, "passes: it has 2, now 3"),
        ({"overrides": {**OVERRIDES, "train.steps": "5"}}, "overrides: it has .*'train.steps': 4}, now .*: 5}"),
        ({"splits": ("valid_seen",)}, "splits: it has"),
        ({"data": other}, "data: it has .*now .*other world"),
    ):
        with pytest.raises(RunError, match=f"was made with other settings .{message}.*choose another --name"):
            run_sweep(replace(sweep, **change))
    assert run_sweep(replace(sweep, overrides={k: str(v) for k, v in OVERRIDES.items()}), dry_run=True) == []
    game = next((sweep.data / "json_2.1.1" / "valid_seen").glob("*/*/game.tw-pddl"))
    content = game.read_bytes()
    game.write_bytes(content + b"\n")
    try:
        with pytest.raises(RunError, match="data_hash: it has .*valid_seen"):
            run_sweep(sweep)
    finally:
        game.write_bytes(content)
    lock = lock_folder(sweep.folder)
    with pytest.raises(RunError, match="another process is writing .*study"):
        run_sweep(sweep)
    lock.close()

    changed = tmp_path / "changed"
    shutil.copytree(sweep.notebooks, changed)
    second = changed / "02_evaluate.ipynb"
    second.write_text(second.read_text().replace("sys.path", "sys . path"))
    with pytest.raises(RunError, match="02_evaluate.ipynb was already run with another version of the notebook"):
        run_sweep(replace(sweep, notebooks=changed))
    config = sweep.folder / "full" / "seed0" / "run" / "config.json"
    tree = json.loads(config.read_text())
    config.write_text(json.dumps(tree | {"library": tree["library"] | {"top_k": 2}}))
    with pytest.raises(RunError, match="another configuration .library.top_k: the run has 2, now 5"):
        run_sweep(sweep)
    config.write_text(json.dumps(tree | {"colour": "red"}))
    with pytest.raises(RunError, match="made by another version of skill1"):
        run_sweep(sweep, dry_run=True)


# -- refusals before anything is read or written ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ({"variants": ()}, "an empty sweep: name at least one variant and one seed"),
        ({"seeds": ()}, "an empty sweep"),
        ({"variants": ("full", "no_librari")}, "unknown variant 'no_librari'; did you mean 'no_library'?"),
        ({"preset": "nanoo"}, "unknown preset 'nanoo'; did you mean 'nano'?"),
        ({"overrides": {"library.topk": 3}}, "'library.topk'; did you mean 'library.top_k'?"),
        ({"overrides": {"train.steps": "many"}}, "train.steps = 'many'"),
        ({"seeds": (1, 0, 1)}, "seed 1 is given twice"),
        ({"variants": ("full", "full")}, "variant full is given twice"),
        ({"seeds": (-1,)}, "train.seed = -1"),
        ({"overrides": {"train.seed": 1}}, "train.seed is set by the sweep: use --seeds"),
        ({"overrides": {"environment.data": "x"}}, "environment.data is set by the sweep: use --data"),
        ({"overrides": {"method.name": "gigpo"}}, "method.name is what the variant no_library switches"),
        ({"world_seed": 1}, "a world seed is for generated games, not for a games folder"),
        ({"nproc": 0}, "nproc = 0 and jobs = 1 must be at least 1"),
        ({"preset": "paper", "data": None}, "the preset paper needs a games folder: give --data"),
    ],
)
def test_wrong_words_are_refused_at_once(sweep: Sweep, change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(sweep, **change)


def test_missing_data_and_foreign_folders_are_refused(sweep: Sweep) -> None:
    with pytest.raises(DataError, match="there is no folder .*nowhere"):
        run_sweep(replace(sweep, data=sweep.folder / "nowhere"))
    with pytest.raises(DataError, match="has no split 'valid_sen' .it has: train, valid_seen, valid_unseen"):
        run_sweep(replace(sweep, splits=("valid_sen",)))
    assert not sweep.folder.exists()
    sweep.folder.mkdir()
    (sweep.folder / "letters").touch()
    with pytest.raises(RunError, match="study holds no study but letters: choose another --name"):
        run_sweep(sweep)


def test_a_dry_run_changes_nothing(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    run_sweep(replace(sweep, data=None, seeds=(7,)), dry_run=True, say=said.append)
    assert said[0].endswith("2 runs, 0 done; 1 at a time: unknown until a run is done")
    assert not list(tmp_path.iterdir())


def test_a_world_for_every_seed(sweep: Sweep, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        shutil.copytree(world, tmp_path / f"world {seed}")
    own = replace(sweep, data=tmp_path / "world {seed}", overrides={**OVERRIDES, "library.start": "{seed}.jsonl"})
    settings = settings_of(own, data_of(own, generate=False))
    assert settings["data"] == "world {seed}" and {name.partition(" ")[2][:1] for name in settings["data_hash"]} == set(
        "01"
    )
    runs = [run for run in plan(own, settings)["experiment"] if run.variant == "full"]
    assert [(run.seed, run.data) for run in runs] == [(0, "world 0"), (1, "world 1")]
    assert [run.overrides["library.start"] for run in runs] == ["0.jsonl", "1.jsonl"]
    assert [run.baseline for run in plan(own, settings)["experiment"]] == [True, False] * 2  # full's serves for all
    own.folder.mkdir()
    first = merged(own, settings)
    (own.folder / SWEEP).write_text(json.dumps(first))
    shutil.copytree(world, tmp_path / "world 2")
    more = replace(own, seeds=(1, 2))
    both = merged(more, settings_of(more, data_of(more, generate=False)))
    assert len(both["settings"]["data_hash"]) == 3 * len(first["settings"]["data_hash"]) / 2
    game = next((tmp_path / "world 1" / "json_2.1.1" / "valid_seen").glob("*/*/game.tw-pddl"))
    game.write_bytes(game.read_bytes() + b"\n")
    with pytest.raises(RunError, match="data_hash: it has .*world 1 valid_seen"):
        merged(more, settings_of(more, data_of(more, generate=False)))


def test_generated_worlds_are_those_of_the_seeds_or_one(sweep: Sweep) -> None:
    assert data_of(replace(sweep, data=None), generate=False) == "data/nano-world-{seed}"
    assert data_of(replace(sweep, data=None, preset="nano-webshop"), generate=False) == "data/nano-shop-{seed}"
    assert data_of(replace(sweep, data=None, world_seed=0), generate=False) == "data/nano-world-0"


# -- estimates --------------------------------------------------------------------------------------------------------


def test_estimates_are_medians_of_measured_runs(tmp_path: Path, world: Path) -> None:
    done = {"full": [0, 1, 2], "no_selection": [5]}  # 60 + seed and 30 seconds each
    folder = make_study(tmp_path / "study", done, done)
    sweep = Sweep(folder=folder, variants=("full", "no_library"), seeds=(3,), data=world, overrides=OVERRIDES)
    planned = plan(sweep, settings_of(sweep, str(world)))
    full = (61.0 + 30.0) / 60  # medians of its variant
    no_library = (61.5 + 30.0) / 60  # of all runs
    assert planned["minutes"].tolist() == pytest.approx([full, no_library])
    assert "2 runs, 0 done; 1 at a time: about 3.0 minutes" in plan_table(planned, 1)
    assert "2 at a time: about 1.5 minutes" in plan_table(planned, 2)


# -- cores and GPUs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "jobs, nproc, cores, devices, slots",
    [
        (2, 1, 2, (), [{"OMP_NUM_THREADS": "1"}] * 2),
        (2, 2, 8, (), [{"OMP_NUM_THREADS": "2"}] * 2),
        (1, 3, 8, (), [{"OMP_NUM_THREADS": "2"}]),
        (2, 1, 16, ("4", "6"), [{"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": d} for d in "46"]),
        (1, 2, 16, ("0", "1"), [{"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": "0,1"}]),
        (4, 1, 4, ("0", "1"), [{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": d} for d in "0101"]),
        (2, 2, 8, ("0", "1", "2"), [{"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": d} for d in ("0,1", "2,0")]),
    ],
)
def test_every_job_gets_its_share(jobs, nproc, cores, devices, slots) -> None:
    share = Share(jobs, nproc, cores, devices)
    assert [share.environment(slot) for slot in range(jobs)] == slots


@pytest.mark.parametrize(
    "visible, count, nproc, cores, jobs, devices",
    [
        (None, 0, 1, 6, 6, ()),
        (None, 0, 4, 6, 1, ()),
        (None, 0, 8, 6, 1, ()),
        (None, 4, 1, 16, 4, ("0", "1", "2", "3")),
        (None, 4, 4, 16, 1, ("0", "1", "2", "3")),
        (None, 4, 1, 2, 2, ("0", "1", "2", "3")),
        ("3,5", 2, 1, 16, 2, ("3", "5")),
    ],
)
def test_jobs_default_to_the_machine(monkeypatch, visible, count, nproc, cores, jobs, devices) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    share = Share.of_this_machine(nproc)
    assert (share.jobs, share.devices, share.cores) == (jobs, devices, cores)


def test_too_many_jobs_or_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match="jobs = 3 with nproc = 2 is more than 4 cores can run: use at most 2"):
        Share(3, 2, 4, ())
    with pytest.raises(ConfigError, match="nproc = 4 needs as many GPUs, there are 2"):
        Share(1, 4, 16, ("0", "1"))
