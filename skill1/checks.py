"""The one place that says whether a run can start as it is configured, before anything is created.

What a value's own type can say is in `config`; what a method's options mean together is in `Method.check`, which
`load_config` calls, and whether what they name is there in `Method.check_start`.
"""

from __future__ import annotations

from transformers.integrations import get_available_reporting_integrations

from skill1.config import Config, method_of
from skill1.envs.base import VectorEnvironment
from skill1.prompts import make_prompts
from skill1.registry import ConfigError
from skill1.sharding import check_sharding


def check_run(config: Config, processes: int) -> None:
    """Check a configuration against the processes and packages that are there.

    Raises:
        ConfigError: fewer tasks a step than processes, prompts without words for the context, a reference that would lack
            the adapter, sharding that would not happen, steps that cannot overlap, or a backend or tracker that is not
            installed.
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
    if config.train.overlap and config.policy.backend != "vllm_server":
        raise ConfigError(
            f"train.overlap with policy.backend={config.policy.backend}: only a server has weights of its own to write with "
            "while the policy is updated; set policy.backend=vllm_server, or leave it out"
        )
    if config.policy.vllm:
        from skill1.generation.vllm_server import check_installed  # TRL takes a second to import

        check_installed(config.policy.backend)
    tracker = config.train.report_to
    if tracker != "none" and tracker not in get_available_reporting_integrations():
        raise ConfigError(f"train.report_to={tracker}: the package {tracker} is not installed; install it, or use none")


def count_tasks(config: Config, environment: VectorEnvironment) -> dict[str, int]:
    """Count the tasks of the splits that training plays: split -> tasks.

    Raises:
        ConfigError: a split has none. DataError: there is no such split, or its data is malformed.
    """
    played = ("train_split", "validation_split") if config.train.validate_every else ("train_split",)
    fields = {name: getattr(config.environment, name) for name in played}
    counts = {split: len(environment.tasks(split)) for split in fields.values()}
    if empty := [f"environment.{name}={split}" for name, split in fields.items() if not counts[split]]:
        raise ConfigError(f"{' and '.join(empty)}: the data holds no such task")
    return counts


def check_groups(config: Config, processes: int) -> None:
    """Raise ConfigError if a step has fewer tasks than there are processes."""
    if config.rollout.tasks_per_step < processes:
        raise ConfigError(
            f"rollout.tasks_per_step={config.rollout.tasks_per_step} is less than the {processes} processes: every process "
            "plays whole groups, so use fewer or more tasks a step"
        )
