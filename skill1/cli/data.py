"""`skill1 generate NAME`: games of one's own, of every environment that has a generator."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import click

from skill1.cli.options import Group, echo_json, out_option, together


class Generators(Group):
    """One command per environment with a generator; its options are the fields of the generator's parameters."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from skill1.envs.make import environment_spec
        from skill1.registry import names

        for name in names("environments"):
            spec = environment_spec(name)
            if spec.generator is not None and name not in self.commands:
                self.commands[name] = _generate(name, spec.generator)
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        self.list_commands(ctx)
        return super().get_command(ctx, cmd_name)


@click.group(cls=Generators)
def generate() -> None:
    """Generate games of one's own."""


def _generate(name: str, generator: str) -> click.Command:
    from skill1.registry import find

    made = find("generators", generator)
    hints = get_type_hints(made.parameters, include_extras=True)
    options = (
        click.option(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            show_default=True,
            help=hints[field.name].__metadata__[0],
        )
        for field in fields(made.parameters)
    )

    @together(out_option("folder to fill"), *options)
    def command(out: Path, **given: Any) -> None:
        try:
            report = made.generate(out, **given)
        except (ValueError, OSError) as error:  # sizes that make no sense, a folder that holds something else
            raise click.ClickException(str(error)) from error
        echo_json(asdict(report) | {"out": str(report.out)})

    return click.command(name, help=made.about)(command)
