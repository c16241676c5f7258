"""Prompt sets: how the stages are worded and parsed.

`full` is the paper's templates in our own words for instruction-tuned models; `compact` is ours, for the nano policies.
Others are found as `skill1.registry` says, or are a folder of templates that replace those of `full`. What only one method asks (a reflection, a bank's block) is worded beside that
method, per prompt set: the entry point group "skill1.method_prompts" has "METHOD.SET" -> callable of the prompt set.
"""

from pathlib import Path
from typing import Any

from skill1.config import Config
from skill1.envs.make import environment_spec
from skill1.prompts.base import ActContext, Context, Exchange, Parsed, PromptSet, history_of, window_only
from skill1.prompts.full import make as make_full
from skill1.registry import ConfigError, find, is_folder, names

__all__ = [
    "ActContext", "Context", "Exchange", "Parsed", "PromptSet", "history_of", "make_prompts", "method_prompts",
    "window_only",
]  # fmt: skip


def make_prompts(name: str, environment: str, context: Context = "window") -> PromptSet:
    """Build the prompt set `policy.prompts` in the words of an environment, for a context (`rollout.context`).

    Raises:
        ConfigError: there is no such set, it has no words for the context, or a template of one's own has a mistake.
    """
    spec = environment_spec(environment)
    if is_folder(name):
        return make_full(spec, context, Path(name).expanduser())
    return find("prompts", name)(spec, context)


def method_prompts(config: Config) -> Any:
    """Build what the run's method asks beside the stages of a `PromptSet`.

    Raises:
        ConfigError: nobody has written these prompts for `policy.prompts`.
    """
    prompts = "full" if is_folder(config.policy.prompts) else config.policy.prompts
    wanted = f"{config.method.name}.{prompts}"
    if wanted not in names("method_prompts"):
        raise ConfigError(
            f"policy.prompts={config.policy.prompts} has no prompts for the method {config.method.name}: register them in "
            f"the entry point group skill1.method_prompts as {wanted!r}"
        )
    return find("method_prompts", wanted)(
        make_prompts(config.policy.prompts, config.environment.name, config.rollout.context)
    )
