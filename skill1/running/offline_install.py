"""Install a bundle of `skill1 bundle` without a network: python3 install.py [--out DIR] [--here | --check].

It lies in the bundle, beside its manifest and parts, and needs nothing but Python and its standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path
from typing import Any, NoReturn

BUNDLE = Path(__file__).resolve().parent
FILES = "files"  # below DIR: models, games and whatever else was taken along
CHUNK = 1 << 20


def main() -> None:
    """Check all parts, then install them; ends with one line and status 1 where something is not as it must be."""
    asked = _arguments()
    try:
        manifest = json.loads((BUNDLE / "manifest.json").read_bytes())
    except (OSError, ValueError) as error:
        _end(f"{BUNDLE / 'manifest.json'} is missing or damaged ({error}): send it again")
    check(BUNDLE, manifest["parts"])
    if asked.check:
        print(f"all {len(manifest['parts'])} parts are whole")
        return
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if running != manifest["python"]:
        wanted = manifest["python"]
        _end(f"this bundle is for Python {wanted}, this is {running}: start install.py with python{wanted}")
    try:
        _install(manifest, asked.out.absolute(), here=asked.here)
    except OSError as error:
        _end(f"{error.filename or asked.out}: {error.strerror or error}")


def check(bundle: Path, parts: list[dict[str, Any]]) -> None:
    """End unless every part is there as it was made: the line names those to send again."""
    missing = [part["name"] for part in parts if not (bundle / part["name"]).is_file()]
    there = [part for part in parts if part["name"] not in missing]
    altered = [part["name"] for part in there if sha256(bundle / part["name"]) != part["sha256"]]
    wrong = [f"{what} {', '.join(names)}" for what, names in (("missing:", missing), ("altered:", altered)) if names]
    if wrong:
        _end(f"{'; '.join(wrong)} (of {len(parts)} parts in {bundle}): send what is named again")


def unpack(bundle: Path, manifest: dict[str, Any], out: Path, wheels: Path) -> None:
    """Cut the parts, read one after another, into files: those to keep below `out`, the others below `wheels`."""
    parts = (bundle / part["name"] for part in manifest["parts"])
    source = next(parts).open("rb")
    for file in manifest["files"]:
        target = (out if file["name"].startswith(f"{FILES}/") else wheels) / file["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        left, digest = file["size"], hashlib.sha256()
        with target.open("wb") as written:
            while left:
                data = source.read(min(left, CHUNK))
                if not data:
                    source.close()
                    source = next(parts).open("rb")
                digest.update(data)
                left -= written.write(data)
        if digest.hexdigest() != file["sha256"]:
            _end(f"{file['name']} is not what was bundled: install again, and if that does not help, check the disk")
    source.close()


def _install(manifest: dict[str, Any], out: Path, *, here: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    python = sys.executable
    if not here:
        # without pip, for which Debian wants a package of its own: the bundle has one that runs from its wheel
        venv.EnvBuilder(system_site_packages=bool(manifest["without"]), symlinks=os.name != "nt").create(out / "venv")
        python = str(out / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    for name in manifest["without"]:
        if subprocess.run([python, "-c", f"from importlib.metadata import version; version({name!r})"],
                          capture_output=True).returncode:  # fmt: skip
            hint = "" if here else ", or, if that is a virtual environment, use --here"
            _end(f"this bundle was made --without {name}, which {sys.executable} has not: install it there{hint}")
    with tempfile.TemporaryDirectory(dir=out) as place:
        print("unpacking", flush=True)
        unpack(BUNDLE, manifest, out, Path(place))
        for archive in sorted((Path(place) / "archives").glob("*")):
            with tarfile.open(archive) as tar:
                tar.extractall(out / FILES, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type]
        wheels = Path(place) / "wheels"
        pip, *_ = wheels.glob("pip-*.whl")
        own = wheels / manifest["project"]
        others = sorted({*wheels.iterdir()} - {own} - ({pip} if here else set()))
        print(f"installing {len(others) + 1} packages, minutes", flush=True)
        # all versions were settled when the bundle was made; the project's wheel may be another one of the same version
        for words in (others, ["--force-reinstall", own]):
            if _pip(python, pip, "install", "--quiet", "--no-index", "--no-deps", *words).returncode:
                _end("pip could not install the packages (see above)")
        lacking = _lacking(_pip(python, pip, "check", capture_output=True, text=True).stdout, manifest)
    for line in lacking:
        print(f"note: {line}")
    print("installed; now, in one terminal:", f"  cd {out}", sep="\n")
    for command in (*([] if here else [". venv/bin/activate"]), "export HF_HUB_OFFLINE=1", *manifest["next"]):
        print(f"  {command}")


def _pip(python: str, pip: Path, *words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run pip without what variables and configuration files say of indexes, constraints and paths."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") and name != "PYTHONPATH"}
    command = [python, str(pip / "pip"), "--disable-pip-version-check", *map(str, words)]
    return subprocess.run(command, env=kept | {"PIP_CONFIG_FILE": os.devnull}, **options)


def _lacking(said: str, manifest: dict[str, Any]) -> list[str]:
    """Lines of `pip check` that name something wrong, but for what the bundle leaves out on purpose."""
    apart = tuple(f"{name} " for name in (*manifest["alone"], *manifest["without"]))
    left = tuple(f" requirement {name}" for name in manifest["without"])
    wrong = [line for line in said.splitlines() if " requires " in line or " has requirement " in line]
    return [line for line in wrong if not line.startswith(apart) and not any(name in line for name in left)]


def sha256(file: Path) -> str:
    """Hash a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Install this bundle; needs no network.")
    parser.add_argument("--out", type=Path, default=Path("skill1-offline"), help="folder to make [./skill1-offline]")
    parser.add_argument("--here", action="store_true", help="into the Python that runs this, not a new environment")
    parser.add_argument("--check", action="store_true", help="only check the parts")
    return parser.parse_args()


def _end(message: str) -> NoReturn:
    sys.exit(f"error: {message}")


if __name__ == "__main__":
    main()
