"""Sweeps and training on a real Slurm of this machine (benchmarks/slurm.py), and what is refused without one."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from nano_runs import settings
from run_record import record
from study_runs import OVERRIDES, make_notebooks, steps_done

from skill1.cli.main import cli, main
from skill1.config import ConfigError
from skill1.errors import RunError
from skill1.running.experiment import portable
from skill1.running.launch import Hosts
from skill1.running.local import run_within
from skill1.running.slurm import Slurm, SlurmConfig
from skill1.running.sweep import Sweep, run_sweep

ROOT = Path(__file__).parents[1]
setup = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "slurm.py")))
ON_SLURM = SlurmConfig(partition="main", cpus=1, poll=0.5)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Slurm of two nodes that this process's commands go to."""
    if absent := setup.missing():
        pytest.skip(f"no Slurm: {', '.join(absent)} (Debian's slurm-wlm and munge)")
    if find_spec("submitit") is None:
        pytest.skip("submitit is not installed (pip install 'skill1[slurm]')")
    with pytest.MonkeyPatch.context() as patched, setup.cluster() as variables:
        for name, value in variables.items():
            patched.setenv(name, value)
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that a user got wrong says: one line."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    return output.err


def wait_until(condition: Callable[[], object], what: str, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)


def slurm(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def queue(column: str) -> dict[str, str]:
    """Of every job that is queued or runs."""
    lines = slurm("squeue", "--noheader", "--array", f"--format=%i {column}").splitlines()
    return dict(line.strip().split(" ", 1) if " " in line.strip() else (line.strip(), "") for line in lines)


# -- without a cluster ------------------------------------------------------------------------------------------------

SWEEP = ("sweep", "--name", "try", "--variants", "full", "--seeds", "0")
TRAIN = ("train", "--name", "try", "--preset", "nano")


@pytest.mark.parametrize(
    "words, message",
    [
        ((*SWEEP, "--on", "slurm"), "there is no Slurm here (no sbatch on the PATH): use a login node"),
        ((*TRAIN, "--on", "slurm", "--nodes", "2"), "there is no Slurm here"),
        ((*SWEEP, "--on", "slurm", "--set", "slurm.partitoin=x"), "did you mean 'slurm.partition'?"),
        ((*TRAIN, "--on", "slurm", "--set", "slurm.cpus=0"), "slurm.cpus = '0'"),
        (
            (*SWEEP, "--on", "slurm", "--set", "slurm.time_limit=10"),
            "slurm.grace = 600 s must be less than slurm.time_limit = 10 minutes",
        ),
        ((*SWEEP, "--set", "slurm.partition=x"), "slurm.partition is for --on slurm"),
        ((*TRAIN, "--set", "slurm.partition=x"), "slurm.partition is for --on slurm"),
        ((*TRAIN, "--nodes", "2"), "--nodes is for --on slurm"),
        ((*SWEEP, "--on", "slrum"), "'slrum' is not one of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_made(words, message, here, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(here))
    assert message in said(capsys, *words)
    assert not list(here.iterdir())


def test_the_words_of_a_job_do_not_say_where_it_runs():
    words = ["train", "--on", "slurm", "--nodes=2", "--nproc", "4", "--set", "train.steps=3", "--set=slurm.gpus=1",
             "--set", "slurm.partition=x", "--name=try", "--resume"]  # fmt: skip
    seen: list[list[str]] = []

    @cli.command("words-of-a-job", context_settings={"ignore_unknown_options": True})
    def command() -> None:
        from skill1.cli.options import own_words

        seen.append(own_words())

    try:
        CliRunner().invoke(cli, ["words-of-a-job"], obj=words, catch_exceptions=False)
    finally:
        del cli.commands["words-of-a-job"]
    assert seen == [["train", "--set", "train.steps=3", "--name=try", "--resume"]]


def test_hosts_tell_torchrun_who_is_the_first():
    hosts = Hosts(count=2, rank=1, address="10.0.0.1", port=29400)
    assert hosts.words() == ["--nnodes=2", "--node-rank=1", "--master-addr=10.0.0.1", "--master-port=29400"]


# -- on a cluster -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"partition": "mian"}, ConfigError, "unknown Slurm partition 'mian'; did you mean 'main'?"),
        ({"cpus": 2}, RunError, "sbatch failed: .*node configuration is not available"),
    ],
)
def test_what_the_cluster_does_not_have_is_refused(cluster, here, options, error, message):
    asked = SlurmConfig(**({"partition": "main", "cpus": 1} | options))
    with pytest.raises(error, match=message):
        Slurm(asked, here / "study" / "slurm", run_within, jobs=1, nproc=1)
    assert not list(here.iterdir())


@pytest.mark.slow
def test_a_sweep_survives_kills_and_preemption(cluster, here, world, tmp_path_factory):
    """Four runs: one fails, one is killed, one is preempted, and so is the command: the tables are those of a local sweep."""
    notebooks = make_notebooks(here / "notebooks")
    shape = dict(variants=("full", "no_library"), seeds=(0, 1), data=world, overrides=OVERRIDES, passes=2, jobs=2,
                 notebooks=notebooks)  # fmt: skip
    study = Sweep(folder=here / "study", slurm=ON_SLURM, **shape)
    killed, preempted, failing, quiet = homes = [
        study.folder / variant / f"seed{seed}" for seed in (0, 1) for variant in ("full", "no_library")
    ]
    for home in homes:
        home.mkdir(parents=True)
    for home in (killed, preempted):
        (home / "pause3").touch()
    (failing / "fail").touch()
    (study.folder / "sweep.json").write_text(json.dumps(asked_of(study)))
    with subprocess.Popen([sys.executable, "-c", script(study)], stdout=subprocess.PIPE, text=True) as command:
        wait_until(lambda: all(steps_done(home) == [1, 2, 3] for home in (killed, preempted)), "two runs")
        waiting = slurm("squeue", "--noheader", "--array", "--states=PENDING", "--format=%r").split()
        assert waiting == ["JobArrayTaskLimit"] * 2  # two at a time
        command.kill()
    jobs = json.loads((study.folder / "slurm" / "jobs.json").read_text())  # nobody follows them now
    first, second = (portable(home) for home in (killed, preempted))
    node = queue("%N")[jobs[second]]
    slurm("sbatch", "--partition=urgent", f"--nodelist={node}", "--output=/dev/null", "--wrap=sleep 1")
    wait_until(lambda: queue("%T")[jobs[second]] == "PENDING", "a requeued run")
    slurm("scancel", "--signal=KILL", jobs[first])
    wait_until(lambda: jobs[first] not in queue("%T"), "a killed run")
    for home in (killed, preempted):
        (home / "pause3").unlink()
    lines: list[str] = []
    [failure] = run_sweep(study, say=lines.append)
    after = json.loads((study.folder / "slurm" / "jobs.json").read_text())
    assert after[second] == jobs[second] and after[first] != jobs[first]
    assert failure.label == "full seed 1" and failure.error == "ValueError: step 1 met a fail file"
    assert "fail file" in str(failure) and failure.log.parent == study.folder / "slurm"
    assert any("running on n" in line for line in lines)
    assert [steps_done(home) for home in homes] == [[1, 2, 3, 3, 4], [1, 2, 3, 3, 4], [], [1, 2, 3, 4]]

    (failing / "fail").unlink()
    assert run_sweep(study, say=lines.append) == []
    local = Sweep(folder=tmp_path_factory.mktemp("local") / "study", **shape | {"jobs": 1})
    assert run_sweep(local, say=lines.append) == []
    for table in ("evaluations.parquet", "metrics.parquet"):
        assert (study.folder / table).read_bytes() == (local.folder / table).read_bytes()


def asked_of(study: Sweep) -> dict[str, object]:
    from skill1.running.sweep import data_of, settings_of

    return {"settings": settings_of(study, data_of(study, generate=False)), "runs": {}}


def script(study: Sweep) -> str:
    """A program that runs the study, as the command line does."""
    return (
        "from pathlib import Path, PosixPath\nfrom skill1.running.slurm import SlurmConfig\n"
        f"from skill1.running.sweep import Sweep, run_sweep\nrun_sweep({study!r})"
    )


@pytest.mark.slow
def test_training_on_two_nodes_is_saved_requeued_and_followed(cluster, here, world, nano, monkeypatch, capfd):
    """SIGTERM to the job of a run on two nodes; the command, repeated, follows it. Equal to two processes here."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    changed = {"train.steps": 12, "train.save_every": 12, "train.validate_every": 0, "rollout.group_size": 8}
    own = [word for name, value in (settings(world, nano) | changed).items() if value is not None
           for word in ("--set", f"{name}={value}")]  # fmt: skip
    where = ["--on", "slurm", "--nodes", "2", "--set", "slurm.cpus=1", "--set", "slurm.poll=0.5"]
    words = ["train", "--name", "two", *own, *where]
    with subprocess.Popen([sys.executable, "-m", "skill1", *words], stdout=subprocess.DEVNULL) as command:
        metrics = here / "results" / "two" / "metrics.jsonl"
        wait_until(lambda: command.poll() is not None or (metrics.exists() and metrics.read_text()), "a step")
        assert command.poll() is None
        command.kill()
    [job] = json.loads((here / "results" / "two.slurm" / "jobs.json").read_text()).values()
    slurm("scancel", "--signal=TERM", job)
    with pytest.raises(SystemExit) as ended:
        main(words)
    output = capfd.readouterr().out
    assert not ended.value.code and f"Slurm job {job}" in output and "done" in output.splitlines()[-1]
    log = (here / "results" / "two.slurm" / f"{job}_0_log.out").read_text()
    assert "is saved; continue with --resume" in log and "two: 100%" in log
    with pytest.raises(SystemExit):
        main(["train", "--name", "here", *own, "--nproc", "2"])
    local, remote = (record(here / "results" / name, 12) for name in ("here", "two"))
    assert local.pop("checkpoints") == [12] and len(remote.pop("checkpoints")) == 2  # also SIGTERM's
    assert local == remote
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(words)  # after the end
    assert not ended.value.code and capfd.readouterr().out == "results/two is finished: 12 steps are done\n"
    more = said(capfd, *words, "--set", "library.capacity=7")
    assert "results/two was started with another configuration" in more
