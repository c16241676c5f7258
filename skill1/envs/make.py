"""Which environment a configuration asks for."""

from __future__ import annotations

from skill1.config import EnvironmentConfig
from skill1.envs.base import VectorEnvironment
from skill1.envs.spec import EnvironmentSpec
from skill1.registry import find


def environment_spec(name: str) -> EnvironmentSpec:
    """Find an environment by its name, as "module:OBJECT" or as "file.py:OBJECT".

    Raises ConfigError for an unknown name (with the closest match), or if there is no such module, file or object.
    """
    return find("environments", name)


def make_environment(config: EnvironmentConfig) -> VectorEnvironment:
    """Open the environment `config.name`, on its data folder or the one its variable names.

    Raises:
        ConfigError: there is no such environment.
        DataError: no folder is given, or its data is missing or malformed.
        MissingPackage: ALFWorld's textworld engine is asked for and the package is not installed.
    """
    return environment_spec(config.name).open(config)
