"""Which environment a configuration asks for: the one place that knows them all."""

from __future__ import annotations

from collections.abc import Callable

from skill1.config import EnvironmentConfig
from skill1.envs.alfworld.environment import open_alfworld
from skill1.envs.base import VectorEnvironment
from skill1.envs.webshop.environment import open_webshop

_OPENERS: dict[str, Callable[[EnvironmentConfig], VectorEnvironment]] = {
    "alfworld": open_alfworld,
    "webshop": open_webshop,
}


_VARIABLES = {"alfworld": "ALFWORLD_DATA", "webshop": "WEBSHOP_DATA"}


def data_variable(config: EnvironmentConfig) -> str:
    """The environment variable that names the data folder when `config.data` does not."""
    return _VARIABLES[config.name]


def make_environment(config: EnvironmentConfig) -> VectorEnvironment:
    """The environment `config.name`, on its data folder or the one its variable names.

    Raises:
        DataError: no folder is given, or its data is missing or malformed.
        ImportError: ALFWorld's textworld engine is asked for and the package is not installed.
    """
    return _OPENERS[config.name](config)
