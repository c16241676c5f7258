"""The preset mini within a given number of minutes on one GPU (or whatever is there), without a network.

    skill1 bundle --preset mini --data $ALFWORLD_DATA --without torch --add benchmarks/speedrun.py --out bundle
    python3 bundle/install.py --out DIR      where the GPU is; it prints how to make data/smollm2 of what came along
    cd DIR; python -P files/speedrun.py --minutes 12 --data files/GAMES --model data/smollm2 --out results/mini-gpu

It evaluates the policy that it is given on all valid_seen games, trains as many steps of GRPO with the full loop as the
minutes allow (SIGTERM ends a run after its step, with a checkpoint), and evaluates again; the time of the second
evaluation is kept free, as long as the first one took. Repeated it resumes. (-P keeps the script's folder off the path,
where in a checkout alfworld.py would stand for the alfworld package.) `summary.json` has the card, versions, seconds of
every stage and step, and success before and after with intervals, which is what is printed.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

SPLIT = "valid_seen"
SLACK = 1.3  # the second evaluation's time as a share of the first's: longer conversations, a loaded checkpoint
GPU = {  # over the preset, which is for two cores: what a card of 80 GB takes at once
    "policy.generate_batch": 256,
    "policy.cache_tokens": 1_000_000,
    "rollout.tasks_per_step": 16,
    "train.tokens_per_micro_batch": 65536,
    "train.steps": 1000,  # the minutes end it
    "train.save_every": 1000,
}
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__.splitlines()[0])
@click.option("--minutes", type=float, required=True, help="for all of it, from here on")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--model", type=click.Path(path_type=Path, exists=True), required=True)
@click.option(
    "--adapter", default="data/mini-adapter", show_default=True, help="on the model; none: it is cold-started"
)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--passes", default=1, show_default=True)
@click.option("--set", "given", multiple=True, metavar="FIELD=VALUE", help="over the preset and what a GPU takes")
def main(minutes: float, data: Path, model: Path, adapter: str, out: Path, passes: int, given: tuple[str, ...]) -> None:
    """Evaluate, train, evaluate, within the minutes."""
    started = time.perf_counter()
    import torch

    from skill1.config import load_config
    from skill1.evaluate import evaluate_run
    from skill1.store.run_directory import RunDirectory
    from skill1.train import train

    overrides = {
        **GPU,
        "policy.model": str(model),
        "policy.adapter": None if adapter == "none" else adapter,
        "environment.data": str(data),
        **dict(x.split("=", 1) for x in given),
    }
    config = load_config("mini", overrides=overrides)
    seconds: dict[str, float] = {"import": time.perf_counter() - started}
    place = out / "run"

    def evaluate(name: str, step: int | None) -> dict[str, Any]:
        begun = time.perf_counter()
        [found] = evaluate_run(place, splits=[SPLIT], passes=passes, step=step, reuse=True)
        seconds[name] = time.perf_counter() - begun
        return found.summary

    if not place.exists():
        RunDirectory.create(place, config, *hashes(config)).close()
    before = evaluate("evaluate before", 0)
    left = 60 * minutes - (time.perf_counter() - started) - SLACK * seconds["evaluate before"]
    if left <= 0:
        raise click.UsageError(f"--minutes {minutes:g}: the first evaluation left no time to train and evaluate again")
    stop = threading.Timer(left, end_training)
    stop.daemon = True
    stop.start()
    begun = time.perf_counter()
    train(config, place, resume=True)
    stop.cancel()
    seconds["train"] = time.perf_counter() - begun
    after = evaluate("evaluate after", None)
    metrics = RunDirectory.open(place).metrics()
    summary = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU",
        "versions": {name: version(name) for name in PACKAGES},
        "minutes": minutes,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "steps": len(metrics),
        "seconds a step": {
            name.removeprefix("time/"): round(float(metrics[name].mean()), 2)
            for name in metrics
            if name.startswith("time/") and "per_second" not in name
        },
        "before": before,
        "after": after,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    click.echo(
        json.dumps({name: value for name, value in summary.items() if name not in ("before", "after")}, indent=1)
    )
    for name, found in (("before", before), ("after", after)):
        low, high = found["interval"]
        click.echo(f"{name}: {100 * found['success']:.1f} % [{100 * low:.1f}, {100 * high:.1f}], n = {found['n']}")


def end_training() -> None:
    """Ask the training of this process to end after its step, once it listens."""
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)


def hashes(config: Any) -> tuple[str, str]:
    """What a run directory notes of its data and weights."""
    from skill1.envs.make import make_environment
    from skill1.store.origin import weights_hash

    data = make_environment(config.environment).data_hash(config.environment.train_split)
    return data, weights_hash(config.policy.model, config.policy.adapter)


if __name__ == "__main__":
    main()
