"""Prompt sets: how the four stages are worded and parsed (method section 1).

`full` is the paper's templates in our own words for instruction-tuned models; `compact` is ours, for the nano policies.
"""

from skill1.config import ConfigError, closest
from skill1.nano.prompts.alfworld import CompactPrompts
from skill1.nano.prompts.webshop import CompactShopPrompts
from skill1.prompts.base import ActContext, Parsed, PromptSet, history_of
from skill1.prompts.full import FullPrompts, FullShopPrompts

__all__ = [
    "ActContext", "CompactPrompts", "CompactShopPrompts", "FullPrompts", "FullShopPrompts", "Parsed", "PromptSet",
    "history_of", "make_prompts",
]  # fmt: skip

_SETS: dict[str, dict[str, type[PromptSet]]] = {
    "alfworld": {"full": FullPrompts, "compact": CompactPrompts},
    "webshop": {"full": FullShopPrompts, "compact": CompactShopPrompts},
}


def make_prompts(name: str, environment: str) -> PromptSet:
    """The prompt set for `policy.prompts` and `environment.name`."""
    sets = _SETS[closest(environment, _SETS, "environment")]
    if name not in sets:
        raise ConfigError(f"no prompt set {name!r} for environment {environment!r}; use 'full' or 'compact'")
    return sets[name]()
