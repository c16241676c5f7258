"""A plan: memory and time of a configuration on a machine, whether it fits, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PretrainedConfig

from skill1.checks import check_groups
from skill1.config import Config, ConfigError, flatten, method_of, override
from skill1.plan.architecture import Architecture, read_architecture
from skill1.plan.duration import Duration, estimate_duration
from skill1.plan.machine import Machine
from skill1.plan.memory import GENERATION, LONGEST_ROW, MICRO_BATCH, SCORING, Memory, estimate_memory, held_memory
from skill1.plan.passes import Parameters, Passes, Weights
from skill1.plan.workload import Assumptions, Workload, make_workload
from skill1.updates.trl_config import lora_config

_MOST_GPUS = 64
_LORA_RANK = 32  # suggested
_PROMPTS = "rollout.max_prompt_tokens"
# What a phase's memory depends on, in the order in which they are halved.
_KNOBS = {
    GENERATION: "policy.generate_batch",
    MICRO_BATCH: "train.tokens_per_micro_batch",
    LONGEST_ROW: _PROMPTS,  # the only one that changes the result: last
    SCORING: _PROMPTS,
}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change with which the plan fits, and the peak it would have."""

    changes: Mapping[str, Any]  # configuration fields, and "gpus"
    peak: float  # bytes on each GPU


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would take. `suggestions` is empty where it fits."""

    config: Config
    machine: Machine
    source: str  # of the architecture
    assumptions: Assumptions
    parameters: Parameters
    workload: Workload
    memory: Memory
    duration: Duration
    suggestions: tuple[Suggestion, ...] = ()

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.machine.usable

    @property
    def hours(self) -> float:
        """Of all steps."""
        return self.duration.step * self.config.train.steps / 3600


@dataclass
class Planner:
    """Plans of one model, with what was counted kept between them."""

    architecture: Architecture
    _passes: dict[tuple[Any, ...], Passes] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str, revision: str | None = None) -> Planner:
        """Read the model's architecture. Raises ConfigError: see `read_architecture`."""
        return cls(read_architecture(model, revision))

    def plan(self, config: Config, machine: Machine, assumptions: Assumptions | None = None) -> Plan:
        """Plan `config` on `machine`, with suggestions if it does not fit.

        Raises:
            ConfigError: the configuration cannot run on so many GPUs, or with this model, or an assumption is
                impossible.
        """
        check(config, machine.gpus, self.architecture.config)
        given = assumptions or Assumptions()
        workload, passes = make_workload(config, given), self.passes(config)
        memory = estimate_memory(config, passes, machine, workload)
        duration = estimate_duration(config, passes, machine, workload)
        source = self.architecture.source
        plan = Plan(config, machine, source, given, passes.parameters, workload, memory, duration)
        return plan if plan.fits else replace(plan, suggestions=tuple(self._suggest(plan)))

    def passes(self, config: Config) -> Passes:
        """Return the passes of the model with the weights that `config` computes with."""
        policy = config.policy
        key = (policy.dtype, policy.lora_rank, policy.lora_alpha)
        if key not in self._passes:
            weights = Weights(getattr(torch, policy.dtype), lora_config(config))
            self._passes[key] = Passes(self.architecture.config, weights)
        return self._passes[key]

    def _suggest(self, plan: Plan) -> Iterator[Suggestion]:
        """For this machine with these weights, for more GPUs and for LoRA: the mildest changes that fit."""
        for kind in _kinds(plan):
            for change in kind:
                if (found := self._shrink(plan, change)) is not None:
                    yield found
                    break

    def _shrink(self, plan: Plan, change: Mapping[str, Any]) -> Suggestion | None:
        """`change` and the fewest halvings of what each phase depends on that fit; None if there are none."""
        changes = dict(change)
        config, machine = _changed(plan, changes)
        if held_memory(config, self.passes(config).parameters, machine).total > machine.usable:
            return None
        for phase, name in _KNOBS.items():
            least = max(s.lengths.prompt for s in plan.workload.stages) if name == _PROMPTS else 1
            while self._memory(plan, changes).phases[phase] > machine.usable:
                changes[name] = changes.get(name, flatten(config)[name]) // 2
                if changes[name] < least:
                    return None
        return Suggestion(changes, self._memory(plan, changes).peak)

    def _memory(self, plan: Plan, changes: Mapping[str, Any]) -> Memory:
        config, machine = _changed(plan, changes)
        return estimate_memory(config, self.passes(config), machine, make_workload(config, plan.assumptions))


def check(config: Config, ranks: int, architecture: PretrainedConfig) -> None:
    """Raise ConfigError where training could not start or would stop: the arithmetic of ranks and lengths."""
    check_groups(config, ranks)
    limit = max(method_of(config).trained_stages(config).values())
    context = architecture.max_position_embeddings
    if config.rollout.max_prompt_tokens + limit > context:
        raise ConfigError(
            f"rollout.max_prompt_tokens={config.rollout.max_prompt_tokens} and {limit} completion tokens are more than "
            f"the model's {context} positions"
        )


def _kinds(plan: Plan) -> Iterator[list[dict[str, Any]]]:
    """The starting points of suggestions; within each, the mildest that fits is enough."""
    config, gpus = plan.config, plan.machine.gpus
    free: dict[str, Any] = {} if config.policy.gradient_checkpointing else {"policy.gradient_checkpointing": True}
    yield [free]
    most = min(_MOST_GPUS, config.rollout.tasks_per_step)
    spread: dict[str, Any] = {"train.sharding": "fsdp2"} if config.train.sharding == "none" else {}
    yield [free | spread | {"gpus": gpus * 2**n} for n in range(1, 7) if gpus * 2**n <= most]
    if not config.policy.lora_rank:
        yield [free | {"policy.lora_rank": _LORA_RANK}]


def _changed(plan: Plan, changes: Mapping[str, Any]) -> tuple[Config, Machine]:
    machine = replace(plan.machine, gpus=changes["gpus"], sharded=True) if "gpus" in changes else plan.machine
    return override(plan.config, {name: value for name, value in changes.items() if name != "gpus"}), machine
