"""The original files of a folder: which there are, how they are read, when a stored catalogue stands in for them.

A folder holds `items_shuffle_1000.json` and `items_ins_v2_1000.json` (the small set: 1,000 products) or the same
without `_1000` (the full set: 1.18 million, 5 GB), and `items_human_ins.json` for human goals. A large product file is
never in memory as a whole: it is read record by record, once, into a catalogue on disk (see `store`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from skill1.envs.base import DataError
from skill1.envs.webshop.catalogue import Product, read_products
from skill1.envs.webshop.store import FORMAT, RECORD, Catalogue, build_catalogue, open_catalogue, store_catalogue

Which = Literal["small", "full"]
VARIABLE = "WEBSHOP_DATA"
HUMAN = "items_human_ins.json"
IN_MEMORY = 200_000_000  # bytes of a product file; larger ones are stored on disk
FILE_NAMES: dict[Which, tuple[str, str]] = {
    "small": ("items_shuffle_1000.json", "items_ins_v2_1000.json"),
    "full": ("items_shuffle.json", "items_ins_v2.json"),
}
_CHUNK = 1 << 22  # characters read at a time
_LARGEST_RECORD = 1 << 26  # characters; more without an end is no record
_FIRST = re.compile(r"\s*\[\s*(?P<end>\])?")
_NEXT = re.compile(r"\s*(?:,\s*|(?P<end>\]))")
_AFTER = frozenset(" \t\r\n,]")  # what can follow a list's element
_ADVICE = (
    "make a catalogue with `skill1 generate webshop --out DIR`, or fetch WebShop's files (small set: setup.sh -d small "
    f"of github.com/princeton-nlp/WebShop; full set: -d all), and name the folder here or in ${VARIABLE}"
)


@dataclass(frozen=True, slots=True)
class Files:
    """The original files of one catalogue."""

    products: Path
    attributes: Path
    human: Path | None  # None where the folder has none: there are no human goals then

    @classmethod
    def find(cls, root: str | Path | None = None, which: Which | None = None) -> Files:
        """Find the files below `root`, or below $WEBSHOP_DATA when it is None; the small set if both are there.

        Raises DataError if there is no folder or a file of the set is missing, naming it and where to get it.
        """
        root = root or os.environ.get(VARIABLE)
        if not root:
            raise DataError(f"no WebShop data: no folder is given and ${VARIABLE} is empty; {_ADVICE}")
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; {_ADVICE}")
        there: list[Which] = [name for name, (products, _) in FILE_NAMES.items() if (folder / products).is_file()]
        chosen = which or (there[0] if there else "small")
        products, attributes = (folder / name for name in FILE_NAMES[chosen])
        for path in (products, attributes):
            if not path.is_file():
                raise DataError(f"{path} is missing (the {chosen} set needs it); {_ADVICE}")
        human = folder / HUMAN
        return cls(products, attributes, human if human.is_file() else None)

    def signature(self) -> dict[str, Any]:
        """Return what names a stored catalogue: the files' names, sizes and times, and the stored form's version."""
        paths = [path for path in (self.products, self.attributes, self.human) if path]
        files = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
        return {"format": FORMAT, "files": files}


def load_catalogue(files: Files, cache: Path | None = None, in_memory: int = IN_MEMORY) -> Catalogue:
    """Load the catalogue of the files.

    A product file of more than `in_memory` bytes is turned into a stored catalogue once, below `cache` (default: the
    folder `cache` beside the files). Raises DataError for a malformed file, naming the place in it, and if the cache
    cannot be written.
    """
    if files.products.stat().st_size <= in_memory:
        return build_catalogue(_products(files))
    source = files.signature()
    name = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:12]
    folder = (cache or files.products.parent / "cache") / f"{files.products.stem}-{name}"
    if (folder / RECORD).is_file():
        return open_catalogue(folder)
    try:
        return store_catalogue(_products(files), folder, source)
    except OSError as error:
        problem = f"cannot write the catalogue's cache {folder}: {error.strerror}"
        raise DataError(f"{problem}; name a folder as cache") from error


def _products(files: Files) -> Iterator[Product]:
    attributes = _entries(files.attributes)
    human = _entries(files.human) if files.human else {}
    return read_products(stream_list(files.products), attributes, human, files.products.name)


def _entries(path: Path) -> dict[str, Any]:
    with _readable(path) as file:
        try:
            entries = json.load(file)
        except json.JSONDecodeError as error:
            raise _malformed(path, error.msg, error.pos) from error
    if not isinstance(entries, dict):
        raise _malformed(path, "'{' expected", 0)
    return entries


def stream_list(path: Path) -> Iterator[Any]:
    """Yield the elements of a file that is one JSON list, reading piece by piece. Raises DataError if it is not."""
    decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode
    gap, expected = _FIRST, "'['"  # what stands before the next element
    window, at, passed = "", 0, 0  # text read, position in it, characters that have left it
    problem, place = "", 0
    with _readable(path) as file:
        while True:
            more = file.read(_CHUNK) if len(window) - at < _LARGEST_RECORD else ""
            window, at, passed = window[at:] + more, 0, passed + at
            while found := gap.match(window, at):
                if found["end"]:
                    return
                try:
                    value, end = decode(window, found.end())
                except json.JSONDecodeError as error:
                    problem, place = error.msg, found.end()
                    break
                if more and window[end : end + 1] not in _AFTER:
                    break  # the piece may end within a number
                yield value
                at, gap, expected = end, _NEXT, "',' or ']'"
            else:
                problem, place = f"{expected} expected", len(window) - len(window[at:].lstrip())
            if not more:
                raise _malformed(path, problem, passed + place)


@contextmanager
def _readable(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _malformed(path: Path, problem: str, place: int) -> DataError:
    return DataError(
        f"{path} is not the JSON expected ({problem} after {place:,} characters); it is cut off or corrupt, "
        "fetch it again"
    )
