"""Prompt sets: how the four stages are worded and parsed (method section 1).

`full` is the paper's templates in our own words for instruction-tuned models; `compact` is ours, for the nano policy.
"""

from skill1.config import ConfigError
from skill1.prompts.base import ActContext, Parsed, PromptSet, history_of
from skill1.prompts.compact import CompactPrompts
from skill1.prompts.full import FullPrompts

__all__ = ["ActContext", "CompactPrompts", "FullPrompts", "Parsed", "PromptSet", "history_of", "make_prompts"]


def make_prompts(name: str, environment: str) -> PromptSet:
    """The prompt set for `policy.prompts` and `environment.name`."""
    if name == "full":
        return FullPrompts()
    if name == "compact":
        return CompactPrompts()
    raise ConfigError(f"no prompt set {name!r} for environment {environment!r}; use 'full' or 'compact'")
