"""Imports point one way, form no cycle, and reach for no private name of another module."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
OURS = [file for folder in ("skill1", "benchmarks", "examples") for file in sorted((ROOT / folder).rglob("*.py"))]


def test_layers_import_downwards_only(capsys: pytest.CaptureFixture[str]):
    """The contract of pyproject.toml, as `make lint` checks it."""
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out


def test_no_module_imports_itself_by_way_of_others():
    graph = grimp.build_graph("skill1", cache_dir=None)
    modules = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(modules).prepare()  # raises CycleError, which names the cycle


def private_imports(tree: ast.Module) -> list[str]:
    """Private names of modules of ours that a module imports, or reads from a module it imports."""
    found, modules = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "skill1":
            modules |= {alias.asname or alias.name for alias in node.names}
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
            found += [f"{node.module}: {part}" for part in parts if _is_private(part)]
        elif isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.asname and alias.name.startswith("skill1.")}
    return found + [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        and node.value.id in modules and _is_private(node.attr)
    ]  # fmt: skip


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def test_no_module_imports_a_private_name_of_another():
    found = {str(file.relative_to(ROOT)): private_imports(ast.parse(file.read_text())) for file in OURS}
    assert not {file: names for file, names in found.items() if names}


@pytest.mark.parametrize(
    "code, found",
    [
        ("from skill1.stats import _mean, rate", ["skill1.stats: _mean"]),
        ("from skill1 import stats as s\ns._mean()", ["s._mean"]),
        ("import skill1.stats as s\ns._mean()", ["s._mean"]),
        ("from skill1 import __version__\nimport os\nos._exit(1)", []),
    ],
)
def test_private_imports_are_found(code: str, found: list[str]):
    assert private_imports(ast.parse(code)) == found
