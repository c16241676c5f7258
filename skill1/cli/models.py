"""Commands on what was trained, or by others: `skill1 evaluate`, `select-study`, `export` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from skill1.cli.options import (
    FOLDER,
    POSITIVE,
    echo_json,
    examples,
    handed_to_processes,
    json_option,
    names,
    nproc_option,
    out_option,
    placed,
    preset_option,
    report,
    set_option,
)

# options of `evaluate` for one of the two subjects alone
_FOR_MODELS = {
    "preset": "--preset", "endpoint": "--endpoint", "key_variable": "--api-key-env", "keep_rollouts": "--keep-rollouts",
}  # fmt: skip
_FOR_RUNS = {"step": "--step", "reuse": "--reuse"}


@click.command(
    epilog=examples(
        "skill1 evaluate --name try --split valid_seen --passes 4",
        "skill1 evaluate --name try --library none",
        "skill1 evaluate --model models/mine --preset paper --data $ALFWORLD_DATA --out results/mine",
    )
)
@placed
@click.option(
    "--model", help="folder or hub id of any causal LM, or its name at --endpoint; --out is then a new folder"
)
@click.option("--endpoint", metavar="URL", help="OpenAI-compatible server to ask, e.g. http://localhost:8000/v1")
@click.option("--api-key-env", "key_variable", metavar="VAR", help="environment variable with the endpoint's key")
@preset_option(None, "of --model [default: the one exported with it, else paper]")
@set_option
@click.option("--split", "splits", multiple=True, help="repeatable [default: the run's]")
@click.option("--passes", type=POSITIVE, help="passes over all games [default: the run's]")
@click.option(
    "--library",
    help="final, step:N, none, or PATH of skills or of a checkpoint's library; with --model: none or PATH "
    "[default: final; the one exported with a model]",
)
@click.option("--step", type=click.IntRange(min=0), help="checkpoint; 0 = before training [default: the last]")
@click.option("--data", help="games folder [default: the run's]")
@click.option("--batch", type=POSITIVE, help="prompts or requests at a time (does not change the result)")
@click.option("--keep-rollouts", is_flag=True, help="of a --model: store every episode with its texts, in OUT/rollouts")
@click.option("--reuse", is_flag=True, help="play only passes that are not stored")
@nproc_option
def evaluate(directory: Path, model: str | None, nproc: int, **given: Any) -> None:
    """Evaluate a run's checkpoint, or any model, on whole splits; prints one JSON line per split.

    Under torchrun (--nproc) every process plays a share of the games with the whole policy: the same outcomes, sooner.
    """
    for option, word in (_FOR_MODELS if model is None else _FOR_RUNS).items():
        if given[option]:
            raise click.UsageError(f"{word} is for {'a --model' if model is None else 'runs, not for a --model'}")
    if given["key_variable"] and not given["endpoint"]:
        raise click.UsageError("--api-key-env is for an --endpoint")
    if given["endpoint"] and nproc > 1:
        raise click.UsageError("--nproc is for a policy that is loaded here; an --endpoint is asked --batch at a time")
    if handed_to_processes(nproc):
        return
    if given["data"]:
        given["overrides"]["environment.data"] = given["data"]
    if model is None:
        _evaluate_run(directory, given)
    else:
        _evaluate_model(directory, model, given)


def _evaluate_run(directory: Path, given: dict[str, Any]) -> None:
    from skill1.evaluate import evaluate_run
    from skill1.evaluate import report as to_json

    chosen = {option: given[option] for option in ("overrides", "passes", "step", "batch", "reuse")}
    library, splits = given["library"] or "final", given["splits"] or None
    done = evaluate_run(directory, library=library, splits=splits, progress=True, **chosen)
    report(*map(to_json, done))


def _evaluate_model(directory: Path, model: str, given: dict[str, Any]) -> None:
    from skill1.evaluate import report as to_json
    from skill1.models.evaluate_model import evaluate_model, model_config

    options = {
        "evaluation.splits": given["splits"],
        "evaluation.passes": given["passes"],
        "policy.generate_batch": given["batch"],
    }
    overrides = given["overrides"] | {field: value for field, value in options.items() if value}
    config = model_config(model, given["preset"], overrides, endpoint=given["endpoint"] is not None)
    done = evaluate_model(
        config, directory, library=given["library"], endpoint=given["endpoint"], key_variable=given["key_variable"],
        keep_rollouts=given["keep_rollouts"], progress=True,
    )  # fmt: skip
    if report(*({"model": model, **to_json(evaluation)} for evaluation in done.evaluations)) and done.unusable:
        share = 100 * done.unusable / done.replies
        click.echo(
            f"WARNING: {done.unusable} of {done.replies} replies ({share:.1f} %) were no chat completion with text; "
            "they count as empty answers, that is as ill-formed actions",
            err=True,
        )


@click.command(
    "select-study",
    epilog=examples("skill1 select-study results/try", "skill1 select-study results/study/full/seed*/run"),
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=FOLDER)
@click.option("--orders", default="", callback=names, help="of candidates, e.g. policy,utility,oracle [default: all]")
@click.option("--keys", default="", callback=names, help="query, task: what finds them [default: both]")
@click.option("--floors", default="", callback=names, help="run, none: similarity asked of them [default: both]")
@click.option("--split", help="[default: environment.validation_split]")
@click.option("--passes", type=POSITIVE, help="passes over all games [default: the run's]")
@click.option("--step", type=POSITIVE, help="checkpoint [default: the last]")
@click.option("--batch", type=POSITIVE, help="prompts at a time (does not change the result)")
@nproc_option
def select_study(
    runs: tuple[Path, ...],
    orders: tuple[str, ...],
    keys: tuple[str, ...],
    floors: tuple[str, ...],
    nproc: int,
    **given: Any,
) -> None:
    """Play a run's policy and library with its candidates in other orders; prints one JSON line per arm.

    Runs of several seeds are played one by one and compared together. Nothing is trained, and nothing is played twice.
    05_library shows the table.
    """
    from skill1.analysis.library.selection import compare, open_seeds

    first, *_ = open_seeds(runs)
    if handed_to_processes(nproc):
        return
    import pandas as pd

    from skill1.analysis.library.select_study import arms_of, play_arms

    arms = arms_of(first.config, orders, keys, floors)
    frames = [play_arms(run, arms, progress=True, **given) for run in runs]
    report(*compare(pd.concat(frames)).reset_index().to_dict(orient="records"))


@click.command(epilog=examples("skill1 export results/try --step 60 --out models/mine"))
@click.argument("run", type=FOLDER)
@click.option("--step", type=POSITIVE, help="checkpoint [default: the last]")
@out_option("folder to make")
@click.option("--merge", is_flag=True, help="of a LoRA run: whole weights instead of the adapter")
@set_option
def export(run: Path, step: int | None, out: Path, merge: bool, overrides: dict[str, Any]) -> None:
    """Write a checkpoint of RUN as a model folder with its skills and a model card; prints where it is."""
    from skill1.models.export import export as run_export

    click.echo(run_export(run, out, step=step, merge=merge, overrides=overrides))


@click.command(epilog=examples("skill1 runs", "skill1 runs results/study --json"))
@click.argument("folder", metavar="[DIR]", default="results", type=FOLDER)
@json_option
def runs(folder: Path, as_json: bool) -> None:
    """List the runs and evaluations in DIR, results by default, with steps, success and n."""
    from skill1.analysis.listing import list_results, to_text

    table = list_results(folder)
    if as_json:
        click.echo(table.to_json(orient="records", lines=True), nl=False)
    elif table.empty:
        click.echo(f"no run in {folder}: `skill1 demo` makes one")
    else:
        click.echo(to_text(table))


@click.command(
    epilog=examples("skill1 compare results/try results/other", "skill1 compare results/study/full/seed*/run --json")
)
@click.argument("paths", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@json_option
def compare(paths: tuple[Path, ...], as_json: bool) -> None:
    """Show the stored evaluations of runs and other models in one table."""
    from skill1.analysis.comparison import environment_of, stored_arms, success_table

    table = success_table(stored_arms(paths), environment_of(paths))
    if as_json:
        echo_json(*table.to_dict("records"))
    else:
        click.echo(table.to_string(index=False))
