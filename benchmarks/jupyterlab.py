"""Do the notebooks work in a real browser? The viewer of 07_trajectories on a run, or "Run All" of every notebook.

    pip install playwright        # in an environment of its own is enough: --lab names JupyterLab's
    python benchmarks/jupyterlab.py --run results/demo/seed0/run --lab .venv/bin/jupyter --shots shots

    python benchmarks/jupyterlab.py --all CHECKOUT --lab .venv/bin/jupyter --shots shots

Starts JupyterLab on a free port of this machine, with a token, its settings and a copy of the notebook in a temporary
folder; opens it in Chromium, runs all cells, and changes the controls; then opens the exported file without JavaScript.
With --all it opens the notebooks of CHECKOUT where they lie, one after the other, runs all cells, saves, and looks for
cells that failed or were not run.
Prints what it saw and leaves screenshots in --shots. Exit status 1: something did not react, or failed.
Skips, with the reason, where Playwright or a Chromium is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "07_trajectories.ipynb"
_PATIENCE = 120_000  # milliseconds for a server or a notebook
_LONGEST = 1800  # seconds for all cells of one that trains


def prepare(folder: Path, run: Path) -> Path:
    """A copy of the notebook in `folder` that reads `run`; returns the file that it will export."""
    notebook = json.loads(NOTEBOOK.read_text())
    [cell] = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    out = folder / "trajectories.html"
    cell["source"] = [*cell["source"], f"\nrun = {str(run.resolve())!r}\nout = {str(out)!r}\n"]
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / NOTEBOOK.name).write_text(json.dumps(notebook))
    return out


@contextmanager
def jupyterlab(jupyter: str, folder: Path, notebooks: Path) -> Iterator[Callable[[str], str]]:
    """A JupyterLab on `notebooks`, its own files in `folder`; gives the address of a notebook there, token included."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    options = [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", "--allow-root"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [jupyter, "lab", "--no-browser", "--ip=127.0.0.1", *options, str(notebooks)],
            env={**os.environ, **own},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/api?token={token}", server, folder / "server.log")
            yield lambda name: f"http://127.0.0.1:{port}/lab/tree/{name}?token={token}&reset"
        finally:
            server.terminate()  # JupyterLab ends its kernels
            server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(_PATIENCE // 500):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            if server.poll() is not None:
                break
            try:
                server.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
    sys.exit(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def run_all(page: Any, address: str) -> None:
    """Open a notebook and have all its cells run."""
    page.goto(address)
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=_PATIENCE)
    page.wait_for_selector("text=/\\| Idle/", timeout=_PATIENCE)
    page.get_by_role("menuitem", name="Run", exact=True).first.click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def drive_all(page: Any, address: Callable[[str], str], folder: Path, shots: Path) -> bool:
    """Run every notebook of `folder` as it is; whether all cells of all of them ran without an error."""
    good = True
    for file in sorted(folder.glob("0*.ipynb")):
        began = time.monotonic()
        run_all(page, address(file.name))
        failed, left = [], 1
        while left and not failed and time.monotonic() - began < _LONGEST:
            page.wait_for_timeout(3000)
            page.keyboard.press("Control+s")
            page.wait_for_timeout(1000)
            cells = [c for c in json.loads(file.read_text())["cells"] if c["cell_type"] == "code"]
            failed = [c["id"] for c in cells for o in c["outputs"] if o["output_type"] == "error"]
            left = sum(c["execution_count"] is None for c in cells)
        page.screenshot(path=shots / f"{file.stem}.png")
        told = f"FAILED in {', '.join(failed)}" if failed else f"{left} CELLS WERE NOT RUN" if left else "all cells ran"
        print(f"{file.stem}: {told}, {time.monotonic() - began:.0f} s", flush=True)
        good &= not failed and not left
    return good


def drive_notebook(page: Any, address: str, shots: Path) -> bool:
    """Run all cells and change controls; whether the view followed."""
    run_all(page, address)
    last = page.locator(".jp-CodeCell", has_text="viewer.export")
    last.locator(".jp-OutputArea-output").wait_for(timeout=_PATIENCE)
    view = page.locator(".widget-html .s1").first
    view.scroll_into_view_if_needed()
    page.screenshot(path=shots / "opened.png")
    good = True

    def expect(what: str, before: str) -> str:
        nonlocal good
        for _ in range(_PATIENCE // 200):
            now = view.inner_html()
            if now != before:
                print(f"{what}: {view.locator('h3').first.inner_text()}")
                return now
            page.wait_for_timeout(200)
        print(f"{what}: THE VIEW DID NOT CHANGE")
        good = False
        return before

    shown = view.inner_html()
    print(f"opened: {view.locator('h3').first.inner_text()}")
    buttons = page.locator(".widget-toggle-buttons button")
    buttons.nth(buttons.count() - 1).click()
    shown = expect("another rollout", shown)
    page.locator(".widget-slider .noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    shown = expect("the step before", shown)
    page.locator(".widget-checkbox input").check()
    expect("full prompts", shown)
    page.screenshot(path=shots / "changed.png")
    return good


def open_export(browser: Any, file: Path, shots: Path) -> bool:
    """Show the file without JavaScript, light, dark and narrow; whether it has its episodes and fits the window."""
    good = True
    for name, scheme, width in (("light", "light", 1280), ("dark", "dark", 1280), ("narrow", "light", 420)):
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 1400}, java_script_enabled=False
        )
        page, asked = context.new_page(), []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(file.as_uri())
        page.locator("details.episode > summary").locator("visible=true").first.click()
        page.screenshot(path=shots / f"export-{name}.png")
        episodes = page.locator("details.episode").count()
        wide = page.locator("body").bounding_box()["width"]
        print(f"export, {name}: {episodes} episodes, {wide:.0f} of {width} pixels wide, files read: {len(asked)}")
        good &= episodes > 0 and wide <= width and len(asked) == 1
        context.close()
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--run", type=Path, help="run directory with at least two stored steps")
    wanted.add_argument("--all", type=Path, metavar="CHECKOUT", help="run the notebooks of this checkout, in place")
    parser.add_argument("--lab", default=shutil.which("jupyter"), help="the project's jupyter command")
    parser.add_argument("--shots", type=Path, default=Path("shots"), help="folder for the pictures")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return print("skipped: there is no chromium or google-chrome on the PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return print("skipped: playwright is not installed (pip install playwright; its own browsers are not needed)")
    arguments.shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        root = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium's sandbox refuses to run as root
        browser = playwright.chromium.launch(executable_path=chromium, args=root)
        page = browser.new_context(viewport={"width": 1500, "height": 1300}).new_page()
        if arguments.all:
            notebooks = arguments.all / "notebooks"
            with jupyterlab(arguments.lab, folder, notebooks) as address:
                good = drive_all(page, address, notebooks, arguments.shots)
        else:
            out = prepare(folder, arguments.run)
            with jupyterlab(arguments.lab, folder, folder / "notebooks") as address:
                good = drive_notebook(page, address(NOTEBOOK.name), arguments.shots)
            good &= open_export(browser, out, arguments.shots)
        browser.close()
    print(f"pictures are in {arguments.shots}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
