"""The planner's predictions beside every measurement in results/reference, as a table in Markdown.

    python -P benchmarks/plan.py

Single updates and calls come from `benchmarks/gpu.py` (results/reference/cpu.jsonl; gpu.jsonl once a GPU has been measured), with
the rates of the machine measured beside them. Whole steps are those of committed runs, planned for the same rates: by what
`skill1 plan` assumes before a run, and told the run's own turns and answers' lengths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from skill1.config import load_config
from skill1.plan.architecture import COPIED, Architecture
from skill1.plan.machine import GB, Machine, gpu_machine
from skill1.plan.plan import Plan, Planner
from skill1.plan.workload import Assumptions
from skill1.store.resources import find_model

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"
PUBLISHED = (387.0, 494.0)  # seconds of a step of the paper's runs on 8 H800
MINI_MEMORY = 8.4e9  # bytes of each process at most (VmHWM, read by hand): with Python and its packages
Measured = tuple[str, str, float, float, float | None]  # what, unit, measured, planned, planned when told


def single(entries: list[dict[str, Any]]) -> Iterator[Measured]:
    """Updates and calls."""
    for entry in entries:
        name = f"{entry['policy']}, {entry['part']}"
        yield name, "s", entry["seconds"], entry["planned"], None
        if "memory" in entry:
            yield name, "GB", entry["memory"] / GB, entry["memory planned"] / GB, None


def steps(name: str, planner: Planner, preset: str, machine: Machine, metrics: pd.DataFrame) -> Iterator[Measured]:
    """Mean steps of runs."""
    mean = metrics.mean(numeric_only=True)
    config = load_config(preset)
    told = Assumptions(turns=mean["steps"], completion=round(mean["act/tokens"]))
    plans = [planner.plan(config, machine, given) for given in (Assumptions(), told)]

    def row(what: str, unit: str, measured: float, planned: Any) -> Measured:
        before, after = map(planned, plans)
        return f"{name}: {what}", unit, measured, before, after

    yield row("calls of a step", "rows", mean["rows/total"], lambda plan: plan.workload.rows)
    if "tokens/passed" in mean:
        yield row("tokens of a step", "tokens", mean["tokens/passed"], lambda plan: plan.workload.tokens)
    yield row("tokens written", "tokens", mean["tokens/trained"], lambda plan: plan.workload.completion_tokens)
    yield row("writing", "s", mean["time/rollout"], lambda plan: plan.duration.generation)
    yield row("update", "s", mean["time/update"], lambda plan: plan.duration.update + plan.duration.scoring)


def published() -> Iterator[Measured]:
    plan: Plan = Planner.of("Qwen/Qwen2.5-7B-Instruct").plan(load_config("paper"), gpu_machine(8, 80 * GB))
    for bound in PUBLISHED:
        yield "paper on 8 GPUs, published (with vLLM): step", "s", bound, plan.duration.step, None


def machine_of(entries: list[dict[str, Any]], policy: str, **changed: Any) -> Machine:
    return replace(Machine(**next(entry["machine"] for entry in entries if entry["policy"] == policy)), **changed)


def measurements() -> Iterator[Measured]:
    entries = [
        json.loads(line)
        for name in ("cpu.jsonl", "gpu.jsonl")
        if (REFERENCE / name).is_file()
        for line in (REFERENCE / name).read_text().splitlines()
    ]
    yield from single(entries)
    nano = pd.read_parquet(REFERENCE / "nano" / "metrics.parquet")
    planner = Planner.of(find_model("data/nano-policy"))
    yield from steps(
        "nano, study of 45 steps", planner, "nano-baselines", machine_of(entries, "nano"), nano[nano.variant == "full"]
    )
    mini = pd.read_json(REFERENCE / "mini" / "full-seed0" / "metrics.jsonl", lines=True).query("step >= 8")
    planner = Planner(Architecture(COPIED["HuggingFaceTB/SmolLM2-135M-Instruct"], "copied"))
    yield from steps("mini, steps 8-12", planner, "mini", machine_of(entries, "mini", gpus=2), mini)
    yield from published()


def table(found: Iterator[Measured]) -> str:
    lines = ["| what | measured | planned | planned / measured | told turns and lengths |", "|" + "---|" * 5]
    for what, unit, measured, planned, told in found:
        after = "" if told is None else f"{told / measured:.2f}"
        lines.append(f"| {what} | {measured:,.3g} {unit} | {planned:,.3g} | {planned / measured:.2f} | {after} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measurements()))
