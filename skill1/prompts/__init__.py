"""Prompt sets: how the four stages are worded and parsed (method section 1).

`full` is the paper's templates in our own words for instruction-tuned models; `compact` is ours, for the nano policies.
"""

from pkgutil import resolve_name

from skill1.config import ConfigError, closest
from skill1.prompts.base import ActContext, Parsed, PromptSet, history_of

__all__ = ["ActContext", "Parsed", "PromptSet", "history_of", "make_prompts"]

_SETS: dict[str, dict[str, str]] = {
    "alfworld": {"full": "skill1.prompts.full:FullPrompts", "compact": "skill1.nano.prompts.alfworld:CompactPrompts"},
    "webshop": {
        "full": "skill1.prompts.full:FullShopPrompts",
        "compact": "skill1.nano.prompts.webshop:CompactShopPrompts",
    },
}


def make_prompts(name: str, environment: str) -> PromptSet:
    """The prompt set for `policy.prompts` and `environment.name`."""
    sets = _SETS[closest(environment, _SETS, "environment")]
    if name not in sets:
        raise ConfigError(f"no prompt set {name!r} for environment {environment!r}; use 'full' or 'compact'")
    return resolve_name(sets[name])()
