"""`skill1 sweep`: every variant with every seed, each run in a process of its own, all variants of a seed on the same games.

    results/<name>/sweep.json                     what was asked for; later commands may add variants and seeds
    results/<name>/<variant>/seed<N>/             a run and its notebooks (skill1.running.experiment)
    results/<name>/<variant>/seed<N>/log.txt      output of the last attempt
    results/<name>/{evaluations,metrics}.parquet, manifest.json   the tables (skill1.analysis.study)

The command can be killed at any moment and repeated: finished runs are left alone, an interrupted one resumes from its
last checkpoint. On this machine no run outlives the sweep (skill1.running.launch); on Slurm all do, and the repeated
command follows them (skill1.running.slurm). A run that fails does not stop the others.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from skill1.analysis.study import SEED, SWEEP, home
from skill1.analysis.variants import REFERENCE
from skill1.config import ConfigError, PolicyConfig, field_names, flatten, load_config
from skill1.envs.make import environment_spec, make_environment
from skill1.errors import RunError
from skill1.nano.world import has_world, nano_world, world_folder
from skill1.presets import variants
from skill1.registry import closest
from skill1.running.collect import PHASES, collect, finished, read_asked, read_seconds
from skill1.running.experiment import Experiment, portable
from skill1.running.jobs import Executor, Failure, execute
from skill1.running.local import Local, Share, run_within
from skill1.running.progress import steps_logged
from skill1.running.slurm import Slurm, SlurmConfig
from skill1.store.json_file import write_json
from skill1.store.resources import find_adapter, find_model, resource
from skill1.store.run_directory import lock_folder
from skill1.store.writable import check_writable

_OWN_FIELDS = {"train.seed": "--seeds", "environment.data": "--data"}  # fields that the sweep sets


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What to run.

    Raises:
        ConfigError: names and values that are wrong, before anything is read or written.
    """

    folder: Path  # results/<name>
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str = "nano"
    data: Path | None = None  # games folder, in which {seed} stands for the run's; None = generated worlds
    world_seed: int | None = None  # of one generated world for all runs; None = each run's seed has its own
    overrides: Mapping[str, Any] = field(default_factory=dict)  # dotted field name -> value
    passes: int | None = None  # evaluation passes; None = evaluation.passes
    splits: tuple[str, ...] | None = None  # to evaluate; None = those of evaluation.splits that the data has
    nproc: int = 1  # training processes of one run
    jobs: int | None = None  # runs at a time; None = as many as there are cores, or GPUs, for; all on Slurm
    slurm: SlurmConfig | None = None  # what a run asks of Slurm; None = it runs on this machine
    notebooks: Path = field(default_factory=lambda: resource("notebooks"))

    def __post_init__(self) -> None:
        if not self.variants or not self.seeds:
            raise ConfigError("an empty sweep: name at least one variant and one seed")
        for what, given in (("variant", self.variants), ("seed", self.seeds)):
            if twice := [value for value in dict.fromkeys(given) if given.count(value) > 1]:
                raise ConfigError(f"{what} {twice[0]} is given twice")
        known = {name for variant in self.variants for name in field_names(self.preset, variant, self.overrides)}
        for name in self.overrides:
            closest(name, known, "configuration field")
        for variant in self.variants:
            for seed in self.seeds:
                load_config(self.preset, variant, {**self.overrides_of(variant), "train.seed": seed})
            if both := sorted(set(self.overrides) & set(variants()[variant].changes)):
                raise ConfigError(f"{both[0]} is what the variant {variant} switches: it cannot be set for the sweep")
        if own := sorted(set(self.overrides) & set(_OWN_FIELDS)):
            raise ConfigError(f"{own[0]} is set by the sweep: use {_OWN_FIELDS[own[0]]}")
        if self.nproc < 1 or (self.jobs is not None and self.jobs < 1):
            raise ConfigError(f"nproc = {self.nproc} and jobs = {self.jobs} must be at least 1")
        if self.world_seed is not None and self.data is not None:
            raise ConfigError("a world seed is for generated games, not for a games folder: give one of the two")
        variable = environment_spec(
            load_config(self.preset, self.variants[0], self.overrides_of(self.variants[0])).environment.name
        ).data_variable
        if self.data is None and not has_world(self.preset) and variable is not None:
            raise ConfigError(f"the preset {self.preset} needs a games folder: give --data, e.g. --data ${variable}")

    def overrides_of(self, variant: str) -> dict[str, Any]:
        """Select the overrides that a variant's runs have fields for: one method's options are not another's."""
        known = field_names(self.preset, variant, self.overrides)
        return {name: value for name, value in self.overrides.items() if name in known}


# -- the plan ---------------------------------------------------------------------------------------------------------


def plan(sweep: Sweep, settings: Mapping[str, Any]) -> pd.DataFrame:
    """List the runs, seeds outermost: a sweep cut short holds whole comparisons.

    Returns:
        Columns variant, seed, state, minutes (still to go by the medians of finished runs, of this variant if there are
        any; NaN if there are none), experiment, done.

    Raises:
        RunError: a run there was made with other settings or by another version.
    """
    costs = pd.DataFrame(
        [{"variant": variant, **read_seconds(place)} for variant, _, place in finished(sweep.folder)],
        columns=["variant", *PHASES],
    )
    rows = []
    for seed in sweep.seeds:
        for variant in sweep.variants:
            experiment = Experiment(
                home=portable(home(sweep.folder, variant, seed)),
                preset=sweep.preset,
                variant=variant,
                seed=seed,
                data=of_seed(settings["data"], seed),
                overrides={name: of_seed(settings["overrides"][name], seed) for name in sweep.overrides_of(variant)},
                passes=settings["passes"],
                splits=tuple(settings["splits"]),
                baseline=variant == REFERENCE or REFERENCE not in sweep.variants,
                nproc=sweep.nproc,
                notebooks=str(sweep.notebooks),
            )
            ended, step, steps = experiment.is_finished(), steps_logged(experiment.run), experiment.config.train.steps
            state = "done" if ended else f"stopped at step {step} of {steps}" if step else "to do"
            minutes = 0.0 if ended else _minutes(costs, variant, 1 - step / steps)
            rows.append((variant, seed, state, minutes, experiment, ended))
    return pd.DataFrame(rows, columns=["variant", "seed", "state", "minutes", "experiment", "done"])


def _minutes(costs: pd.DataFrame, variant: str, share: float) -> float:
    """Of a run of which `share` of the training is still to be done."""
    if costs.empty:
        return float("nan")
    own = costs[costs["variant"] == variant]
    train, evaluate = (costs if own.empty else own)[list(PHASES)].median()
    return (share * train + evaluate) / 60


def plan_table(planned: pd.DataFrame, jobs: int) -> str:
    """Format the plan as text."""
    minutes = planned["minutes"].sum(skipna=False) / jobs
    total = "unknown until a run is done" if math.isnan(minutes) else f"about {minutes:.1f} minutes"
    table = planned[["variant", "seed", "state", "minutes"]].to_string(index=False, float_format="%.1f", na_rep="")
    return f"{table}\n{len(planned)} runs, {planned['done'].sum()} done; {jobs} at a time: {total}"


# -- what a study is made with ----------------------------------------------------------------------------------------


def of_seed(value: Any, seed: int) -> Any:
    """Put a run's seed in the place of {seed} in a path, or in what is set for the study."""
    return value.replace(SEED, str(seed)) if isinstance(value, str) else value


def settings_of(sweep: Sweep, data: str | None) -> dict[str, Any]:
    """Gather what every run of a study has in common. Raises DataError when the games are not there.

    Args:
        data: folder, with {seed} where it varies with the run; None for an environment that reads none.
    """
    configs = [load_config(sweep.preset, variant, sweep.overrides_of(variant)) for variant in sweep.variants]
    values: dict[str, Any] = {name: value for each in configs for name, value in flatten(each).items()}
    config, hashes = configs[0], {}
    splits = sweep.splits or config.evaluation.splits
    for folder in dict.fromkeys([None] if data is None else [of_seed(data, seed) for seed in sweep.seeds]):
        if folder is None or sweep.data is not None or Path(folder).exists():
            environment = make_environment(replace(config.environment, data=folder))
            splits = sweep.splits or tuple(split for split in splits if environment.has(split))
            for split in dict.fromkeys((config.environment.train_split, *splits)):
                hashes[split if folder == data else f"{folder} {split}"] = environment.data_hash(split)
    asked = {
        "preset": sweep.preset,
        "overrides": {name: values[name] for name in sorted(sweep.overrides)},
        "passes": sweep.passes or config.evaluation.passes,
        "splits": splits,
        "data": data or "",
        "data_hash": hashes,  # of what is there: a world may still have to be generated
        "policy_hash": _policy_hash(config.policy),
    }
    return json.loads(json.dumps(asked))  # as it is read back: lists for tuples


def _policy_hash(policy: PolicyConfig) -> str | None:
    """Of its folders: weights, configuration and tokenizer; None of a hub id."""
    folders = [Path(find_model(policy.model)), *([find_adapter(policy.adapter)] if policy.adapter else [])]
    files = [sorted(p for p in folder.glob("*") if p.suffix in (".safetensors", ".json")) for folder in folders]
    if not any(files):
        return None
    digest = hashlib.sha256()
    for file in itertools.chain(*files):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def merged(sweep: Sweep, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add what is asked for now to what the study in the folder was asked for.

    Raises:
        RunError: the folder holds something else, or a study made with other settings; the message names them.
    """
    asked = read_asked(sweep.folder)
    if asked is None:
        if sweep.folder.exists() and (found := sorted(p.name for p in sweep.folder.iterdir() if p.name != ".lock")):
            raise RunError(f"{sweep.folder} holds no study but {', '.join(found[:4])}: choose another --name")
        asked = {"settings": dict(settings), "runs": {}}
    old, new = asked["settings"]["data_hash"] or {}, settings["data_hash"]
    asked["settings"]["data_hash"] = {**new, **old}
    changed = [
        f"{name}: it has {old!r}, now {settings.get(name)!r}"
        for name, old in asked["settings"].items()
        if old != (settings.get(name) if name != "data_hash" else {**old, **settings[name]})
    ]
    if changed:
        raise RunError(f"{sweep.folder} was made with other settings ({'; '.join(changed)}): choose another --name")
    runs = {v: sorted({*asked["runs"].get(v, ()), *(sweep.seeds if v in sweep.variants else ())})
            for v in (*asked["runs"], *sweep.variants)}  # fmt: skip
    return {"settings": asked["settings"], "runs": runs}


# -- running ----------------------------------------------------------------------------------------------------------


def data_of(sweep: Sweep, *, generate: bool) -> str | None:
    """Return the games folder of a sweep's runs, in which {seed} stands for theirs; worlds are generated if asked for."""
    if sweep.data is not None or not has_world(sweep.preset):
        return portable(sweep.data) if sweep.data else None
    worlds = sweep.seeds if sweep.world_seed is None else [sweep.world_seed]
    for world in worlds if generate else ():
        nano_world(world, preset=sweep.preset)
    one = str(world_folder(worlds[0], sweep.preset))
    return one if sweep.world_seed is not None else f"{one.removesuffix(str(worlds[0]))}{SEED}"


def executor_of(sweep: Sweep) -> Executor:
    """Find where the runs are executed. Raises as `Share` and `Slurm`, before anything is created."""
    if sweep.slurm is None:
        return Local(Share.of_this_machine(sweep.nproc, sweep.jobs))
    jobs = sweep.jobs or len(sweep.variants) * len(sweep.seeds)
    return Slurm(sweep.slurm, sweep.folder / "slurm", run_within, jobs=jobs, nproc=sweep.nproc)


def run_sweep(sweep: Sweep, *, dry_run: bool = False, say: Callable[[str], None] = print) -> list[Failure]:
    """Run what is not done yet and collect the tables; `dry_run` says the plan and changes nothing.

    Returns:
        The runs that failed.

    Raises:
        DataError, ConfigError, RunError: before any run starts; see the messages.
    """
    executor = executor_of(sweep)
    settings = settings_of(sweep, data_of(sweep, generate=not dry_run))
    asked = merged(sweep, settings)  # refuses another study's folder
    if dry_run:
        say(plan_table(plan(sweep, settings), executor.jobs))
        return []
    check_writable(sweep.folder)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with closing(lock_folder(sweep.folder)):
        planned = plan(sweep, settings)
        write_json(sweep.folder / SWEEP, asked, indent=1)
        say(plan_table(planned, executor.jobs))
        if sweep.slurm is not None:
            say("the jobs outlive this command: repeat it to follow them, scancel ends them")
        failures = execute(list(planned.loc[~planned["done"], "experiment"]), executor, say)
        if any(finished(sweep.folder)):
            for file in collect(sweep.folder):
                say(str(file))
    return failures
