"""The planner's predictions beside every measurement in results/reference, as a table in Markdown.

    python -P benchmarks/plan.py

Single updates and calls come from `benchmarks/gpu.py` (results/reference/cpu.jsonl; gpu.jsonl once a GPU has been measured), with
the rates of the machine measured beside them. Whole steps are those of committed runs, planned for the same rates: by what
`skill1 plan` assumes before a run, and told the run's own turns and answers' lengths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
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


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement, and what the planner says of it."""

    what: str
    unit: str
    measured: float
    planned: float
    told: float | None = None  # planned with the run's own turns and lengths
    remark: str = ""


def part_of(entry: dict[str, Any]) -> str:
    """What was measured; on a GPU, on which."""
    device = entry["machine"]["name"].split(" (")[0]
    return entry["part"] if "CPU" in device else f"{entry['part']} on {device}"


def single(entries: list[dict[str, Any]]) -> Iterator[Measured]:
    """Updates and calls."""
    for entry in entries:
        name = f"{entry['policy']}, {part_of(entry)}"
        shares = [f"{entry[share]:.0%} {share}" for share in ("of the bandwidth", "of the peak") if share in entry]
        speed = f"{entry['tokens'] / entry['seconds']:,.0f} tokens/s"
        remark = ", ".join((speed, *shares, f"{entry['reached']:.2f} of the roofline"))
        yield Measured(name, "s", entry["seconds"], entry["planned"], None, remark)
        if "memory" in entry:
            yield Measured(name, "GB", entry["memory"] / GB, entry["memory planned"] / GB)


def steps(name: str, planner: Planner, preset: str, machine: Machine, metrics: pd.DataFrame) -> Iterator[Measured]:
    """Mean steps of runs."""
    mean = metrics.mean(numeric_only=True)
    config = load_config(preset)
    told = Assumptions(turns=mean["steps"], completion=round(mean["act/tokens"]))
    plans = [planner.plan(config, machine, given) for given in (Assumptions(), told)]

    def row(what: str, unit: str, measured: float, planned: Any) -> Measured:
        return Measured(f"{name}: {what}", unit, measured, *map(planned, plans))

    yield row("calls of a step", "rows", mean["rows/total"], lambda plan: plan.workload.rows)
    if "tokens/passed" in mean:
        yield row("tokens of a step", "tokens", mean["tokens/passed"], lambda plan: plan.workload.tokens)
    yield row("tokens written", "tokens", mean["tokens/generated"], lambda plan: plan.workload.completion_tokens)
    yield row("writing", "s", mean["time/rollout"], lambda plan: plan.duration.generation)
    yield row("update", "s", mean["time/update"], lambda plan: plan.duration.update + plan.duration.scoring)


def published() -> Iterator[Measured]:
    plan: Plan = Planner.of("Qwen/Qwen2.5-7B-Instruct").plan(load_config("paper"), gpu_machine(8, 80 * GB))
    for bound in PUBLISHED:
        yield Measured("paper on 8 GPUs, published (with vLLM): step", "s", bound, plan.duration.step)


def machine_of(entries: list[dict[str, Any]], policy: str, **changed: Any) -> Machine:
    return replace(Machine(**next(entry["machine"] for entry in entries if entry["policy"] == policy)), **changed)


def measurements(entries: list[dict[str, Any]]) -> Iterator[Measured]:
    yield from single(entries)
    nano = pd.read_parquet(REFERENCE / "nano" / "metrics.parquet").query("variant == 'full'")
    planner = Planner.of(find_model("data/nano-policy"))
    yield from steps("nano, study", planner, "nano", machine_of(entries, "nano"), nano)
    mini = pd.read_json(REFERENCE / "mini" / "full-seed0" / "metrics.jsonl", lines=True).query("step >= 8")
    planner = Planner(Architecture(COPIED["HuggingFaceTB/SmolLM2-135M-Instruct"], "copied"))
    yield from steps("mini, steps 8-12, another CPU", planner, "mini", machine_of(entries, "mini", gpus=2), mini)
    yield from published()


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def main() -> None:
    """Print the table, and the medians of the shares of the roofline."""
    files = [REFERENCE / name for name in ("cpu.jsonl", "gpu.jsonl")]
    entries = [json.loads(line) for file in files if file.is_file() for line in file.read_text().splitlines()]
    print("| what | measured | planned | planned / measured | told turns and lengths | |")
    print("|" + "---|" * 6)
    for m in measurements(entries):
        told = "" if m.told is None else f"{m.told / m.measured:.2f}"
        ratio = f"{m.planned / m.measured:.2f}"
        print(f"| {m.what} | {short(m.measured)} {m.unit} | {short(m.planned)} | {ratio} | {told} | {m.remark} |")
    print()
    for part in dict.fromkeys(map(part_of, entries)):
        reached = [entry["reached"] for entry in entries if part_of(entry) == part]
        print(f"{part}: median {median(reached):.2f} of the roofline ({min(reached):.2f}-{max(reached):.2f})")


if __name__ == "__main__":
    main()
