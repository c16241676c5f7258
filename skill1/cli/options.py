"""What several commands share: their options, each declared once, and what is done with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
POSITIVE = click.IntRange(min=1)
_WHERE = ("--nproc", "--on", "--nodes")  # options of where a command runs: torchrun must not see them
_SLURM = "slurm."  # section of the options of a Slurm job


class Folder(click.Path):
    """A path; no text is none, where pathlib would take it for the working folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("'' is no path; the working folder is '.'", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = Folder()


class Group(click.Group):
    """Shows commands in the order of a user's way through them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def together(*options: Decorator) -> Decorator:
    """Make one decorator of several options, which `--help` shows in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def examples(*lines: str) -> str:
    """Return the end of a command's help: commands to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


# -- words ------------------------------------------------------------------------------------------------------------


def pairs(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Read ("a=1", "b=2") as {"a": "1", "b": "2"}."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} must look like name=value", ctx=ctx, param=option)
        if name in found:
            raise click.BadParameter(f"{name} is given twice", ctx=ctx, param=option)
        found[name] = value
    return found


def fields(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """Read `pairs`, with lists written as JSON: --set 'evaluation.splits=["valid_seen"]'."""
    return {
        name: _json(name, text) if text.startswith("[") else text for name, text in pairs(ctx, option, given).items()
    }


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"{name}={text}: not a JSON list ({error})") from None


def names(ctx: click.Context, option: click.Parameter, given: str | None) -> tuple[str, ...] | None:
    """Read "a,b" as ("a", "b")."""
    return None if given is None else tuple(name.strip() for name in given.split(",") if name.strip())


def numbers(ctx: click.Context, option: click.Parameter, given: str) -> tuple[int, ...]:
    """Read "0,1" as (0, 1)."""
    try:
        return tuple(map(int, names(ctx, option, given) or ()))
    except ValueError:
        raise click.BadParameter(f"{given!r} must be whole numbers like 0,1,2", ctx=ctx, param=option) from None


# -- options ----------------------------------------------------------------------------------------------------------


def preset_option(
    default: str | None = "nano", text: str = "e.g. nano, small, paper; an unknown one lists all"
) -> Decorator:
    """Add `--preset`."""
    return click.option("--preset", default=default, show_default=True, help=text)


def out_option(text: str) -> Decorator:
    """Add the required `--out`, a folder."""
    return click.option("--out", type=FOLDER, required=True, help=text)


variant_option = click.option(
    "--variant", default="full", show_default=True, help="full, a baseline such as grpo, an ablation such as lambda1_0"
)
set_option = click.option(
    "--set", "overrides", multiple=True, callback=fields, metavar="FIELD=VALUE", help="e.g. train.steps=20"
)
nproc_option = click.option("--nproc", default=1, show_default=True, type=POSITIVE, help="processes of this machine")
on_option = click.option(
    "--on", type=click.Choice(["local", "slurm"]), default="local", show_default=True, help="this machine, or a cluster "
    "that takes --set slurm.partition=NAME etc.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table")
name_option = click.option("--name", help="plain name: the directory is results/NAME")


def configured(variant: str | None = None, section: str = "") -> Decorator:
    """Add --preset, --variant and --set; the command gets the Config made of them as `config`.

    Args:
        variant: the only one of the command, which then has no --variant.
        section: of a command's own options, which it gets unread as `own`: "warm_start".
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_config(preset: str, overrides: dict[str, Any], variant: str | None = variant, **given: Any) -> Any:
            from skill1.config import load_config

            own = {name: value for name, value in overrides.items() if section and name.startswith(f"{section}.")}
            rest = {name: value for name, value in overrides.items() if name not in own}
            config = load_config(preset, variant or "full", rest)
            return command(config=config, **({"own": own} if section else {}), **given)

        return together(preset_option(), *([] if variant else [variant_option]), set_option)(with_config)

    return decorate


def placed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --name and --out, one of which is given; the command gets the directory that they name as `directory`."""

    @wraps(command)
    def with_directory(name: str | None, out: Path | None, **given: Any) -> Any:
        if (name is None) == (out is None):
            raise click.UsageError("give the run either as --name NAME (results/NAME) or as --out DIR")
        return command(directory=out or in_results(name or ""), **given)

    return together(name_option, click.option("--out", type=FOLDER, help="the same as any directory"))(with_directory)


def in_results(name: str) -> Path:
    """Return the directory of a plain name."""
    if not name.strip() or name == ".." or Path(name).name != name:
        raise click.UsageError(
            f"--name {name if name.strip() else repr(name)} must be a plain name; use --out for a path"
        )
    return Path("results") / name


# -- processes --------------------------------------------------------------------------------------------------------


def handed_to_processes(nproc: int) -> bool:
    """Run the running command in `nproc` processes instead of this one, if that is several; returns whether it did."""
    if nproc == 1:
        return False
    from skill1.running.launch import launch_torchrun

    launch_torchrun(own_words(), nproc)
    return True


def own_words() -> list[str]:
    """Return the words of the running command without those that say where it runs, and in how many processes."""
    kept, rest = [], iter(click.get_current_context().obj)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in (*_WHERE, "--set"):
            value = value if equals else next(rest)
            if option in _WHERE or value.startswith(_SLURM):
                continue
            kept += [option, value]
        else:
            kept.append(word)
    return kept


def slurm_options(on: str, preset: str, overrides: dict[str, Any]) -> Any:
    """Take the fields of slurm.* out of `overrides`; returns the SlurmConfig of them, or None for this machine."""
    own = {name: overrides.pop(name) for name in list(overrides) if name.startswith(_SLURM)}
    if on == "slurm":
        from skill1.config import load_section
        from skill1.running.slurm import SlurmConfig  # takes seconds, which every process of a training run would wait

        return load_section(SlurmConfig, "slurm", preset, own)
    for name in own:
        raise click.UsageError(f"{name} is for --on slurm")
    return None


def echo_json(*lines: Any) -> None:
    """Print JSON lines."""
    from skill1.store.json_file import to_json

    for line in lines:
        click.echo(to_json(line))


def report(*lines: dict[str, Any]) -> bool:
    """End together with the command's other processes, and print JSON lines once; returns whether this one did."""
    from skill1.distributed import join_processes, leave_processes

    leave_processes()
    if first := join_processes().is_main_process:
        echo_json(*lines)
    return first
