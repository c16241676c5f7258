"""The one place that says whether a run can start as it is configured, before anything is created.

What a value's own type can say is in `config`; what a method's options mean together is in `Method.check`, which
`load_config` calls, and whether what they name is there in `Method.check_start`.
"""

from __future__ import annotations

from importlib.util import find_spec

from skill1.config import Config, method_of
from skill1.prompts import make_prompts
from skill1.registry import ConfigError
from skill1.sharding import check_sharding


def check_run(config: Config, processes: int) -> None:
    """Check a configuration against the processes and packages that are there.

    Raises:
        ConfigError: fewer tasks a step than processes, prompts without words for the context, a reference that would lack
            the adapter, sharding that would not happen, or a tracker that is not installed.
        UserError: what the method begins with is not there, see `Method.check_start`.
    """
    check_groups(config, processes)
    make_prompts(config.policy.prompts, config.environment.name, config.rollout.context)
    if config.policy.adapter and config.train.kl and not config.policy.lora_rank:
        raise ConfigError(
            "policy.adapter with train.kl > 0 and policy.lora_rank=0: the reference would be loaded without the adapter; write "
            "whole weights (cold_start.save=merged) and name them as policy.model, train adapters, or set train.kl=0"
        )
    check_sharding(config, processes)
    method_of(config).check_start(config)
    tracker = config.train.report_to
    if tracker != "none" and find_spec(tracker) is None:
        raise ConfigError(f"train.report_to={tracker}: the package {tracker} is not installed; install it, or use none")


def check_groups(config: Config, processes: int) -> None:
    """Raise ConfigError if a step has fewer tasks than there are processes."""
    if config.rollout.tasks_per_step < processes:
        raise ConfigError(
            f"rollout.tasks_per_step={config.rollout.tasks_per_step} is less than the {processes} processes: every process "
            "plays whole groups, so use fewer or more tasks a step"
        )
