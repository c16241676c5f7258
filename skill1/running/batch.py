"""Strict notebook runs: `papermill.execute_notebook` without its traps.

* A parameter must be one of the notebook's `parameters` cell, and gets the type of its default: text is read as JSON
  where the default is no text, so "1e-6" is a number there. (Papermill warns about an unknown name and guesses types.)
* The kernel is this interpreter's, whatever kernels are installed, and dies with the runner (skill1.running.launch).
* `!command` is refused: its failure would not fail the run.
* The output's folder is made. A finished output with the same source and parameters is not run again; one with others
  is an error; an unfinished one is run again.
* What cells print is shown as it comes, progress bars too; in the output a bar is one line, not one per refresh.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
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
from skill1.errors import UserError
from skill1.running.launch import bound_command, bound_environment
from skill1.store.atomic import replace_file
from skill1.store.resources import resource
from skill1.store.run_directory import RunError

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


def find_notebook(name: str, folder: Path | None = None) -> Path:
    """`folder`/`name`.ipynb ("02_evaluate" or "02_evaluate.ipynb"), by default one that is shipped.

    Raises:
        ConfigError: there is none (with the closest match).
    """
    folder = folder or resource("notebooks")
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    return known[closest(name.removesuffix(".ipynb"), known, f"notebook in {folder}")]


def run_notebook(
    notebook: Path,
    output: Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    again: bool = False,
    free: Collection[str] = (),
    progress: bool = False,
) -> Path:
    """Execute `notebook`, in the working folder, into `output` and return `output`.

    Args:
        parameters: name -> value; a string is converted to the type of the notebook's default.
        again: run also when `output` is finished already.
        free: names of parameters that do not change the result; a finished output may have other values of them.
        progress: show what cells print, on stderr.

    Raises:
        ConfigError: unknown parameter (with the closest match).
        RunError: value of the wrong type; a shell command in the notebook; an output finished with other parameters
            or source; or a failed cell (with its error; the output keeps what was executed).
    """
    source = _read_notebook(notebook)
    defaults, given = _parameters(source, notebook, parameters or {})
    _refuse_shell_commands(source, notebook)
    stamp = _make_stamp(source, defaults, given)
    output = output.resolve()
    make_writable(output.parent)
    if not again and _has_stamp(output, stamp, free):
        return output
    shown = sys.stderr if progress else None
    try:
        papermill.execute_notebook(
            notebook.resolve(),
            output,
            given,
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
            f"{notebook.name} failed in cell [{error.exec_count}]: {error.ename}: {error.evalue} (what was executed is in "
            f"{output}){traceback}"
        ) from None
    except DeadKernelError as error:
        raise RunError(f"the kernel of {notebook.name} died (killed, or out of memory?): {error}") from error
    _stamp(output, stamp, notebook)
    return output


def is_finished(
    notebook: Path, output: Path, parameters: Mapping[str, Any] | None = None, *, free: Collection[str] = ()
) -> bool:
    """Whether `run_notebook` with the same words has nothing to do. Raises as it does, before it runs anything."""
    source = _read_notebook(notebook)
    return _has_stamp(output, _make_stamp(source, *_parameters(source, notebook, parameters or {})), free)


def stamp_of(output: Path) -> dict[str, Any] | None:
    """The parameters and the source's hash of a finished output; None if it is absent or unfinished."""
    try:
        return nbformat.read(output, as_version=4).metadata.get(_STAMP)
    except (FileNotFoundError, nbformat.reader.NotJSONError):  # absent, or torn by a killed run
        return None


def convert(name: str, value: Any, default: Any) -> Any:
    """`value` as the type of `default`; text is read as JSON where the default is no text.

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


def _read_notebook(path: Path) -> nbformat.NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise RunError(f"there is no notebook {path}") from None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise RunError(f"{path} is not a notebook: {error}") from error


def _parameters(
    notebook: nbformat.NotebookNode, path: Path, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The defaults of the cell tagged `parameters` (none without such a cell), and `given` in their types."""
    cell = next((c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", [])), "")
    defaults = {}
    try:
        for node in ast.parse(cell).body:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            defaults[target.id] = ast.literal_eval(node.value)
        unfit = [name for name, value in defaults.items() if value is not None and type(value) not in _KIND]
    except (SyntaxError, ValueError, AttributeError) as error:
        unfit = [error]
    if unfit:
        raise RunError(
            f"{path}: the `parameters` cell may only assign text, numbers, true or false, lists, dicts or None to names "
            f"({unfit[0]})"
        )
    return defaults, {
        name: convert(name, value, defaults[closest(name, defaults, f"parameter of {path.name}")])
        for name, value in given.items()
    }


def make_writable(folder: Path) -> None:
    """Make the folder if it is not there. Raises RunError if that cannot be, or nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the output folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise RunError(f"cannot write into the output folder {folder}: permission denied")


def _refuse_shell_commands(notebook: nbformat.NotebookNode, path: Path) -> None:
    transform = TransformerManager().transform_cell
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code" and _SHELL.search(transform(cell.source)):
            raise RunError(
                f"{path}, cell {number} runs a shell command whose failure would go unnoticed: "
                "use subprocess.run(..., check=True)"
            )


def _make_stamp(
    notebook: nbformat.NotebookNode, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    sources = [[cell.cell_type, cell.source] for cell in notebook.cells]
    source = hashlib.sha256(json.dumps(sources).encode()).hexdigest()
    return {"source": source, "parameters": {**defaults, **given}}


def _has_stamp(output: Path, stamp: Mapping[str, Any], free: Collection[str]) -> bool:
    """True if `output` is finished with this stamp, False if absent or unfinished. RunError with another stamp."""
    found = stamp_of(output)
    if found is None:
        return False
    changed = [
        f"{name} = {found['parameters'].get(name)!r}, now {value!r}"
        for name, value in stamp["parameters"].items()
        if name not in free and found["parameters"].get(name) != value
    ]
    if found["source"] != stamp["source"]:
        changed.append("another version of the notebook")
    if changed:
        raise RunError(
            f"{output} was already run with {'; '.join(changed)}: choose another name, or run it --again, or remove it"
        )
    return True


def _stamp(output: Path, stamp: Mapping[str, Any], notebook: Path) -> None:
    """Mark the output as finished and take the machine's paths out of it."""
    node = nbformat.read(output, as_version=4)
    node.metadata[_STAMP] = dict(stamp)
    node.metadata.papermill.update(input_path=notebook.name, output_path=output.name)
    replace_file(output, nbformat.writes(node).encode())
