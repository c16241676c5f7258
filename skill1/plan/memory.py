"""Bytes on each GPU: what is always there, and the worst moments of generation, scoring and update."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from skill1.config import Config
from skill1.plan.machine import Machine
from skill1.plan.passes import Parameters, Passes
from skill1.plan.workload import Workload, rows_of_call

GENERATION, SCORING, MICRO_BATCH, LONGEST_ROW = "generation", "scoring", "micro-batch", "longest row"  # phases
_FLOAT = 4  # bytes: master weights, gradients and each of Adam's two moments


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes on each GPU that no length or batch changes: all are there at once during an update."""

    parameters: float
    gradients: float
    optimiser: float
    reference: float
    gathered: float  # sharded: blocks and embeddings while they compute
    unsynchronised: float  # gradients before their exchange: FSDP2's of blocks and embeddings, or DDP's buckets

    @property
    def always(self) -> float:
        """Those that are there in every phase."""
        return self.parameters + self.optimiser + self.reference

    @property
    def total(self) -> float:
        return self.always + self.gradients + self.gathered + self.unsynchronised


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on each GPU. The phases are totals."""

    held: Held
    cast: float  # copies of whole weights in the compute dtype, beside the originals
    writing: float  # weights as generation has them: gathered whole, or cast as for updates; or vLLM's share
    micro_batch: float  # activations of a typical micro-batch
    longest_row: float  # activations of a single row of the greatest length, more than which no update takes
    generated_rows: int  # of a generate call on one GPU
    generated_tokens: int  # width of the cache
    cache: float  # keys and values of a generate call in which some completion reaches its limit
    cache_longest: float  # if every prompt and completion had the greatest length
    generating: float  # activations and cache
    scoring: float

    @property
    def phases(self) -> dict[str, float]:
        """Total bytes at the worst moment of each phase."""
        return {
            GENERATION: self.held.always + self.writing + self.generating,  # gradients are released after an update
            SCORING: self.held.always + self.cast + self.scoring,
            MICRO_BATCH: self.held.total + self.cast + self.micro_batch,
            LONGEST_ROW: self.held.total + self.cast + self.longest_row,
        }

    @property
    def peak(self) -> float:
        return max(self.phases.values())


def estimate_memory(config: Config, passes: Passes, machine: Machine, workload: Workload) -> Memory:
    """Estimate the worst moments of a step on one GPU.

    The longest completion that a call generates is taken to reach its limit; prompts have their typical length.
    """
    policy, held = config.policy, held_memory(config, passes.parameters, machine)
    typical = (workload.micro_rows, workload.sequence.prompt, workload.sequence.completion)
    alone = (1, *workload.longest)
    widest = max(workload.stages, key=lambda s: s.width)
    batch = min(rows_of_call(config, widest.width), math.ceil(workload.episodes / machine.gpus))
    prefill = passes.prefill(batch, widest.lengths.prompt)
    decode = passes.decode(batch, widest.width)
    token = decode.cache / (batch * (widest.width + 1))  # what decoding counts has one token more
    cache, longest = decode.cache, sum(workload.longest)
    cache_longest = token * min(batch, rows_of_call(config, longest)) * longest
    if workload.chats:  # what is kept between calls
        said = math.ceil(workload.episodes / machine.gpus) * (workload.sequence.prompt + workload.sequence.completion)
        cache += token * min(policy.cache_tokens, said)
        cache_longest += token * policy.cache_tokens
    if policy.backend == "continuous":
        cache = cache_longest = token * policy.cache_tokens
    engine = policy.vllm
    # TRL wraps the reference as one FSDP unit: it is gathered whole
    whole_reference = held.reference and machine.shards > 1
    gathered = _itemsize(config) * passes.parameters.total if whole_reference else held.gathered
    return Memory(
        held=held,
        cast=_cast(config, passes.parameters, machine),
        writing=_writing(config, passes.parameters, machine),
        micro_batch=passes.update(*typical, policy.gradient_checkpointing).peak,
        longest_row=passes.update(*alone, policy.gradient_checkpointing).peak,
        generated_rows=batch,
        generated_tokens=widest.width,
        cache=cache,
        cache_longest=cache_longest,
        generating=0.0 if engine else max(prefill.peak, decode.peak) - decode.cache + cache,
        scoring=max(passes.score(*typical).peak, passes.score(*alone).peak) + gathered,
    )


def held_memory(config: Config, size: Parameters, machine: Machine) -> Held:
    """Estimate what no length or batch changes."""
    lora = config.policy.lora_rank > 0
    copies_reference = config.train.kl > 0 and not lora
    # FSDP2 gathers a block while the one before computes; embeddings and head stay gathered through the pass
    pair = 2 * size.largest_block + size.outside
    if machine.gpus == 1:
        unsynchronised = 0.0
    elif machine.sharded:
        # each unit's gradients are reduced as soon as they are there, in every micro-batch (`RowTrainer`)
        unsynchronised = _itemsize(config) * min(size.trained, pair)
    else:
        unsynchronised = _FLOAT * size.trained
    return Held(
        parameters=(size.bytes if lora else _FLOAT * size.total) / machine.shards,
        gradients=_FLOAT * size.trained / machine.shards,
        optimiser=2 * _FLOAT * size.trained / machine.shards,
        reference=_FLOAT * size.total / machine.shards if copies_reference else 0.0,
        gathered=_itemsize(config) * pair if machine.shards > 1 else 0.0,
        unsynchronised=unsynchronised,
    )


def _cast(config: Config, size: Parameters, machine: Machine) -> float:
    """`updates.precision`: copies of float32 weights in another compute dtype; what is sharded is gathered in it."""
    held = size.trained if config.policy.lora_rank else size.total
    return 0.0 if machine.shards > 1 or _itemsize(config) == _FLOAT else _itemsize(config) * held


def _writing(config: Config, size: Parameters, machine: Machine) -> float:
    """`generation.weights`: sharded weights are gathered, float32 ones cast; vLLM takes what it was given."""
    if config.policy.backend == "vllm":
        return config.policy.vllm_memory * machine.memory
    if config.policy.backend == "vllm_server":
        return 0.0
    return _itemsize(config) * size.total if machine.shards > 1 else _cast(config, size, machine)


def _itemsize(config: Config) -> int:
    """Bytes of a number in the compute dtype."""
    return getattr(torch, config.policy.dtype).itemsize
