"""Commands on what was trained, or by others: `skill1 evaluate`, `skill1 export` and `skill1 compare`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from skill1.cli.data import FOLDER
from skill1.cli.options import place, place_options, set_option, values, words

# options of `evaluate` for one of the two subjects alone
_FOR_MODELS = ("preset", "endpoint", "key_variable")
_FOR_RUNS = ("step", "reuse")


@click.command()
@place_options
@click.option(
    "--model", help="folder or hub id of any causal LM, or its name at --endpoint; --out is then a new folder"
)
@click.option("--endpoint", metavar="URL", help="OpenAI-compatible server to ask, e.g. http://localhost:8000/v1")
@click.option("--api-key-env", "key_variable", metavar="VAR", help="environment variable with the endpoint's key")
@click.option("--preset", help="of --model [default: the one exported with it, else paper]")
@set_option
@click.option("--split", "splits", multiple=True, help="valid_seen, valid_unseen (repeatable) [default: the run's]")
@click.option("--passes", type=click.IntRange(min=1), help="passes over all games [default: the run's]")
@click.option(
    "--library", help="final, none or step:N; with --model: DIR or none [default: final; the one exported with a model]"
)
@click.option("--step", type=click.IntRange(min=0), help="checkpoint; 0 = before training [default: the last]")
@click.option("--data", help="games folder [default: the run's]")
@click.option("--batch", type=click.IntRange(min=1), help="prompts or requests at a time (does not change the result)")
@click.option("--reuse", is_flag=True, help="take outcomes that are stored instead of playing them again")
@click.option("--nproc", default=1, show_default=True, type=click.IntRange(min=1), help="processes of this machine")
def evaluate(name: str | None, out: Path | None, model: str | None, nproc: int, **given: Any) -> None:
    """Evaluate a run's checkpoint, or any model, on whole splits; prints one JSON line per split.

    Under torchrun (--nproc) every process plays a share of the games with the whole policy: the same outcomes, sooner.
    """
    directory = place(name, out)
    for option in _FOR_MODELS if model is None else _FOR_RUNS:
        if given[option]:
            word = {"key_variable": "--api-key-env"}.get(option, f"--{option}")
            raise click.UsageError(f"{word} is for {'a --model' if model is None else 'runs, not for a --model'}")
    if given["key_variable"] and not given["endpoint"]:
        raise click.UsageError("--api-key-env is for an --endpoint")
    if nproc > 1:
        if given["endpoint"]:
            raise click.UsageError(
                "--nproc is for a policy that is loaded here; an --endpoint is asked --batch at a time"
            )
        from skill1.running.launch import launch_torchrun

        launch_torchrun(words(click.get_current_context(), "nproc"), nproc)
    elif model is None:
        _evaluate_run(directory, {name: value for name, value in given.items() if name not in _FOR_MODELS})
    else:
        _evaluate_model(directory, model, given)


def _evaluate_run(directory: Path, given: dict[str, Any]) -> None:
    from skill1.distributed import join_processes, leave_processes
    from skill1.evaluate import evaluate_run, report

    chosen = given | {"library": given["library"] or "final", "splits": given["splits"] or None}
    data = chosen.pop("data")
    chosen["overrides"] = values(given["overrides"]) | ({"environment.data": data} if data else {})
    done = evaluate_run(directory, progress=sys.stderr.isatty(), **chosen)
    leave_processes()
    if join_processes().is_main_process:
        for evaluation in done:
            click.echo(json.dumps(report(evaluation)))


def _evaluate_model(directory: Path, model: str, given: dict[str, Any]) -> None:
    from skill1.distributed import join_processes, leave_processes
    from skill1.evaluate import report
    from skill1.models.evaluate_model import evaluate_model, model_config

    options = {
        "evaluation.splits": given["splits"],
        "evaluation.passes": given["passes"],
        "environment.data": given["data"],
        "policy.generate_batch": given["batch"],
    }
    overrides = values(given["overrides"]) | {field: value for field, value in options.items() if value}
    config = model_config(model, given["preset"], overrides, endpoint=given["endpoint"] is not None)
    done = evaluate_model(
        config, directory, library=given["library"], endpoint=given["endpoint"], key_variable=given["key_variable"],
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    leave_processes()
    if not join_processes().is_main_process:
        return
    for evaluation in done.evaluations:
        click.echo(json.dumps({"model": model, **report(evaluation)}))
    if done.unusable:
        share = 100 * done.unusable / done.replies
        click.echo(
            f"WARNING: {done.unusable} of {done.replies} replies ({share:.1f} %) were no chat completion with text; "
            "they count as empty answers, that is as ill-formed actions",
            err=True,
        )


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--step", type=click.IntRange(min=1), help="checkpoint [default: the last]")
@click.option("--out", type=FOLDER, required=True, help="folder to make")
@click.option("--merge", is_flag=True, help="of a LoRA run: whole weights instead of the adapter")
def export(run: Path, step: int | None, out: Path, merge: bool) -> None:
    """Write a checkpoint of RUN as a model folder with its skills and a model card; prints where it is."""
    from skill1.models.export import export as run_export

    click.echo(run_export(run, out, step=step, merge=merge))


@click.command()
@click.argument("paths", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="one JSON line per row instead of a table")
def compare(paths: tuple[Path, ...], as_json: bool) -> None:
    """Show the stored evaluations of runs and other models in one table."""
    from skill1.analysis.comparison import environment_of, stored_arms, success_table

    table = success_table(stored_arms(paths), environment_of(paths))
    if as_json:
        for row in table.to_dict("records"):
            click.echo(json.dumps(row))
    else:
        click.echo(table.to_string(index=False))
