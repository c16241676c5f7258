"""Options that several commands share: the configuration, and where a run is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from skill1.cli.data import FOLDER

_RESULTS = Path("results")


def pairs(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """("a=1", "b=2") -> {"a": "1", "b": "2"}"""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} must look like name=value", ctx=ctx, param=option)
        if name in found:
            raise click.BadParameter(f"{name} is given twice", ctx=ctx, param=option)
        found[name] = value
    return found


def preset_option_of(default: str) -> Callable[..., Any]:
    known = (
        "nano, small, paper-lora, paper, released; nano-webshop, paper-webshop; nano-baselines, nano-baselines-webshop"
    )
    return click.option("--preset", default=default, show_default=True, help=known)


preset_option = preset_option_of("nano")
set_option = click.option(
    "--set", "overrides", multiple=True, callback=pairs, metavar="FIELD=VALUE", help="e.g. library.top_k=3"
)


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--preset, --variant and --set, as they are for every command that takes a configuration."""
    text = "full, or an ablation such as no_library"
    variant = click.option("--variant", default="full", show_default=True, help=text)
    return preset_option(variant(set_option(command)))


def read_config(preset: str, variant: str, overrides: dict[str, str]) -> Any:
    from skill1.config import load_config

    return load_config(preset, variant, values(overrides))


def section_of(section: str, overrides: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Split overrides into those of a command's own section ("warm_start") and those of the run's configuration."""
    own = {name: text for name, text in overrides.items() if name.startswith(f"{section}.")}
    return values(own), {name: text for name, text in overrides.items() if name not in own}


def values(overrides: dict[str, str]) -> dict[str, Any]:
    """Lists are written as JSON: --set 'evaluation.splits=["valid_seen"]'"""
    return {name: _json_list(name, text) if text.startswith("[") else text for name, text in overrides.items()}


def _json_list(name: str, text: str) -> list[Any]:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"{name}={text}: not a JSON list ({error})") from None


def words(ctx: click.Context, *without: str) -> list[str]:
    """The running command as it was typed, in words for another process, without the options named."""
    typed = [ctx.command.name]
    for option in ctx.command.params:
        given = ctx.params[option.name]
        if option.name in without or ctx.get_parameter_source(option.name) is not ParameterSource.COMMANDLINE:
            continue
        if isinstance(option, click.Argument):
            typed.append(str(given))
        elif option.is_flag:
            typed.append(option.opts[0])
        else:
            each = [f"{k}={v}" for k, v in given.items()] if isinstance(given, dict) else given
            for value in each if option.multiple else [each]:
                typed += [option.opts[0], str(value)]
    return typed


def place(name: str | None, out: Path | None) -> Path:
    """The directory of a run, or of an evaluation, from --name or --out."""
    if (name is None) == (out is None):
        raise click.UsageError("give the run either as --name NAME (results/NAME) or as --out DIR")
    if out is not None:
        return out
    if Path(name).name != name:
        raise click.UsageError(f"--name {name} must be a plain name; use --out for a path")
    return _RESULTS / name


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--out", type=FOLDER, help="the same as any directory"),
        click.option("--name", help="plain name: the directory is results/NAME"),
    ):
        command = option(command)
    return command
