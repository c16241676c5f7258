"""Skills in the Agent Skills format (https://agentskills.io/specification): one folder each, with a `SKILL.md`.

    ---
    name: s000012-cool-a-mug            the folder's name: at most 64 of a-z, 0-9 and single hyphens
    description: "A mug is to be cold." when it helps, at most 1,024 characters: the skill's `desc`
    metadata:
      skill1-utility: "0.71"            what else the library knows
      skill1-count: "9"
    ---

    Cool the mug with the fridge.       the skill's `strategy`

A text that has no place there as it is (too long, with a carriage return, blanks around it) stands in the metadata too,
and counts as long as what the file shows of it is not edited.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from skill1.registry import ConfigError, closest
from skill1.store.atomic import whole_folder
from skill1.store.journal import LibraryError
from skill1.store.skill_file import WrittenSkill, check_new, checked, read_text, told

FILE = "SKILL.md"
_NAMES = (FILE, "skill.md")
_MAX = {"name": 64, "description": 1024, "compatibility": 500}  # characters
_ENTRIES = ("name", "description", "license", "compatibility", "allowed-tools", "metadata")
_OURS = "skill1-"
_MATTER = re.compile(r"---[ \t]*\n(.*?\n)?---[ \t]*(?:\n(.*))?", re.DOTALL)


# -- writing ----------------------------------------------------------------------------------------------------------


def write_skill_folders(out: Path, skills: Mapping[str, WrittenSkill]) -> None:
    """Write skills, by their ids, into the new folder `out`; `read_skill_folders` reads the same in this order.

    Raises:
        RunError: see `check_new`, or `out` cannot be written.
    """
    check_new(out, skills.values())
    with whole_folder(out) as folder:
        for identity, skill in skills.items():
            name = _name(identity, skill.desc)
            (folder / name).mkdir()
            (folder / name / FILE).write_bytes(_page(name, skill).encode())


def _name(identity: str, desc: str) -> str:
    """Name a skill's folder: its id, so that names differ and sort as the library does, and the description's words."""
    plain = unicodedata.normalize("NFKD", desc).encode("ascii", "ignore").decode().lower()
    words = re.sub("[^a-z0-9]+", "-", f"{identity} {plain}").strip("-")
    return words[: _MAX["name"]].rstrip("-")


def _page(name: str, skill: WrittenSkill) -> str:
    known = told(skill)
    shown = {"desc": _description(known.pop("desc")), "strategy": _body(known.pop("strategy"))}
    known |= {entry: getattr(skill, entry) for entry, text in shown.items() if text != getattr(skill, entry)}
    lines = [f"name: {name}", f"description: {_quoted(shown['desc'])}"]
    if known:
        lines += ["metadata:", *(f"  {_OURS}{entry}: {_quoted(str(value))}" for entry, value in known.items())]
    return "\n".join(["---", *lines, "---", "", shown["strategy"], ""])


def _quoted(text: str) -> str:
    """Write a text as one line of YAML, without the three hyphens that readers take for the end of the front matter."""
    quoted = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=sys.maxsize).rstrip("\n")
    return quoted.replace("--", r"-\x2D")


def _description(text: str) -> str:
    """What the front matter shows of a description."""
    text, most = text.strip(), _MAX["description"]
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _body(text: str) -> str:
    """What stands below the front matter of a strategy, as it is read again."""
    return re.sub(r"\r\n?", "\n", text).strip()


# -- reading ----------------------------------------------------------------------------------------------------------


def skill_pages(path: Path) -> list[Path]:
    """Find the `SKILL.md` of a skill's folder, or of the skills' folders in `path`; none if it is no such folder.

    Raises:
        LibraryError: among folders with skills is one without.
    """
    if (own := _page_in(path)) is not None:
        return [own]
    folders = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith(".")) if path.is_dir() else []
    pages = [_page_in(folder) for folder in folders]
    if any(pages) and (bare := [folder for folder, page in zip(folders, pages, strict=True) if page is None]):
        raise LibraryError(f"{bare[0]} holds no {FILE}: write one, or move the folder elsewhere")
    return [page for page in pages if page is not None]


def _page_in(folder: Path) -> Path | None:
    return next((folder / name for name in _NAMES if (folder / name).is_file()), None)


def read_skill_folders(path: Path) -> tuple[WrittenSkill, ...]:
    """Read all skills of a folder, or the one whose folder it is, in the order of their names.

    Raises:
        LibraryError: there is none, or one does not fit the format; the message names the file and the fix.
    """
    pages = skill_pages(path)
    if not pages:
        raise LibraryError(f"{path} holds no skills: name a folder whose folders have a {FILE}")
    return tuple(_skill(page) for page in pages)


def left_out(path: Path) -> dict[str, list[str]]:
    """List what a library cannot keep of skills, by their names: entries of the front matter, other files and folders."""
    found = {}
    for file in skill_pages(path):
        page = _read(file)
        beside = sorted(f"{other.name}{'/' * other.is_dir()}" for other in file.parent.iterdir() if other != file)
        if lost := [*page.foreign, *beside]:
            found[page.name] = lost
    return found


@dataclass(frozen=True, slots=True)
class _Page:
    """What a `SKILL.md` says."""

    name: str
    description: str
    ours: Mapping[str, str]  # metadata that the kit wrote, by the fields of `WrittenSkill`
    foreign: tuple[str, ...]  # entries that a library has no place for
    body: str


def _skill(file: Path) -> WrittenSkill:
    page = _read(file)
    if not page.body:
        raise LibraryError(f"{file} has no text below its front matter: write there what to do")
    whole = {"desc": _description, "strategy": _body}
    texts = {"desc": page.description, "strategy": page.body}
    for entry, shown in whole.items():
        if entry in page.ours and shown(page.ours[entry]) == texts[entry]:
            texts[entry] = page.ours[entry]
    return checked({**page.ours, **texts}, str(file))


def _read(file: Path) -> _Page:
    found = _MATTER.fullmatch(re.sub(r"\r\n?", "\n", read_text(file)))
    if found is None:
        raise LibraryError(f"{file} has no front matter: begin it with name and description between two lines ---")
    matter = _load(file, found[1] or "")
    for entry, most in _MAX.items():
        if entry in matter or entry != "compatibility":
            matter[entry] = _text(file, entry, matter.get(entry), most)
    metadata = matter.get("metadata", {})
    if not isinstance(metadata, dict) or not all(isinstance(metadata[k], str) for k in metadata if k.startswith(_OURS)):
        raise LibraryError(f"{file}: metadata must be names and texts, one a line and indented")
    _check_name(file, matter["name"])
    foreign = [entry for entry in matter if entry not in ("name", "description", "metadata")]
    return _Page(
        name=matter["name"],
        description=matter["description"],
        ours={k.removeprefix(_OURS): text for k, text in metadata.items() if k.startswith(_OURS)},
        foreign=(*foreign, *(f"metadata.{k}" for k in metadata if not k.startswith(_OURS))),
        body=_body(found[2] or ""),
    )


def _text(file: Path, entry: str, value: Any, most: int) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        raise LibraryError(f"{file}: its front matter has no text for {entry}: write it")
    if len(text) > most:
        raise LibraryError(f"{file}: {entry} has {len(text):,} characters, more than {most:,}: shorten it")
    return text


def _check_name(file: Path, name: str) -> None:
    name, folder = (unicodedata.normalize("NFKC", text) for text in (name, Path(os.path.abspath(file)).parent.name))
    plain = name == name.lower() and all(c.isalnum() or c == "-" for c in name)
    if not plain or "" in name.split("-"):
        raise LibraryError(f"{file}: the name {name!r} must be of a-z, 0-9 and single hyphens between them: change it")
    if name != folder:
        raise LibraryError(f"{file}: the name {name!r} is not its folder's ({folder!r}): make them the same")


class _Loader(yaml.BaseLoader):  # all scalars are texts
    """Refuses a name that stands twice, of which YAML readers take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        made = super().construct_mapping(node, deep)
        names = [key.value for key, _ in node.value]
        for position, (key, _) in enumerate(node.value):
            if key.value in names[:position]:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
        return made


def _load(file: Path, matter: str) -> dict[str, Any]:
    try:
        found = yaml.load(matter, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        number = error.problem_mark.line + 2 if error.problem_mark is not None else 1
        raise LibraryError(
            f"{file}, line {number}: {error.problem}: put texts into double quotes, one entry a line"
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise LibraryError(f"{file}: its front matter is no YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(found, dict):
        raise LibraryError(f"{file}: its front matter must be entries like name: TEXT, one a line")
    try:
        for entry in found:
            closest(entry, _ENTRIES, "entry of the front matter")
    except ConfigError as error:
        raise LibraryError(f"{file}: {error}") from None
    return found
