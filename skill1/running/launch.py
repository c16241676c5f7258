"""Child processes that cannot outlive us: one process or `torchrun`, from a notebook, the command line or a test.

A killed notebook runner must not leave a training run behind on the GPUs (papermill's does). Every link of the chain
runner -> kernel -> torchrun -> worker therefore starts as `python -m skill1.running.launch <command>`, which asks the Linux
kernel to be killed when its parent dies (PR_SET_PDEATHSIG survives exec) and then becomes the command. Elsewhere than
on Linux the command just runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skill1.distributed import TERMINATED, on_sigterm
from skill1.errors import UserError

_PARENT = "SKILL1_PARENT_PID"  # whom a launched process must still be a child of once it has asked
_PR_SET_PDEATHSIG = 1
_SHOWN_LINES = 60  # torchrun's own report of a failed worker takes about 25
_GRACE = 10.0  # seconds between asking an interrupted child to end and killing it
_SHUTDOWN = 3600  # seconds that torchrun waits after SIGTERM: for the step that runs, and its checkpoint


class LaunchError(UserError, RuntimeError):
    """A launched command failed. The message holds its last lines of output."""


def bound_command(command: Sequence[str]) -> list[str]:
    """`command`, made to die with the process that starts it; start it with `bound_environment()`."""
    return [sys.executable, "-m", "skill1.running.launch", *command]


def bound_environment() -> dict[str, str]:
    """Environment variables, to be added, by which a bound command knows its parent."""
    return {_PARENT: str(os.getpid())}


def launch_torchrun(
    arguments: Sequence[str],
    nproc: int = 1,
    on_line: Callable[[str], None] = print,
    module: str = "skill1",
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run `python -m <module> <arguments>`, on `nproc` > 1 processes of this machine under torchrun.

    (`notebook_launcher` forbids earlier CUDA use in the notebook; a fresh process does not.) SIGTERM is handed on, and
    ends this process (SystemExit, status 143) when the command has ended: training saves the running step first.

    Args:
        on_line: called with each line the processes print; in a notebook use `tail_display()`.
        environment: variables to add to this process's own.

    Raises:
        LaunchError: a process ended with a non-zero status.
        ValueError: nproc < 1.
    """
    if nproc < 1:
        raise ValueError(f"nproc = {nproc} must be at least 1")
    worker = ["-m", "skill1.running.launch", sys.executable, "-m", module, *arguments]
    if nproc == 1:
        command = [sys.executable, *worker]
    else:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
        torchrun.append(f"--shutdown-timeout={_SHUTDOWN}")
        command = bound_command([*torchrun, *worker])
    threads = str(max(1, (os.cpu_count() or 1) // nproc))
    _stream(command, {"OMP_NUM_THREADS": threads} | dict(os.environ) | dict(environment or {}), on_line)


def launch_training(
    directory: Path,
    *,
    preset: str = "nano",
    variant: str = "full",
    overrides: Mapping[str, Any] | None = None,
    nproc: int = 1,
    on_line: Callable[[str], None] = print,
) -> None:
    """`skill1 train` in processes of its own: starts the run, continues one that stopped or that is to take more steps,
    leaves a finished one alone.

    Args:
        directory: run directory.
        overrides: dotted field name -> value.

    Raises:
        ConfigError: a wrong name or value.
        RunError: the directory holds something else, or a run with another configuration.
        LaunchError: training failed.
    """
    # not at the top: every bound process starts by importing this module, and these take seconds
    from skill1.config import load_config
    from skill1.store.run_directory import RunDirectory

    config = load_config(preset, variant, overrides)
    exists = (directory / "config.json").exists()
    if exists:
        run = RunDirectory.open(directory)
        run.check_resumable(config)
        latest = run.latest_checkpoint()
        if latest is not None and latest.step == config.train.steps:
            on_line(f"{directory} is finished: {latest.step} of {config.train.steps} steps are done")
            return
    sets = [word for name, value in (overrides or {}).items() for word in ("--set", f"{name}={config_word(value)}")]
    words = ["train", "--out", str(directory), "--preset", preset, "--variant", variant, *sets]
    launch_torchrun([*words, *(["--resume"] if exists else [])], nproc, on_line)


def config_word(value: Any) -> str:
    """A configuration value as `--set` reads it."""
    return json.dumps(list(value)) if isinstance(value, list | tuple) else str(value)


def _stream(command: Sequence[str], environment: Mapping[str, str], on_line: Callable[[str], None]) -> None:
    """Run a bound command, handing on its lines (stdout and stderr together)."""
    last: deque[str] = deque(maxlen=_SHOWN_LINES)
    with subprocess.Popen(
        command,
        env={**environment, "PYTHONUNBUFFERED": "1", **bound_environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        asked: list[bool] = []

        def hand_on() -> None:
            asked.append(True)
            process.terminate()

        try:
            with on_sigterm(hand_on):
                for line in process.stdout:
                    last.append(line.rstrip("\n"))
                    on_line(last[-1])
                status = process.wait()
        except BaseException:  # an interrupted cell must not leave its training run behind
            process.terminate()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if status != 0 and asked:
        sys.exit(TERMINATED)
    if status != 0:
        ending = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise LaunchError(f"{' '.join(command[3:])} {ending}; its last lines:\n" + "\n".join(last))


@contextmanager
def tail_display(lines: int = 12, interval: float = 1.0) -> Iterator[Callable[[str], None]]:
    """An `on_line` for notebooks: one output that shows the last `lines`, refreshed every `interval` seconds.

    with tail_display() as on_line:
        launch_torchrun(arguments, on_line=on_line)
    """
    from IPython.display import display

    recent: deque[str] = deque(maxlen=lines)
    handle = display({"text/plain": ""}, raw=True, display_id=True)
    shown = time.monotonic()

    def on_line(line: str) -> None:
        nonlocal shown
        recent.append(line)
        if time.monotonic() - shown >= interval:
            refresh()
            shown = time.monotonic()

    def refresh() -> None:
        handle.update({"text/plain": "\n".join(recent)}, raw=True)

    try:
        yield on_line
    finally:
        refresh()


def _become(command: Sequence[str]) -> None:
    """Bind this process to its parent, then exec `command`. Does not return."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != int(os.environ.get(_PARENT, os.getppid())):
            sys.exit("the parent process is already gone")  # it died before we asked
    os.environ[_PARENT] = str(os.getpid())  # exec keeps the pid: bound grandchildren check against it
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    _become(sys.argv[1:])
