"""Which environment a configuration asks for."""

from __future__ import annotations

from pkgutil import resolve_name

from skill1.config import EnvironmentConfig, closest
from skill1.envs.base import VectorEnvironment
from skill1.envs.spec import EnvironmentSpec

_OWN = {"alfworld": "skill1.envs.alfworld.spec:ALFWORLD", "webshop": "skill1.envs.webshop.spec:WEBSHOP"}


def environment_spec(name: str) -> EnvironmentSpec:
    """Find an environment: "alfworld", "webshop", or "module:OBJECT".

    Raises ConfigError for an unknown name, with the closest match.
    """
    return resolve_name(name if ":" in name else _OWN[closest(name, _OWN, "environment")])


def make_environment(config: EnvironmentConfig) -> VectorEnvironment:
    """Open the environment `config.name`, on its data folder or the one its variable names.

    Raises:
        ConfigError: there is no such environment.
        DataError: no folder is given, or its data is missing or malformed.
        ImportError: ALFWorld's textworld engine is asked for and the package is not installed.
    """
    return environment_spec(config.name).open(config)
