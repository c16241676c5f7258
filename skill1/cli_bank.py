"""`skill1 bank`: the first skill bank of SkillRL."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from skill1.cli_data import FOLDER
from skill1.cli_options import preset_option, read_config, set_option


@click.command()
@click.option("--out", type=FOLDER, required=True, help="bank file to write, for bank.file")
@preset_option
@set_option
@click.option("--tasks", default=100, show_default=True, type=click.IntRange(min=1), help="training tasks to play")
@click.option("--passes", default=2, show_default=True, type=click.IntRange(min=1), help="episodes of each")
def bank(out: Path, preset: str, overrides: dict[str, str], tasks: int, passes: int) -> int:
    """Let the policy play and a teacher (bank.teacher) write a first skill bank; status 1 if a call of it failed."""
    config = read_config(preset, "skillrl", overrides)
    from skill1.skillrl.first_bank import write_bank

    written = write_bank(config, out, tasks, passes, progress=sys.stderr.isatty())
    for failure in written.failures:
        click.echo(f"no usable answer: {failure}", err=True)
    made = written.bank
    sizes = {"general": len(made.general), "specific": len(made.specific), "mistakes": len(made.mistakes)}
    click.echo(json.dumps({"bank": str(out), **sizes, "refused": written.refused, "failed": len(written.failures)}))
    return int(bool(written.failures))
