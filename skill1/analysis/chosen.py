"""Which study or run an analysis notebook reads: the one it is given, or where none is, that of an environment.

The environment (`env` of the notebooks) names one ("alfworld", "webshop", "file.py:OBJECT"), or is "" for whatever the
study or run is of; without either, ALFWorld's is read. One that is given must be of the environment that is asked for.
"""

from __future__ import annotations

from pathlib import Path

from skill1.analysis.study import Study, load
from skill1.envs.make import environment_spec
from skill1.envs.spec import EnvironmentSpec
from skill1.errors import RunError
from skill1.presets import preset_of
from skill1.registry import ConfigError
from skill1.store.run_directory import RunDirectory

_DEFAULT = "alfworld"
_RESULTS = Path("results")


def choose_study(given: str, environment: str) -> Study:
    """Load the collected study in folder `given`, or that of `make reproduce` in the environment at nano scale.

    Raises:
        ConfigError: an unknown environment, or a study of another one.
        RunError: there is no such study (with the command that makes it), or see `study.load`.
    """
    path = Path(given or _RESULTS / _preset(environment))
    try:
        study = load(path)
    except RunError as error:
        if path.exists():
            raise
        studied = _preset(environment)
        raise RunError(f"{error}: `skill1 reproduce --preset {studied} --name {path.name}` makes one") from None
    _check(path, study.environment, environment)
    return study


def choose_run(given: str, environment: str) -> Path:
    """Return run directory `given`, or "results/nano-full-seed0" (in WebShop "results/nano-webshop-full-seed0").

    Raises:
        ConfigError: an unknown environment, or a run of another one.
        RunError: there is no such run (with the commands that make it), or it is of another version.
    """
    path = Path(given or _RESULTS / f"{_preset(environment)}-full-seed0")
    try:
        run = RunDirectory.open(path)
    except RunError as error:
        if path.exists():
            raise
        name = environment or _DEFAULT
        raise RunError(
            f"{error}: `skill1 generate {name} --out data/{name}` and "
            f"`skill1 train --preset {_preset(name)} --set environment.data=data/{name} --out {path}` make one"
        ) from None
    _check(path, environment_spec(run.config.environment.name), environment)
    return path


def _preset(environment: str) -> str:
    """The nano preset of an environment."""
    environment_spec(environment or _DEFAULT)
    return preset_of("nano", environment or _DEFAULT)


def _check(path: Path, found: EnvironmentSpec, asked: str) -> None:
    if asked and environment_spec(asked).name != found.name:
        raise ConfigError(f"{path} is of {found.name}, but env = {asked!r}: give one of {asked}, or leave env empty")
