"""`skill1 skills`: the skills of runs, models and files, to read, to edit, to compare and to join."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skill1.cli.options import FOLDER, Group, examples, json_option, out_option

if TYPE_CHECKING:
    from skill1.analysis.library.source import Entry
    from skill1.analysis.library.two import Pair

_source = click.argument("source", type=FOLDER)
_step = click.option("--step", type=click.IntRange(min=0), help="of a run: its library after this step [default: last]")


@click.group(cls=Group)
def skills() -> None:
    """Read, export, import, compare and merge skills.

    SOURCE, A and B are each a run, a checkpoint, an exported model, a file of JSON lines, or a folder of skills in the
    Agent Skills format (one folder each, with a SKILL.md).
    """


@skills.command(epilog=examples("skill1 skills show results/try --step 20"))
@_source
@_step
@click.option("--retired", is_flag=True, help="of a run: also the skills that it has retired")
@json_option
def show(source: Path, step: int | None, retired: bool, as_json: bool) -> None:
    """Show the skills of SOURCE, those of the highest utility first."""
    from skill1.analysis.library.source import by_utility, read_entries, to_json

    entries = by_utility(read_entries(source, step, retired=retired))
    if as_json:
        _print_json(map(to_json, entries))
        return
    click.echo(f"{source}: {len(entries)} skills")
    for entry in entries:
        _print_skill(entry, _earned(entry))


@skills.command("export", epilog=examples("skill1 skills export results/try --out mine"))
@_source
@_step
@out_option("folder to make")
def export_skills(source: Path, step: int | None, out: Path) -> None:
    """Write the skills of SOURCE as folders in the Agent Skills format, with their utilities and counts."""
    from skill1.analysis.library.source import read_entries
    from skill1.store.skill_folders import write_skill_folders

    entries = read_entries(source, step)
    write_skill_folders(out, {entry.id: entry.skill for entry in entries})
    click.echo(json.dumps({"folder": str(out), "skills": len(entries)}))


@skills.command("import", epilog=examples("skill1 skills import mine --out mine.jsonl"))
@_source
@_step
@out_option("file to write")
def import_skills(source: Path, step: int | None, out: Path) -> None:
    """Write the skills of SOURCE as one file of JSON lines, and say what of them a library does not keep."""
    from skill1.analysis.library.source import read_entries
    from skill1.store.skill_file import write_skill_file
    from skill1.store.skill_folders import left_out

    entries = read_entries(source, step)
    write_skill_file(out, [entry.skill for entry in entries])
    click.echo(json.dumps({"file": str(out), "skills": len(entries), "left_out": left_out(source)}))


@skills.command(epilog=examples("skill1 skills compare results/try/checkpoint-20 results/try"))
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@json_option
def compare(a: Path, b: Path, as_json: bool) -> None:
    """Show what two libraries share, and what they hold alone with the other's most similar skill."""
    from skill1.analysis.library.source import read_entries
    from skill1.analysis.library.two import compare as compare_entries

    left, right = read_entries(a), read_entries(b)
    pairs = compare_entries(left, right)
    if as_json:
        _print_json(map(_pair_json, pairs))
        return
    moved = [pair for pair in pairs if pair.moved]
    alone = {"A": [p for p in pairs if p.b is None], "B": [p for p in pairs if p.a is None]}
    both = len(pairs) - sum(map(len, alone.values()))
    click.echo(
        f"A  {a}: {len(left)} skills\nB  {b}: {len(right)} skills\n{both} in both ({len(moved)} with another U or n), "
        f"{len(alone['A'])} in A alone, {len(alone['B'])} in B alone"
    )
    for pair in moved:
        assert pair.a is not None and pair.b is not None
        _print_skill(pair.a, f"in both: A {_earned(pair.a)}, B {pair.b.id}  {_earned(pair.b)}")
    for where, found in alone.items():
        for pair in found:
            near = f"; closest: {pair.closest}, {pair.similarity:.0f} % alike" if pair.closest else ""
            entry = pair.a or pair.b
            assert entry is not None
            _print_skill(entry, f"in {where} alone: {_earned(entry)}{near}")


@skills.command(epilog=examples("skill1 skills merge results/try mine --out both.jsonl"))
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@out_option("file of JSON lines to write")
def merge(a: Path, b: Path, out: Path) -> None:
    """Join two libraries in one file: equal texts become one skill, with the mean of the utilities weighted by count."""
    from skill1.analysis.library.source import read_entries
    from skill1.analysis.library.two import merge as merge_skills
    from skill1.store.skill_file import write_skill_file

    left, right = ([entry.skill for entry in read_entries(path)] for path in (a, b))
    merged = merge_skills(left, right)
    write_skill_file(out, merged)
    click.echo(json.dumps({"file": str(out), "skills": len(merged), "in_both": len(left) + len(right) - len(merged)}))


def _print_json(records: Any) -> None:
    for record in records:
        click.echo(json.dumps(record))


def _pair_json(pair: Pair) -> dict[str, Any]:
    from skill1.analysis.library.source import to_json

    sides = {side: None if entry is None else to_json(entry) for side, entry in (("a", pair.a), ("b", pair.b))}
    return {**sides, "closest": pair.closest, "similarity": pair.similarity}


def _earned(entry: Entry) -> str:
    known = "U -" if entry.skill.utility is None else f"U {entry.skill.utility:.3f}"
    left = "" if entry.retired is None else f"  retired at step {entry.retired}"
    return f"{known}  n {entry.skill.count}{left}"


def _print_skill(entry: Entry, head: str) -> None:
    texts = {"when": entry.skill.desc, "do": entry.skill.strategy, "from": entry.skill.task}
    click.echo(f"\n{entry.id}  {head}")
    for label, text in texts.items():
        if text:
            click.echo(textwrap.indent(text, 8 * " ").replace(8 * " ", f"  {label:6}", 1))
