"""A straight run against runs that are killed (kill -9) at random moments and resumed: the same, bit for bit?

Run on one thread: OMP_NUM_THREADS=1 python benchmarks/kill_points.py --kills 20 --seed 0
Weights, optimiser, metrics, rollouts, validation, library and journal are compared. The policy has had seconds of warm
start and plays easy games, so that the library fills; the moments are uniform over a straight run's duration, from the
loading of the model to the last checkpoint. A run that dies before its directory is whole holds nothing and is made again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1] / "tests")  # for this script's folder: it has an alfworld.py

from distributed_train import run  # noqa: E402
from nano_runs import configure, make_warm, make_world  # noqa: E402
from run_record import record  # noqa: E402

from skill1.config import Config  # noqa: E402
from skill1.store.run_directory import RunDirectory  # noqa: E402

STEPS = 6


def killed(config: Config, directory: Path, resume: bool, after: float) -> bool:
    """Run in a process of its own, killed after `after` seconds; False if it was done before."""
    pid = os.fork()
    if pid == 0:
        os.setpgrp()
        os._exit(int(run(config, directory, resume) != 0))  # in a child of its own, of the same group
    while os.getpgid(pid) != pid:
        time.sleep(0.001)
    deadline = time.monotonic() + after
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, f"a resumed run failed with status {os.waitstatus_to_exitcode(status)}"
            return False
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


@click.command(help=__doc__.splitlines()[0])
@click.option("--kills", default=20, show_default=True, help="kills in all")
@click.option("--seed", default=0, show_default=True, help="of the moments")
def main(kills: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        world, policy = make_world(Path(folder) / "world"), make_warm(Path(folder) / "policy")
        config = configure(world, policy, train__steps=STEPS, method__max_distill_tokens=16, environment__max_steps=5)
        started = time.monotonic()
        straight = Path(folder) / "straight"
        assert run(config, straight) == 0
        seconds = time.monotonic() - started
        expected = record(straight, STEPS)
        print(f"straight: {STEPS} steps in {seconds:.1f} s, {len(expected['journal'])} bytes of journal", flush=True)
        done, runs, different = 0, 0, 0
        while done < kills:
            directory, parts = Path(folder) / f"run{runs}", []
            while True:
                if directory.exists() and not (directory / "config.json").exists():
                    shutil.rmtree(directory)
                after = float(rng.uniform(0, seconds)) if done < kills else 60 * seconds
                if not killed(config, directory, directory.exists(), after):
                    break
                done += 1
                whole = (directory / "config.json").exists()
                kept = RunDirectory.open(directory).latest_checkpoint() if whole else None
                parts.append(f"{after:.2f} s (checkpoint {kept.step if kept else 'none'})")
            runs += 1
            found = record(directory, STEPS)
            unlike = sorted(name for name in expected if found.get(name) != expected[name])
            different += bool(unlike)
            print(
                f"run {runs}: killed at {', '.join(parts) or 'no moment'}: "
                f"{'differs in ' + ', '.join(unlike) if unlike else 'the same'}",
                flush=True,
            )
            shutil.rmtree(directory)
    print(f"{done} kills in {runs} runs, {different} of them different")
    sys.exit(int(different > 0))


if __name__ == "__main__":
    main()
