"""The command line: `skill1 …` or `python -m skill1 …` (see `skill1 --help`).

Each command turns its words into one call of the library, imported inside it so that `--help` need not load torch.
Whatever a user can cause (a wrong name, value, folder, missing data) ends as `error: …` with status 2, without a
traceback; a traceback is a defect.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from skill1.cli.data import generate
from skill1.cli.imports import import_model
from skill1.cli.models import compare, evaluate, export, select_study
from skill1.cli.options import (
    FOLDER,
    POSITIVE,
    Group,
    configured,
    echo_json,
    handed_to_processes,
    in_results,
    json_option,
    name_option,
    names,
    nproc_option,
    numbers,
    out_option,
    pairs,
    placed,
    preset_option,
    set_option,
    together,
)
from skill1.cli.skillrl import bank, coldstart, demonstrate
from skill1.errors import UserError

_USER_ERROR, _INTERRUPTED = 2, 130
# what a file system can refuse at any moment, whoever asks
_MACHINE = frozenset(
    {errno.EACCES, errno.EDQUOT, errno.EIO, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOSPC, errno.ENOTDIR}
    | {errno.EPERM, errno.EROFS, errno.ESTALE, errno.ETXTBSY}
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the command found a fault, 2 a user error, 130 and 143 signals."""
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        status = cli.main(words, prog_name="skill1", standalone_mode=False, obj=words)
    except click.ClickException as error:
        status = _report(error.format_message())
    except UserError as error:
        status = _report(str(error))
    except OSError as error:
        if error.errno not in _MACHINE:
            raise
        status = _report(f"{error.filename or 'a file'}: {error.strerror or error}")
    except (click.Abort, KeyboardInterrupt):
        status = _INTERRUPTED
    sys.exit(status)


def _report(message: str) -> int:
    click.echo(f"error: {message}", err=True)
    return _USER_ERROR


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="skill1")
def cli() -> None:
    """Skill1: one policy, trained by GRPO, that selects, uses and distils skills."""


@cli.command()
@click.option("--seed", default=0, show_default=True, help="seed of the games and the run")
@preset_option(text="one whose policy comes with the kit: nano, nano-webshop, mini")
def demo(seed: int, preset: str) -> None:
    """Train a policy that comes with the kit, evaluate it before and after, and draw its curves."""
    from skill1.running.demo import demo as run_demo

    run_demo(seed=seed, preset=preset)


cli.add_command(generate)


@cli.command()
@out_option("folder for the policy")
@configured(section="warm_start")
def warmstart(config: Any, own: dict[str, Any], out: Path) -> None:
    """Train the nano policy from expert episodes, as the starting point of reinforcement learning."""
    from skill1.config import load_section
    from skill1.nano.options import WarmStartConfig
    from skill1.nano.warmstart import warm_start

    options = load_section(WarmStartConfig, "warm_start", config.preset, own)
    warm_start(options, config.environment.name, config.preset, out)


for _command in (import_model, bank, demonstrate, coldstart):
    cli.add_command(_command)


@cli.command()
@placed
@configured()
@click.option("--resume", is_flag=True, help="continue from the last complete checkpoint")
@nproc_option
@click.option("--dry-run", is_flag=True, help="check data, model, memory and batches only; status 1 if no fit")
def train(config: Any, directory: Path, resume: bool, nproc: int, dry_run: bool) -> int:
    """Train a policy into a new run directory.

    SIGTERM ends it after the running step with a checkpoint, and status 143; continue with --resume.
    """
    if dry_run:
        from skill1.plan.dry_run import dry_run as check_run
        from skill1.plan.report import to_text

        tasks, checked = check_run(config, directory, resume=resume, processes=nproc)
        click.echo(f"tasks: {', '.join(f'{split} {count:,}' for split, count in tasks.items())}")
        click.echo(to_text(checked), nl=False)
        return int(not checked.fits)
    if handed_to_processes(nproc):
        return 0
    from skill1.distributed import TERMINATED
    from skill1.train import train as run_training

    return 0 if run_training(config, directory, resume) else TERMINATED


@cli.command()
@configured()
@click.option("--gpus", default=1, show_default=True, type=int, help="number of GPUs")
@click.option("--memory", default=80.0, show_default=True, help="GB (1e9 bytes) of each")
@click.option("--sharded/--whole", default=None, help="weights spread, or whole [default: as train.sharding says]")
@click.option("--rate", type=float, help="peak TFLOP/s of matrix products [default: an H100's at policy.dtype]")
@click.option("--mfu", default=0.5, show_default=True, help="share of that peak which matrix products reach")
@click.option("--bandwidth", default=2300.0, show_default=True, help="GB/s to and from memory, as reached")
@click.option("--link", default=150.0, show_default=True, help="GB/s from GPU to GPU, each way, as reached")
@click.option("--host-us", default=8.0, show_default=True, help="microseconds to issue an operator")
@click.option("--reserve", default=0.08, show_default=True, help="share of the memory kept free")
@click.option("--turns", type=float, help="actions per episode [default: .6 of environment.max_steps]")
@click.option("--prompt-tokens", type=int, help="of an act prompt, mean [default: by prompt set]")
@click.option("--completion-tokens", type=int, help="of an act completion, mean [default: by prompt set]")
@click.option("--longest", default=2.0, show_default=True, help="longest completion of a call / mean, for time")
@json_option
def plan(
    config: Any, gpus: int, memory: float, sharded: bool | None, rate: float | None, mfu: float, bandwidth: float,
    link: float, host_us: float, reserve: float, turns: float | None, prompt_tokens: int | None,
    completion_tokens: int | None, longest: float, as_json: bool,
) -> int:  # fmt: skip
    """Compute memory and time of a configuration on GPUs that need not be here; status 1 if it does not fit."""
    from skill1.plan.machine import GB, gpu_machine
    from skill1.plan.plan import Planner
    from skill1.plan.report import to_json, to_text
    from skill1.plan.workload import Assumptions

    spread = gpus > 1 and config.train.sharding != "none" if sharded is None else sharded
    machine = gpu_machine(
        gpus, memory * GB, dtype=config.policy.dtype, sharded=spread, flops=None if rate is None else rate * 1e12,
        mfu=mfu, bandwidth=bandwidth * GB, link=link * GB, host=host_us * 1e-6, reserve=reserve,
    )  # fmt: skip
    assumptions = Assumptions(turns, prompt_tokens, completion_tokens, longest)
    made = Planner.of(config.policy.model, config.policy.revision).plan(config, machine, assumptions)
    if as_json:
        echo_json(to_json(made))
    else:
        click.echo(to_text(made), nl=False)
    return int(not made.fits)


for _command in (evaluate, select_study, export, compare):
    cli.add_command(_command)

# how the runs of a study are made, where they play, and how many at a time
_study_options = together(
    click.option("--data", type=FOLDER, help="games folder; {seed} is the run's [default: generated games]"),
    click.option("--world-seed", type=int, help="of the generated games of all runs [default: a world for each seed]"),
    click.option("--passes", type=POSITIVE, help="evaluation passes [default: evaluation.passes]"),
    click.option("--splits", callback=names, help="separated by commas [default: those of the data]"),
    set_option,
    click.option("--nproc", default=1, show_default=True, type=POSITIVE, help="of one run"),
    click.option("--jobs", type=POSITIVE, help="runs at a time [default: a GPU or core each]"),
    click.option("--dry-run", is_flag=True, help="show the plan, change nothing"),
)


@cli.command()
@click.option("--name", required=True, help="the study is kept in results/NAME")
@click.option("--variants", required=True, callback=names, help="e.g. full,grpo")
@click.option("--seeds", required=True, callback=numbers, help="e.g. 0,1,2")
@preset_option()
@_study_options
def sweep(name: str, dry_run: bool, **given: Any) -> int:
    """Train and evaluate variants with several seeds; repeat the command to resume. Status 1 if a run failed."""
    from skill1.running.sweep import Sweep, run_sweep

    return _failed(run_sweep(Sweep(folder=in_results(name), **given), dry_run=dry_run, say=click.echo))


@cli.command()
@click.option("--name", help="the study is kept in results/NAME [default: the preset's name]")
@click.option("--variants", callback=names, help="e.g. full,grpo [default: Table 2's and what it is compared with]")
@click.option("--seeds", default="0,1,2", show_default=True, callback=numbers, help="of the runs")
@click.option("--capacities", default="", callback=numbers, help="smaller libraries to train with, e.g. 32,128")
@preset_option("nano")
@_study_options
def reproduce(
    name: str | None, variants: tuple[str, ...] | None, capacities: tuple[int, ...], dry_run: bool, **given: Any
) -> int:
    """Sweep over the variants, train with smaller libraries, run every notebook on them. Status 1 if a run failed."""
    from skill1.running.reproduce import STUDIED
    from skill1.running.reproduce import reproduce as run_reproduction
    from skill1.running.sweep import Sweep

    folder = in_results(name or given["preset"])
    study = Sweep(folder=folder, variants=variants or STUDIED, **given)
    return _failed(run_reproduction(study, capacities, dry_run=dry_run, say=click.echo).failures)


def _failed(failures: Sequence[Any]) -> int:
    for failure in failures:
        click.echo(str(failure), err=True)
    return int(bool(failures))


@cli.command()
@click.argument("results", type=FOLDER)
@click.option("--into", type=FOLDER, help="copy them and the study's figures to this folder, without the runs")
def collect(results: Path, into: Path | None) -> None:
    """Write the tables of a sweep's finished runs in RESULTS; prints where they are."""
    from skill1.running import collect as collecting

    files = collecting.collect(results)
    for file in files if into is None else collecting.copy_collected(results, into):
        click.echo(str(file))


@cli.command()
@configured()
@click.option("--split", help="split that knows the homes of train [default: environment.validation_split]")
@click.option("--passes", default=3, show_default=True, type=POSITIVE, help="passes over all games")
def probe(config: Any, split: str | None, passes: int) -> int:
    """Test whether the policy follows the skills it is shown; prints one JSON line, status 1 if it does not."""
    from skill1.envs.make import make_environment
    from skill1.evaluate import load_policy
    from skill1.models.experts.probing import expert_arms
    from skill1.nano.probe import nano_arms
    from skill1.nano.probe import probe as run_probe

    environment = make_environment(config.environment)
    split = split or config.environment.validation_split
    compact = config.policy.prompts == "compact"
    arms = nano_arms(config.environment.name) if compact else expert_arms(config, environment)
    report = run_probe(load_policy(config), environment, config, arms, split=split, passes=passes, progress=True)
    echo_json(report.to_json())
    return int(not report.passed)


@cli.command()
@click.argument("notebook")
@click.option("-p", "parameters", multiple=True, callback=pairs, metavar="NAME=VALUE", help="notebook parameter")
@name_option
@click.option("--again", is_flag=True, help="run also when the output is finished")
def notebook(notebook: str, parameters: dict[str, str], name: str | None, again: bool) -> None:
    """Run NOTEBOOK (e.g. 02_evaluate, or a file of yours) strictly, without a browser; prints where its output is."""
    from skill1.running.batch import find_notebook, run_notebook

    source = Path(notebook) if Path(notebook).is_file() else find_notebook(notebook)
    output = in_results(name or "notebooks") / source.name
    click.echo(run_notebook(source, output, parameters, again=again, progress=True))
