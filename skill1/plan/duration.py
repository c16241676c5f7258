"""Seconds of a training step: generation, scoring, update; rooflines of counted passes and the links between GPUs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from skill1.config import Config
from skill1.plan.machine import Machine
from skill1.plan.passes import Passes
from skill1.plan.workload import Calls, Workload, rows_of_call

ADAM_TRAFFIC = 7 * 4  # bytes a parameter: reads weight, gradient, two moments; writes weight and moments


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds of a step. The environment, the library and validation are not counted."""

    generation: float
    generation_exchange: float  # part of it: gathering the weights, once
    scoring: float  # reference and, from the second update on, old log-probabilities
    update: float  # forward, backward and optimizer steps
    updates: int
    micro_batches: int
    mfu: float  # share of the peak rate that forward and backward passes reach

    @property
    def step(self) -> float:
        return self.generation + self.scoring + self.update


def estimate_duration(config: Config, passes: Passes, machine: Machine, workload: Workload) -> Duration:
    """Estimate one step; exchange between GPUs overlaps with computing, the longer one counts."""
    size = passes.parameters
    compute = getattr(torch, config.policy.dtype).itemsize
    share = (machine.gpus - 1) / machine.gpus  # of an all-gather or reduce-scatter that comes from elsewhere
    gather = share * compute * size.total / machine.link if machine.sharded else 0.0
    written = sum(seconds_to_write(calls, config, passes, machine) for calls in workload.stages)

    typical = (workload.micro_rows, workload.sequence.prompt, workload.sequence.completion)
    padded = workload.micro_rows * (workload.sequence.prompt + workload.sequence.completion)
    update, score = passes.update(*typical, config.policy.gradient_checkpointing), passes.score(*typical)
    update_seconds, score_seconds = (each.seconds(machine) / machine.training for each in (update, score))
    rows = workload.shape().lengths
    tokens = [  # padding included, of each micro-batch on the first rank, update by update
        [len(m.ranks[0]) * int(rows[list(m.ranks[0])].max()) for m in u.micro_batches]
        for u in workload.updates(config, machine.gpus)
    ]
    # FSDP2 gathers weights twice and scatters gradients in every micro-batch, whole ones are reduced once an update
    scatter = share * compute * size.trained / machine.link if machine.sharded else 0.0
    trained = [max(t / padded * update_seconds, 2 * gather + scatter) for u in tokens for t in u]
    adam = ADAM_TRAFFIC * size.trained / machine.shards / machine.bandwidth
    exchange = 0.0 if machine.sharded else share * size.trained * 4 * 2 / machine.link
    every = sum(map(sum, tokens))
    scored = (every - sum(tokens[0])) + (every if config.train.kl > 0 else 0)  # old ones from the second update on
    return Duration(
        generation=written + gather,
        generation_exchange=gather,
        scoring=scored / padded * score_seconds,
        update=sum(trained) + len(tokens) * (adam + exchange),
        updates=len(tokens),
        micro_batches=len(trained),
        mfu=every / padded * update.flops / sum(trained) / machine.flops,
    )


def seconds_to_write(calls: Calls, config: Config, passes: Passes, machine: Machine) -> float:
    """Estimate the seconds of a stage's calls on one GPU, with whole weights."""
    live = calls.rows / calls.calls / machine.gpus  # prompts of a call, on average
    batches = math.ceil(live / rows_of_call(config, calls.width))
    rows = max(1, round(live / batches))
    prefill = passes.prefill(rows, calls.lengths.prompt).seconds(machine)
    decode = passes.decode(rows, calls.before + calls.lengths.prompt + calls.longest // 2).seconds(machine)
    tokens = calls.longest - 1  # the first comes from the prompts' pass
    return calls.calls * batches * (prefill + tokens * decode) / machine.generation
