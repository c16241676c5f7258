"""Finding what other packages and files provide, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from skill1.registry import ConfigError, absolute, find


def test_an_object_is_found_by_module_and_by_file(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from dataclasses import dataclass\n\n\n@dataclass\nclass Thing:\n    size: int = 3\n")
    found = find("methods", f"{file}:Thing")
    assert found().size == 3
    assert find("methods", f"{file}:Thing") is found  # loaded once: the class is the same wherever it is named
    monkeypatch.chdir(tmp_path)
    assert find("methods", "mine.py:Thing") is found
    assert find("methods", "pathlib:Path") is Path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere.py:Thing", "no file 'nowhere.py'"),
        ("pathlib:Pth", "has no attribute 'Pth'"),
        ("no_such_module:Thing", "No module named 'no_such_module'"),
        ("nothing-like-it", "unknown method 'nothing-like-it'"),
    ],
)
def test_what_is_not_there_is_named(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find("methods", name)


def test_a_file_that_fails_is_loaded_again_when_it_is_mended(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import no_such_package\n")
    with pytest.raises(ConfigError, match="no_such_package"):
        find("methods", f"{file}:THING")
    file.write_text("THING = 1\n")
    assert find("methods", f"{file}:THING") == 1


def test_files_get_absolute_paths(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("examples/mine.py:Thing") == f"{tmp_path}/examples/mine.py:Thing"
    assert absolute("skill1") == "skill1" and absolute("package.module:Thing") == "package.module:Thing"
