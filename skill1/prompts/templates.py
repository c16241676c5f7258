"""The texts of the instruct prompts: a folder of Jinja templates for each context, and the user's own laid over them.

A folder of one's own holds any of a context's files; those it lacks are the built-in ones, and a template can include
one of these by its path ("conversation/act.jinja"). Files that begin with "_" are parts that only templates include.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, TemplateSyntaxError, meta

from skill1.prompts.base import Context
from skill1.registry import ConfigError, closest

BUILT_IN = Path(__file__).with_name("templates")


class Templates:
    """The templates of a context, as the files are when this is made."""

    def __init__(self, context: Context, folder: Path | None) -> None:
        """
        Args:
            folder: the user's own templates; None = the built-in ones.

        Raises:
            ConfigError: there is no such folder, it has no template of this context or a file that is none, or one has
                a syntax error.
        """
        folders = [BUILT_IN / context, BUILT_IN] if folder is None else [folder, BUILT_IN / context, BUILT_IN]
        self._loader = ChoiceLoader([FileSystemLoader(place) for place in folders])
        self._environment = Environment(
            loader=self._loader,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        names = template_names(context)
        if folder is not None:
            _check_folder(folder, names, context)
        with _explained():
            self._templates = {name: self._environment.get_template(f"{name}.jinja") for name in names}
        self._unknown = {name: self._variables(name) for name in names}

    def fill(self, name: str, values: Mapping[str, Any]) -> str:
        """Write a text: a template filled in, without blank lines at its ends.

        Raises:
            ConfigError: the template reads a variable that is none of `values`, or fails; names the file and line.
        """
        template = self._templates[name]
        if unknown := sorted(self._unknown[name] - set(values)):
            known = ", ".join(sorted(values))
            raise ConfigError(f"{template.filename}: there is no variable {unknown[0]!r} (known: {known})")
        with _explained():
            return template.render(values).strip("\n")

    def _variables(self, name: str) -> set[str]:
        """What a template reads and does not set itself."""
        source, _, _ = self._loader.get_source(self._environment, f"{name}.jinja")
        return meta.find_undeclared_variables(self._environment.parse(source))


@cache
def load_templates(context: Context, folder: Path | None = None) -> Templates:
    """Read the templates once a process: what is edited during a run has no effect on it. Raises as `Templates`."""
    return Templates(context, folder)


def template_names(context: Context) -> list[str]:
    """List the templates of a context."""
    return sorted(file.stem for file in (BUILT_IN / context).glob("*.jinja"))


def _check_folder(folder: Path, names: list[str], context: Context) -> None:
    if not folder.is_dir():
        raise ConfigError(f"policy.prompts: there is no folder {str(folder)!r}")
    own = {file.stem for file in folder.glob("*.jinja") if not file.name.startswith("_")}
    if not own & set(names):
        raise ConfigError(
            f"policy.prompts: {str(folder)!r} has no template for rollout.context={context}: it may have "
            f"{', '.join(f'{name}.jinja' for name in names)}"
        )
    for name in sorted(own):
        closest(name, [*template_names("window"), *template_names("conversation")], f"template of {str(folder)!r}:")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what Jinja says of a template into one line with its place."""
    try:
        yield
    except TemplateSyntaxError as error:
        raise ConfigError(f"{error.filename}:{error.lineno}: {error.message}") from None
    except Exception as error:  # a template can call what it likes
        places = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(".jinja")]
        place = f"{places[-1].filename}:{places[-1].lineno}: " if places else ""
        raise ConfigError(f"{place}{type(error).__name__}: {error}") from None
