"""A plan as text and as JSON, beside what the paper published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from skill1.analysis.published import published
from skill1.plan.duration import Duration
from skill1.plan.machine import GB
from skill1.plan.plan import Plan, Suggestion

_SAME_AS = {"no_library": "grpo"}  # the name that Table 3 gives it
_WIDTH = 50  # of the first column


def to_json(plan: Plan) -> dict[str, Any]:
    """Everything a plan holds: bytes in GB (1e9) on each GPU, seconds of a step, hours of the run."""
    memory, duration, machine = plan.memory, plan.duration, plan.machine
    whole = ("micro_rows", "longest_tokens", "generated_rows", "generated_tokens")
    values = asdict(memory)
    in_bytes = {name: round(value / GB, 4) for name, value in values.items() if name not in whole}
    flipped = {name: round(getattr(plan.flipped, name) / GB, 4) for name in ("micro_batch", "longest_row")}
    return {
        "label": "computed",
        "preset": plan.config.preset,
        "variant": plan.config.variant,
        "fits": plan.fits,
        "architecture": plan.source,
        "parameters": {"total": plan.parameters.total, "trained": plan.parameters.trained},
        "memory_gb": in_bytes
        | {f"total {phase}": round(value / GB, 4) for phase, value in memory.phases.items()}
        | {f"{name}, gradient checkpointing flipped": value for name, value in flipped.items()}
        | {"peak": round(memory.peak / GB, 4), "usable": round(machine.usable / GB, 4)},
        "shapes": {name: values[name] for name in whole},
        "step": {
            "episodes": plan.workload.episodes,
            "turns": plan.workload.turns,
            "rows": plan.workload.rows,
            "tokens": plan.workload.tokens,
            "completion_tokens": plan.workload.completion_tokens,
            "stages": {
                s.stage: {"rows": s.rows, "prompt": s.lengths.prompt, "completion": s.lengths.completion}
                for s in plan.workload.stages
            },
        },
        "seconds": asdict(duration) | {"step": duration.step},
        "hours": plan.hours,
        "machine": asdict(machine),
        "suggestions": [{"changes": dict(s.changes), "peak_gb": round(s.peak / GB, 4)} for s in plan.suggestions],
        "published": _published(plan),
    }


def to_text(plan: Plan) -> str:
    """A table for a terminal."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    config, machine, memory = plan.config, plan.machine, plan.memory
    work, duration, size = plan.workload, plan.duration, plan.parameters
    policy = config.policy
    how = f"LoRA rank {policy.lora_rank}" if policy.lora_rank else "full fine-tuning, float32 weights"
    spread = "sharded over them (FSDP2)" if machine.shards > 1 else "whole on each"
    yield f"{policy.model}, preset {config.preset}, variant {config.variant}: {how}, computes in {policy.dtype}"
    yield f"{machine.gpus} x {machine.memory / GB:.4g} GB, {machine.name}; weights {spread}"
    yield f"architecture: {plan.source}"
    yield ""
    yield "computed: parameters"
    yield _row("in the model", f"{size.total:,}")
    yield _row("trained", f"{size.trained:,}")
    yield ""
    yield f"computed: memory of each {_unit(plan)}, GB (1e9 bytes)"
    yield _row("parameters", _gb(memory.parameters))
    yield _row("gradients", _gb(memory.gradients))
    yield _row("optimiser (Adam)", _gb(memory.optimiser))
    yield _row("reference", _gb(memory.reference))
    if memory.gathered:
        yield _row("blocks gathered to compute", _gb(memory.gathered))
    if memory.writing:
        yield _row("weights to write with", _gb(memory.writing))
    if memory.unsynchronised:
        yield _row("gradients before their exchange", _gb(memory.unsynchronised))
    on, off = _checkpointing(plan, memory.micro_batch, plan.flipped.micro_batch)
    tokens = memory.micro_rows * (work.act.lengths.prompt + work.act.lengths.completion)
    yield _row(f"activations, micro-batch of {memory.micro_rows} rows ({tokens:,} tokens)", f"{on}; {off}")
    yield _row("  of it log-probabilities and head", _gb(memory.head))
    on, off = _checkpointing(plan, memory.longest_row, plan.flipped.longest_row)
    yield _row(f"activations, one row of {memory.longest_tokens:,} tokens", f"{on}; {off}")
    cached = f"KV cache, {memory.generated_rows} rows of {memory.generated_tokens:,} tokens"
    yield _row(cached, f"{_gb(memory.cache)} ({_gb(memory.cache_longest).strip()} at {memory.longest_tokens:,} tokens)")
    yield _row("generation, cache included", _gb(memory.generating))
    for phase, value in memory.phases.items():
        verdict = "fits" if value <= machine.usable else "DOES NOT FIT"
        yield _row(f"total, {phase}", f"{_gb(value)} of {machine.usable / GB:.4g} usable: {verdict}")
    yield ""
    yield "computed: one step"
    yield _row("episodes, actions per episode", f"{work.episodes:>8,} x {work.turns:g}")
    for s in work.stages:
        yield _row(f"{s.stage} rows", f"{s.rows:>8,} of {s.lengths.prompt} + {s.lengths.completion} tokens")
    yield _row("rows, tokens", f"{work.rows:>8,}, {work.tokens:,} ({work.completion_tokens:,} written)")
    yield _row("updates, micro-batches", f"{duration.updates:>8,}, {duration.micro_batches:,}")
    yield _row("generation", _seconds(duration.generation, _share(duration)))
    yield _row("reference and old log-probabilities", _seconds(duration.scoring))
    yield _row("update", _seconds(duration.update, f"{duration.mfu:.0%} of the peak rate"))
    yield _row("step", _seconds(duration.step))
    yield _row(f"{config.train.steps} steps", f"{plan.hours:>8.1f} h")
    yield ""
    yield "published (arXiv 2605.06130, 8x H800-80GB, vLLM), not measured here"
    for label, value in _published(plan).items():
        yield _row(label, f"{value:>8,g}")
    yield ""
    yield from _assumptions(plan)
    yield ""
    yield from _verdict(plan)


def _verdict(plan: Plan) -> Iterator[str]:
    if plan.fits:
        yield f"It fits: {plan.memory.peak / GB:.3g} of {plan.machine.usable / GB:.3g} GB on each {_unit(plan)}."
        return
    yield f"It does not fit: {plan.memory.peak / GB:.3g} of {plan.machine.usable / GB:.3g} GB on each {_unit(plan)}."
    if plan.suggestions:
        yield "Any one of these would (computed):"
    else:
        yield "Nothing tried would make it fit: use a smaller model or more memory."
    for suggestion in plan.suggestions:
        yield f"  {_change(suggestion)}  ({suggestion.peak / GB:.3g} GB)"


def _change(suggestion: Suggestion) -> str:
    words = [
        f"--gpus {value}" if name == "gpus" else f"--set {name}={str(value).lower()}"
        for name, value in suggestion.changes.items()
    ]
    return " ".join(words)


def _assumptions(plan: Plan) -> Iterator[str]:
    machine = plan.machine
    issue = "overlapping with them" if machine.overlap else "added to them"
    yield "assumptions (set them with the options of `skill1 plan`)"
    yield (
        f"  an operator takes the longer of its arithmetic at {machine.mfu:g} x {machine.flops / 1e12:.4g} TFLOP/s and "
        f"its traffic at {machine.bandwidth / GB:,.4g} GB/s, issuing it {machine.host * 1e6:.3g} us, {issue}"
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
    if plan.workload.shown > 1 and plan.assumptions.prompt is None:
        yield (
            f"  act prompts hold {plan.workload.shown} skills or bank entries, all there can be, of "
            f"{plan.workload.entry} tokens each"
        )
    yield "  environment, library, validation and checkpoints take no time"


def _published(plan: Plan) -> dict[str, float]:
    """Table 3's step times of this variant (of the full method where it has no row), and the hours of the text."""
    table = published("table3", metric="step_time")
    variant = _SAME_AS.get(plan.config.variant, plan.config.variant)
    if variant not in set(table["variant"]):
        variant = "full"
    rows = table[table["variant"] == variant]
    seconds = {f"{r.method} {variant}, step {r.step}, s": float(r.value) for r in rows.itertuples()}
    hours = published("text", metric="training_time")["value"].item()
    return seconds | {"Skill1 full, training, h (about)": float(hours)}


def _checkpointing(plan: Plan, now: float, other: float) -> tuple[str, str]:
    on = plan.config.policy.gradient_checkpointing
    return (
        f"{_gb(now)} {'with' if on else 'without'} gradient checkpointing",
        f"{other / GB:.4g} {'without' if on else 'with'}",
    )


def _share(duration: Duration) -> str:
    waiting = duration.generation_exchange
    return f"{waiting:,.0f} of it waiting for other GPUs' weights" if waiting else ""


def _unit(plan: Plan) -> str:
    return "GPU" if plan.machine.overlap else "process"


def _row(label: str, value: str) -> str:
    return f"  {label:<{_WIDTH}}  {value}"


def _gb(value: float) -> str:
    return f"{value / GB:>8.4g}"


def _seconds(value: float, remark: str = "") -> str:
    return f"{value:>8.4g} s" + (f" ({remark})" if remark else "")
