"""A plan as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from skill1.plan.machine import GB
from skill1.plan.plan import Plan


def to_json(plan: Plan) -> dict[str, Any]:
    """Give everything a plan holds: bytes on each GPU, seconds of a step, hours of the run."""
    return {
        "preset": plan.config.preset,
        "variant": plan.config.variant,
        "fits": plan.fits,
        "architecture": plan.source,
        "machine": asdict(plan.machine) | {"usable": plan.machine.usable},
        "parameters": asdict(plan.parameters),
        "step": asdict(plan.workload) | {"rows": plan.workload.rows, "tokens": plan.workload.tokens},
        "memory": asdict(plan.memory) | {"phases": plan.memory.phases, "peak": plan.memory.peak},
        "seconds": asdict(plan.duration) | {"step": plan.duration.step},
        "hours": plan.hours,
        "suggestions": [asdict(suggestion) for suggestion in plan.suggestions],
    }


def to_text(plan: Plan) -> str:
    """Format a plan as a table for a terminal."""
    return "\n".join((*_about(plan), *_memory(plan), *_step(plan), *_assumptions(plan), *_verdict(plan))) + "\n"


def _about(plan: Plan) -> Iterator[str]:
    config, machine, size = plan.config, plan.machine, plan.parameters
    policy = config.policy
    how = f"LoRA rank {policy.lora_rank}" if policy.lora_rank else "full fine-tuning, float32 weights"
    spread = "sharded over them (FSDP2)" if machine.shards > 1 else "whole on each"
    yield f"{policy.model}, preset {config.preset}, variant {config.variant}: {how}, computes in {policy.dtype}"
    yield f"architecture: {plan.source}; {size.total:,} parameters, {size.trained:,} trained"
    yield f"{machine.gpus} x {machine.memory / GB:.4g} GB, {machine.name}; weights {spread}"


def _memory(plan: Plan) -> Iterator[str]:
    memory, machine, work = plan.memory, plan.machine, plan.workload
    tokens, longest = work.micro_rows * (work.sequence.prompt + work.sequence.completion), sum(work.longest)
    how = f"gradient checkpointing {'on' if plan.config.policy.gradient_checkpointing else 'off'}"
    yield ""
    yield f"memory of each {_unit(plan)}, GB (1e9 bytes), computed"
    yield _row("parameters", _gb(memory.held.parameters))
    yield _row("gradients", _gb(memory.held.gradients))
    yield _row("optimiser (Adam)", _gb(memory.held.optimiser))
    yield _row("reference", _gb(memory.held.reference))
    yield _row("blocks gathered to compute", _gb(memory.held.gathered))
    yield _row("gradients before their exchange", _gb(memory.held.unsynchronised))
    yield _row("weights cast to compute", _gb(memory.cast))
    yield _row("weights to write with", _gb(memory.writing))
    yield _row(f"activations, micro-batch of {work.micro_rows} rows ({tokens:,} tokens)", _gb(memory.micro_batch), how)
    yield _row(f"activations, one row of {longest:,} tokens", _gb(memory.longest_row), how)
    cached = f"KV cache, {memory.generated_rows} rows of {memory.generated_tokens:,} tokens"
    yield _row(cached, _gb(memory.cache), f"{memory.cache_longest / GB:.4g} at {longest:,} tokens")
    yield _row("generation, cache included", _gb(memory.generating))
    for phase, value in memory.phases.items():
        verdict = "fits" if value <= machine.usable else "DOES NOT FIT"
        yield _row(f"total, {phase}", _gb(value), f"of {machine.usable / GB:.4g} usable: {verdict}")


def _step(plan: Plan) -> Iterator[str]:
    work, duration, config = plan.workload, plan.duration, plan.config
    waiting = f"{duration.generation_exchange:,.1f} of it gathering weights" if plan.machine.shards > 1 else ""
    yield ""
    yield "one step, computed"
    yield _row("episodes, actions per episode", f"{work.episodes:>8,} x {work.turns:g}")
    for s in work.stages:
        yield _row(f"{s.stage} rows", f"{s.rows:>8,} of {s.lengths.prompt} + {s.lengths.completion} tokens")
    yield _row("rows, tokens", f"{work.rows:>8,}, {work.tokens:,} ({work.completion_tokens:,} written)")
    yield _row("updates, micro-batches", f"{duration.updates:>8,}, {duration.micro_batches:,}")
    yield _row("generation, s", f"{duration.generation:>8.4g}", waiting)
    yield _row("reference and old log-probabilities, s", f"{duration.scoring:>8.4g}")
    yield _row("update, s", f"{duration.update:>8.4g}", f"{duration.mfu:.0%} of the peak rate")
    yield _row("step, s", f"{duration.step:>8.4g}")
    yield _row(f"{config.train.steps} steps, h", f"{plan.hours:>8.1f}")


def _assumptions(plan: Plan) -> Iterator[str]:
    machine, work = plan.machine, plan.workload
    issue = "overlapping with them" if machine.overlap else "added to them"
    yield ""
    yield "assumptions (set them with the options of `skill1 plan`)"
    yield (
        f"  an operator takes the longer of its arithmetic at {machine.mfu:g} x {machine.flops / 1e12:.4g} TFLOP/s and "
        f"its traffic at {machine.bandwidth / GB:,.4g} GB/s, issuing it {machine.host * 1e6:.3g} us, {issue}"
    )
    if machine.training < 1 or machine.generation < 1:
        yield (
            f"  of that, passes over whole rows reach {machine.training:.0%} and generation {machine.generation:.0%} "
            "(benchmarks/gpu.py)"
        )
    if machine.gpus > 1:
        yield f"  GPU to GPU {machine.link / GB:,.4g} GB/s; exchange overlaps with computing"
    yield "  text is written by transformers' generate, operator by operator; the published runs used vLLM"
    if machine.shards > 1:
        yield "  sharded weights are gathered whole once a step to write, the reference whole to be scored"
    yield (
        f"  {machine.reserve:.0%} of the memory is left to driver, communication and fragmentation; activations are "
        "those of CPU kernels, fused GPU kernels keep somewhat less"
    )
    yield (
        "  rows, turns and lengths as above; the longest completion of a call is "
        f"{plan.assumptions.longest:g} x the mean for time, its limit for memory"
    )
    if work.shown > 1 and plan.assumptions.prompt is None:
        yield f"  act prompts hold {work.shown} skills, all there can be, of {work.skill} tokens each"
    yield "  environment, library, validation and checkpoints take no time"


def _verdict(plan: Plan) -> Iterator[str]:
    verdict = "It fits" if plan.fits else "It does not fit"
    yield ""
    yield f"{verdict}: {plan.memory.peak / GB:.3g} of {plan.machine.usable / GB:.3g} GB on each {_unit(plan)}."
    if plan.suggestions:
        yield "Any one of these would (computed):"
    elif not plan.fits:
        yield "Nothing tried would make it fit: use a smaller model or more memory."
    for suggestion in plan.suggestions:
        words = [
            f"--gpus {value}" if name == "gpus" else f"--set {name}={str(value).lower()}"
            for name, value in suggestion.changes.items()
        ]
        yield f"  {' '.join(words)}  ({suggestion.peak / GB:.3g} GB)"


def _unit(plan: Plan) -> str:
    return "GPU" if plan.machine.overlap else "process"


def _row(label: str, value: str, remark: str = "") -> str:
    return f"  {label:<50}  {value}{f'  ({remark})' if remark else ''}"


def _gb(value: float) -> str:
    return f"{value / GB:>8.4g}"
