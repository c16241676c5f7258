"""Prompt sets: how the stages are worded and parsed.

`full` is the paper's templates in our own words for instruction-tuned models; `compact` is ours, for the nano policies.
Others are found as `skill1.registry` says. What only one method asks (a reflection, a bank's block) is worded beside that
method, per prompt set: the entry point group "skill1.method_prompts" has "METHOD.SET" -> callable of the prompt set.
"""

from typing import Any

from skill1.config import Config
from skill1.envs.make import environment_spec
from skill1.prompts.base import ActContext, Exchange, Parsed, PromptSet, history_of
from skill1.registry import ConfigError, find, names

__all__ = ["ActContext", "Exchange", "Parsed", "PromptSet", "history_of", "make_prompts", "method_prompts"]


def make_prompts(name: str, environment: str) -> PromptSet:
    """Build the prompt set `policy.prompts` in the words of an environment."""
    return find("prompts", name)(environment_spec(environment))


def method_prompts(config: Config) -> Any:
    """Build what the run's method asks beside the stages of a `PromptSet`.

    Raises:
        ConfigError: nobody has written these prompts for `policy.prompts`.
    """
    wanted = f"{config.method.name}.{config.policy.prompts}"
    if wanted not in names("method_prompts"):
        raise ConfigError(
            f"policy.prompts={config.policy.prompts} has no prompts for the method {config.method.name}: register them in "
            f"the entry point group skill1.method_prompts as {wanted!r}"
        )
    return find("method_prompts", wanted)(make_prompts(config.policy.prompts, config.environment.name))
