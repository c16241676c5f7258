"""`make demo`: generate games, train the nano policy with Skill1, evaluate it before and after, draw the figures.

Everything runs through the notebooks a user would open (`01_train`, `02_evaluate`), executed by papermill into
`results/demo/seed<N>/`; the last demo's notebooks, figures and `summary.json` are copied to `results/demo/`. A demo
that was interrupted continues; a finished one is not run again. With `$ALFWORLD_DATA` set, it runs on those games.
With the preset nano-webshop it is the same in a generated shop, in `results/demo-webshop/`; $WEBSHOP_DATA is not asked,
since the nano policy knows the words of generated shops only.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from skill1.analysis.comparison import BEFORE, WITH_LIBRARY, WITHHELD
from skill1.config import closest, load_config
from skill1.envs.make import make_environment
from skill1.nano.world import nano_world
from skill1.running.experiment import EVALUATE, TRAIN, Experiment, portable
from skill1.store.run_directory import RunDirectory

RESULTS = {"nano": Path("results/demo"), "nano-webshop": Path("results/demo-webshop")}
PASSES = 4


@dataclass(slots=True)
class _Meter:
    """Seconds per phase, and the peak memory of this process and its descendants."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak: int = 0  # bytes, resident
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        print(f"{name} ...", flush=True)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 1)
        print(f"{name}: {self.seconds[name]} s", flush=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._stop.set()
            watcher.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(1.0):
            self.peak = max(self.peak, sum(_resident(p) for p in [me, *me.children(recursive=True)]))


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:  # ended between listing and asking
        return 0


def demo(
    seed: int,
    *,
    preset: str = "nano",
    nproc: int | None = None,
    world: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    passes: int = PASSES,
    results: Path | None = None,
) -> Path:
    """Run the demo; returns the path of its `summary.json`.

    Args:
        preset: "nano" or "nano-webshop".
        nproc: training processes; by default two where there are two cores.
        world: sizes of the generated games (fields of the generator's `Parameters`) [default: `nano_world`'s].
        overrides: configuration fields over the nano preset's.
        passes: evaluation passes over all games of a split.
        results: folder [default: that of the preset in `RESULTS`].

    Raises:
        DataError, ConfigError, RunError: see the messages; what was done so far is kept and continued next time.
    """
    results = results or RESULTS[closest(preset, RESULTS, "preset of a demo")]
    given = os.environ.get("ALFWORLD_DATA") if preset == "nano" else None
    home = results / (f"seed{seed}" if not given else f"seed{seed}-alfworld_data")
    meter = _Meter()
    with meter.watching():
        data = given
        if not given:
            with meter.phase("generate"):
                data = nano_world(seed, world, preset)
        # ALFWorld's splits are separate downloads: evaluate those that are there, and say so
        config = load_config(preset, overrides={"environment.data": data, **(overrides or {})})
        environment = make_environment(config.environment)
        splits = [split for split in config.evaluation.splits if environment.has(split)]
        print(f"splits to evaluate: {', '.join(splits)}", flush=True)
        experiment = Experiment(
            home=portable(home),
            preset=preset,
            variant="full",
            seed=seed,
            data=portable(Path(data)),
            overrides=dict(overrides or {}),
            passes=passes,
            splits=tuple(splits),
            nproc=nproc or min(2, os.cpu_count() or 1),
        )
        with meter.phase("train"):
            experiment.train(progress=True)
        with meter.phase("evaluate"):
            experiment.evaluate(progress=True)
    _keep_costs(home / "summary.json", meter)
    summary = _summary(experiment.run, seed, "$ALFWORLD_DATA" if given else "generated", meter)
    (home / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    shutil.copytree(experiment.run / "figures", results / "figures", dirs_exist_ok=True)
    for name in (TRAIN, EVALUATE, "summary.json"):
        shutil.copy2(home / name, results / name)
    return results / "summary.json"


def _keep_costs(summary: Path, meter: _Meter) -> None:
    """A phase that was finished by an earlier call takes no time now: keep what it cost then."""
    if summary.exists():
        earlier = json.loads(summary.read_text())
        meter.seconds = {name: max(now, earlier["seconds"].get(name, 0.0)) for name, now in meter.seconds.items()}
        meter.peak = max(meter.peak, earlier["peak_memory_mb"] * 2**20)


def _summary(run: Path, seed: int, data: str, meter: _Meter) -> dict[str, Any]:
    """Rates (0-1) before and after, the library's use in training, and what the demo cost.

    The top level is the split that training validates on; any other has the same entries under its name. Before
    training the library is empty, so both entries of `before` are the same evaluation.
    """
    evaluated = json.loads((run / "summary.json").read_text())["evaluations"]
    splits = {
        split: {
            "before": {"library": evaluated[BEFORE][split], "no_library": evaluated[BEFORE][split]},
            "after": {"library": evaluated[WITH_LIBRARY][split], "no_library": evaluated[WITHHELD][split]},
        }
        for split in evaluated[BEFORE]
    }
    opened = RunDirectory.open(run)
    metrics = opened.metrics()
    return {
        "seed": seed,
        "data": data,
        "data_hash": opened.manifest()["data_hash"],
        "steps": len(metrics),
        **splits.pop(opened.config.environment.validation_split),
        **splits,
        "library_use": {
            name: [None if math.isnan(v) else round(float(v), 4) for v in metrics[column]]
            for name, column in {
                "episodes_with_skill": "selection/selected_share",
                "mean_utility": "library/mean_utility",
                "ndcg_mean": "ndcg/mean",
                "ndcg_std": "ndcg/std",
            }.items()
        },
        "seconds": meter.seconds,
        "peak_memory_mb": round(meter.peak / 2**20),
    }
