"""`skill1 bundle`: all that a preset needs on a machine without a network, in parts that can be sent one by one.

    part-000, part-001 …    its files one after another, cut where a part is full
    manifest.json           of every part and file its size and SHA-256; for which Python it is, what to run there
    install.py              checks the parts and installs them, with Python's standard library (`offline_install`)

What changes least comes first (models, games, then packages, large before small), the project last: after a change of
the project a repeated command writes other last parts, and only they, the manifest and install.py are to be sent again.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

from tqdm import tqdm

from skill1.config import Config, flatten, load_config
from skill1.envs.make import environment_spec
from skill1.nano.world import has_world
from skill1.registry import closest
from skill1.running import offline_install
from skill1.running.launch import set_words
from skill1.running.offline_install import FILES, sha256
from skill1.running.wheels import BundleError, Target, download, pins, project_wheel
from skill1.store.atomic import replace_file
from skill1.store.json_file import write_json
from skill1.store.places import place_names
from skill1.store.writable import check_new, check_writable

_PAPERS_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"  # whose weights are those of `pinned`


@dataclass(frozen=True, slots=True)
class Bundle:
    """A finished bundle."""

    size: int  # bytes of all parts
    parts: int
    new: tuple[str, ...]  # parts that were not there as they are now


def bundle(
    preset: str, out: Path, *, data: Path | None = None, overrides: Mapping[str, Any] | None = None,
    target: Target | None = None, without: Sequence[str] = (), packages: Sequence[str] = (),
    added: Sequence[Path] = (), part_size: int = 60_000_000, say: Callable[[str], None] = print,
) -> Bundle:  # fmt: skip
    """Write a preset's bundle into `out`; one that is there already is brought up to date.

    Args:
        data: games [default: environment.data, else of a preset for published games those that the environment's
            variable names, else they are generated on the other machine].
        overrides: configuration fields over the preset's; files and folders that they name come along.
        target: the other machine's Python [default: as here].
        without: pinned packages that it has already: neither they come along nor what only they need.
        packages: further requirements, as pip takes them.
        added: files and folders to take along as they are.
        part_size: bytes of a part at most.
        say: what is told on the way goes here.

    Raises:
        BundleError: something is neither here nor to be had; pip's own words where it is pip that fails.
        ConfigError: a wrong name or value.
        RunError: `out` holds something else, or cannot be written.
    """
    given = dict(overrides or {}) | ({"environment.data": str(data)} if data else {})
    config, target = load_config(preset, overrides=given), target or Target.of(None, None)
    extra = _added(added)
    if not (out / "manifest.json").is_file():
        check_new(out)
    check_writable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        place = Path(name)
        say("building the project's wheel")
        project = project_wheel(place)
        pinned = pins(project)
        left_out = {closest(package, pinned, "package of --without"): pinned[package] for package in without}
        fields = _Fields.of(config, preset, project)
        say(f"downloading packages for Python {target.python} on {target.platform}, minutes")
        own = (set(environment_spec(config.environment.name).packages) & pinned.keys()) - left_out.keys()
        alone = {name: pinned[name] for name in own} | fields.alone
        wheels = download(project, place / "wheels", target, without=left_out, alone=alone, more=packages)
        files = fields.files | extra
        if fields.games:
            files[f"archives/{fields.games.name}.tar.xz"] = _archive(fields.games, place / "games.tar.xz")
        files |= {f"wheels/{wheel.name}": wheel for wheel in (*wheels, project)}
        say(f"cutting {sum(file.stat().st_size for file in files.values()) / 1e6:,.0f} MB into parts")
        (place / "parts").mkdir()
        parts, listed = _cut(files, place / "parts", part_size)
        manifest = {
            "preset": preset, "python": target.python, "platform": target.platform, "without": list(without),
            "alone": list(alone), "project": project.name, "next": fields.commands(preset, overrides or {}),
            "parts": parts, "files": listed,
        }  # fmt: skip
        new = _publish(place / "parts", out, manifest)
    return Bundle(sum(part["size"] for part in parts), len(parts), tuple(new))


# -- models, games and other files ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fields:
    """The configuration's files and folders: what comes along, and where it will be."""

    files: dict[str, Path]  # name in the bundle -> file
    values: dict[str, str]  # field -> what it is there, where that is not what it is here
    alone: dict[str, str]  # packages that come without what they depend on
    first: list[str]  # commands that make a place there
    games: Path | None
    variable: str | None  # by which the demo takes them, if it does

    @classmethod
    def of(cls, config: Config, preset: str, project: Path) -> _Fields:
        spec = environment_spec(config.environment.name)
        # policies of the compact prompts play generated games, whatever the variable says
        variable = None if config.policy.prompts == "compact" else spec.data_variable
        found = cls({}, {}, {}, [], _games(config, variable), variable)
        with ZipFile(project) as wheel:
            shipped = wheel.namelist()
        for name in sorted(place_names(config) - {"environment.data"}):
            value = flatten(config)[name]
            if value and not any(file.startswith(f"skill1/resources/{value}/") for file in shipped):
                found._take(name, str(value))
        if found.games:
            found.values["environment.data"] = f"{FILES}/{found.games.name}"
        elif not has_world(preset):
            found.values["environment.data"] = "data/games"
            found.first.append(f"skill1 generate {spec.name} --out data/games")
        return found

    def _take(self, name: str, value: str) -> None:
        if name.endswith("encoder") and value in ("pinned", "hash", _PAPERS_ENCODER):  # comes with the packages
            self.values.update({name: "pinned"} if value == _PAPERS_ENCODER else {})
            return
        if name == "policy.model" and value.startswith("data/"):
            from skill1.models.import_gguf import PACKAGES  # not at the top: it loads torch

            for package, about in PACKAGES.items():
                if about.folder == value:
                    self.alone[package] = about.version
                    self.first.append(f"skill1 import gguf {package} --out {value}")
                    return
        path = Path(value).expanduser()
        if not path.exists():
            raise BundleError(
                f"{name} = {value!r} is not on this machine, and the other one has no hub: name its folder with "
                f"--set {name}=DIR"
            )
        self.values[name] = f"{FILES}/{name}" if path.is_dir() else f"{FILES}/{name}/{path.name}"
        self.files.update(_named(self.values[name], path))

    def commands(self, preset: str, overrides: Mapping[str, Any]) -> list[str]:
        """Return what to run there, from the folder that holds the files."""
        rest = dict(self.values)
        games = [f"{self.variable}={rest.pop('environment.data')}"] if self.games and self.variable else []
        if has_world(preset) and not overrides and not rest:
            return [*self.first, shlex.join([*games, "skill1", "demo", "--preset", preset])]
        words = set_words({**overrides, **self.values})
        return [*self.first, shlex.join(["skill1", "train", "--preset", preset, *words, "--name", "try"])]


def _games(config: Config, variable: str | None) -> Path | None:
    """The folder of games that come along."""
    value = config.environment.data or (os.environ.get(variable) if variable else None)
    if value and not Path(value).expanduser().is_dir():
        raise BundleError(f"environment.data: there is no folder {value!r}")
    return Path(value).expanduser().absolute() if value else None


def _added(given: Sequence[Path]) -> dict[str, Path]:
    names = [path.absolute().name for path in given]
    for path, name in zip(given, names, strict=True):
        if not path.exists() or names.count(name) > 1:
            raise BundleError(f"--add {path}: {'two have this name' if path.exists() else 'it is not there'}")
    return {inner: file for path in given for inner, file in _named(f"{FILES}/{path.absolute().name}", path)}


def _named(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """Name the files of a folder, or the file itself, below or by `name`, in order."""
    if path.is_dir():
        found = (Path(at) / file for at, _, files in os.walk(path, followlinks=True) for file in files)
        yield from ((f"{name}/{file.relative_to(path)}", file) for file in sorted(found))
    else:
        yield name, path


def _archive(games: Path, into: Path) -> Path:
    """Pack games, which are thousands of texts that are alike."""
    with tarfile.open(into, "w:xz", preset=1, dereference=True) as tar:
        for name, file in tqdm(list(_named(games.name, games)), unit="file", desc="games", disable=None, leave=False):
            tar.add(file, name)
    return into


# -- parts ------------------------------------------------------------------------------------------------------------


def _cut(files: Mapping[str, Path], into: Path, size: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write files one after another as parts of `size` bytes; returns the manifest's entries of parts and of files."""
    listed, place = [], 0
    for name, file in files.items():
        digest, first = hashlib.sha256(), place
        with file.open("rb") as source:
            while data := source.read(min(offline_install.CHUNK, size - place % size)):
                with (into / _part(place // size)).open("ab") as part:
                    part.write(data)
                digest.update(data)
                place += len(data)
        entry = {"name": name, "size": place - first, "sha256": digest.hexdigest(), "part": _part(first // size)}
        listed.append(entry)
    made = [into / _part(number) for number in range(-(-place // size))]
    return [{"name": p.name, "size": p.stat().st_size, "sha256": sha256(p)} for p in made], listed


def _part(number: int) -> str:
    return f"part-{number:03d}"


def _publish(made: Path, out: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Put what is new into the bundle; returns the names of the parts that were not there as they are now."""
    out.mkdir(exist_ok=True)
    write_json(out / "manifest.json", manifest)  # first: by it a bundle is known whose parts did not all get there
    replace_file(out / "install.py", Path(offline_install.__file__).read_bytes())
    whole = {part["name"]: part["sha256"] for part in manifest["parts"]}
    new = [name for name in whole if not (out / name).is_file() or sha256(out / name) != whole[name]]
    for name in new:
        os.replace(made / name, out / name)
    for part in out.glob("part-*"):
        if part.name not in whole:  # of an earlier, larger one
            part.unlink()
    return new
