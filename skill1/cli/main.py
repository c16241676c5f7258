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

from skill1.cli.bundle import bundle
from skill1.cli.data import generate
from skill1.cli.imports import import_model
from skill1.cli.models import compare, evaluate, export, runs, select_study
from skill1.cli.options import (
    FOLDER,
    POSITIVE,
    Group,
    configured,
    echo_json,
    examples,
    handed_to_processes,
    in_results,
    json_option,
    names,
    nproc_option,
    numbers,
    on_option,
    out_option,
    own_words,
    pairs,
    placed,
    preset_option,
    set_option,
    slurm_options,
    together,
)
from skill1.cli.skillrl import bank, coldstart, demonstrate
from skill1.cli.skills import skills
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
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == __package__.partition(".")[0]:
            raise
        status = _report(
            f"this command needs {package}, which is not installed: install skill1 with its extra 'train' "
            "(in a checkout: `pip install '.[train]'`)"
        )
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


@cli.command(epilog=examples("skill1 demo", "skill1 demo --preset nano-webshop --seed 1"))
@click.option("--seed", default=0, show_default=True, help="seed of the games and the run")
@preset_option(text="one whose policy comes with the kit: nano, nano-webshop, mini")
def demo(seed: int, preset: str) -> None:
    """Train a policy that comes with the kit, evaluate it before and after, and draw its curves."""
    from skill1.running.demo import demo as run_demo

    run_demo(seed=seed, preset=preset)


cli.add_command(generate)


@cli.command(epilog=examples("skill1 warmstart --preset nano --out data/my-policy"))
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


@cli.command(
    epilog=examples(
        "skill1 train --preset nano --set environment.data=data/games --name try",
        "skill1 train --preset nano --set environment.data=data/games --name try --resume --set train.steps=90",
        "skill1 train --preset paper --set environment.data=$ALFWORLD_DATA --out /runs/paper --nproc 8 --dry-run",
    )
)
@placed
@configured(section="slurm")
@click.option("--resume", is_flag=True, help="continue from the last complete checkpoint")
@nproc_option
@on_option
@click.option(
    "--nodes", default=1, show_default=True, type=POSITIVE, help="of the cluster, each with --nproc processes"
)
@click.option("--dry-run", is_flag=True, help="check data, model, memory and batches only; status 1 if no fit")
def train(
    config: Any, own: dict[str, Any], directory: Path, resume: bool, nproc: int, on: str, nodes: int, dry_run: bool
) -> int:
    """Train a policy into a new run directory.

    SIGTERM ends it after the running step with a checkpoint, and status 143; continue with --resume. With --on slurm it
    is a job that outlives this command: repeated, it follows the job.
    """
    slurm = slurm_options(on, config.preset, own)
    if slurm is None and nodes > 1:
        raise click.UsageError("--nodes is for --on slurm; on hosts of your own start torchrun on each")
    if dry_run:
        from skill1.plan.dry_run import dry_run as check_run
        from skill1.plan.report import to_text

        tasks, checked = check_run(config, directory, resume=resume, processes=nproc * nodes)
        click.echo(f"tasks: {', '.join(f'{split} {count:,}' for split, count in tasks.items())}")
        click.echo(to_text(checked), nl=False)
        return int(not checked.fits)
    if slurm is not None:
        from skill1.running.training import train_on_slurm

        words = own_words()
        return _failed(
            train_on_slurm(config, directory, words, slurm, resume=resume, nodes=nodes, nproc=nproc, say=click.echo)
        )
    if handed_to_processes(nproc):
        return 0
    from skill1.distributed import TERMINATED
    from skill1.train import train as run_training

    return 0 if run_training(config, directory, resume) else TERMINATED


@cli.command(
    epilog=examples(
        "skill1 plan --preset paper --gpus 8 --memory 80", "skill1 plan --preset paper-lora --gpus 1 --memory 80 --json"
    )
)
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


for _command in (evaluate, select_study, export, runs, compare, skills, bundle):
    cli.add_command(_command)


@cli.command(epilog=examples('eval "$(skill1 completion bash)"', "skill1 completion fish | source"))
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands and options of skill1 with the tab key."""
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(cli, {}, "skill1", "_SKILL1_COMPLETE").source())


# how the runs of a study are made, where they play, and how many at a time
_study_options = together(
    click.option("--data", type=FOLDER, help="games folder; {seed} is the run's [default: generated games]"),
    click.option("--world-seed", type=int, help="of the generated games of all runs [default: a world for each seed]"),
    click.option("--passes", type=POSITIVE, help="evaluation passes [default: evaluation.passes]"),
    click.option("--splits", callback=names, help="separated by commas [default: those of the data]"),
    set_option,
    click.option("--nproc", default=1, show_default=True, type=POSITIVE, help="of one run"),
    click.option("--jobs", type=POSITIVE, help="runs at a time [default: a GPU or core each; all of them on Slurm]"),
    on_option,
    click.option("--dry-run", is_flag=True, help="show the plan, change nothing"),
)


@cli.command(
    epilog=examples(
        "skill1 sweep --name try --variants full,no_library,gigpo --seeds 0,1,2",
        "skill1 sweep --name wide --variants full --seeds 0,1 --set rollout.group_size=16 --dry-run",
    )
)
@click.option("--name", required=True, help="the study is kept in results/NAME")
@click.option("--variants", required=True, callback=names, help="e.g. full,grpo")
@click.option("--seeds", required=True, callback=numbers, help="e.g. 0,1,2")
@preset_option()
@_study_options
def sweep(name: str, dry_run: bool, **given: Any) -> int:
    """Train and evaluate variants with several seeds; repeat the command to resume. Status 1 if a run failed.

    With --on slurm every run is a job that outlives this command: repeated, it follows them.
    """
    from skill1.running.sweep import run_sweep

    return _failed(run_sweep(_study(in_results(name), **given), dry_run=dry_run, say=click.echo))


@cli.command(
    epilog=examples("skill1 reproduce --dry-run", "skill1 reproduce --preset nano-webshop --seeds 0,1,2,3,4,5")
)
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

    study = _study(in_results(name or given["preset"]), variants=variants or STUDIED, **given)
    return _failed(run_reproduction(study, capacities, dry_run=dry_run, say=click.echo))


def _study(folder: Path, on: str, **given: Any) -> Any:
    """The Sweep of `_study_options`."""
    from skill1.running.sweep import Sweep

    slurm = slurm_options(on, given["preset"], given["overrides"])
    return Sweep(folder=folder, slurm=slurm, **given)


def _failed(failures: Sequence[Any]) -> int:
    for failure in failures:
        click.echo(str(failure), err=True)
    return int(bool(failures))


@cli.command(
    epilog=examples(
        "skill1 collect results/try",
        "skill1 collect results/try --into kept/try",
        "skill1 collect kept/try results/more --into kept/both",
    )
)
@click.argument("results", nargs=-1, required=True, type=FOLDER)
@click.option("--into", type=FOLDER, help="copy them and the study's figures to this folder, without the runs")
def collect(results: tuple[Path, ...], into: Path | None) -> None:
    """Write the tables of a sweep's finished runs in RESULTS; prints where they are.

    Several RESULTS, sweeps or collected tables, are parts of one study: their tables are merged in --into.
    """
    from skill1.running import collect as collecting
    from skill1.running.merge import merge_collected

    if len(results) > 1 and into is None:
        raise click.UsageError("several parts are merged into another folder: name it with --into")
    files = [
        file
        for folder in results
        if len(results) == 1 or collecting.read_asked(folder)
        for file in collecting.collect(folder)
    ]
    if into is not None:
        files = merge_collected(results, into) if len(results) > 1 else collecting.copy_collected(results[0], into)
    for file in files:
        click.echo(str(file))


@cli.command(epilog=examples("skill1 probe --preset nano --set environment.data=data/games"))
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


@cli.command(
    epilog=examples(
        "skill1 notebook 02_evaluate -p run=results/try -p passes=4",
        "skill1 notebook 03_ablations -p study=results/reference/worlds",
    )
)
@click.argument("notebook")
@click.option("-p", "parameters", multiple=True, callback=pairs, metavar="NAME=VALUE", help="notebook parameter")
@click.option("--name", help="keep the output in results/NAME; when it is finished, it is not run again")
@click.option("--again", is_flag=True, help="with --name: run also when the output is finished")
def notebook(notebook: str, parameters: dict[str, str], name: str | None, again: bool) -> None:
    """Run NOTEBOOK (e.g. 02_evaluate, or a file of yours) strictly, without a browser; prints where its output is.

    Without --name that is results/notebooks, in the place of an earlier output.
    """
    from skill1.running.batch import find_notebook, run_notebook

    source = Path(notebook) if Path(notebook).is_file() else find_notebook(notebook)
    output = in_results(name or "notebooks") / source.name
    click.echo(run_notebook(source, output, parameters, again=again or name is None, progress=True))
