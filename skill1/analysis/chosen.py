"""Which study or run an analysis notebook reads: the one it is given, or the newest there is, or a committed one.

The environment (`env` of the notebooks) names one ("alfworld", "webshop", "file.py:OBJECT"), or is "" for any. What is
given must be of the environment that is asked for. Committed reference results are read only: what is drawn of them
goes elsewhere (`figures_folder`), beside the executed notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from skill1.analysis.study import FILES, Study, load
from skill1.envs.make import environment_spec
from skill1.envs.spec import EnvironmentSpec
from skill1.errors import RunError
from skill1.presets import preset_of
from skill1.registry import ConfigError
from skill1.store.find import find_runs
from skill1.store.json_file import read_json
from skill1.store.run_directory import RunDirectory

_DEFAULT = "alfworld"  # whose commands are proposed where there is nothing of any environment
_RESULTS = Path("results")
_REFERENCE = _RESULTS / "reference"
_SHOWN = "shown.json"  # of the reference results: what stands in for one's own, the first that suits

Content = Literal["outcomes", "rollouts", "skills"]
_HOLDS: dict[Content, Callable[[RunDirectory], bool]] = {
    "outcomes": lambda run: run.latest_checkpoint() is not None or not run.evaluations("evaluation_*").empty,
    "rollouts": lambda run: bool(run.rollout_steps()),
    "skills": lambda run: run.config.library is not None and bool(run.rollout_steps()),
}


def choose_study(given: str, environment: str) -> Study:
    """Load the collected study in folder `given`; without one the newest in results, else a committed one.

    What was chosen is printed.

    Raises:
        ConfigError: an unknown environment, or a study of another one.
        RunError: there is none (with the command that makes one), or see `study.load`.
    """
    asked = environment_spec(environment).name if environment else ""
    if given:
        study = load(Path(given))
        _check(study.path, study.environment, environment)
        return study
    for study in _studies():
        if study.environment.name == asked or not asked:
            _say("study", study.path)
            return study
    preset = preset_of("nano", asked or _DEFAULT)
    raise RunError(f"there is no study in {_RESULTS}: `skill1 reproduce --preset {preset} --name {preset}` makes one")


def choose_run(given: str, environment: str, holding: Content) -> Path:
    """Return run directory `given`; without one the newest in results that suits, else a committed one.

    What was chosen is printed.

    Args:
        holding: what is needed of it: "outcomes" (or weights to play with), "rollouts" or "skills".

    Raises:
        ConfigError: an unknown environment, or a run of another one.
        RunError: there is none (with the command that makes one), or it is of another version.
    """
    asked = environment_spec(environment).name if environment else ""
    if given:
        run = RunDirectory.open(Path(given))
        _check(run.path, environment_spec(run.config.environment.name), environment)
        return run.path
    for run in _runs():
        if (run.config.environment.name == asked or not asked) and _HOLDS[holding](run):
            _say("run", run.path)
            return run.path
    raise RunError(
        f"no run in {_RESULTS} has {holding}: `skill1 demo --preset {preset_of('nano', asked or _DEFAULT)}` makes one, or "
        "name a run directory"
    )


def figures_folder(path: Path) -> Path:
    """Return the folder for what is drawn of a study or run: its own, but of reference results in results/notebooks."""
    if path.resolve().is_relative_to(_REFERENCE.resolve()):
        return _RESULTS / "notebooks" / path.resolve().relative_to(_REFERENCE.resolve()) / "figures"
    return path / "figures"


def _runs() -> Iterator[RunDirectory]:
    found = find_runs(_RESULTS)
    yield from (run for run in found if not run.path.is_relative_to(_REFERENCE))
    yield from map(RunDirectory.open, _shown("runs"))


def _studies() -> Iterator[Study]:
    found = {file.parent for file in _RESULTS.glob(f"**/{FILES[0]}") if not file.is_relative_to(_REFERENCE)}
    whole = [folder for folder in found if all((folder / name).is_file() for name in FILES)]
    newest = sorted(whole, key=lambda folder: (folder / FILES[0]).stat().st_mtime, reverse=True)
    for folder in newest:
        with suppress(RunError):  # of another version: nobody asked for it by name
            yield load(folder)
    yield from map(load, _shown("studies"))


def _shown(kind: str) -> list[Path]:
    file = _REFERENCE / _SHOWN
    return [_REFERENCE / name for name in read_json(file)[kind]] if file.exists() else []


def _say(kind: str, path: Path) -> None:
    why = "a committed reference: results has none of your own" if path.is_relative_to(_REFERENCE) else "the newest"
    print(f"{kind}: {path} ({why}; name another as `{kind}`)")


def _check(path: Path, found: EnvironmentSpec, asked: str) -> None:
    if asked and environment_spec(asked).name != found.name:
        raise ConfigError(f"{path} is of {found.name}, but env = {asked!r}: give one of {asked}, or leave env empty")
