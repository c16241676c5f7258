"""`make reproduce`: the paper's study at a preset's scale, from the first run to the last figure.

    results/<name>-bank-<seed>.json      SkillRL's first banks, if none is given (skill1.models.first_bank)
    results/<name>/                      every variant with every seed, and their tables (skill1.running.sweep)
    results/<name>-capacity-<N>/         `full` with room for N skills, first seed: what saturation does
    results/<name>/notebooks/*.ipynb     03 to 08, executed on these
    results/<name>/figures/              what they draw
    results/<name>/trajectories.html     what 07 exports

It can be stopped at any moment and repeated: finished runs are left alone, notebooks are executed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from skill1.analysis.study import SEED, home
from skill1.config import ConfigError
from skill1.errors import RunError
from skill1.running.batch import find_notebook, run_notebook
from skill1.running.collect import finished
from skill1.running.experiment import portable
from skill1.running.jobs import Failure
from skill1.running.launch import launch_torchrun, set_words
from skill1.running.sweep import Sweep, data_of, of_seed, run_sweep

# Table 2, and the methods that the paper compares with (grpo is no_library under another name)
STUDIED = (
    "full", "no_library", "no_selection", "no_distillation", "lambda1_0", "lambda2_0", "lambdas_0", "gigpo", "skillrl",
    "retroagent_in_context", "retroagent_rl",
)  # fmt: skip
REFERENCE, BESIDE = "full", "lambdas_0"  # the run that 05, 07 and 08 look at, and the one that its map is held against
BANKED = "skillrl"  # starts with a bank, which 05 shows
_BANK = "method.bank"  # its field; other variants have none


def reproduce(
    study: Sweep, capacities: Sequence[int] = (), *, dry_run: bool = False, say: Callable[[str], None] = print
) -> list[Failure]:
    """Run `study` and a run per capacity, then every notebook on them. `dry_run` says the plans and changes nothing.

    Returns:
        The runs that failed.

    Raises:
        ConfigError: `study` lacks the variant `full`, or a capacity is below 1 or given twice.
        DataError, RunError: as `run_sweep` and `run_notebook`; RunError also if a run that the notebooks read failed.
        LaunchError: the first bank could not be written.
    """
    if REFERENCE not in study.variants:
        raise ConfigError(f"reproduce needs the variant {REFERENCE}: the others are compared with it")
    if len(set(capacities)) < len(capacities):
        raise ConfigError(f"capacities {', '.join(map(str, capacities))}: one is given twice")
    study = _with_bank(study, dry_run)
    smaller = [_with_capacity(study, capacity) for capacity in capacities]
    failures = [failure for sweep in (study, *smaller) for failure in run_sweep(sweep, dry_run=dry_run, say=say)]
    if not dry_run:
        _notebooks(study, smaller, say)
    return failures


def _with_bank(study: Sweep, dry_run: bool) -> Sweep:
    """The study with first banks for SkillRL; each is written, in a process of its own, if it is not there yet."""
    if BANKED not in study.variants or _BANK in study.overrides:
        return study
    data = data_of(study, generate=not dry_run)
    name = f"{study.folder.name}-bank{f'-{SEED}' if data and SEED in data else ''}.json"
    files = portable(study.folder.with_name(name))
    for seed in () if dry_run else study.seeds:
        if not Path(file := of_seed(files, seed)).exists():
            given = {} if data is None else {"environment.data": of_seed(data, seed)}
            sets = set_words({**study.overrides_of(BANKED), **given})
            launch_torchrun(["bank", "--out", file, "--preset", study.preset, *sets])
    return replace(study, overrides={**study.overrides, _BANK: files})


def _with_capacity(study: Sweep, capacity: int) -> Sweep:
    """The reference run with another `library.capacity`."""
    return replace(
        study,
        folder=study.folder.with_name(f"{study.folder.name}-capacity-{capacity}"),
        variants=(REFERENCE,),
        seeds=study.seeds[:1],
        overrides={**study.overrides_of(REFERENCE), "library.capacity": capacity},
    )


def _run(sweep: Sweep, variant: str) -> Path:
    """The run directory of a variant with the first seed. Raises RunError if the run failed."""
    place = home(sweep.folder, variant, sweep.seeds[0])
    if place not in [done for _, _, done in finished(sweep.folder)]:
        raise RunError(f"{place} is not finished, but the notebooks read it: see its log.txt and repeat the command")
    return place / "run"


def _notebooks(study: Sweep, smaller: Sequence[Sweep], say: Callable[[str], None]) -> None:
    """Execute the analyses. Those of the study's tables leave out the runs that failed."""
    reference = portable(_run(study, REFERENCE))
    folder = portable(study.folder)
    against = portable(_run(study, BESIDE)) if BESIDE in study.variants else ""
    parameters: dict[str, Mapping[str, Any]] = {
        "03_ablations": {"study": folder},
        "04_per_category": {"study": folder},
        "05_library": {
            "run": reference,
            "against": against,
            "capacities": [portable(_run(sweep, REFERENCE)) for sweep in smaller],
            "bank": portable(_run(study, BANKED)) if BANKED in study.variants else "",
            "out": f"{folder}/figures",
        },
        "06_paper": {"study": folder},
        "07_trajectories": {"run": reference, "others": folder, "out": f"{folder}/trajectories.html"},
        "08_credit": {"run": reference, "out": folder},
    }
    for name, given in parameters.items():
        if name == "03_ablations" and len(study.variants) == 1:
            say(f"{name}: left out, there is no variant to compare {REFERENCE} with")
            continue
        output = study.folder / "notebooks" / f"{name}.ipynb"
        run_notebook(find_notebook(name, study.notebooks), output, given, again=True)
        say(str(output))
