"""The strict notebook runner and bound child processes, with real papermill, kernels and kills."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from skill1.config import ConfigError
from skill1.errors import RunError
from skill1.running.batch import convert, find_notebook, run_notebook
from skill1.running.launch import LaunchError, launch_torchrun

PARAMETERS = "rate = 1e-3\nword = 'a'\nsteps = [1, 2]\nflag = True\nmaybe = None\ncount: int = 3"


def notebook(path: Path, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    first = [] if parameters is None else [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    nbformat.write(new_notebook(cells=[*first, *(new_code_cell(cell) for cell in cells)]), path)
    return path


def outputs(path: Path) -> str:
    """Everything that the cells printed."""
    return "".join(o.get("text", "") for c in nbformat.read(path, 4).cells for o in c.get("outputs", []))


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition, what: str, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail(f"waited {seconds:.0f} s for {what}")


# -------------------------------------------------------------------- typed parameters


@pytest.mark.parametrize(
    "text, default, value",
    [
        ("1e-6", 1e-3, 1e-6),
        ("3", 1e-3, 3.0),
        ("no", "a", "no"),
        ("3", "a", "3"),
        (" 7", 3, 7),
        ("false", True, False),
        ('["x", 1]', [], ["x", 1]),
        ('{"a": 1}', {}, {"a": 1}),
        ("results/x", None, "results/x"),
        ("no", None, "no"),
        ("1e-6", None, 1e-6),
        ("null", None, None),
        (4, 1e-3, 4.0),
        ([1], [2], [1]),
    ],
)
def test_values_take_the_type_of_the_default(text, default, value):
    converted = convert("p", text, default)
    assert converted == value and type(converted) is type(value)


@pytest.mark.parametrize(
    "value, default, message",
    [
        ("1e-6", 3, "'1e-6' must be a whole number, like its default 3"),
        ("fast", 1e-3, "must be a number"),
        ("no", True, "must be true or false"),
        ("1", False, "must be true or false"),
        ("a, b", ["a"], "must be a JSON list"),
        ('{"a": 1}', ["a"], "must be a JSON list"),
        (True, 3, "must be a whole number"),
        (1.5, 3, "must be a whole number"),
        (5, "a", "must be text"),
    ],
)
def test_values_of_another_type_are_refused(value, default, message):
    with pytest.raises(RunError, match=message):
        convert("p", value, default)


# -------------------------------------------------------------------- refusals before anything runs


def test_unknown_parameters_name_the_closest(tmp_path):
    source = notebook(tmp_path / "a.ipynb", "1/0")
    with pytest.raises(ConfigError, match="unknown parameter of a.ipynb 'stps'; did you mean 'steps'?"):
        run_notebook(source, tmp_path / "out.ipynb", {"stps": "[1]"})
    bare = notebook(tmp_path / "b.ipynb", "1", parameters=None)
    with pytest.raises(ConfigError, match="unknown parameter of b.ipynb 'steps'"):
        run_notebook(bare, tmp_path / "out.ipynb", {"steps": "[1]"})
    assert not (tmp_path / "out.ipynb").exists()


def test_misspelt_notebooks_name_the_closest(tmp_path):
    source = notebook(tmp_path / "02_train.ipynb")
    assert find_notebook("02_train", tmp_path) == find_notebook("02_train.ipynb", tmp_path) == source
    with pytest.raises(ConfigError, match="'02_trian'; did you mean '02_train'?"):
        find_notebook("02_trian", tmp_path)


@pytest.mark.parametrize(
    "cell", ["!false", "x = !ls", "for i in range(2):\n    !echo {i}", "%sx ls", "x = %system ls", "%%!\nls"]
)
def test_shell_commands_are_refused(tmp_path, cell):
    with pytest.raises(RunError, match="cell 2 runs a shell command"):
        run_notebook(notebook(tmp_path / "a.ipynb", cell), tmp_path / "out.ipynb")


@pytest.mark.parametrize("cell", ["x = 'wow!'", "a = 1\nb = a != 2", "# !ls"])
def test_exclamation_marks_are_no_shell_commands(tmp_path, cell):
    source = notebook(tmp_path / "a.ipynb", cell)
    with pytest.raises(ConfigError, match="unknown parameter"):  # the check before; nothing is run
        run_notebook(source, tmp_path / "out.ipynb", {"x": "1"})


@pytest.mark.parametrize("cell", ["a = 1 + x", "a, b = 1, 2", "print(1)", "a = (1, 2)", "a: int", "%time a = 1"])
def test_parameters_must_be_plain_assignments(tmp_path, cell):
    with pytest.raises(RunError, match="`parameters` cell"):
        run_notebook(notebook(tmp_path / "a.ipynb", parameters=cell), tmp_path / "out.ipynb")


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "a.ipynb").write_text("{torn")
    with pytest.raises(RunError, match="a.ipynb is not a notebook"):
        run_notebook(tmp_path / "a.ipynb", tmp_path / "out.ipynb")
    with pytest.raises(RunError, match="there is no notebook .*b.ipynb"):
        run_notebook(tmp_path / "b.ipynb", tmp_path / "out.ipynb")


def test_an_unwritable_output_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write .*/file: "):
        run_notebook(notebook(tmp_path / "a.ipynb"), tmp_path / "file" / "out.ipynb")


# -------------------------------------------------------------------- runs


@pytest.mark.slow
def test_a_run_is_strict_typed_shown_and_done_once(tmp_path, monkeypatch, capsys):
    # A kernel installed for the user that is not ours, as an old environment leaves behind.
    wrong = tmp_path / "jupyter" / "kernels" / "python3"
    wrong.mkdir(parents=True)
    (wrong / "kernel.json").write_text('{"argv": ["/nonexistent/python"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "launched.py").write_text("for i in range(10): print(f'\\repoch {i}', end='')\nprint('\\nended')\n")
    source = notebook(
        tmp_path / "a.ipynb",
        "import os, sys, time\nprint([rate, word, steps, flag, maybe, count], sys.executable, os.getcwd())",
        "for i in range(200):\n    sys.stdout.write(f'\\rstep {i}')\n    sys.stdout.flush()\n    time.sleep(0.002)",
        "from skill1.running.launch import launch_torchrun\nlaunch_torchrun([], module='launched')",
        "with open('count', 'a') as f: f.write('x')",
    )
    given = {"rate": "1e-6", "word": "no", "steps": "[3]", "flag": "false", "maybe": "x"}
    output = run_notebook(source, tmp_path / "results" / "run" / "a.ipynb", given, progress=True)

    assert "step 100\rstep 101" in (shown := capsys.readouterr().err) and "epoch 8\repoch 9\nended\n" in shown
    assert output == tmp_path / "results" / "run" / "a.ipynb"
    assert f"[1e-06, 'no', [3], False, 'x', 3] {sys.executable} {tmp_path}" in outputs(output)
    *_, bar, launched, _ = (cell.outputs for cell in nbformat.read(output, 4).cells)
    assert [o.text for o in bar] == ["step 199"] and [o.text for o in launched] == ["epoch 9\nended\n"]
    assert str(tmp_path) not in str(nbformat.read(output, 4).metadata)

    assert run_notebook(source, output, given) == output
    assert (tmp_path / "count").read_text() == "x"  # finished: not run again
    with pytest.raises(RunError, match=r"already run with rate = 1e-06, now 0.001.*--again"):
        run_notebook(source, output, {**given, "rate": "1e-3"})


def test_a_failed_cell_fails_the_run_and_is_run_again(tmp_path):
    source = notebook(tmp_path / "a.ipynb", "print('before')", "value = {}\nvalue['missing']", "print('after')")
    output = tmp_path / "out" / "a.ipynb"
    with pytest.raises(RunError) as failure:
        run_notebook(source, output)
    message = str(failure.value)
    assert "a.ipynb failed in cell [3]: KeyError: 'missing'" in message  # papermill counts executed cells from 1
    assert "value['missing']" in message and "\x1b" not in message and str(output) in message
    assert "before" in outputs(output) and "after" not in outputs(output)
    notebook(source, "print('mended')")
    run_notebook(source, output)
    assert "mended" in outputs(output)


def test_a_kernel_that_dies_is_an_error(tmp_path):
    source = notebook(tmp_path / "a.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RunError, match="the kernel of a.ipynb died"):
        run_notebook(source, tmp_path / "out.ipynb")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG exists on Linux only")
def test_nothing_outlives_a_killed_runner(tmp_path):
    (tmp_path / "sleeper.py").write_text(
        "import os, sys, time, pathlib\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    source = notebook(
        tmp_path / "a.ipynb",
        f"import os, pathlib\npathlib.Path({str(tmp_path / 'kernel')!r}).write_text(str(os.getpid()))\n"
        "from skill1.running.launch import launch_torchrun\n"
        f"there = {str(tmp_path)!r}\n"
        "launch_torchrun([there + '/child'], module='sleeper', environment={'PYTHONPATH': there})",
    )
    runner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from skill1.running.batch import run_notebook\n"
            "run_notebook(Path(sys.argv[1]), Path(sys.argv[2]))",
            source,
            tmp_path / "out.ipynb",
        ]
    )
    try:
        pids = [
            int(wait_until(lambda: (tmp_path / name).exists() and (tmp_path / name).read_text(), f"the {name}"))
            for name in ("kernel", "child")
        ]
        assert not any(gone(pid) for pid in pids)
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    for pid in pids:
        wait_until(lambda: gone(pid), "a process of the killed runner to end", seconds=10)


# -------------------------------------------------------------------- launching


@pytest.fixture
def module(tmp_path):
    """Make a module of the given source importable in launched processes; returns keyword arguments for the launch."""

    def make(source: str) -> dict:
        (tmp_path / "launched.py").write_text(source)
        path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
        return {"module": "launched", "environment": {"PYTHONPATH": path}}

    return make


def test_one_process_is_launched_without_torchrun(module, capsys):
    source = "import os, sys\nprint(sys.argv[1:], 'RANK' in os.environ)\nprint('é', file=sys.stderr)"
    launch_torchrun(["--set", "a=1"], **module(source))
    assert capsys.readouterr() == ("['--set', 'a=1'] False\n", "é\n")


def test_a_failing_process_raises_with_its_last_lines(module):
    code = "for i in range(100): print('line', i)\nraise SystemExit(7)"
    with pytest.raises(LaunchError, match=r"^launched x ended with status 7: line 99$"):
        launch_torchrun(["x", "y"], **module(code))
    with pytest.raises(LaunchError, match=r"^launched was killed by SIGKILL$"):
        launch_torchrun([], **module("import os; os.kill(os.getpid(), 9)"))


def test_an_interrupted_launch_takes_its_process_along(module, monkeypatch):
    pids: list[int] = []

    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            pids.append(int(text))
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        launch_torchrun([], **module("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)"))
    assert gone(pids[0])


# Every rank leaves its number of processes and its pid in a file; two that print at once may share a line.
MET = (
    "import os, signal, sys, time\nfrom pathlib import Path\n"
    "def there(rank): return Path(sys.argv[2], str(rank))\n"
    "rank = int(os.environ['RANK'])\n"
    "there(rank).with_suffix('.new').write_text(f'{os.environ[\"WORLD_SIZE\"]} {os.getpid()}')\n"
    "there(rank).with_suffix('.new').rename(there(rank))\n"
    "while not there(1 - rank).exists(): time.sleep(0.01)\n"
)


def processes(folder: Path) -> list[int]:
    """Pids of the two ranks of `MET`."""
    assert sorted(file.name for file in folder.iterdir()) == ["0", "1"]
    sizes, pids = zip(*(map(int, (folder / rank).read_text().split()) for rank in "01"), strict=True)
    assert sizes == (2, 2)
    return list(pids)


@pytest.mark.slow
def test_a_killed_rank_ends_all_of_them_and_is_named(module, tmp_path):
    (folder := tmp_path / "met").mkdir()
    source = f"{MET}if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(600)\n"
    with pytest.raises(LaunchError, match=r"^launched x ended with status 1: rank 1 was killed by SIGKILL$"):
        launch_torchrun(["x", str(folder)], nproc=2, **module(source))
    assert all(gone(pid) for pid in processes(folder))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG exists on Linux only")
def test_torchrun_workers_get_ranks_and_die_with_a_killed_torchrun(module, tmp_path):
    # Rank 0 kills torchrun: with an ordinary torchrun both workers, in sessions of their own, would sleep on.
    (folder := tmp_path / "met").mkdir()
    source = f"{MET}if rank == 0: os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)\n"
    with pytest.raises(LaunchError, match="was killed by SIGKILL"):
        launch_torchrun(["x", str(folder)], nproc=2, **module(source))
    for pid in processes(folder):
        wait_until(lambda pid=pid: gone(pid), "a worker of the killed torchrun to end", seconds=10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending, cause",
    [
        ("print('error: two tasks are too few', file=sys.stderr)\nsys.exit(2)", "ended with status 2: two tasks are too few"),
        ("os.kill(os.getpid(), 9)", "ended with status 1: rank 1 was killed by SIGKILL"),
    ],
)  # fmt: skip
def test_the_cause_of_a_failed_worker_comes_last_without_torchruns_report(module, ending, cause, capsys):
    source = f"import os, sys, time\nif os.environ['RANK'] == '0': time.sleep(600)\n{ending}"
    with pytest.raises(LaunchError, match=rf"^launched {cause}$"):
        launch_torchrun([], nproc=2, **module(source))
    assert "Traceback" not in "".join(capsys.readouterr())


def test_nproc_must_be_positive():
    with pytest.raises(ValueError, match="nproc = 0"):
        launch_torchrun([], nproc=0)


def test_a_launcher_without_its_parent_does_not_start(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "skill1.running.launch", "touch", str(tmp_path / "started")],
        env={**os.environ, "SKILL1_PARENT_PID": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "already gone" in done.stderr
    assert not (tmp_path / "started").exists()
