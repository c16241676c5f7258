"""Bytes on each GPU: what is always there, and the worst moments of generation, scoring and update."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from skill1.config import Config
from skill1.plan.graph import Graph, Parameters
from skill1.plan.machine import Machine
from skill1.plan.workload import Workload

GENERATION, SCORING, MICRO_BATCH, LONGEST_ROW = "generation", "scoring", "micro-batch", "longest row"  # phases
_FLOAT = 4  # bytes: master weights, gradients and each of Adam's two moments


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on each GPU. The phases are totals."""

    parameters: float
    gradients: float
    optimiser: float
    reference: float
    gathered: float  # sharded: blocks and embeddings while they compute
    unsynchronised: float  # gradients before their exchange: FSDP2's of blocks and embeddings, or DDP's buckets
    writing: float  # weights as generation has them: gathered whole, or cast beside the originals; or vLLM's share
    micro_rows: int  # rows of a typical micro-batch
    micro_batch: float  # activations of it
    head: float  # part of them: log-probabilities and gradient of the head
    longest_row: float  # activations of a single row of the greatest length, more than which no update takes
    longest_tokens: int
    generated_rows: int  # of a generate call on one GPU
    generated_tokens: int  # width of the cache
    cache: float  # keys and values of a generate call in which some completion reaches its limit
    cache_longest: float  # if every prompt and completion had the greatest length
    generating: float  # activations and cache
    scoring: float

    @property
    def phases(self) -> dict[str, float]:
        """Total bytes at the worst moment of each phase."""
        kept = self.parameters + self.optimiser + self.reference
        updating = kept + self.gradients + self.unsynchronised + self.gathered
        return {
            GENERATION: kept + self.writing + self.generating,  # gradients are released after an update
            SCORING: kept + self.scoring,
            MICRO_BATCH: updating + self.micro_batch,
            LONGEST_ROW: updating + self.longest_row,
        }

    @property
    def peak(self) -> float:
        return max(self.phases.values())


def estimate_memory(config: Config, graph: Graph, machine: Machine, workload: Workload) -> Memory:
    """The worst moments of a step on one GPU.

    The longest completion that a call generates is taken to reach its limit; prompts have their typical length.
    """
    size, rollout = graph.parameters, config.rollout
    compute = getattr(torch, config.policy.dtype).itemsize
    act = workload.act.lengths
    limit = max(s.limit for s in workload.stages)
    longest = rollout.max_prompt_tokens + limit
    rows = typical_rows(config, workload)
    typical = (rows, act.prompt, act.completion)
    alone = (1, rollout.max_prompt_tokens, limit)
    checkpointing = config.policy.gradient_checkpointing
    update, row = graph.update(*typical, checkpointing), graph.update(*alone, checkpointing)

    widest = max(workload.stages, key=lambda s: s.lengths.prompt + s.limit)
    width = widest.lengths.prompt + widest.limit
    batch = min(rows_of_call(config, width), math.ceil(workload.episodes / machine.gpus))
    writer = graph.writer
    prefill, decode = writer.prefill(batch, widest.lengths.prompt), writer.decode(batch, width)
    engine = config.policy.backend in ("vllm", "vllm_server")
    cache = decode.cache
    if config.policy.backend == "continuous":
        cache *= config.policy.cache_tokens / (batch * (width + 1))  # what decoding counts has one token more
    generating = 0.0 if engine else max(prefill.peak, decode.peak) - decode.cache + cache
    score = graph.score(rows, act.prompt, act.completion)
    score_longest = graph.score(*alone)
    return Memory(
        **without_activations(config, size, machine),
        writing=_writing(config, size, machine),
        micro_rows=rows,
        micro_batch=update.peak,
        head=update.head,
        longest_row=row.peak,
        longest_tokens=longest,
        generated_rows=batch,
        generated_tokens=width,
        cache=cache,
        cache_longest=cache / (batch * width) * min(batch, rows_of_call(config, longest)) * longest
        if config.policy.backend == "transformers"
        else cache,
        generating=generating,
        scoring=_scoring(config, size, machine, compute, max(score.peak, score_longest.peak)),
    )


def without_activations(config: Config, size: Parameters, machine: Machine) -> dict[str, float]:
    """The fields of `Memory`, in bytes, that no length or batch changes: all are there at once during an update."""
    lora = config.policy.lora_rank > 0
    compute = getattr(torch, config.policy.dtype).itemsize
    stored = size.bytes if lora else _FLOAT * size.total
    copies_reference = config.train.kl > 0 and not lora
    return {
        "parameters": stored / machine.shards,
        "gradients": _FLOAT * size.trained / machine.shards,
        "optimiser": 2 * _FLOAT * size.trained / machine.shards,
        "reference": _FLOAT * size.total / machine.shards if copies_reference else 0.0,
        "gathered": _gathered(size, compute) if machine.shards > 1 else 0.0,
        "unsynchronised": _unsynchronised(size, machine, compute),
    }


def rows_of_call(config: Config, width: int) -> int:
    """Most rows of a call of the backend `transformers` whose prompts and answers are `width` tokens wide.

    (The other backends take all; what they hold at once is theirs to say.)
    """
    policy = config.policy
    if policy.backend != "transformers":
        return policy.generate_batch
    return max(1, min(policy.generate_batch, policy.cache_tokens // width))


def typical_rows(config: Config, workload: Workload) -> int:
    """Rows of a micro-batch of act rows, as `planning` cuts it."""
    act = workload.act.lengths
    most = config.train.tokens_per_micro_batch // (act.prompt + act.completion)
    return max(1, min(most, config.train.rows_per_micro_batch))


def _gathered(size: Parameters, compute: int) -> float:
    """FSDP2 gathers a block while the one before computes; embeddings and head stay gathered through the pass."""
    return compute * (2 * size.largest_block + size.outside)


def _writing(config: Config, size: Parameters, machine: Machine) -> float:
    """`generation.weights`: sharded weights are gathered, float32 ones cast; vLLM takes what it was given."""
    if config.policy.backend == "vllm":
        return config.policy.vllm_memory * machine.memory
    if config.policy.backend == "vllm_server":
        return 0.0
    compute = getattr(torch, config.policy.dtype).itemsize
    cast = not config.policy.lora_rank and compute != _FLOAT
    return compute * size.total if machine.shards > 1 or cast else 0.0


def _unsynchronised(size: Parameters, machine: Machine, compute: int) -> float:
    if machine.gpus == 1:
        return 0.0
    if machine.sharded:
        # each unit's gradients are reduced as soon as they are there, in every micro-batch (`RowTrainer._accumulate`)
        return compute * min(size.trained, 2 * size.largest_block + size.outside)
    return _FLOAT * size.trained


def _scoring(config: Config, size: Parameters, machine: Machine, compute: int, activations: float) -> float:
    """TRL wraps the reference as one FSDP unit: it is gathered whole."""
    if config.train.kl > 0 and config.policy.lora_rank == 0 and machine.shards > 1:
        return activations + compute * size.total
    return activations + (_gathered(size, compute) if machine.shards > 1 else 0.0)
