"""The one way in which a file is replaced or a folder is made: whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from skill1.errors import RunError
from skill1.store.writable import check_new

PARTIAL = ".partial"  # suffix of a file that is being written; what a kill left behind is not used


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write, and put what was written there into `path`: a kill leaves the old or the new content."""
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")  # two ranks may write the same file
    yield partial
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` into `path`; see `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(data)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder to fill that becomes `out` when all is well, or never was.

    Raises:
        RunError: see `check_new`; or `out` cannot be written after all.
    """
    check_new(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
            made = Path(place) / "made"  # in it, to get the permissions of a folder made by hand
            made.mkdir()
            yield made
            os.rename(made, out)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error
