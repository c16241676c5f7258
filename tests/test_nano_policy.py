"""The shipped starting policy is what the code here would make again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from skill1.config import WarmStartConfig, load_config
from skill1.policy import load_model
from skill1.warmstart import MANIFEST, fingerprint

POLICY = Path(__file__).resolve().parents[1] / "data" / "nano-policy"


def test_manifest_matches_the_code() -> None:
    manifest = json.loads((POLICY / MANIFEST).read_text())
    config = load_config("nano").warm_start
    assert WarmStartConfig(**manifest["warm_start"]) == config  # a later field has its default
    assert manifest["fingerprint"] == fingerprint(config), "demonstrations or vocabulary changed: run skill1 warmstart"


def test_weights_are_those_of_the_manifest() -> None:
    manifest = json.loads((POLICY / MANIFEST).read_text())
    weights = POLICY / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == manifest["model_sha256"]
    assert weights.stat().st_size < 8_000_000
    model, tokenizer = load_model(load_config("nano").policy, str(POLICY))
    assert model.num_parameters() == manifest["parameters"]
    assert tokenizer.tokenize("go_to cabinet_3") == ["go_to", "cabinet_3"]
