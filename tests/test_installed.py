"""A wheel, built from the source distribution and unpacked far from the checkout, has all that the commands need."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from skill1.store.resources import ResourceError, enter_project, find_model, resource

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = [line.split()[1] for line in (ROOT / "MANIFEST.in").read_text().splitlines() if line.startswith("graft ")]
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "skill1", "skill1_envs.py", *SHIPPED)
IGNORED = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")


def files(folder: Path) -> set[str]:
    found = (str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return {name for name in found if "__pycache__" not in name and ".ipynb_checkpoints" not in name}


def build(hook: str, source: Path, into: Path) -> Path:
    """Call a hook of setuptools' build backend in a process of its own; returns the archive."""
    code = f"from setuptools.build_meta import {hook}; import sys; print({hook}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, into], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return into / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the unpacked wheel, as site-packages would."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / "source" / name, **({"ignore": IGNORED} if copy is shutil.copytree else {}))
    with tarfile.open(build("build_sdist", folder / "source", folder)) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("skill1-*/")
    with zipfile.ZipFile(build("build_wheel", unpacked, folder)) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def elsewhere(installed: Path, tmp_path: Path):
    """Run Python there, in an empty folder, on the unpacked wheel alone; returns its output."""

    def run(*words: str, status: int = 0, **more: str) -> str:
        inherited = {name: value for name, value in os.environ.items() if name != "ALFWORLD_DATA"}  # set by alfworld
        environment = {**inherited, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", **more}
        start = [sys.executable, *words]
        done = subprocess.run(start, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_the_wheel_has_the_whole_package_and_what_is_shipped_beside_it(installed: Path):
    assert (installed / "skill1_envs.py").is_file()  # by which verifiers finds the environments
    resources = installed / "skill1" / "resources"
    assert {name for name in files(installed / "skill1") if not name.startswith("resources/")} == files(ROOT / "skill1")
    assert files(resources) == {f"{name}/{file}" for name in SHIPPED for file in files(ROOT / name)}


@pytest.mark.slow
def test_commands_of_an_installed_package_run_from_any_folder(elsewhere, installed: Path, tmp_path: Path, world: Path):
    assert elsewhere("-c", "import skill1; print(skill1.__file__)").strip() == str(installed / "skill1" / "__init__.py")
    assert "'02_trian'; did you mean '01_train'?" in elsewhere("-m", "skill1", "notebook", "02_trian", status=2)
    (tmp_path / "mine.ipynb").write_text((ROOT / "notebooks" / "01_train.ipynb").read_text())
    assert "unknown parameter of mine.ipynb 'sed'" in elsewhere(
        "-m", "skill1", "notebook", "mine.ipynb", "-p", "sed=1", status=2
    )
    checked = elsewhere(
        *("-m", "skill1", "train", "--preset", "nano", "--name", "x", "--dry-run"),
        *("--set", f"environment.data={world}", "--set", "rollout.tasks_per_step=1"),
    )
    assert "fits" in checked.lower()
    published = elsewhere(
        "-c", "from skill1.analysis.published import published; print(published('table1').table.unique())"
    )
    assert "'table1'" in published
    assert not (tmp_path / "results").exists() and not (tmp_path / "data").exists()


@pytest.mark.slow
def test_the_demo_and_its_notebooks_run_whole_from_an_installed_package(elsewhere, world: Path, tmp_path: Path):
    """Papermill, training, evaluation, figures, `summary.json`; and again, when nothing is left to do."""
    tiny = {
        "train.steps": 2, "train.validate_every": 0, "rollout.tasks_per_step": 2, "environment.max_steps": 4,
        "library.encoder": "hash",
    }  # fmt: skip
    call = f"demo(4, nproc=1, overrides={tiny}, passes=2)"
    say = f"from skill1.running.demo import demo\n{call}\nprint('again')\n{call}"
    said, again = elsewhere("-c", say, ALFWORLD_DATA=str(world)).split("again\n")

    place = tmp_path / "results" / "demo"
    summary, run = json.loads((place / "summary.json").read_text()), "results/demo/seed4-alfworld_data/run"
    begun, *_, done, seen, unseen, costs, figures = said.partition("\nnext, ")[0].splitlines()
    assert begun == "[0/1] full seed 4: started" and done.startswith("[1/1] full seed 4: done, ")
    before, after, without = (
        "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * x for x in (rates["success"], *rates["interval"])))
        for rates in (summary["before"]["library"], summary["after"]["library"], summary["after"]["no_library"])
    )
    assert seen.startswith(f"seen homes, 6 games x 2: success {before} -> {after}, ")
    assert seen.endswith(f"library withheld {without}") and unseen.startswith("unseen homes, 6 games x 2: ")
    assert re.fullmatch(r"train \d+ s, evaluate \d+ s", costs)
    assert "results/demo/figures" in figures and f"skill1 notebook 05_library -p run={run}" in said

    assert summary["seed"] == 4 and summary["data"] == "$ALFWORLD_DATA" and summary["steps"] == 2
    for moment in ("before", "after"):
        for library in ("library", "no_library"):
            entry = summary[moment][library]
            assert entry["n"] == 12 and entry["games"] == 6
            assert 0 <= entry["interval"][0] <= entry["success"] <= entry["interval"][1] <= 1
            assert sum(part["n"] for part in entry["categories"].values()) == 12
    assert summary["before"]["library"] == summary["before"]["no_library"]
    assert set(summary["valid_unseen"]) == {"before", "after"}
    assert set(summary["seconds"]) == {"train", "evaluate"} and summary["peak_memory_mb"] > 100
    for name in ("01_train.ipynb", "02_evaluate.ipynb", "figures/summary.png", "figures/learning_curve.pdf"):
        assert (place / name).is_file()
    logs = ("log.txt", "01_train.ipynb", "02_evaluate.ipynb")
    executed = "".join((tmp_path / run).with_name(name).read_text() for name in logs)
    assert not any(noise in said + executed for noise in ("Loading weights", "FutureWarning", 'interval\\"'))

    assert again.splitlines()[0].startswith("finished, see results/demo/seed4-alfworld_data")
    assert again.splitlines()[1:4] == [seen, unseen, costs]  # the costs are those of the first time


@pytest.mark.slow
def test_an_installed_packages_wheel_is_the_one_that_it_was_installed_from(elsewhere, installed: Path, tmp_path: Path):
    code = "from pathlib import Path; from skill1.running.wheels import project_wheel as w; print(w(Path.cwd()).name)"
    made = elsewhere("-c", code).strip()
    (original,) = installed.parent.glob(f"**/{made}")
    (record,) = (name for name in zipfile.ZipFile(original).namelist() if name.endswith("/RECORD"))
    contents = []
    for file in (original, tmp_path / made):
        with zipfile.ZipFile(file) as wheel:
            contents.append({name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/")})
            contents[-1][record] = set(contents[-1][record].split())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_checkouts_own_folders_are_found(name: str):
    assert resource(name) == ROOT / name


def test_a_folder_that_is_not_shipped_is_named():
    with pytest.raises(ResourceError, match=r"^data/paper2 is not at .*: install skill1 again"):
        resource("data/paper2")


def test_a_shipped_policy_gives_way_to_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("data/nano-policy") == str(ROOT / "data" / "nano-policy")
    (tmp_path / "data" / "nano-policy").mkdir(parents=True)
    assert find_model("data/nano-policy") == "data/nano-policy"
    assert find_model("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"


def test_notebooks_of_a_checkout_stand_beside_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT / "notebooks")
    enter_project()
    assert Path.cwd() == ROOT
    monkeypatch.chdir(tmp_path)
    enter_project()
    assert Path.cwd() == tmp_path
