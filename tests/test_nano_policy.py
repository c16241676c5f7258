"""The shipped starting policies are what the code here would make again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from skill1.config import WarmStartConfig, load_config
from skill1.policy import load_model
from skill1.warmstart import MANIFEST, fingerprint

PROJECT = Path(__file__).resolve().parents[1]
WORDS = {
    "nano": "go_to cabinet_3",
    "nano-baselines": "go_to cabinet_3",
    "nano-webshop": "search ~ber +den men's_shirts 4_fl_oz_|_118_ml",
}
presets = pytest.mark.parametrize("preset", WORDS)


@presets
def test_manifest_matches_the_code(preset: str) -> None:
    config = load_config(preset)
    manifest = json.loads((PROJECT / config.policy.model / MANIFEST).read_text())
    assert WarmStartConfig(**manifest["warm_start"]) == config.warm_start  # a later field has its default
    made = fingerprint(config.warm_start, config.environment.name)
    assert manifest["fingerprint"] == made, "demonstrations or vocabulary changed: run skill1 warmstart"


@presets
def test_weights_are_those_of_the_manifest(preset: str) -> None:
    policy = PROJECT / load_config(preset).policy.model
    manifest = json.loads((policy / MANIFEST).read_text())
    weights = policy / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == manifest["model_sha256"]
    assert weights.stat().st_size < 8_000_000
    model, tokenizer = load_model(load_config(preset).policy, str(policy))
    assert model.num_parameters() == manifest["parameters"]
    assert tokenizer.tokenize(WORDS[preset]) == WORDS[preset].split()
