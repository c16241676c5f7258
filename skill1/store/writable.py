"""Whether a folder can be written: asked before anything is played or trained for it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from skill1.errors import RunError

_ROOM = 1 << 18  # bytes that must fit: outcomes, a log; a checkpoint says itself what it lacks


def check_writable(folder: Path) -> None:
    """Check that files can be made in `folder`, there or not yet; nothing is left behind.

    Raises:
        RunError: it is no folder, it cannot be written, or its disk is full. The message names it and the reason.
    """
    place = Path(os.path.abspath(folder))
    there = next(above for above in (place, *place.parents) if os.path.lexists(above))
    try:
        with suppress(FileNotFoundError):
            os.lstat(place)  # a name too long
        with TemporaryFile(dir=there) as probe:  # more telling than permission bits: mounts, quotas and root
            probe.write(bytes(_ROOM))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; make room there, or name another folder") from error


def check_new(out: Path) -> None:
    """Raise RunError if a folder holds something already, or cannot be written."""
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists: choose another folder, or remove it")
    check_writable(out)
