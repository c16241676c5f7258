"""Child processes that cannot outlive us: one process or torchrun's, from a notebook, the command line or a test.

A killed notebook runner must not leave a training run behind on the GPUs (papermill's does). Every link of the chain
runner -> kernel -> torchrun -> worker therefore starts as `python -m skill1.running.launch <command>`, which asks the
Linux kernel to be killed when its parent dies (PR_SET_PDEATHSIG survives exec) and then becomes the command. Elsewhere
than on Linux the command just runs.
"""

from __future__ import annotations

import codecs
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from skill1.distributed import TERMINATED, on_sigterm
from skill1.errors import UserError

_PARENT = "SKILL1_PARENT_PID"  # whom a launched process must still be a child of once it has asked
_PR_SET_PDEATHSIG = 1
_TORCHRUN = "torchrun"  # as the command: torchrun, in the process that asked
_KEPT = 20_000  # characters of output that are searched for the cause of a failure
_SHOWN = 240  # characters of that cause
_GRACE = 10.0  # seconds between asking an interrupted child to end and killing it
_SHUTDOWN = 3600  # seconds that torchrun waits after SIGTERM: for the step that runs, and its checkpoint
_AN_ERROR = re.compile(r"\berror: |Error\b|Exception\b|was killed by")


class LaunchError(UserError, RuntimeError):
    """A launched command failed. The message holds the last line of its output that reports an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The machines of a torchrun, and which of them this is."""

    count: int
    rank: int  # 0 .. count - 1; the first one's processes have the first ranks
    address: str  # of the first
    port: int

    def words(self) -> list[str]:
        """Return torchrun's options."""
        first = [f"--master-addr={self.address}", f"--master-port={self.port}"]
        return [f"--nnodes={self.count}", f"--node-rank={self.rank}", *first]


def bound_command(command: Sequence[str]) -> list[str]:
    """Make `command` die with the process that starts it; start it with `bound_environment()`."""
    return [sys.executable, "-m", "skill1.running.launch", *command]


def bound_environment() -> dict[str, str]:
    """Return the environment variables, to be added, by which a bound command knows its parent."""
    return {_PARENT: str(os.getpid())}


def launch_torchrun(
    arguments: Sequence[str],
    nproc: int = 1,
    module: str = "skill1",
    environment: Mapping[str, str] | None = None,
    hosts: Hosts | None = None,
) -> None:
    """Run `python -m <module> <arguments>`, on `nproc` > 1 processes of this machine, or of each of several, under torchrun.

    (`notebook_launcher` forbids earlier CUDA use in the notebook; a fresh process does not.) SIGTERM is passed on, and
    ends this process (SystemExit, status 143) when the command has ended: training saves the running step first.

    Args:
        environment: variables to add to this process's own.
        hosts: that take part, each of which calls this [default: this machine alone].

    Raises:
        LaunchError: a process ended with a non-zero status.
        ValueError: nproc < 1.
    """
    if nproc < 1:
        raise ValueError(f"nproc = {nproc} must be at least 1")
    worker = ["-m", "skill1.running.launch", sys.executable, "-m", module, *arguments]
    where = ["--standalone"] if hosts is None else hosts.words()
    many = [_TORCHRUN, *where, f"--nproc-per-node={nproc}", f"--shutdown-timeout={_SHUTDOWN}"]
    command = [sys.executable, *worker] if nproc == 1 and hosts is None else bound_command([*many, *worker])
    threads = str(max(1, (os.cpu_count() or 1) // nproc))
    variables = {"OMP_NUM_THREADS": threads} | dict(os.environ) | dict(environment or {})
    _stream(command, variables, " ".join([module, *arguments[:1]]))


def launch_training(
    directory: Path,
    *,
    preset: str = "nano",
    variant: str = "full",
    overrides: Mapping[str, Any] | None = None,
    nproc: int = 1,
) -> None:
    """Run `skill1 train` in processes of its own: start a run, or continue one that stopped or is to take more steps.

    A finished one is left alone.

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
            print(f"{directory} is finished: {latest.step} of {config.train.steps} steps are done")
            return
    words = ["train", "--out", str(directory), "--preset", preset, "--variant", variant, *set_words(overrides or {})]
    launch_torchrun([*words, *(["--resume"] if exists else [])], nproc)


def set_words(overrides: Mapping[str, Any]) -> list[str]:
    """Write configuration values as `--set` options."""
    texts = {name: json.dumps(v) if isinstance(v, list | tuple) else str(v) for name, v in overrides.items()}
    return [word for name, text in texts.items() for word in ("--set", f"{name}={text}")]


def last_error(output: str) -> str:
    """Find the last line of a command's output that reports an error, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["it printed nothing"]
    line = next((line for line in reversed(lines) if _AN_ERROR.search(line)), lines[-1]).removeprefix("error: ")
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN // 2]} … {line[-_SHOWN // 2 :]}"


def killed_by(status: int) -> str:
    """Say what ended a process whose status is negative."""
    return f"was killed by {signal.Signals(-status).name}"


def _stream(command: Sequence[str], environment: Mapping[str, str], name: str) -> None:
    """Run a bound command, passing on what it prints."""
    said = {"stdout": "", "stderr": ""}
    asked: list[bool] = []

    def hand_on(source: IO[bytes], stream: str) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while chunk := source.read(65536):  # as soon as there is something: a progress bar moves
            text = decoder.decode(chunk)
            said[stream] = (said[stream] + text)[-_KEPT:]
            print(text, end="", file=getattr(sys, stream), flush=True)

    with subprocess.Popen(
        command,
        env={**environment, "PYTHONUNBUFFERED": "1", **bound_environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdout is not None and process.stderr is not None

        def end() -> None:
            asked.append(True)
            process.terminate()

        try:
            errors = threading.Thread(target=hand_on, args=(process.stderr, "stderr"), daemon=True)
            errors.start()
            with on_sigterm(end):
                hand_on(process.stdout, "stdout")
                status = process.wait()
            errors.join()
        except BaseException:  # an interrupted cell must not leave its training run behind
            process.terminate()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if status != 0 and asked:
        sys.exit(TERMINATED)
    if status < 0:
        raise LaunchError(f"{name} {killed_by(status)}")
    if status > 0:
        raise LaunchError(f"{name} ended with status {status}: {last_error(said['stdout'] + said['stderr'])}")


def _become(command: Sequence[str]) -> None:
    """Bind this process to its parent, then exec `command`, or run torchrun in it. Does not return."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != int(os.environ.get(_PARENT, os.getppid())):
            sys.exit("the parent process is already gone")  # it died before we asked
    os.environ[_PARENT] = str(os.getpid())  # exec keeps the pid: bound grandchildren check against it
    if command[0] == _TORCHRUN:
        _torchrun(command[1:])
    os.execvp(command[0], list(command))


def _torchrun(arguments: Sequence[str]) -> None:
    """Run torchrun, and end as the worker that failed first did, which has said why: without torchrun's own report."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    try:
        main(list(arguments))
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        sys.exit(f"rank {rank} {killed_by(failure.exitcode)}" if failure.exitcode < 0 else failure.exitcode)
    except SignalException as ended:
        sys.exit(128 + ended.sigval)
    sys.exit()


if __name__ == "__main__":
    _become(sys.argv[1:])
