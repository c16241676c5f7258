"""What SkillRL does before reinforcement learning: `skill1 bank`, `skill1 demonstrate` and `skill1 coldstart`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from skill1.cli.data import FOLDER
from skill1.cli.options import config_options, preset_option, read_config, section_of, set_option, words


def _playing(command: Callable[..., Any]) -> Callable[..., Any]:
    """How many training tasks are played, and how often."""
    for option in (
        click.option("--passes", default=2, show_default=True, type=click.IntRange(min=1), help="episodes of each"),
        click.option(
            "--tasks", default=100, show_default=True, type=click.IntRange(min=1), help="training tasks to play"
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--out", type=FOLDER, required=True, help="bank file to write, for method.bank")
@preset_option
@set_option
@_playing
def bank(out: Path, preset: str, overrides: dict[str, str], tasks: int, passes: int) -> int:
    """Let the policy play and a teacher (method.teacher) write a first skill bank; status 1 if a call of it failed."""
    config = read_config(preset, "skillrl", overrides)
    from skill1.models.first_bank import write_bank

    written = write_bank(config, out, tasks, passes, progress=sys.stderr.isatty())
    for failure in written.failures:
        click.echo(f"no usable answer: {failure}", err=True)
    made = written.bank
    sizes = {"general": len(made.general), "specific": len(made.specific), "mistakes": len(made.mistakes)}
    click.echo(json.dumps({"bank": str(out), **sizes, "refused": written.refused, "failed": len(written.failures)}))
    return int(bool(written.failures))


_nproc_option = click.option(
    "--nproc", default=1, show_default=True, type=click.IntRange(min=1), help="processes of this machine"
)


@click.command()
@click.option("--out", type=FOLDER, required=True, help="folder of demonstrations, for skill1 coldstart")
@preset_option
@set_option
@_playing
@click.option(
    "--by", default="policy", show_default=True, type=click.Choice(["policy", "teacher"]),
    help="who plays: policy.model, or the model at method.teacher_url",
)  # fmt: skip
@_nproc_option
def demonstrate(
    out: Path, preset: str, overrides: dict[str, str], tasks: int, passes: int, by: str, nproc: int
) -> None:
    """Play training tasks with the bank in the prompt and keep what was won; repeat the command to go on."""
    config = read_config(preset, "skillrl", overrides)
    if nproc > 1:
        _launch(nproc)
        return
    from skill1.models.demonstrate import demonstrate as run_demonstration

    done = run_demonstration(config, out, tasks, passes, by=by, progress=sys.stderr.isatty())
    _end({"demonstrations": str(out), **asdict(done)})


@click.command()
@click.argument("demonstrations", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="model folder to write, for policy.model")
@config_options
@_nproc_option
def coldstart(
    demonstrations: Path, out: Path, preset: str, variant: str, overrides: dict[str, str], nproc: int
) -> None:
    """Fine-tune policy.model on DEMONSTRATIONS, a folder of `skill1 demonstrate` or a JSONL file of prompt and completion."""
    own, rest = section_of("cold_start", overrides)
    config = read_config(preset, variant, rest)
    if nproc > 1:
        _launch(nproc)
        return
    from skill1.config import load_section
    from skill1.models.coldstart import ColdStartConfig, cold_start

    options = load_section(ColdStartConfig, "cold_start", preset, own)
    _end({"policy": str(out), **cold_start(config, options, demonstrations, out, progress=sys.stderr.isatty())})


def _launch(nproc: int) -> None:
    """The running command in several processes."""
    from skill1.running.launch import launch_torchrun

    launch_torchrun(words(click.get_current_context(), "nproc"), nproc)


def _end(done: dict[str, Any]) -> None:
    """Say once, whatever the number of processes, what came of it."""
    from skill1.distributed import join_processes, leave_processes

    leave_processes()
    if join_processes().is_main_process:
        click.echo(json.dumps(done))
