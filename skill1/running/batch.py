"""Strict notebook runs: `papermill.execute_notebook` without its traps.

* A parameter must be one of the notebook's `parameters` cell, and gets the type of its default: text is read as JSON
  where the default is no text, so "1e-6" is a number there. (Papermill warns about an unknown name and guesses types.)
* The kernel is this interpreter's, whatever kernels are installed, and dies with the runner (skill1.running.launch).
* `!command` is refused: its failure would not fail the run.
* A finished output with the same source and parameters is not run again; one with others is an error; an unfinished one
  is run again.
* What cells print is shown as it comes, progress bars too; in the output a bar is one line, not one per refresh.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import papermill
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from traitlets import default

from skill1.config import closest
from skill1.errors import RunError, UserError
from skill1.running.launch import bound_command, bound_environment
from skill1.store.atomic import replace_file
from skill1.store.resources import resource
from skill1.store.writable import check_writable

_STAMP = "skill1"  # metadata key of a finished output
# What IPython makes of `!ls`, `files = !ls`, `%sx ls` and `%%!`; `%%bash` is fine, it raises on failure.
_SHELL = re.compile(
    r"get_ipython\(\)\.(system\(|getoutput\(|run_line_magic\('(sx|system)'|run_cell_magic\('(!|sx|system)')"
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_KIND = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a JSON list",
    dict: "a JSON object",
}


class _OwnKernelManager(AsyncKernelManager):
    """Starts ipykernel of this very interpreter, bound to this process; no kernelspec need be installed."""

    @default("transport_encryption")
    def _encrypt(self) -> str:
        return "required"  # on shared machines others could read the kernel's ports

    @property
    def kernel_spec(self) -> KernelSpec:
        kernel = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(
            argv=bound_command(kernel),
            language="python",
            display_name="Python 3",
            env=bound_environment(),
            metadata={"supported_encryption": "curve"},
        )


class NotebookRun:
    """A notebook with its parameters and the output that it is executed into, in the working folder."""

    def __init__(
        self,
        notebook: Path,
        output: Path,
        parameters: Mapping[str, Any] | None = None,
        *,
        free: Collection[str] = (),
    ) -> None:
        """Read the notebook.

        Args:
            parameters: name -> value; a string is converted to the type of the notebook's default.
            free: parameters that do not change the result; a finished output may have other values of them.

        Raises:
            ConfigError: unknown parameter (with the closest match).
            RunError: no notebook there, a value of the wrong type, or a shell command in a cell.
        """
        self.notebook, self.output, self._free = notebook, output.resolve(), free
        cells = _cells(notebook)
        defaults = _defaults(cells, notebook)
        self._given = {
            name: convert(name, value, defaults[closest(name, defaults, f"parameter of {notebook.name}")])
            for name, value in (parameters or {}).items()
        }
        source = json.dumps([[cell.cell_type, cell.source] for cell in cells])
        self._stamp: dict[str, Any] = {
            "source": hashlib.sha256(source.encode()).hexdigest(),
            "parameters": {**defaults, **self._given},
        }

    def is_finished(self) -> bool:
        """Return whether the output is finished. Raises RunError if it is so with other parameters or source."""
        found = stamp_of(self.output)
        if found is None:
            return False
        changed = [
            f"{name} = {found['parameters'].get(name)!r}, now {value!r}"
            for name, value in self._stamp["parameters"].items()
            if name not in self._free and found["parameters"].get(name) != value
        ]
        if found["source"] != self._stamp["source"]:
            changed.append("another version of the notebook")
        if changed:
            raise RunError(
                f"{self.output} was already run with {'; '.join(changed)}: choose another name, or run it --again, or "
                "remove it"
            )
        return True

    def execute(self, progress: bool = False) -> None:
        """Execute it, showing what cells print on standard error if `progress`.

        Raises:
            RunError: a cell failed (with its error; the output keeps what was executed), or the kernel died.
        """
        check_writable(self.output.parent)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        shown = sys.stderr if progress else None
        try:
            papermill.execute_notebook(
                self.notebook.resolve(),
                self.output,
                self._given,
                kernel_name="python3",
                language="python",
                cwd=Path.cwd(),
                progress_bar=False,
                stdout_file=shown,
                stderr_file=shown,
                kernel_manager_class=_OwnKernelManager,
                coalesce_streams=True,
            )
        except papermill.PapermillExecutionError as error:
            own = error.ename in {kind.__name__ for kind in UserError.__subclasses__()}  # whose message is enough
            traceback = "" if own else _ANSI.sub("", "\n".join(["", *error.traceback]))
            raise RunError(
                f"{self.notebook.name} failed in cell [{error.exec_count}]: {error.ename}: {error.evalue} (what was "
                f"executed is in {self.output}){traceback}"
            ) from None
        except DeadKernelError as error:
            raise RunError(f"the kernel of {self.notebook.name} died (killed, or out of memory?): {error}") from error
        node = nbformat.read(self.output, as_version=4)
        node.metadata[_STAMP] = self._stamp
        node.metadata.papermill.update(
            input_path=self.notebook.name, output_path=self.output.name
        )  # no machine's paths
        replace_file(self.output, nbformat.writes(node).encode())


def run_notebook(
    notebook: Path,
    output: Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    again: bool = False,
    progress: bool = False,
) -> Path:
    """Execute `notebook` into `output`, unless it is finished and not to be run `again`; returns `output`.

    Raises as `NotebookRun`, its `is_finished` and its `execute`.
    """
    run = NotebookRun(notebook, output, parameters)
    if again or not run.is_finished():
        run.execute(progress)
    return run.output


def find_notebook(name: str, folder: Path | None = None) -> Path:
    """Find `folder`/`name`.ipynb ("02_evaluate" or "02_evaluate.ipynb"), by default one that is shipped.

    Raises:
        ConfigError: there is none (with the closest match).
    """
    folder = folder or resource("notebooks")
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    return known[closest(name.removesuffix(".ipynb"), known, f"notebook in {folder}")]


def stamp_of(output: Path) -> dict[str, Any] | None:
    """Read the parameters and the source's hash of a finished output; None if it is absent or unfinished."""
    try:
        return nbformat.read(output, as_version=4).metadata.get(_STAMP)
    except (FileNotFoundError, NotADirectoryError, nbformat.reader.NotJSONError):  # absent, or torn by a killed run
        return None


def convert(name: str, value: Any, default: Any) -> Any:
    """Give `value` the type of `default`; text is read as JSON where the default is no text.

    Raises:
        RunError: it does not fit.
    """
    given = value
    if isinstance(value, str) and not isinstance(default, str):
        with suppress(json.JSONDecodeError):
            value = json.loads(value)
    if default is None:
        return value
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise RunError(f"parameter {name} = {given!r} must be {_KIND[type(default)]}, like its default {default!r}")
    return value


def _cells(path: Path) -> list[nbformat.NotebookNode]:
    try:
        cells = nbformat.read(path, as_version=4).cells
    except FileNotFoundError:
        raise RunError(f"there is no notebook {path}") from None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise RunError(f"{path} is not a notebook: {error}") from error
    transform = TransformerManager().transform_cell
    for number, cell in enumerate(cells, start=1):
        if cell.cell_type == "code" and _SHELL.search(transform(cell.source)):
            raise RunError(
                f"{path}, cell {number} runs a shell command whose failure would go unnoticed: "
                "use subprocess.run(..., check=True)"
            )
    return cells


def _defaults(cells: list[nbformat.NotebookNode], path: Path) -> dict[str, Any]:
    """What the cell tagged `parameters` assigns; nothing without such a cell."""
    source = next((cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])), "")
    defaults: dict[str, Any] = {}
    try:
        for node in ast.parse(source).body:
            target: Any = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
            defaults[target.id] = ast.literal_eval(getattr(node, "value", ""))
        unfit: list[Any] = [name for name, value in defaults.items() if not (value is None or type(value) in _KIND)]
    except (SyntaxError, ValueError, AttributeError) as error:
        unfit = [error]
    if unfit:
        raise RunError(
            f"{path}: the `parameters` cell may only assign text, numbers, true or false, lists, dicts or None to "
            f"names ({unfit[0]})"
        )
    return defaults
