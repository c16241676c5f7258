"""What the benchmark of the generated worlds measures, in a small one."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

from skill1.config import load_config
from skill1.nano.alfworld import NANO

worth = SimpleNamespace(**runpy.run_path(str(Path(__file__).resolve().parents[1] / "benchmarks" / "worth.py")))
SIZES = {
    "train": 48, "valid_seen": 12, "valid_unseen": 6, "homes": 2, "unseen_homes": 1, "targets_per_home": 4,
    "receptacles": 16, "objects": 12, "habit": 1.0,
}  # fmt: skip


def test_what_is_shown_is_what_each_way_says(tmp_path: Path) -> None:
    NANO.generate(tmp_path / "games", seed=9, **SIZES)
    config = load_config("nano", overrides={"library.encoder": "hash", "library.exploration": 0.0})
    rows = worth.worth(config, NANO, tmp_path / "games", steps=6, passes=1, seed=9)
    by_order = {row["order"]: row for row in rows}
    assert list(by_order) == [*worth.ORDERS, "raw"]
    assert by_order["none"]["right shown"] == by_order["none"]["right found"] == 0
    assert by_order["oracle"]["right shown"] >= max(row["right shown"] for row in rows)
    assert by_order["oracle"]["won"] > by_order["none"]["won"]  # without spares every lesson is right, and things stay
    assert by_order["raw"]["skills"] > by_order["first"]["skills"]  # equal lessons merge
