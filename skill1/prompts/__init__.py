"""Prompt sets: how the four stages are worded and parsed (method section 1).

`full` is the paper's templates in our own words for instruction-tuned models; `compact` is ours, for the nano policies.
"""

from skill1.envs.make import environment_spec
from skill1.prompts.base import ActContext, Parsed, PromptSet, history_of
from skill1.prompts.full import FullPrompts
from skill1.registry import ConfigError, find

__all__ = ["ActContext", "Parsed", "PromptSet", "history_of", "make_prompts"]


def make_prompts(name: str, environment: str) -> PromptSet:
    """The prompt set for `policy.prompts` and `environment.name`. Raises ConfigError if there is none."""
    spec = environment_spec(environment)
    if name == "full":
        return FullPrompts(spec.words)
    if name == "compact" and spec.nano:
        return find("prompts", spec.nano).prompts()
    raise ConfigError(f"no prompt set {name!r} for environment {environment!r}; use 'full' or 'compact'")
