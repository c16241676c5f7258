"""The bundle of a preset, made here and used where no network is: sizes, seconds, and what a damaged one says.

Run as root on Linux: python -P benchmarks/offline.py --folder /tmp/offline [--preset nano] [--whole]
`skill1 bundle` needs a network, or pip's cache. Everything after it runs in a network namespace with nothing but
loopback, which is looked at first: install.py with a part altered and one missing, install.py, and the demo, of two
steps and a short evaluation (--whole: as `skill1 demo` is, minutes). Repeated, it starts from the bundle that is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

NO_NETWORK = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
LOOK = "import socket; socket.create_connection(('192.0.2.1', 443), 5)"  # an address of TEST-NET-1: nobody's
TINY = {
    "train.steps": 2, "train.validate_every": 0, "rollout.tasks_per_step": 2, "environment.max_steps": 4,
    "evaluation.splits": ["valid_seen"],
}  # fmt: skip


class Steps:
    """The steps and how long each took."""

    def __init__(self, folder: Path) -> None:
        self.log, self.seconds = folder / "log.txt", dict[str, float]()
        outer = ("ALFWORLD_DATA", "WEBSHOP_DATA", "PYTHONPATH", "VIRTUAL_ENV")
        self._inherited = {name: value for name, value in os.environ.items() if name not in outer}

    def run(self, name: str, command: list[object], cwd: Path, *, status: int = 0, **variables: str) -> str:
        """Run a command; returns what it printed. Exits if its status is another one."""
        click.echo(f"{name} ...")
        began = time.monotonic()
        done = subprocess.run(
            list(map(str, command)), cwd=cwd, env=self._inherited | variables, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.seconds[name] = time.monotonic() - began
        with self.log.open("a") as log:
            log.write(f"--- {name}, {self.seconds[name]:.0f} s, status {done.returncode}\n{done.stdout}")
        if done.returncode != status:
            sys.exit(f"{name}: status {done.returncode}\n{done.stdout[-3000:]}")
        return done.stdout


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


@click.command(help=__doc__.splitlines()[0])
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="for bundle, installation and log")
@click.option("--preset", default="nano", show_default=True)
@click.option("--whole", is_flag=True, help="the demo as it is, not two steps")
def main(folder: Path, preset: str, whole: bool) -> None:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        sys.exit("network namespaces need Linux, root, util-linux and iproute2")
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    bundle, there, steps = folder / "bundle", folder / "there", Steps(folder)
    shutil.rmtree(there, ignore_errors=True)
    python = getattr(sys, "_base_executable", sys.executable)  # which has none of the packages
    root = str(Path(__file__).resolve().parents[1])
    made = steps.run(
        "bundle",
        [sys.executable, "-m", "skill1", "bundle", "--preset", preset, "--out", bundle],
        folder,
        PYTHONPATH=root,
    )
    looked = steps.run("no route", [*NO_NETWORK, python, "-c", LOOK], folder, status=1)
    install = [*NO_NETWORK, python, bundle / "install.py", "--out", there]
    parts = sorted(bundle.glob("part-*"))
    altered, missing = parts[0], parts[-1]
    content = altered.read_bytes()
    altered.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    away = missing.rename(folder / missing.name)
    refused = steps.run("refusal of damaged parts", install, folder, status=1)
    altered.write_bytes(content)
    away.rename(missing)
    steps.run("install", install, folder)
    code = f"from skill1.running.demo import demo; demo(0, preset={preset!r}, overrides={TINY}, passes=1)"
    words = ["skill1", "demo", "--preset", preset] if whole else ["python", "-c", code]
    played = steps.run(
        "demo", [*NO_NETWORK, there / "venv" / "bin" / words[0], *words[1:]], there, HF_HUB_OFFLINE="1",
        PATH=f"{there}/venv/bin:{os.environ['PATH']}",
    )  # fmt: skip
    click.echo(f"\n{made.splitlines()[-2]}\n{looked.splitlines()[-1]}\n{refused.strip()}")
    click.echo("".join(line for line in played.splitlines(keepends=True) if "success" in line or "summary" in line))
    click.echo(
        f"bundle {size(bundle) / 1e6:,.0f} MB in {len(parts)} parts, installed {size(there / 'venv') / 1e9:.2f} GB"
    )
    for name, seconds in steps.seconds.items():
        click.echo(f"{name}: {seconds:.0f} s")


if __name__ == "__main__":
    main()
