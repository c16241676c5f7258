"""Seconds of a training step: generation, scoring, update; rooflines of counted passes and the links between GPUs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from skill1.config import Config
from skill1.plan.graph import Graph, Speed
from skill1.plan.machine import Machine
from skill1.plan.memory import rows_of_call, typical_rows
from skill1.plan.workload import Stages, Workload

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
    update_tokens: int  # put through the model by one GPU, padding included
    update_flops: float  # of all GPUs
    mfu: float  # share of the peak rate that forward and backward passes reach

    @property
    def step(self) -> float:
        return self.generation + self.scoring + self.update


def estimate_duration(config: Config, graph: Graph, machine: Machine, workload: Workload) -> Duration:
    """Seconds of one step; exchange between GPUs overlaps with computing, the longer one counts."""
    speed, size = machine.speed, graph.parameters
    compute = getattr(torch, config.policy.dtype).itemsize
    share = (machine.gpus - 1) / machine.gpus  # of an all-gather or reduce-scatter that comes from elsewhere
    gather = share * compute * size.total / machine.link if machine.sharded else 0.0
    written = sum(_generation(s, config, graph.writer, speed, machine.gpus) for s in workload.stages)

    act = workload.act.lengths
    typical = (typical_rows(config, workload), act.prompt, act.completion)
    padded = typical[0] * (act.prompt + act.completion)
    passes = graph.update(*typical, config.policy.gradient_checkpointing)
    scores = graph.score(*typical)
    lengths = {s.stage: s.lengths.prompt + s.lengths.completion for s in workload.stages}
    row_tokens = [lengths[s.stage] for s in workload.stages for _ in range(s.rows)]
    updates = workload.updates(config, machine.gpus)
    tokens = [  # of each micro-batch on the rank that is dealt first, update by update
        [len(m.ranks[0]) * max(row_tokens[i] for i in m.ranks[0]) for m in update.micro_batches] for update in updates
    ]
    # FSDP2 gathers weights twice and scatters gradients in every micro-batch, DDP reduces whole ones once an update
    scatter = share * compute * size.trained / machine.link if machine.sharded else 0.0
    trained = [max(t / padded * passes.seconds(speed), 2 * gather + scatter) for update in tokens for t in update]
    step_bytes = ADAM_TRAFFIC * size.trained / machine.shards
    exchange = 0.0 if machine.sharded else share * size.trained * 4 * 2 / machine.link
    second = sum(sum(update) for update in tokens[1:])  # tokens whose old log-probabilities are needed
    scored = second + (sum(map(sum, tokens)) if config.train.kl > 0 else 0)
    update_flops = sum(map(sum, tokens)) / padded * passes.flops
    return Duration(
        generation=written + gather,
        generation_exchange=gather,
        scoring=scored / padded * scores.seconds(speed),
        update=sum(trained) + len(updates) * (step_bytes / machine.bandwidth + exchange),
        updates=len(updates),
        micro_batches=len(trained),
        update_tokens=sum(map(sum, tokens)),
        update_flops=update_flops * machine.gpus,
        mfu=update_flops / sum(trained) / machine.flops,
    )


def _generation(stage: Stages, config: Config, graph: Graph, speed: Speed, gpus: int) -> float:
    """Seconds of a stage's calls on one GPU, with whole weights."""
    live = stage.rows / stage.calls / gpus  # prompts of a call, on average
    batches = math.ceil(live / rows_of_call(config, stage.lengths.prompt + stage.limit))
    rows = max(1, round(live / batches))
    prefill = graph.prefill(rows, stage.lengths.prompt).seconds(speed)
    decode = graph.decode(rows, stage.lengths.prompt + stage.longest // 2).seconds(speed)
    tokens = stage.longest - 1  # the first comes from the prompts' pass
    return stage.calls * batches * (prefill + tokens * decode)
