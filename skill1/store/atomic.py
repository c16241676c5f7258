"""The one way in which a file is replaced: whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"  # suffix of a file that is being written; what a kill left behind is not used


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write, and put what was written there into `path`: a kill leaves the old or the new content."""
    partial = path.with_name(f"{path.name}{PARTIAL}")
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
