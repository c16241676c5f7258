"""What a newcomer does, in a fresh clone of this checkout's last commit; prints a table, status 1 if anything fails.

    python -P benchmarks/newcomer.py --folder /tmp/newcomer [--wheel] [--browser --python ENVIRONMENT/bin/python]

`make demo`, and once more; every notebook with its default parameters; the commands of the README one by one, with
training shortened to --steps; with --wheel also a wheel in an environment of its own, and the demo there from an empty
folder; with --browser "Run All" of all nine notebooks in JupyterLab (benchmarks/jupyterlab.py, by a Python that has
Playwright). What a step printed is beside the clone, in logs/.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SHORTENED = ("skill1 train", "skill1 sweep")
LONG = ("make reproduce",)  # its plan stands for it


def readme_commands(text: str, steps: int) -> list[str]:
    """The skill1 and make commands of a README's blocks, in order, without comments; training shortened."""
    found = []
    for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            command = line.split("#")[0].strip()
            if command.startswith(LONG):
                command += " ARGS=--dry-run"
            elif command.startswith(SHORTENED):
                command += f" --set train.steps={steps} --set train.save_every={steps}"
            if command.startswith(("skill1 ", "make ")) and command not in ("make demo", "make test"):
                found.append(command.replace("--step 60", f"--step {steps}"))
    return found


class Visit:
    """The steps of a visit and how each ended."""

    def __init__(self, folder: Path) -> None:
        self.clone, self.logs = folder / "clone", folder / "logs"
        self.logs.mkdir(parents=True)
        self.rows: list[tuple[str, bool, float, str]] = []

    def run(self, name: str, command: str, cwd: Path, wanted: str = "", **variables: str) -> bool:
        """Run a shell command; it is well if its status is 0 and it printed what matches `wanted`."""
        log, began = self.logs / f"{len(self.rows):02d}.log", time.monotonic()
        print(f"{name} ...", flush=True)
        inherited = {k: v for k, v in os.environ.items() if k not in ("ALFWORLD_DATA", "PYTHONPATH", "VIRTUAL_ENV")}
        with log.open("w") as out:
            status = subprocess.run(
                command, shell=True, cwd=cwd, env=inherited | variables, stdout=out, stderr=subprocess.STDOUT
            ).returncode
        text = log.read_text()
        lines = [line for line in text.splitlines() if line.strip()]
        good = status == 0 and re.search(wanted, text) is not None
        self.rows.append((name, good, time.monotonic() - began, lines[-1].strip()[:90] if lines else ""))
        return good

    def table(self) -> str:
        lines = [
            f"{'ok' if good else 'FAILED':>6}  {seconds:6.0f} s  {name}  | {last}"
            for name, good, seconds, last in self.rows
        ]
        return "\n".join([*lines, f"{sum(row[1] for row in self.rows)} of {len(self.rows)} steps are well"])


def visit(arguments: argparse.Namespace) -> Visit:
    """Go through all steps; a failed one does not stop the others."""
    seen = Visit(arguments.folder)
    clone, path = seen.clone, f"{seen.clone / '.venv' / 'bin'}:{os.environ['PATH']}"
    seen.run("clone", f"git clone -q {shlex.quote(str(CHECKOUT))} {clone}", seen.logs)
    seen.run("make demo", "make demo", clone, r"success .* -> [\s\S]*next, ")
    seen.run("make demo, again", "make demo", clone, "finished, see")
    for notebook in sorted((clone / "notebooks").glob("0*.ipynb")):
        seen.run(notebook.stem, f"skill1 notebook {notebook.stem}", clone, PATH=path)
    for command in readme_commands((clone / "README.md").read_text(), arguments.steps):
        seen.run(command, command, clone, PATH=path)
    if arguments.wheel:
        place = arguments.folder / "elsewhere"
        place.mkdir()
        pins = "pip install --disable-pip-version-check -q"
        torch = re.search(r'"(torch==[^"]+)"', (clone / "pyproject.toml").read_text())
        assert torch is not None
        seen.run("wheel, built", f"{clone}/.venv/bin/python -m pip wheel -q --no-deps -w {place} {clone}", place)
        seen.run(
            "wheel, installed",
            f'{sys.executable} -m venv v && v/bin/{pins} {torch[1]} && v/bin/{pins} "$(ls skill1-*.whl)[train]" && v/bin/{pins} --no-deps alfworld==0.4.2',
            place,
        )
        seen.run(
            "wheel, demo", "v/bin/skill1 demo", place, r"success .* -> ", PATH=f"{place}/v/bin:{os.environ['PATH']}"
        )
        same = (place / "results/demo/summary.json", clone / "results/demo/summary.json")
        seen.run(
            "wheel, the same numbers",
            f"{sys.executable} -c \"import json; a, b = (json.load(open(f)) for f in {[str(f) for f in same]}); [d.pop(k) for d in (a, b) for k in ('seconds', 'peak_memory_mb')]; assert a == b\"",
            place,
        )
    if arguments.browser:
        shots = arguments.folder / "shots"
        seen.run(
            "Run All in JupyterLab",
            f"{arguments.python} {CHECKOUT}/benchmarks/jupyterlab.py --all {clone} --lab {clone}/.venv/bin/jupyter --shots {shots}",
            clone,
            PATH=path,
        )
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="new folder for the clone")
    parser.add_argument("--steps", type=int, default=2, help="training steps of the README's commands")
    parser.add_argument("--wheel", action="store_true", help="also install a wheel elsewhere and run the demo there")
    parser.add_argument("--browser", action="store_true", help="also Run All in JupyterLab")
    parser.add_argument("--python", default=sys.executable, help="a Python that has Playwright, for --browser")
    arguments = parser.parse_args()
    if arguments.folder.exists():
        sys.exit(f"error: {arguments.folder} exists: name a new folder")
    seen = visit(arguments)
    print(seen.table())
    shutil.rmtree(seen.clone / ".venv", ignore_errors=True)
    sys.exit(not all(row[1] for row in seen.rows))


if __name__ == "__main__":
    main()
