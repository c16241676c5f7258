"""A real Slurm on this machine, from Debian's packages, to try `--on slurm` without a cluster.

    apt-get install --no-install-recommends slurm-wlm munge      # need not run as services
    python benchmarks/slurm.py up /tmp/slurm                     # prints what your shell needs: export SLURM_CONF=...
    python benchmarks/slurm.py down /tmp/slurm

Keys, sockets, configuration, logs and spool are in the folder, the ports are free ones, and `down` ends the processes that
`up` started and removes the folder: an installed Slurm is not touched. Two nodes, n0 and n1, are two daemons on this
machine, with a core each. The partition `urgent` preempts `main`, whose jobs are given GRACE seconds after SIGTERM.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
GRACE = 120  # seconds
_PROCESSES = "processes.json"  # pid -> when it was started, of what `up` started; a folder that has it is ours
_LIMIT = 60.0  # seconds for anything to happen

_CONFIGURATION = """\
ClusterName=skill1
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=2,sched_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=main Nodes=n[0-1] Default=YES PriorityTier=1 GraceTime={grace} MaxTime=60
PartitionName=urgent Nodes=n[0-1] PriorityTier=2 PreemptMode=OFF MaxTime=60
"""


def missing() -> list[str]:
    """Return the programs of Slurm and munge that are not installed."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    return [program for program in PROGRAMS if shutil.which(program, path=places) is None]


def up(folder: Path) -> dict[str, str]:
    """Start Slurm in a new folder; returns the variables by which its commands find it. Exits if it does not come up."""
    if absent := missing():
        sys.exit(f"{', '.join(absent)} not found: apt-get install --no-install-recommends slurm-wlm munge")
    folder = folder.resolve()
    folder.mkdir(parents=True, mode=0o755)  # not one that is there
    (folder / _PROCESSES).write_text("{}")
    configuration = folder / "slurm.conf"
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    text = _CONFIGURATION.format(folder=folder, host=host, user=user, ports=_free_ports(3), grace=GRACE)
    configuration.write_text(text)
    for name in ("state", "spool-n0", "spool-n1"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(1024))
    found = {"SLURM_CONF": str(configuration)}
    files = {
        "socket": "munge.socket",
        "key-file": key.name,
        "pid-file": "munged.pid",
        "log-file": "munged.log",
        "seed-file": "munged.seed",
    }
    munged = ["munged", "--foreground", *(f"--{option}={folder / name}" for option, name in files.items())]
    daemons = [munged, ["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in ("n0", "n1"))]
    processes: dict[int, float] = {}
    try:
        for words in daemons:
            process = _start(words, folder, found)
            processes[process.pid] = psutil.Process(process.pid).create_time()
            (folder / _PROCESSES).write_text(json.dumps(processes))
            if words is munged:
                _wait(lambda: (folder / "munge.socket").exists(), "munged")
        _wait(lambda: _idle(found) == 2, f"two idle nodes (see {folder}/*.log)")
    except BaseException:
        down(folder)
        raise
    return found


def down(folder: Path) -> None:
    """Cancel all jobs, end what `up` started there, remove the folder."""
    folder = folder.resolve()
    if not (folder / _PROCESSES).exists():
        sys.exit(f"{folder} holds no Slurm of this script")
    variables = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run(["scancel", "--me", "--full"], env=variables, capture_output=True)
    deadline = time.monotonic() + _LIMIT
    while time.monotonic() < deadline and _output(["squeue", "--noheader"], variables):
        time.sleep(0.5)
    found = []
    for pid, started in json.loads((folder / _PROCESSES).read_text()).items():
        if psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).create_time() == started:
            found.append(psutil.Process(int(pid)))
    for process in reversed(found):
        process.terminate()
    for process in psutil.wait_procs(found, timeout=20)[1]:
        process.kill()
    shutil.rmtree(folder)


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Run a Slurm while inside; gives the variables by which its commands find it."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as place:
        os.chmod(place, 0o755)  # munge wants to be reached
        folder = Path(place) / "cluster"
        variables = up(folder)
        try:
            yield variables
        finally:
            down(folder)


def _start(words: list[str], folder: Path, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    environment = os.environ | variables | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    with (folder / f"{words[0]}.out").open("ab") as output:
        return subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _idle(variables: dict[str, str]) -> int:
    return (
        _output(["sinfo", "--noheader", "--Node", "--partition=main", "--format=%T"], variables).split().count("idle")
    )


def _output(words: list[str], variables: dict[str, str]) -> str:
    return subprocess.run(words, env=os.environ | variables, capture_output=True, text=True).stdout


def _wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _LIMIT
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited {_LIMIT:.0f} s for {what}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down"):
        commands.add_parser(name).add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.command == "down":
        down(given.folder)
    else:
        for name, value in up(given.folder).items():
            print(f"export {name}={value}")


if __name__ == "__main__":
    main()
