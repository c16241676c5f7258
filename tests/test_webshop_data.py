"""The original files: what is read from them, in one piece or streamed to disk, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webshop_shop import LAMP, PRODUCTS, RANGE, product, write_files

from skill1.envs.base import DataError
from skill1.envs.webshop import data
from skill1.envs.webshop.catalogue import HumanInstruction, parse_price, read_products
from skill1.envs.webshop.data import Files, load_catalogue, stream_list
from skill1.envs.webshop.engine import Shop


@pytest.fixture
def folder(tmp_path):
    return write_files(tmp_path / "data")


def test_products_are_read_as_the_original_does(folder):
    catalogue = load_catalogue(Files.find(folder))
    assert len(catalogue) == len(PRODUCTS)
    lamp, ranged, free, twice = catalogue.products[:4]
    assert lamp.options == {"color": ("navy blue", "white"), "size": ("10 | 12 in", "x-large")}
    assert (lamp.query, lamp.prices, lamp.price_tag) == ("table lamps", (12.5,), "$12.5")
    assert lamp.attributes == ("easy clean", "bright light", "brass finish")
    assert lamp.human[0] == HumanInstruction("i want a lamp.", ("bright light",), ("white",))
    assert lamp.index_text == (
        "brass desk lamp a lamp. bright light.  color: navy blue, white, and size: 10 | 12 in, x-large"
    )
    assert (ranged.price_tag, ranged.bullets) == ("$19.99 to $27.99", ("One bullet",))
    assert (free.prices, free.price_tag, free.options, free.attributes) == ((100.0,), "$100.0", {}, ("DUMMY_ATTR",))
    assert (twice.attributes, twice.instruction) == ((), None)
    assert catalogue.ranges[1].tolist() == [19.99, 27.99] and np.isnan(catalogue.ranges[0, 1])
    assert catalogue.categories[:4].tolist() == ["garden", "garden", "garden", "fashion"]


def test_what_the_original_skips_is_skipped():
    records = [LAMP, product("nan", "x"), product("B0000000011", "long id"), product("B000000001", "again"), RANGE]
    assert [p.name for p in read_products(records, {}, {}, "file")] == ["Brass Desk Lamp", "Oak Desk Lamp"]


@pytest.mark.parametrize(
    "text, prices",
    [("$5", (5.0,)), ("$1,299.00", (1299.0,)), ("$1 - $2.5 - $9", (1.0, 2.5)), (None, (100.0,)), ("", (100.0,))],
)
def test_prices(text, prices):
    assert parse_price(text) == prices


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"pricing": "free"}, "pricing 'free' has no amount like \\$12.50"),
        ({"pricing": "$ each"}, "pricing '\\$ each' has no amount"),
        ({"name": None}, "name must be a text, not None"),
        ({"small_description": [1]}, "small_description must be a text, not 1"),
        ({"customization_options": ["red"]}, "customization_options must map names to lists of values"),
        ({"customization_options": {"Color": [{"label": "red"}]}}, "'value' is missing"),
        ({"asin": 7}, "asin must be a text, not 7"),
    ],
)
def test_malformed_products_are_named(tmp_path, changes, message):
    folder = write_files(tmp_path / "data", [RANGE, LAMP | changes])
    with pytest.raises(DataError, match=f"product 1 of items_shuffle_1000.json \\(asin .*\\) is malformed: {message}"):
        load_catalogue(Files.find(folder))


def test_missing_fields_and_wrong_attribute_entries_are_named(tmp_path):
    record = {name: value for name, value in LAMP.items() if name != "query"}
    with pytest.raises(DataError, match="malformed: 'query' is missing"):
        load_catalogue(Files.find(write_files(tmp_path / "a", [record])))
    with pytest.raises(DataError, match="product 0 of .* \\(asin None\\)"):
        load_catalogue(Files.find(write_files(tmp_path / "b", ["lamp"])))
    entry = {"B000000001": {"attributes": ["x"], "instruction": "Find me", "instruction_attributes": []}}
    with pytest.raises(DataError, match="its instruction 'Find me' has no instruction_attributes"):
        load_catalogue(Files.find(write_files(tmp_path / "c", [LAMP], entry)))
    with pytest.raises(DataError, match="0 usable records"):
        load_catalogue(Files.find(write_files(tmp_path / "d", [])))


def test_missing_files_are_named_with_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    with pytest.raises(DataError, match="no folder is given and \\$WEBSHOP_DATA is empty; make a catalogue with"):
        Files.find()
    with pytest.raises(DataError, match="there is no folder .*nowhere"):
        Files.find(tmp_path / "nowhere")
    folder = write_files(tmp_path / "data", attributes=None, human=None)
    with pytest.raises(DataError, match="items_ins_v2_1000.json is missing .*princeton-nlp/WebShop"):
        Files.find(folder)
    with pytest.raises(DataError, match="items_shuffle.json is missing \\(the full set needs it\\)"):
        Files.find(folder, "full")
    write_files(folder, human=None)
    monkeypatch.setenv("WEBSHOP_DATA", str(folder))
    assert Files.find() == Files(folder / "items_shuffle_1000.json", folder / "items_ins_v2_1000.json", None)
    with pytest.raises(DataError, match="no human goal: items_human_ins.json is missing"):
        Shop(load_catalogue(Files.find()), "human")
    for name in ("items_shuffle", "items_ins_v2"):
        (folder / f"{name}_1000.json").rename(folder / f"{name}.json")
    assert Files.find().products.name == "items_shuffle.json"


def test_a_stored_catalogue_equals_the_one_in_memory(folder, tmp_path):
    files = Files.find(folder)
    memory = load_catalogue(files)
    for _ in range(2):  # built, then opened
        stored = load_catalogue(files, tmp_path / "cache", in_memory=0)
        assert list(stored.products) == list(memory.products)
        assert stored.index.search("brass lamp", 50) == memory.index.search("brass lamp", 50)
        assert Shop(stored, seed=4).goals.sha256() == Shop(memory, seed=4).goals.sha256()
        assert [*Shop(stored, "human").goals] == [*Shop(memory, "human").goals]
        (made,) = (tmp_path / "cache").iterdir()  # nothing half-made is left
    with pytest.raises(IndexError):
        stored.products[len(stored)]
    time = made.stat().st_mtime_ns
    write_files(folder, PRODUCTS[:-1])
    assert len(load_catalogue(files, tmp_path / "cache", in_memory=0)) == len(PRODUCTS) - 1  # another catalogue
    assert made.stat().st_mtime_ns == time


def test_texts_that_are_no_unicode_are_kept(tmp_path):
    entry = {"B000000002": {"attributes": ["half \ud83d emoji"]}}
    files = Files.find(write_files(tmp_path / "data", [RANGE | {"full_description": "Half an emoji: \ud83d"}], entry))
    (product,) = load_catalogue(files, tmp_path / "cache", in_memory=0).products
    assert (product.description, product.attributes) == ("Half an emoji: \ud83d", ("half \ud83d emoji",))
    assert [product] == list(load_catalogue(files).products)


def test_a_failed_build_leaves_nothing_and_an_unwritable_cache_is_named(tmp_path):
    folder = write_files(tmp_path / "data", [LAMP, RANGE | {"pricing": "free"}])
    with pytest.raises(DataError, match="malformed"):
        load_catalogue(Files.find(folder), tmp_path / "cache", in_memory=0)
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the catalogue's cache .*name a folder as cache"):
        load_catalogue(Files.find(write_files(tmp_path / "good")), tmp_path / "file", in_memory=0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.lists(JSON), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_streams_give_what_json_gives(tmp_path_factory, values, chunk, indent, ascii_only):
    path = tmp_path_factory.mktemp("stream") / "file.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_CHUNK", chunk)
        path.write_text(json.dumps(values, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
        assert list(stream_list(path)) == values


@pytest.mark.parametrize(
    "content, message",
    [
        ('[{"asin": "a"}, {"as', "after 16 characters\\); it is cut off or corrupt"),
        ('[{"asin": "a"}', "',' or ']' expected after 14"),
        ("{}", "'\\[' expected after 0"),
        ("", "'\\[' expected"),
        ('[{"a": 1} {"b": 2}]', "',' or ']' expected after 10"),
        ("[1, ]", "Expecting value after 4"),
    ],
)
def test_files_that_are_cut_off_or_no_list(tmp_path, content, message):
    path = tmp_path / "items.json"
    path.write_text(content)
    with pytest.raises(DataError, match=f"items.json is not the JSON expected \\(.*{message}"):
        list(stream_list(path))


@pytest.mark.parametrize("content, message", [("[1]", "'{' expected after 0"), ('{"a": 1', "after 7 characters")])
def test_attribute_files_that_are_cut_off_or_no_object(tmp_path, content, message):
    folder = write_files(tmp_path / "data")
    (folder / "items_ins_v2_1000.json").write_text(content)
    with pytest.raises(DataError, match=f"items_ins_v2_1000.json is not the JSON expected \\(.*{message}"):
        load_catalogue(Files.find(folder))


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot read .*absent"):
        list(stream_list(tmp_path / "absent"))
    (tmp_path / "latin").write_bytes(b'["\xe9"]')
    with pytest.raises(DataError, match="not UTF-8"):
        list(stream_list(tmp_path / "latin"))
    monkeypatch.setattr(data, "_LARGEST_RECORD", 100)
    monkeypatch.setattr(data, "_CHUNK", 10)
    path = tmp_path / "endless"
    path.write_text('["' + "a" * 10_000)
    with pytest.raises(DataError, match="Unterminated string"):
        list(stream_list(path))


def test_the_published_small_set(shared_data: Path):
    folder = shared_data / "webshop"
    if not (folder / "items_shuffle_1000.json").is_file():
        pytest.skip(f"WebShop's small set is not in {folder}")
    catalogue = load_catalogue(Files.find(folder))
    assert len(catalogue) == 1000
    assert np.count_nonzero(~np.isnan(catalogue.ranges[:, 1])) == 93
    assert len(catalogue.sources["synthetic"].products) == 415
    assert len(Shop(catalogue).goals) == 6910
    assert len(Shop(catalogue, "human").goals) == 13
