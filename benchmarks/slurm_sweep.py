"""Six runs on this machine against the same six on a real Slurm, one killed and one preempted: the same, bit for bit?

Run on one thread: OMP_NUM_THREADS=1 python benchmarks/slurm_sweep.py     (needs what benchmarks/slurm.py needs)
Two variants with three seeds, two runs at a time. On Slurm a run is killed (SIGKILL to its job) and reported; then
another is preempted by a job of a more urgent partition, saves its step and is requeued; then the submitting command is
killed and repeated, which submits the failed run again and follows the others. Weights, optimiser, metrics, rollouts,
libraries and the tables of the study are compared, but for what measures time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from slurm import cluster

sys.path[0] = str(Path(__file__).resolve().parents[1] / "tests")  # for this script's folder: it has an alfworld.py

from nano_runs import make_world, settings  # noqa: E402
from run_record import record  # noqa: E402

from skill1.store.resources import resource  # noqa: E402

STEPS = 8
TABLES = ("evaluations.parquet", "metrics.parquet", "skills.parquet")
SWEEP = ("--variants", "full,no_library", "--seeds", "0,1,2", "--passes", "1", "--splits", "valid_seen", "--jobs", "2")
ON_SLURM = ("--on", "slurm", "--set", "slurm.partition=main", "--set", "slurm.cpus=1", "--set", "slurm.poll=1")
KILLED, PREEMPTED = "full/seed0", "no_library/seed0"  # they run at the same time
_LIMIT = 1800.0  # seconds to wait for a run


def main() -> None:
    with tempfile.TemporaryDirectory() as place, cluster() as variables:
        os.chdir(place)
        os.environ.update(variables)
        words = [*SWEEP, "--data", str(make_world(Path("world"))), *_sets()]
        started = time.monotonic()
        _finish(_sweep("local", words))
        print(f"local: {time.monotonic() - started:.0f} s", flush=True)
        started = time.monotonic()
        _disturbed("slurm", [*words, *ON_SLURM])
        print(f"slurm: {time.monotonic() - started:.0f} s", flush=True)
        same = [_compare(home) for home in sorted(Path("results/local").glob("*/seed*"))]
        for name in TABLES:
            local, remote = (pd.read_parquet(Path("results", place, name)) for place in ("local", "slurm"))
            times = [column for column in local if column.startswith("time/")]
            same.append(local.drop(columns=times).equals(remote.drop(columns=times)))
            print(f"{name}: {'the same' if same[-1] else 'different'}")
    sys.exit(not all(same))


def _sets() -> list[str]:
    """What makes the nano preset, with its policy, small."""
    chosen = settings(Path("world"), resource("data/nano-policy")) | {
        "train.steps": STEPS, "train.save_every": 3, "train.validate_every": 0, "rollout.group_size": 4,
        "environment.max_steps": 10, "rollout.max_act_tokens": 8, "method.max_query_tokens": 16,
        "method.max_rerank_tokens": 16, "method.max_distill_tokens": 32,
    }  # fmt: skip
    own = ("environment.data", "library.similarity_floor")  # the sweep's; and what cannot be said: None
    return [word for name, value in chosen.items() if name not in own for word in ("--set", f"{name}={value}")]


def _sweep(name: str, words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "skill1", "sweep", "--name", name, *words])


def _finish(sweep: subprocess.Popen[bytes]) -> None:
    if status := sweep.wait():
        sys.exit(f"the sweep ended with status {status}")


def _disturbed(name: str, words: list[str]) -> None:
    """Run a sweep of which a run is killed, another preempted, and the command itself killed and repeated."""
    folder = Path("results", name)
    first = _sweep(name, words)
    _wait(lambda: all(_steps(folder / run) >= 2 for run in (KILLED, PREEMPTED)), "two runs to begin")
    _slurm("scancel", "--signal=KILL", _job(folder, KILLED))
    job = _job(folder, PREEMPTED)
    node = _slurm("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    _slurm("sbatch", "--partition=urgent", f"--nodelist={node}", "--output=/dev/null", "--wrap=sleep 5")
    _wait(lambda: _slurm("squeue", "--noheader", f"--jobs={job}", "--format=%T").strip() == "PENDING", "a requeued run")
    _wait(lambda: not _slurm("squeue", "--noheader", f"--jobs={_job(folder, KILLED)}", "--format=%T"), "the killed run")
    time.sleep(5)  # its failure is said
    first.kill()
    first.wait()
    print("-- the command was killed; repeated:", flush=True)
    _finish(_sweep(name, words))


def _compare(home: Path) -> bool:
    """Print what differs between a run and the one of Slurm; returns whether nothing does."""
    name = "/".join(home.parts[-2:])
    found = [record(place / name / "run", STEPS) for place in (Path("results/local"), Path("results/slurm"))]
    saved = [each.pop("checkpoints") for each in found]  # one more where SIGTERM saved
    unequal = sorted(what for what in found[0] if found[0][what] != found[1].get(what))
    print(f"{name}: checkpoints {saved[0]} and {saved[1]}, {', '.join(unequal) or 'nothing'} differs", flush=True)
    return not unequal


def _steps(home: Path) -> int:
    file = home / "run" / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _job(folder: Path, run: str) -> str:
    return json.loads((folder / "slurm" / "jobs.json").read_text())[str(folder / run)]


def _slurm(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout  # squeue complains of a job that has ended


def _wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _LIMIT
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited {_LIMIT:.0f} s for {what}")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
