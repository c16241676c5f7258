"""The preset mini within a given number of minutes on one GPU (or whatever is there), without a network.

    python -P benchmarks/speedrun.py pack --data $ALFWORLD_DATA --out bundle      where the packages are
    python -P benchmarks/speedrun.py unpack bundle --out DIR                      where the GPU is
    python -P benchmarks/speedrun.py run --minutes 12 --data DIR/games --model DIR/model --out results/mini-gpu

`pack` writes a tar of this checkout's files, the model folder, the games and, with --wheels, the packages that the other
machine lacks, in parts of at most --part-size MB with a checksum each, so that they can travel one by one. `run`
evaluates the policy that it is given on all valid_seen games, trains as many steps of GRPO with the full loop as the
minutes allow (SIGTERM ends a run after its step, with a checkpoint), and evaluates again; the time of the second
evaluation is kept free, as long as the first one took. `run` repeated resumes. (-P keeps this
folder off the path, where alfworld.py would stand for the alfworld package.) `summary.json` has the card, versions, seconds
of every stage and step, and success before and after with intervals, which is what is printed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import tarfile
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
MB = 2**20
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """See the script's docstring."""


@main.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="games, as $ALFWORLD_DATA")
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=ROOT / "data/smollm2")
@click.option("--wheels", type=click.Path(path_type=Path, exists=True), help="folder of packages to take along")
@click.option("--part-size", default=60, show_default=True, help="MB")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def pack(data: Path, model: Path, wheels: Path | None, part_size: int, out: Path) -> None:
    """Write everything that `run` needs into OUT, in parts."""
    if out.exists():
        raise click.UsageError(f"{out} exists: choose another folder")
    out.mkdir(parents=True)
    whole = out / "bundle.tar.xz"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    with tarfile.open(whole, "w:xz", preset=1) as tar:
        for name in filter(None, listed.split("\0")):
            tar.add(ROOT / name, f"skill1/{name}")
        tar.add(data, "games")
        tar.add(model, "model")
        if wheels is not None:
            tar.add(wheels, "wheels")
    sums = {}
    with whole.open("rb") as file:
        while part := file.read(part_size * MB):
            name = f"part-{len(sums):03d}"
            (out / name).write_bytes(part)
            sums[name] = hashlib.sha256(part).hexdigest()
    whole.unlink()
    (out / "SHA256.json").write_text(json.dumps(sums, indent=1) + "\n")
    click.echo(f"{len(sums)} parts in {out}")


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True)
def unpack(bundle: Path, out: Path) -> None:
    """Check the parts of BUNDLE, and unpack them."""
    sums = json.loads((bundle / "SHA256.json").read_text())
    for name, expected in sums.items():
        part = bundle / name
        if not part.is_file() or hashlib.sha256(part.read_bytes()).hexdigest() != expected:
            raise click.UsageError(f"{part} is missing or damaged: send it again")
    whole = out / "bundle.tar.xz"
    out.mkdir(parents=True, exist_ok=True)
    with whole.open("wb") as file:
        for name in sums:
            file.write((bundle / name).read_bytes())
    with tarfile.open(whole) as tar:
        tar.extractall(out, filter="data")
    whole.unlink()


@main.command()
@click.option("--minutes", type=float, required=True, help="for all of it, from here on")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--model", type=click.Path(path_type=Path, exists=True), required=True)
@click.option(
    "--adapter", default="data/mini-adapter", show_default=True, help="on the model; none: it is cold-started"
)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--passes", default=1, show_default=True)
@click.option("--set", "given", multiple=True, metavar="FIELD=VALUE", help="over the preset and what a GPU takes")
def run(minutes: float, data: Path, model: Path, adapter: str, out: Path, passes: int, given: tuple[str, ...]) -> None:
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
    stop = threading.Timer(left, os.kill, (os.getpid(), signal.SIGTERM))
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


def hashes(config: Any) -> tuple[str, str]:
    """What a run directory notes of its data and weights."""
    from skill1.envs.make import make_environment
    from skill1.store.origin import weights_hash

    data = make_environment(config.environment).data_hash(config.environment.train_split)
    return data, weights_hash(config.policy.model, config.policy.adapter)


if __name__ == "__main__":
    main()
