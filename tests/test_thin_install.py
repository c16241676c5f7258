"""The environments, their generators and Gymnasium's adapter need the packages of `skill1[envs]` alone: no torch."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ONLY = """
import sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{top!r}}", name=top)

sys.meta_path.insert(0, NotInstalled())
"""


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def installed_with_envs() -> set[str]:
    """The distributions that `pip install 'skill1[envs]'` brings, as far as they are installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, left = {"skill1"}, [*project["dependencies"], *project["optional-dependencies"]["envs"]]
    while left:
        name = name_of(left.pop())
        if name not in found and any(True for _ in importlib.metadata.distributions(name=name)):
            found.add(name)
            left += [needed for needed in importlib.metadata.requires(name) or () if "extra ==" not in needed]
    return found


@pytest.fixture(scope="module")
def hidden() -> set[str]:
    """Modules of all other distributions."""
    brought = installed_with_envs()
    return {
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if not {name_of(distribution) for distribution in distributions} & brought
    }


@pytest.fixture
def thin(hidden: set[str], tmp_path: Path):
    """Run code in an empty folder with the other distributions hidden; returns what it wrote, errors last."""

    def run(code: str, status: int = 0) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        start = [sys.executable, "-c", ONLY.format(hidden=hidden) + code]
        done = subprocess.run(start, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    return run


def command(*words: str) -> str:
    return f"from skill1.cli.main import main; main({list(words)})"


def test_what_is_hidden_is_what_training_needs(hidden):
    assert {"torch", "transformers", "trl", "pandas", "openai"} <= hidden
    assert not hidden & {"skill1", "numpy", "scipy", "pydantic", "click", "jinja2", "rapidfuzz", "regex", "gymnasium"}


def test_a_shop_is_generated_and_played(thin, tmp_path):
    report = json.loads(thin(command("generate", "webshop", "--out", "shop", "--products", "40")))
    assert report["out"] == "shop" and report["counts"]["synthetic"] > 0
    played = thin(
        "from skill1.envs.adapters.shared import SharedEnvironment\n"
        "from skill1.envs.adapters.gymnasium import TextEnv\n"
        "env = TextEnv(SharedEnvironment('webshop', data='shop', max_steps=2, held_out_goals=5), 'train')\n"
        "env.reset(seed=0); env.step('search[lamp]'); print(env.step('nowhere')[1:4])\n"
        "import skill1.envs.adapters.trl"
    )
    assert played == "(0.0, False, True)\n"


def test_what_is_missing_for_other_commands_is_said_in_one_line(thin):
    said = thin(command("generate", "alfworld", "--out", "games"), status=2)
    assert said.count("\n") == 1 and "`pip install --no-deps alfworld==0.4.2`" in said
    said = thin(command("train", "--preset", "nano", "--name", "x"), status=2)
    wanted = r"error: this command needs \w+, which is not installed: install skill1 with its extra 'train' .*\n"
    assert re.fullmatch(wanted, said)
