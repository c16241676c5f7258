"""The packages of `skill1 bundle`: the project's own wheel, and by pip those that it needs, for any machine's Python."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from tqdm import tqdm

from skill1.errors import UserError
from skill1.store.resources import checkout

_NOT_SHIPPED = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")  # what an installation adds to a wheel
_SYSTEMS = {  # start of a platform tag -> sys.platform, platform.system(), os.name
    "macosx": ("darwin", "Darwin", "posix"),
    "win": ("win32", "Windows", "nt"),
    "": ("linux", "Linux", "posix"),
}


class BundleError(UserError):
    """A bundle cannot be made. The message says what is missing and how to give it."""


@dataclass(frozen=True, slots=True)
class Target:
    """The Python that wheels are for, and pip's words for it where it is not this one."""

    python: str  # "3.12"
    platform: str  # tag of its wheels: "manylinux_2_28_x86_64"
    words: tuple[str, ...]

    @classmethod
    def of(cls, python: str | None, tag: str | None) -> Target:
        """Take what is not named from this machine. Raises BundleError for no version of Python 3."""
        own = f"{sys.version_info.major}.{sys.version_info.minor}"
        if python and not re.fullmatch(r"3\.\d+", python):
            raise BundleError(f"--python {python!r} must look like 3.12")
        if tag is None and python in (None, own):
            return cls(own, platform.machine(), ())
        tag = tag or f"manylinux_2_28_{platform.machine()}"
        tags = [tag]
        if newest := re.fullmatch(r"manylinux_2_(\d+)_(\w+)", tag):  # pip would not take what is made for older ones
            tags = [f"manylinux_2_{minor}_{newest[2]}" for minor in range(int(newest[1]), 4, -1)]
            tags += [f"manylinux{old}_{newest[2]}" for old in ("2014", "2010", "1")]
        words = ("--python-version", python or own, *(word for name in tags for word in ("--platform", name)))
        return cls(python or own, tag, words)


def project_wheel(into: Path) -> Path:
    """Make this project's wheel in an empty folder: built from the checkout, or packed again from the installation.

    Raises:
        BundleError: the build fails, or nothing says which files were installed.
    """
    if source := checkout():
        # outside the checkout, where another build may be running; the same sources give the same bytes
        into = into.absolute()  # the build runs in the checkout
        (into / "build.cfg").write_text(f"[build]\nbuild_base = {into}/build\n[egg_info]\negg_base = {into}\n")
        variables = {"DIST_EXTRA_CONFIG": str(into / "build.cfg"), "SOURCE_DATE_EPOCH": "315532800"}
        _pip("the project's wheel", "wheel", "--no-deps", "--wheel-dir", str(into), str(source), **variables)
        return next(into.glob("*.whl"))
    return _packed_again(distribution("skill1"), into)


def _packed_again(installed: Distribution, into: Path) -> Path:
    files = [
        file
        for file in installed.files or ()
        if ".." not in file.parts and "__pycache__" not in file.parts and file.name not in _NOT_SHIPPED
    ]
    infos = {file.parts[0] for file in files if file.parts[0].endswith(".dist-info")}
    if len(infos) != 1 or "skill1/__init__.py" not in map(str, files):
        raise BundleError("skill1 was not installed from a wheel, and its checkout is gone: install it again from one")
    [info] = infos
    target = into / f"{info.removesuffix('.dist-info')}-py3-none-any.whl"
    with ZipFile(target, "w", ZIP_DEFLATED) as wheel:
        for file in files:
            wheel.write(str(file.locate()), str(file))
        rows = [f"{file},{file.hash.mode}={file.hash.value},{file.size}" for file in files if file.hash]
        wheel.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,", ""]))
    return target


def pins(project: Path) -> dict[str, str]:
    """Read what the project's extras for training and for games pin: package -> version."""
    return {
        requirement.name: str(requirement.specifier).removeprefix("==")
        for requirement in _required(project)
        for extra in ("train", "reference")
        if requirement.marker and requirement.marker.evaluate({"extra": extra})
    }


def download(
    project: Path, into: Path, target: Target, *, without: Mapping[str, str], alone: Mapping[str, str],
    more: Sequence[str] = (),
) -> list[Path]:  # fmt: skip
    """Download the wheels that the project needs for training, and pip's; returns them, large before small.

    Args:
        into: folder to make; what is made on the way lies beside it.
        without: packages, and versions, that are taken for being there, with all that only they need.
        alone: packages to take without what they depend on.
        more: further requirements.

    Raises:
        BundleError: in pip's own words.
    """
    there = [_stand_in(name, version, into.parent) for name, version in without.items()]
    words = ("download", "--only-binary=:all:", "--dest", str(into), *target.words)
    lacking = [*map(str, there), f"{project}[train]", "pip", *more]
    wanted: list[str] = []
    while lacking:
        wanted += lacking
        _pip("the packages", *words, *wanted)
        lacking = _lacking(into, target) if target.words else []
    if alone:
        _pip("the packages", *words, "--no-deps", *(f"{name}=={version}" for name, version in alone.items()))
    local = {file.name for file in (*there, project)}
    found = (file for file in into.iterdir() if file.name not in local)
    return sorted(found, key=lambda file: (-file.stat().st_size, file.name))


def _lacking(folder: Path, target: Target) -> list[str]:
    """What the wheels of a folder need on another machine alone: pip reads conditions as they are here."""
    wheels = [*folder.iterdir()]
    there = {parse_wheel_filename(wheel.name)[0] for wheel in wheels}
    system = next(names for start, names in _SYSTEMS.items() if target.platform.startswith(start))
    machine = re.sub(r"^(manylinux|musllinux|macosx|linux|win)(_?\d+)*_", "", target.platform)
    conditions = dict(zip(("sys_platform", "platform_system", "os_name"), system, strict=True)) | {
        "python_version": target.python, "python_full_version": f"{target.python}.0", "platform_machine": machine,
        "extra": "",
    }  # fmt: skip
    return sorted(
        {
            f"{requirement.name}{requirement.specifier}"
            for wheel in wheels
            for requirement in _required(wheel)
            if canonicalize_name(requirement.name) not in there
            and (requirement.marker is None or requirement.marker.evaluate(conditions))
        }
    )


def _required(wheel: Path) -> list[Requirement]:
    with ZipFile(wheel) as opened:
        [about] = [name for name in opened.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        said = message_from_bytes(opened.read(about))
    return [Requirement(line) for line in said.get_all("Requires-Dist", [])]


def _stand_in(name: str, version: str, folder: Path) -> Path:
    """Write an empty wheel of a package, by which pip takes it, and what it depends on, for being there."""
    label = f"{name.replace('-', '_')}-{version}"
    file = folder / f"{label}-py3-none-any.whl"
    with ZipFile(file, "w") as wheel:
        wheel.writestr(f"{label}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{label}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{label}.dist-info/RECORD", "")
    return file


def _pip(what: str, *words: str, **variables: str) -> None:
    """Run pip, with a bar on a terminal: of its output only the last error is shown."""
    if find_spec("pip") is None:
        raise BundleError(f"{sys.executable} has no pip: python -m ensurepip")
    command, said = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words], []
    with (
        subprocess.Popen(
            command, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as pip,
        tqdm(unit="package", desc=what, disable=None, leave=False) as bar,
    ):
        assert pip.stdout is not None
        for line in pip.stdout:
            said.append(line.strip())
            bar.update(line.startswith("Collecting "))
    if pip.returncode:
        errors = [line for line in said if line.startswith("ERROR: ")] or said or ["it printed nothing"]
        raise BundleError(f"pip cannot get {what}: {errors[-1].removeprefix('ERROR: ')}")
