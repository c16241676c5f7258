"""`skill1 bundle`: a preset for a machine without a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from skill1.cli.options import FOLDER, examples, names, out_option, preset_option, set_option

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


class _Size(click.ParamType):
    """Bytes: 60M, 1.5G, 4096."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", str(value))
        size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
        if size < 1:
            self.fail(f"{value!r} must be a size like 60M or 1.5G", param, ctx)
        return size


@click.command(
    epilog=examples(
        "skill1 bundle --preset nano --out bundle",
        "skill1 bundle --preset mini --data $ALFWORLD_DATA --python 3.12 --without torch --out bundle",
        "skill1 bundle --preset paper --set policy.model=models/qwen --data $ALFWORLD_DATA --part-size 2G --out bundle",
    )
)
@preset_option()
@out_option("folder for the bundle; made again, it is brought up to date")
@click.option("--data", type=FOLDER, help="games [default: the environment's variable, or generated there]")
@set_option
@click.option("--part-size", type=_Size(), default="60M", show_default=True, help="of a part at most: k, M, G bytes")
@click.option("--python", help="of the other machine, e.g. 3.12 [default: as here]")
@click.option("--platform", "tag", help="of its wheels, e.g. manylinux_2_28_aarch64 [default: as here]")
@click.option("--without", callback=names, help="packages that it has already, e.g. torch,numpy")
@click.option("--with", "packages", multiple=True, metavar="REQUIREMENT", help="one more package, e.g. submitit==1.5.4")
@click.option("--add", "added", multiple=True, type=FOLDER, help="a file or folder to take along as it is")
def bundle(
    preset: str, out: Path, data: Path | None, overrides: dict[str, Any], part_size: int, python: str | None,
    tag: str | None, without: tuple[str, ...] | None, packages: tuple[str, ...], added: tuple[Path, ...],
) -> None:  # fmt: skip
    """Collect all that a preset needs on a machine without a network: packages, models, games, the project.

    It is written in parts that can be sent one by one. There, `python3 install.py` checks and installs them; it needs
    Python alone. What --set names (policy.model, policy.adapter, library.encoder …) comes along.
    """
    from skill1.running.bundle import bundle as make_bundle
    from skill1.running.wheels import Target

    made = make_bundle(
        preset, out, data=data, overrides=overrides, target=Target.of(python, tag), without=without or (),
        packages=packages, added=added, part_size=part_size, say=click.echo,
    )  # fmt: skip
    click.echo(
        f"{made.parts} parts, {made.size / 1e6:,.0f} MB, in {out}; new: {', '.join(made.new) or 'none'}\n"
        f"there, without a network: python3 {out.name}/install.py"
    )
