"""Which study or run an analysis notebook reads: the one it is given, or where none is, that of an environment.

The environment (`env` of the notebooks) is "alfworld", "webshop", or "" for whatever the study or run is of; without
either, ALFWorld's is read. One that is given must be of the environment that is asked for.
"""

from __future__ import annotations

from pathlib import Path

from skill1.analysis.study import Study, load
from skill1.config import ConfigError, closest
from skill1.presets import preset_of
from skill1.store.run_directory import RunDirectory, RunError

ENVIRONMENTS = ("alfworld", "webshop")
_GENERATED = {"alfworld": "data/games", "webshop": "data/shop"}  # where the README puts generated games
_RESULTS = Path("results")


def choose_study(given: str, environment: str) -> Study:
    """The collected study in folder `given`, or that of `make reproduce` in the environment at nano scale.

    Raises:
        ConfigError: an unknown environment, or a study of another one.
        RunError: there is no such study (with the command that makes it), or see `study.load`.
    """
    preset = _preset(environment)
    path = Path(given or _RESULTS / preset)
    try:
        study = load(path)
    except RunError as error:
        if path.exists():
            raise
        studied = preset_of("nano-baselines", environment or ENVIRONMENTS[0])
        raise RunError(f"{error}: `skill1 reproduce --preset {studied} --name {path.name}` makes one") from None
    _check(path, study.environment.name, environment)
    return study


def choose_run(given: str, environment: str) -> Path:
    """Run directory `given`, or "results/nano-full-seed0" (in WebShop "results/nano-webshop-full-seed0").

    Raises:
        ConfigError: an unknown environment, or a run of another one.
        RunError: there is no such run (with the commands that make it), or it is of another version.
    """
    preset = _preset(environment)
    path = Path(given or _RESULTS / f"{preset}-full-seed0")
    try:
        run = RunDirectory.open(path)
    except RunError as error:
        if path.exists():
            raise
        name = environment or ENVIRONMENTS[0]
        data = _GENERATED[name]
        raise RunError(
            f"{error}: `skill1 generate {name} --out {data}` and "
            f"`skill1 train --preset {preset} --set environment.data={data} --out {path}` make one"
        ) from None
    _check(path, run.config.environment.name, environment)
    return path


def _preset(environment: str) -> str:
    return preset_of("nano", closest(environment or ENVIRONMENTS[0], ENVIRONMENTS, "environment"))


def _check(path: Path, found: str, asked: str) -> None:
    if asked and found != asked:
        raise ConfigError(f"{path} is of {found}, but env = {asked!r}: give one of {asked}, or leave env empty")
