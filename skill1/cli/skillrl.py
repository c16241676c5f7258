"""What comes before reinforcement learning: `skill1 bank` (of SkillRL), `skill1 demonstrate` and `skill1 coldstart`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from skill1.cli.options import (
    FOLDER,
    POSITIVE,
    configured,
    echo_json,
    examples,
    handed_to_processes,
    nproc_option,
    out_option,
    report,
    together,
)

_playing = together(
    click.option("--tasks", default=100, show_default=True, type=POSITIVE, help="training tasks to play"),
    click.option("--passes", default=2, show_default=True, type=POSITIVE, help="episodes of each"),
)


@click.command(epilog=examples("skill1 bank --preset nano --set environment.data=data/games --out data/bank.json"))
@out_option("bank file to write, for method.bank")
@configured("skillrl")
@_playing
def bank(config: Any, out: Path, tasks: int, passes: int) -> int:
    """Let the policy play and a teacher (method.teacher) write a first skill bank; status 1 if a call of it failed."""
    from skill1.models.first_bank import write_bank

    written = write_bank(config, out, tasks, passes, progress=True)
    for failure in written.failures:
        click.echo(f"no usable answer: {failure}", err=True)
    made = written.bank
    sizes = {"general": len(made.general), "specific": len(made.specific), "mistakes": len(made.mistakes)}
    echo_json({"bank": str(out), **sizes, "refused": written.refused, "failed": len(written.failures)})
    return int(bool(written.failures))


@click.command(
    epilog=examples(
        "skill1 demonstrate --by expert --preset mini-base --set environment.data=data/alfworld --out data/demonstrations"
    )
)
@out_option("folder of demonstrations, for skill1 coldstart")
@configured(section="expert")
@_playing
@click.option(
    "--by", default="policy", show_default=True, type=click.Choice(["policy", "teacher", "expert"]),
    help="who plays: policy.model, the model at method.teacher_url, or the environment's scripted expert",
)  # fmt: skip
@nproc_option
def demonstrate(config: Any, own: dict[str, Any], out: Path, tasks: int, passes: int, by: Any, nproc: int) -> None:
    """Play training tasks as the method asks for and keep what was won; repeat the command to resume."""
    if own and by != "expert":
        raise click.UsageError(f"{', '.join(own)}: only --by expert has these options")
    if handed_to_processes(nproc):
        return
    from skill1.config import load_section
    from skill1.models.demonstrate import demonstrate as run_demonstration
    from skill1.models.options import ExpertConfig

    options = load_section(ExpertConfig, "expert", config.preset, own)
    done = run_demonstration(config, out, tasks, passes, by=by, options=options, progress=True)
    report({"demonstrations": str(out), **asdict(done)})


@click.command(epilog=examples("skill1 coldstart data/demonstrations --preset mini-base --out data/my-adapter"))
@click.argument("demonstrations", type=FOLDER)
@out_option("model folder to write, for policy.model")
@configured(section="cold_start")
@nproc_option
def coldstart(config: Any, own: dict[str, Any], demonstrations: Path, out: Path, nproc: int) -> None:
    """Fine-tune policy.model on DEMONSTRATIONS, a folder of `skill1 demonstrate` or a JSONL file of prompt and completion."""
    if handed_to_processes(nproc):
        return
    from skill1.config import load_section
    from skill1.models.coldstart import cold_start
    from skill1.models.options import ColdStartConfig

    options = load_section(ColdStartConfig, "cold_start", config.preset, own)
    report({"policy": str(out), **cold_start(config, options, demonstrations, out, progress=True)})
