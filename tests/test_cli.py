"""The command line in real processes and, for what needs no process, in this one."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_notebook

from skill1.cli import main as command_line
from skill1.cli.main import cli
from skill1.config import load_config
from skill1.envs.make import environment_spec
from skill1.registry import find
from skill1.store.run_directory import RunDirectory


@pytest.fixture
def skill1(tmp_path, monkeypatch, capsys):
    """Run a command line in an empty folder; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            command_line.main(words)
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def test_help_lists_the_commands_without_loading_torch():
    script = (
        "import sys; from skill1.cli.main import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.rstrip().endswith("False")
    shown = (
        "demo generate warmstart import train plan evaluate export runs compare skills bundle completion sweep reproduce collect probe "
        "notebook"
    )
    for command in shown.split():
        assert f"\n  {command} " in done.stdout


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """All commands without subcommands, by what is typed before their options."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join(["skill1", *path, name]), command


def test_every_command_shows_examples_of_itself_that_it_accepts():
    shown = dict(commands(cli))
    generators = {name for name in shown if name.startswith("skill1 generate ")}  # their options say it all
    for start, command in shown.items():
        lines = (command.epilog or "").splitlines()[2:]
        assert lines or start in generators, start
        for line in lines:
            words = shlex.split(line.replace("$ALFWORLD_DATA", "data/alfworld"))
            at = words.index("skill1") if line.strip().startswith("skill1") else None
            if at is not None and "|" not in words:
                assert line.strip().startswith(start)
                command.make_context(start, words[len(start.split()) :])


def test_the_tab_key_completes_commands_and_options():
    for shell in ("bash", "zsh", "fish"):
        assert f"_SKILL1_COMPLETE={shell}_complete" in CliRunner().invoke(cli, ["completion", shell]).output
    asked = {"_SKILL1_COMPLETE": "bash_complete", "COMP_WORDS": "skill1 train --dry", "COMP_CWORD": "2"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("skill1"))], env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert done.stdout == "plain,--dry-run\n"


def test_the_module_and_the_installed_command_are_the_same():
    command = Path(sys.executable).with_name("skill1")
    for start in ([sys.executable, "-m", "skill1"], [str(command)]):
        done = subprocess.run([*start, "trian"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (2, "error: No such command 'trian'. Did you mean 'train'?\n")


@pytest.mark.parametrize(
    "words, message",
    [
        ("train --nmae x", "No such option '--nmae'. (Did you mean one of: '--name'"),
        ("generate alfword", "No such command 'alfword'. Did you mean 'alfworld'?"),
        ("train --name x --preset nanoo", "unknown preset 'nanoo'; did you mean 'nano'?"),
        ("train --name x --variant no_librari", "unknown variant 'no_librari'; did you mean 'no_library'?"),
        ("train --name x --set library.topk=3", "field 'library.topk'; did you mean 'library.top_k'?"),
        ("train --name x --set train.steps=many", "train.steps = 'many'"),
        ("train --name x --set train.steps", "'train.steps' must look like name=value"),
        ("train --name x --set train.steps=1 --set train.steps=2", "train.steps is given twice"),
        ("train --name x --set evaluation.splits=[a", "not a JSON list"),
        ("train --name a/b", "--name a/b must be a plain name; use --out"),
        ("train --name=", "--name '' must be a plain name; use --out"),
        ("train", "give the run either as --name NAME (results/NAME) or as --out DIR"),
        ("train --name x --out y", "give the run either as --name NAME"),
        ("evaluate --name nope", "there is no run at results/nope (runs in results: none)"),
        ("sweep --name x --variants full,no_librari --seeds 0", "did you mean 'no_library'?"),
        ("sweep --name x --variants full --seeds 0,b", "'0,b' must be whole numbers like 0,1,2"),
        ("sweep --name x --variants , --seeds 0", "an empty sweep: name at least one variant and one seed"),
        ("sweep --name a/b --variants full --seeds 0", "--name a/b must be a plain name"),
        ("collect nowhere", "nowhere holds no study (sweep.json is missing)"),
        ("notebook 02_trian", "'02_trian'; did you mean '01_train'?"),
        ("generate alfworld --out games --habit 3", "habit=3.0: must be a probability"),
    ],
)
def test_user_errors_are_one_line_and_status_2(skill1, words, message):
    status, out, err = skill1(*words.split())
    assert status == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert not list(Path.cwd().iterdir())  # nothing was made on the way


def test_defects_keep_their_traceback(skill1, monkeypatch):
    monkeypatch.setattr("skill1.running.collect.collect", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["collect", "x"])


def test_games_are_generated_once(skill1):
    words = "generate alfworld --out games --seed 3 --train 2 --valid-seen 1 --valid-unseen 1".split()
    for _ in range(2):
        status, out, _ = skill1(*words)
        games = {split: sum(types.values()) for split, types in json.loads(out)["counts"].items()}
        assert status == 0 and games == {"train": 2, "valid_seen": 1, "valid_unseen": 1}
    assert len(list(Path("games").rglob("game.tw-pddl"))) == 4
    status, _, err = skill1(*words, "--homes", "3")
    assert status == 2 and "holds another generation" in err


@pytest.mark.parametrize("name", ["alfworld", "webshop"])
def test_generators_show_their_parameters(skill1, name):
    status, out, _ = skill1("generate", name, "--help")
    generator = find("generators", environment_spec(name).generator)
    assert status == 0 and generator.about in out
    for field in fields(generator.parameters):
        option = f"--{field.name.replace('_', '-')}"
        assert re.search(rf"{option} \w+ .*\[default:\s+{field.default}\]", out, re.DOTALL)


def test_a_missing_run_is_an_error_that_lists_the_runs_there(skill1):
    RunDirectory.create(Path("results/x"), load_config("nano"), "hash").close()
    status, _, err = skill1("evaluate", "--name", "y")
    assert status == 2 and "there is no run at results/y (runs in results: x)" in err


@pytest.mark.parametrize(
    "given",
    [
        "train --name x --variant no_library --set train.steps=3 --set environment.max_steps=2 --resume",
        "evaluate --name x --split valid_seen --split valid_unseen --library step:3 --reuse",
        "evaluate --out y --model z --passes 2 --set library.top_k=2 --batch 7",
    ],
)
@pytest.mark.parametrize("nproc", [("--nproc", "2"), ("--nproc=2",)])
def test_several_processes_are_given_every_other_word(skill1, monkeypatch, given, nproc):
    launched = []
    monkeypatch.setattr("skill1.running.launch.launch_torchrun", lambda words, nproc: launched.append((words, nproc)))
    status, _, _ = skill1(*given.split(), *nproc)
    assert status == 0
    # torchrun would take --nproc for an option of its own
    assert launched == [(given.split(), 2)]


def test_an_endpoint_is_not_asked_by_several_processes(skill1):
    status, _, err = skill1(*"evaluate --out y --model z --endpoint http://localhost --nproc 2".split())
    assert status == 2 and "--nproc is for a policy that is loaded here" in err


def test_notebooks_run_from_the_command_line(skill1):
    first = new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
    second = new_code_cell("print('seed', 1 / (seed - 1))")
    nbformat.write(new_notebook(cells=[first, second]), "mine.ipynb")
    status, out, _ = skill1("notebook", "mine.ipynb", "-p", "seed=3", "--name", "mine")
    assert status == 0 and Path(out.strip()) == Path("results/mine/mine.ipynb").resolve()
    assert "seed 0.5" in Path(out.strip()).read_text()

    for seed, shown in ((3, 0.5), (5, 0.25)):  # without a name an earlier output is replaced
        status, out, _ = skill1("notebook", "mine.ipynb", "-p", f"seed={seed}")
        assert status == 0 and f"seed {shown}" in Path("results/notebooks/mine.ipynb").read_text()

    status, _, err = skill1("notebook", "mine.ipynb", "-p", "sed=3")
    assert status == 2 and "unknown parameter of mine.ipynb 'sed'; did you mean 'seed'?" in err
    status, _, err = skill1("notebook", "mine.ipynb", "-p", "seed=1")
    assert status == 2 and err.startswith("error: mine.ipynb failed in cell [") and "ZeroDivisionError" in err
