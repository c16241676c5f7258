"""A plan: memory and time of a configuration on a machine, whether it fits, and what would make it fit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PretrainedConfig

from skill1.config import Config, ConfigError, method_of, override
from skill1.plan.architectures import Architecture, read_architecture
from skill1.plan.duration import Duration, estimate_duration
from skill1.plan.graph import Graph, Parameters, Weights
from skill1.plan.machine import Machine
from skill1.plan.memory import (
    GENERATION,
    LONGEST_ROW,
    MICRO_BATCH,
    SCORING,
    Memory,
    estimate_memory,
    without_activations,
)
from skill1.plan.workload import Assumptions, Workload, make_workload
from skill1.trl_config import lora_config

_MOST_GPUS = 64
_LORA_RANK = 32  # suggested
_PROMPTS = "rollout.max_prompt_tokens"
# What a phase's memory depends on, in the order in which they are halved.
_KNOBS: dict[str, tuple[str, ...]] = {
    "policy.generate_batch": (GENERATION,),
    "train.tokens_per_micro_batch": (MICRO_BATCH,),
    _PROMPTS: (LONGEST_ROW, SCORING),  # the only one that changes the result: last
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would take. `suggestions` is empty where it fits."""

    config: Config
    machine: Machine
    source: str  # of the architecture
    parameters: Parameters
    memory: Memory
    flipped: Memory  # with policy.gradient_checkpointing the other way
    workload: Workload
    assumptions: Assumptions
    duration: Duration
    suggestions: tuple[Suggestion, ...] = ()

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.machine.usable

    @property
    def hours(self) -> float:
        """Of all steps."""
        return self.duration.step * self.config.train.steps / 3600


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change with which the plan fits, and the peak it would have."""

    changes: Mapping[str, Any]  # configuration fields, and "gpus"
    peak: float  # bytes on each GPU


@dataclass
class Planner:
    """Plans of one model, with what was counted kept between them."""

    architecture: Architecture
    _graphs: dict[tuple[Any, ...], Graph] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str) -> Planner:
        """Raises ConfigError: see `read_architecture`."""
        return cls(read_architecture(model))

    def plan(self, config: Config, machine: Machine, assumptions: Assumptions | None = None) -> Plan:
        """Memory and time of `config` on `machine`, with suggestions if it does not fit.

        Raises:
            ConfigError: the configuration cannot run on so many GPUs, or with this model, or an assumption is
                impossible.
        """
        check(config, machine.gpus, self.architecture.config)
        assumptions = assumptions or Assumptions()
        workload = make_workload(config, assumptions)
        graph = self._graph(config, machine)
        memory = estimate_memory(config, graph, machine, workload)
        turned = {"policy.gradient_checkpointing": not config.policy.gradient_checkpointing}
        flipped = estimate_memory(_changed(config, turned), graph, machine, workload)
        duration = estimate_duration(config, graph, machine, workload)
        source = self.architecture.source
        plan = Plan(config, machine, source, graph.parameters, memory, flipped, workload, assumptions, duration)
        return plan if plan.fits else replace(plan, suggestions=tuple(self._suggest(plan)))

    def _suggest(self, plan: Plan) -> Iterator[Suggestion]:
        """For this machine with these weights, for more GPUs and for LoRA: the mildest changes that fit."""
        for kind in _kinds(plan):
            for change in kind:
                if (found := self._shrink(plan, change)) is not None:
                    yield found
                    break

    def _shrink(self, plan: Plan, change: Mapping[str, Any]) -> Suggestion | None:
        """`change` and the largest halvings of what each phase depends on that fit; None if there are none."""
        changes = dict(change)
        config, machine = self._with(plan, changes)
        size = self._graph(config, machine).parameters
        if sum(without_activations(config, size, machine).values()) > machine.usable:
            return None
        for name, phases in _KNOBS.items():
            value = _value(plan.config, name)
            least = max(s.lengths.prompt for s in plan.workload.stages) if name == _PROMPTS else 1
            values = [value, *_halves(value, least)]
            if self._fits(plan, changes, phases):
                continue
            chosen = bisect_left(values, True, key=lambda n: self._fits(plan, changes | {name: n}, phases))
            if chosen == len(values):
                return None
            changes[name] = values[chosen]
        return Suggestion(changes, self._memory(plan, changes).peak)

    def _fits(self, plan: Plan, changes: Mapping[str, Any], phases: tuple[str, ...]) -> bool:
        needed = self._memory(plan, changes).phases
        return all(needed[phase] <= plan.machine.usable for phase in phases)

    def _memory(self, plan: Plan, changes: Mapping[str, Any]) -> Memory:
        config, machine = self._with(plan, changes)
        return estimate_memory(config, self._graph(config, machine), machine, make_workload(config, plan.assumptions))

    @staticmethod
    def _with(plan: Plan, changes: Mapping[str, Any]) -> tuple[Config, Machine]:
        machine = replace(plan.machine, gpus=changes["gpus"], sharded=True) if "gpus" in changes else plan.machine
        return _changed(plan.config, {name: value for name, value in changes.items() if name != "gpus"}), machine

    def _graph(self, config: Config, machine: Machine) -> Graph:
        policy = config.policy
        sharded = machine.shards > 1
        key = (policy.dtype, policy.lora_rank, policy.lora_alpha, sharded)
        if key not in self._graphs:
            compute = getattr(torch, policy.dtype)
            # full fine-tuning holds float32, which FSDP2 gathers in the compute dtype (policy.load_model)
            held = compute if policy.lora_rank or sharded else torch.float32
            self._graphs[key] = Graph(self.architecture.config, Weights(held, compute, lora_config(config)))
        return self._graphs[key]


def check(config: Config, ranks: int, architecture: PretrainedConfig) -> None:
    """Raises ConfigError where training could not start or would stop: the arithmetic of ranks and lengths."""
    if ranks > config.rollout.tasks_per_step:
        raise ConfigError(
            f"{ranks} processes for rollout.tasks_per_step={config.rollout.tasks_per_step} groups: every process plays "
            "whole groups, so use fewer GPUs or more tasks a step"
        )
    rollout = config.rollout
    limit = max(method_of(config).trained_stages(config).values())
    context = architecture.max_position_embeddings
    if rollout.max_prompt_tokens + limit > context:
        raise ConfigError(
            f"rollout.max_prompt_tokens={rollout.max_prompt_tokens} and {limit} completion tokens are more than the "
            f"model's {context} positions"
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


def _changed(config: Config, changes: Mapping[str, Any]) -> Config:
    return override(config, changes)


def _value(config: Config, name: str) -> int:
    section, leaf = name.split(".")
    return getattr(getattr(config, section), leaf)


def _halves(value: int, least: int) -> list[int]:
    """value // 2, value // 4, ... down to `least`."""
    found = []
    while (value := value // 2) >= least:
        found.append(value)
    return found
