"""A catalogue ready to shop in: products, search index and goal sources, in memory or in a folder on disk.

In memory, the 1,000 products of the small set take some 40 MB, imports included. The folder is for the full set:
products are read through a memory map and unpacked when looked at (the last few thousand are kept), the index's postings
are mapped too. Measured with 236,000 generated products, whose texts are a quarter as long as the original's: built in 20
CPU s with 0.6 GB at most.
"""

from __future__ import annotations

import json
import mmap
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from skill1.envs.base import DataError
from skill1.envs.webshop.catalogue import Product, Products
from skill1.envs.webshop.goals import KINDS, GoalSources, Kind, SourceCollector
from skill1.envs.webshop.ranking import Index

RECORD = "catalogue.json"  # of a stored catalogue: what it was made from
FORMAT = 2  # raise when the folder's content changes: stored catalogues are then made again
_CACHED_PRODUCTS = 1 << 14
_PRODUCTS, _OFFSETS, _RANGES, _CATEGORIES = "products.pickle", "offsets.npy", "ranges.npy", "categories.npy"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """N products in file order and what is derived from them alone, whatever the seeds."""

    products: Products
    index: Index
    ranges: np.ndarray  # (N, 2) float64 lowest and highest price, NaN for the highest where there is one price
    categories: np.ndarray  # (N,) the products' categories
    sources: dict[Kind, GoalSources]

    def __len__(self) -> int:
        return len(self.products)


def build_catalogue(products: Iterable[Product]) -> Catalogue:
    """Build the catalogue in memory. Raises DataError if there is no product."""
    kept: list[Product] = []
    return _derive(products, kept, kept.append)


def store_catalogue(products: Iterable[Product], folder: Path, source: dict[str, Any]) -> Catalogue:
    """Write the catalogue into `folder`, which appears only when it is complete, and open it.

    `source` is noted in it: what it was made from. Raises DataError if there is no product, OSError if the folder
    cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}-building-", dir=folder.parent))
    try:
        _write(products, building, source)
        try:
            building.rename(folder)
        except OSError:
            if not (folder / RECORD).is_file():  # else another process was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return open_catalogue(folder)


def open_catalogue(folder: Path) -> Catalogue:
    """Open the catalogue stored in `folder`. Raises FileNotFoundError if there is none."""
    sources = {
        kind: GoalSources(*(np.load(folder / f"{kind}-{field.name}.npy") for field in fields(GoalSources)))
        for kind in KINDS
    }
    return Catalogue(
        products=_StoredProducts(folder),
        index=Index.load(folder),
        ranges=np.load(folder / _RANGES),
        categories=np.load(folder / _CATEGORIES),
        sources=sources,
    )


def _derive(
    products: Iterable[Product], kept: Products, keep: Callable[[Product], Any], folder: Path | None = None
) -> Catalogue:
    """Make the catalogue of products, each of which `keep` puts into `kept`; the index is also left in `folder`."""
    asins: list[str] = []
    ranges: list[tuple[float, float]] = []
    categories: list[str] = []
    sources = SourceCollector()

    def texts() -> Iterator[str]:
        for product in products:
            keep(product)
            sources.add(len(asins), product)
            asins.append(product.asin)
            ranges.append((product.prices[0], product.prices[1] if len(product.prices) > 1 else np.nan))
            categories.append(product.category)
            yield product.index_text

    index = Index.build(texts(), asins, folder)
    if not asins:
        raise DataError("the product file holds no product (0 usable records)")
    return Catalogue(kept, index, np.array(ranges), np.array(categories), sources.finish())


def _write(products: Iterable[Product], folder: Path, source: dict[str, Any]) -> None:
    offsets = [0]
    with (folder / _PRODUCTS).open("wb") as packed:
        made = _derive(
            products, (), lambda product: offsets.append(offsets[-1] + packed.write(pickle.dumps(product))), folder
        )
    np.save(folder / _OFFSETS, np.array(offsets))
    np.save(folder / _RANGES, made.ranges)
    np.save(folder / _CATEGORIES, made.categories)
    for kind, sources in made.sources.items():
        for name, values in asdict(sources).items():
            np.save(folder / f"{kind}-{name}.npy", values)
    (folder / RECORD).write_text(json.dumps(source), encoding="utf-8")


class _StoredProducts:
    """Products unpacked from a mapped file when they are looked at."""

    def __init__(self, folder: Path) -> None:
        self._offsets = np.load(folder / _OFFSETS, mmap_mode="r")
        with (folder / _PRODUCTS).open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._get = lru_cache(_CACHED_PRODUCTS)(self._unpack)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, position: int) -> Product:
        if not 0 <= position < len(self):
            raise IndexError(f"product {position} of {len(self)}")
        return self._get(position)

    def _unpack(self, position: int) -> Product:
        return pickle.loads(self._map[self._offsets[position] : self._offsets[position + 1]])
