"""How numbers are formatted for display, and what variants are called and coloured."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from skill1.analysis import tables, variants
from skill1.presets import Variant
from skill1.presets import variants as known_variants


def test_values_and_intervals() -> None:
    assert tables.with_interval(54.83, 46.25, 63.1) == "54.8 [46.2, 63.1]"
    assert tables.with_interval(54.83, math.nan, math.nan) == "54.8"
    assert tables.with_interval(5.1, -1.2, 11.4, "+.1f") == "+5.1 [-1.2, +11.4]"
    assert tables.interval(-3, 0.04) == "[-3.0, +0.0]" and tables.interval(math.nan, 1) == ""
    assert tables.number(387, "g") == "387" and tables.number(math.nan) == ""


def test_p_values_are_never_zero() -> None:
    assert [tables.p_value(p) for p in (0.0, 0.00099, 0.001, 0.0324, 1.0, math.nan)] == [
        "< .001", "< .001", ".001", ".032", "1.000", ""
    ]  # fmt: skip
    assert tables.p_text(1e-9) == "p < .001" and tables.p_text(0.25) == "p = .250"


def test_counts() -> None:
    assert [tables.plural(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]
    assert tables.plural(1, "pass", "passes") == "1 pass" and tables.plural(4, "pass", "passes") == "4 passes"


def test_a_display_table_is_made_row_by_row() -> None:
    tidy = pd.DataFrame({"split": ["a", "b"], "variant": ["x", "y"], "value": [1.0, 2.0]})
    table = tables.display_table(tidy, ["split", "variant"], {"twice": lambda row: 2 * row.value})
    assert table["twice"].to_dict() == {("a", "x"): 2.0, ("b", "y"): 4.0} and table.index.names == ["split", "variant"]


def test_every_variant_has_a_colour_of_its_own() -> None:
    names = list(known_variants())
    found = variants.colours(names)
    assert list(found) == names and len(set(found.values())) == len(names)
    assert variants.label("full") == "Skill1" and variants.label("mine") == "mine"


def test_a_new_variant_shifts_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    before = variants.colours(known_variants())
    known = dict(known_variants())
    entries = [("full", known.pop("full")), ("new", Variant("a new one", {})), *known.items()]  # not at the end
    monkeypatch.setattr("skill1.presets.variants", lambda: dict(entries))
    after = variants.colours([*before, "new", "mine", "another"])
    assert list(after)[:3] == ["full", "new", "no_library"] and variants.label("new") == "a new one"
    assert {name: after[name] for name in before} == before and len(set(after.values())) == len(before) + 3
    assert variants.colour("new") == after["new"]


def test_the_palette_never_runs_out() -> None:
    names = [f"method{i:03d}" for i in range(500)]
    found = variants.colours([*known_variants(), *names])
    assert len(found) == len(known_variants()) + 500 and all(len(to_rgb(colour)) == 3 for colour in found.values())
    first = [found[name] for name in names[:40]]
    assert len({*first, *variants.colours(known_variants()).values()}) == 40 + len(known_variants())


def test_order_is_untrained_known_others() -> None:
    given = ["zeta", "gigpo", "alpha", "untrained", "full", "no_library", "full"]
    assert variants.order(given) == ["untrained", "full", "no_library", "gigpo", "alpha", "zeta"]


def test_a_wide_table_is_folded_to_the_width_of_its_first_level(tmp_path) -> None:
    columns = pd.MultiIndex.from_tuples(
        [("All", "ours"), ("All", "published"), ("Pick", "ours"), ("Pick", "published"), ("seeds", "")]
    )
    index = pd.MultiIndex.from_tuples([("seen", "GRPO"), ("seen", "λ_1 = 0")], names=["games of", "policy"])
    wide = pd.DataFrame([["1", "2", "3", "", "6 seeds"], ["4", "", "5", "", ""]], index, columns)
    shown = tables.keep(wide, tmp_path / "tables", "table")
    assert shown.columns.tolist() == ["All", "Pick", "seeds"] and shown.index.names == ["games of", "policy", None]
    assert shown.to_dict("split")["data"] == [["1", "3", "6 seeds"], ["2", "", ""], ["4", "5", ""]]
    assert [key[2] for key in shown.index] == ["ours", "published", "ours"]
    again = pd.read_csv(tmp_path / "tables" / "table.csv", header=[0, 1], index_col=[0, 1], dtype=str)
    assert again.loc[("seen", "GRPO"), ("Pick", "ours")] == "3"
    assert r"λ\_1 = 0" in (tmp_path / "tables" / "table.tex").read_text()
    narrow = wide["All"]
    assert tables.folded(narrow) is narrow
