"""Recordings of an original environment, to hold our engines against: one JSON object per line, xz-compressed."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from skill1.envs.base import DataError

Record = Mapping[str, Any]


def read_recording(path: Path, check: Callable[[Record, int], None]) -> Iterator[Record]:
    """The objects of a recording, in order.

    Args:
        check: given an object and its line number (from 1); raises ValueError, KeyError or TypeError if malformed.

    Raises:
        DataError: the file is unreadable, truncated or malformed; the message names the line.
    """
    number = 0
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                record = json.loads(line)
                check(record, number)
                yield record
    except OSError as error:
        raise DataError(f"cannot read the recording {path}: {error.strerror}") from error
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(f"the recording {path} is not an xz file or is cut off after line {number}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the recording {path} is malformed in line {number}: {error!r}") from error
