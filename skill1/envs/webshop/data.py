"""The original files of a folder: which there are, how they are read, when a stored catalogue stands in for them.

A folder holds `items_shuffle_1000.json` and `items_ins_v2_1000.json` (the small set: 1,000 products) or the same
without `_1000` (the full set: 1.18 million, 5 GB), and `items_human_ins.json` for human goals. A large product file is
never in memory as a whole: it is read record by record, once, into a catalogue on disk (see `store`), for which the
attribute file's entries are held as texts meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from skill1.envs.base import DataError
from skill1.envs.webshop.catalogue import read_products
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
_BLANKS = " \t\r\n"
_AFTER = frozenset(" \t\r\n,:]}")  # what can follow a value
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
        """The files below `root`, or below $WEBSHOP_DATA when it is None; the small set if both are there.

        Raises DataError if there is no folder or a file of the set is missing, naming it and where to get it.
        """
        root = root or os.environ.get(VARIABLE)
        if not root:
            raise DataError(f"no WebShop data: no folder is given and ${VARIABLE} is empty; {_ADVICE}")
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; {_ADVICE}")
        if which is None:
            which = next((name for name, (products, _) in FILE_NAMES.items() if (folder / products).is_file()), "small")
        products, attributes = (folder / name for name in FILE_NAMES[which])
        for path in (products, attributes):
            if not path.is_file():
                raise DataError(f"{path} is missing (the {which} set needs it); {_ADVICE}")
        human = folder / HUMAN
        return cls(products, attributes, human if human.is_file() else None)

    def signature(self) -> dict[str, Any]:
        """Names, sizes and times of the files, and the stored form's version: what names a stored catalogue."""
        paths = [path for path in (self.products, self.attributes, self.human) if path]
        files = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
        return {"format": FORMAT, "files": files}


def load_catalogue(files: Files, cache: Path | None = None, in_memory: int = IN_MEMORY) -> Catalogue:
    """The catalogue of the files.

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


def _products(files: Files) -> Iterator[Any]:
    attributes = _Entries(files.attributes)
    human = _Entries(files.human) if files.human else {}
    yield from read_products(stream_list(files.products), attributes, human, files.products.name)


class _Entries(Mapping[str, Any]):
    """A JSON object's values, kept as text until they are asked for: a tenth of the memory of parsed ones."""

    def __init__(self, path: Path) -> None:
        self._texts = {key: text.encode("utf-8", errors="surrogatepass") for key, text in stream_object(path)}

    def __getitem__(self, key: str) -> Any:
        return json.loads(self._texts[key].decode("utf-8", errors="surrogatepass"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


# ------------------------------------------------------------------------------------------------- JSON read in pieces


def stream_list(path: Path) -> Iterator[Any]:
    """The elements of a file that is one JSON list, one after another. Raises DataError if it is not."""
    with _Reader(path) as reader:
        reader.expect("[")
        for _ in reader.members("]"):
            yield reader.value()[0]


def stream_object(path: Path) -> Iterator[tuple[str, str]]:
    """The members of a file that is one JSON object: (key, the value's text). Raises DataError if it is not."""
    with _Reader(path) as reader:
        reader.expect("{")
        for _ in reader.members("}"):
            key, _ = reader.value()
            reader.expect(":")
            yield key, reader.value()[1]


class _Reader:
    """A window over a text file that holds at least the next JSON value."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode
        self._window = ""
        self._at = 0  # position in the window
        self._before = 0  # characters that have left the window

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open(encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot read {self._path}: {error.strerror}") from error
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def expect(self, mark: str) -> None:
        """Skip one mark such as "["."""
        if self._next() != mark:
            raise self._error(f"{mark!r} expected")
        self._at += 1

    def members(self, end: str) -> Iterator[None]:
        """Yields once before every member, until the closing mark; commas between are skipped."""
        if self._next() == end:
            return
        yield
        while (mark := self._next()) == ",":
            self._at += 1
            yield
        if mark != end:
            raise self._error(f"',' or {end!r} expected")

    def value(self) -> tuple[Any, str]:
        """The next value and its text."""
        self._next()
        if self._at > _CHUNK:
            self._window, self._before, self._at = self._window[self._at :], self._before + self._at, 0
        while True:
            try:
                value, end = self._decode(self._window, self._at)
            except json.JSONDecodeError as error:
                if len(self._window) - self._at > _LARGEST_RECORD or not self._more():
                    raise self._error(error.msg) from error
                continue
            if self._window[end : end + 1] not in _AFTER and self._more():
                continue  # a number may go on
            text = self._window[self._at : end]
            self._at = end
            return value, text

    def _next(self) -> str:
        """The next character that is no blank, "" at the end."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on; False at the end of the file."""
        try:
            chunk = self._file.read(_CHUNK)
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path} is not UTF-8 text ({error}); fetch it again") from error
        self._window += chunk
        return bool(chunk)

    def _error(self, problem: str) -> DataError:
        place = self._before + self._at
        return DataError(
            f"{self._path} is not the JSON expected ({problem} after {place:,} characters); it is cut off or corrupt, "
            "fetch it again"
        )
