"""`make demo`: generate games, train a preset's policy with Skill1, evaluate it before and after, draw the figures.

Everything runs through the notebooks a user would open (`01_train`, `02_evaluate`), executed by papermill into
`results/demo/seed<N>/`; the last demo's notebooks, figures and `summary.json` are copied to `results/demo/` (of a
preset nano-X or X: `results/demo-X/`). A demo that was interrupted resumes; a finished one is not run again. Where the
variable of the environment's own games is set and the policies know their words, the demo plays those.
"""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from skill1.analysis.comparison import BEFORE, WITH_LIBRARY, WITHHELD
from skill1.config import load_config
from skill1.envs.make import environment_spec, make_environment
from skill1.envs.spec import EnvironmentSpec
from skill1.errors import RunError
from skill1.nano.world import nano_of, nano_world, world_folder
from skill1.running.collect import PHASES, read_seconds
from skill1.running.experiment import EVALUATE, TRAIN, Experiment, portable
from skill1.running.jobs import execute
from skill1.running.local import Local, Share
from skill1.store.json_file import read_json, write_json
from skill1.store.run_directory import RunDirectory
from skill1.store.writable import check_writable

_SUMMARY = "summary.json"
_LIBRARY_USE = {
    "episodes_with_skill": "selection/selected_share",
    "mean_utility": "library/mean_utility",
    "ndcg_mean": "ndcg/mean",
    "ndcg_std": "ndcg/std",
}  # of the summary -> columns of the metrics


def demo(
    seed: int,
    *,
    preset: str = "nano",
    nproc: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    passes: int | None = None,
    results: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Run the demo; returns the path of its `summary.json`.

    Args:
        preset: one of those that play generated games.
        nproc: training processes [default: two where there are two GPUs, or two cores and a nano policy].
        overrides: configuration fields over the preset's.
        passes: evaluation passes over all games of a split [default: the preset's].
        results: folder [default: results/demo of the preset nano, results/demo-X of nano-X and of X].
        say: what is told on the way and at the end goes here.

    Raises:
        DataError, ConfigError, RunError: see the messages; what was done so far is kept and continued next time.
    """
    generated = world_folder(seed, preset)  # refuses a preset without
    results = results or Path("results") / ("demo" if preset == "nano" else f"demo-{preset.removeprefix('nano-')}")
    check_writable(results)
    config = load_config(preset, overrides=overrides)
    spec = environment_spec(config.environment.name)
    nano = config.policy.prompts == "compact"
    knows = not nano or nano_of(spec.name).knows_published_games
    variable = (knows and spec.data_variable) or ""
    given = os.environ.get(variable)
    if not given and not generated.exists():
        say(f"generate {generated}")
    data = given or nano_world(seed, preset=preset)
    environment = make_environment(replace(config.environment, data=data))
    experiment = Experiment(
        home=portable(results / (f"seed{seed}-{variable.lower()}" if given else f"seed{seed}")),
        preset=preset,
        variant="full",
        seed=seed,
        data=portable(Path(data)),
        overrides=dict(overrides or {}),
        passes=passes or config.evaluation.passes,
        splits=tuple(split for split in config.evaluation.splits if environment.has(split)),  # some are extra downloads
        nproc=nproc or _processes(nano),
    )
    file = experiment.folder / _SUMMARY
    if experiment.is_finished() and file.exists():
        say(f"finished, see {experiment.home}")
    else:
        summary = _run(experiment, f"${variable}" if given else "generated", say)
        write_json(file, summary)
    shutil.copytree(experiment.run / "figures", results / "figures", dirs_exist_ok=True)
    for name in (TRAIN, EVALUATE, _SUMMARY):
        shutil.copy2(experiment.folder / name, results / name)
    say(_result(experiment, spec))
    run = portable(experiment.run)
    say(
        f"figures: {results / 'figures'}, numbers: {results / _SUMMARY}\n"
        "next, what it did and what it learnt (or open all notebooks with `make lab`):\n"
        f"  skill1 notebook 07_trajectories -p run={run}\n"
        f"  skill1 notebook 05_library -p run={run}\n"
        f"  skill1 select-study {run}"
    )
    return results / _SUMMARY


def _result(experiment: Experiment, spec: EnvironmentSpec) -> str:
    """What came out, in lines: per split the arms with their 95 % intervals over games; and what it took."""
    evaluated, lines = _evaluated(experiment), []
    for split, after in evaluated[WITH_LIBRARY].items():
        before, trained, withheld = (
            "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * x for x in (arm["success"], *arm["interval"])))
            for arm in (evaluated[label][split] for label in (BEFORE, WITH_LIBRARY, WITHHELD))
        )
        lines.append(
            f"{spec.split_label(split)}, {after['games']} {spec.tasks} x {after['passes']}: success {before} -> {trained}, "
            f"library withheld {withheld}"
        )
    seconds = read_seconds(experiment.folder)
    lines.append(", ".join(f"{phase} {seconds[phase]:.0f} s" for phase in PHASES if phase in seconds))
    return "\n".join(lines)


def _processes(nano: bool) -> int:
    """A policy of many parameters uses all cores from one process, and needs its memory in each."""
    share = Share.of_this_machine()
    return min(2, share.jobs) if share.devices or nano else 1


def _run(experiment: Experiment, data: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Execute the notebooks; returns the summary."""
    with _peak_memory() as resident:
        for failure in execute([experiment], Local(Share.of_this_machine(experiment.nproc, 1)), say):
            raise RunError(str(failure))
    costs = {"seconds": read_seconds(experiment.folder), "peak_memory_mb": round(max(resident) / 2**20)}
    return _summary(experiment, data) | costs


@contextmanager
def _peak_memory() -> Iterator[list[int]]:
    """Inside, the list grows by the resident bytes of this process and its descendants, once a second."""
    resident, ended, me = [0], threading.Event(), psutil.Process()

    def watch() -> None:
        while not ended.wait(1.0):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):  # ended between listing and asking
                    total += process.memory_info().rss
            resident.append(total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield resident
    finally:
        ended.set()
        watcher.join()


def _summary(experiment: Experiment, data: str) -> dict[str, Any]:
    """Rates (0-1) before and after, and the library's use in training.

    The top level is the split that training validates on; any other has the same entries under its name. Before
    training the library is empty, so both entries of `before` are the same evaluation.
    """
    evaluated = _evaluated(experiment)
    splits = {
        split: {
            "before": {"library": evaluated[BEFORE][split], "no_library": evaluated[BEFORE][split]},
            "after": {"library": evaluated[WITH_LIBRARY][split], "no_library": evaluated[WITHHELD][split]},
        }
        for split in evaluated[BEFORE]
    }
    run = RunDirectory.open(experiment.run)
    metrics = run.metrics()
    return {
        "seed": experiment.seed,
        "data": data,
        "data_hash": run.manifest()["data_hash"],
        "steps": len(metrics),
        **splits.pop(run.config.environment.validation_split),
        **splits,
        "library_use": {
            name: [None if math.isnan(v) else round(float(v), 4) for v in metrics[column]]
            for name, column in _LIBRARY_USE.items()
        },
    }


def _evaluated(experiment: Experiment) -> dict[str, Any]:
    """What `02_evaluate` found: arm -> split -> rates, intervals and counts."""
    return read_json(experiment.run / _SUMMARY)["evaluations"]
