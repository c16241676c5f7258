"""Commands on data: `skill1 generate …` makes games and catalogues."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)
_WORLD_SIZES = {
    "seed": "seed of the world",
    "train": "games of the split",
    "valid_seen": "games of the split (homes of train)",
    "valid_unseen": "games of the split (homes of its own)",
    "homes": "floor plans of train and valid_seen",
    "unseen_homes": "floor plans of valid_unseen",
    "receptacles": "per home",
    "objects": "per game",
    "targets_per_home": "object types that a home's tasks are about",
}


class Group(click.Group):
    """Shows commands in the order of a user's way through them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Group)
def generate() -> None:
    """Generate games of one's own."""


def _world_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option per field of `envs.alfworld.generate.Parameters`, whose defaults hold for those left out."""
    for name in reversed(_WORLD_SIZES):
        command = click.option(f"--{name.replace('_', '-')}", type=int, help=_WORLD_SIZES[name])(command)
    return click.option("--habit", type=float, help="probability that a thing lies in its habitual place")(command)


@generate.command("alfworld")
@click.option("--out", type=FOLDER, required=True, help="folder to fill")
@_world_options
def generate_alfworld(out: Path, **given: int | float | None) -> None:
    """Household games in the format of ALFWorld's, with homes that have habits."""
    from skill1.envs.alfworld.generate import generate as generate_games

    try:
        report = generate_games(out, **{name: value for name, value in given.items() if value is not None})
    except (ValueError, OSError) as error:  # sizes that make no sense, a folder that holds something else
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps({"out": str(report.out), "games": report.games, "task_types": report.task_types}))


@generate.command("webshop")
@click.option("--out", type=FOLDER, required=True, help="folder to fill")
@click.option("--seed", type=int, help="seed of the catalogue")
@click.option("--products", type=int, help="products of the catalogue")
@click.option("--asked", type=float, help="share of the products that synthetic goals are about")
def generate_webshop(out: Path, **given: int | float | None) -> None:
    """Products, goals and instructions in the format of WebShop's."""
    from skill1.envs.webshop.generate import generate as generate_catalogue

    try:
        report = generate_catalogue(out, **{name: value for name, value in given.items() if value is not None})
    except (ValueError, OSError) as error:  # as above
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps({"out": str(report.out), "products": report.parameters.products, "goals": report.goals}))
