"""The shipped starting policies are what the code here would make again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from skill1.config import load_config, load_section
from skill1.nano.options import WarmStartConfig
from skill1.nano.policy_card import write_policy_card
from skill1.nano.warmstart import MANIFEST, fingerprint
from skill1.policy import load_model

PROJECT = Path(__file__).resolve().parents[1]
WORDS = {
    "nano": "go_to cabinet_3",
    "nano-webshop": "search ~ber +den men's_shirts 4_fl_oz_|_118_ml",
}


def card_of(folder: Path, preset: str, environment: str, manifest: Mapping[str, Any]) -> str:
    """The card as it is written into a folder below the working folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_policy_card(folder, preset, environment, manifest)
    return (folder / "README.md").read_text()


presets = pytest.mark.parametrize("preset", WORDS)


@presets
def test_manifest_matches_the_code(preset: str) -> None:
    config = load_config(preset)
    manifest = json.loads((PROJECT / config.policy.model / MANIFEST).read_text())
    options = load_section(WarmStartConfig, "warm_start", preset)
    assert WarmStartConfig(**manifest["warm_start"]) == options  # a later field has its default
    made = fingerprint(options, config.environment.name)
    assert manifest["fingerprint"] == made, "demonstrations or vocabulary changed: run skill1 warmstart"


@presets
def test_the_card_is_what_the_code_writes(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(preset)
    folder = Path(config.policy.model)
    manifest = json.loads((PROJECT / folder / MANIFEST).read_text())
    monkeypatch.chdir(tmp_path)
    card = card_of(folder, preset, config.environment.name, manifest)
    assert (PROJECT / folder / "README.md").read_text() == card
    assert f"`skill1 warmstart --preset {preset} --out {folder}`" in card and f"`{preset}` preset" in card
    assert ("SkillRL" in card, "RetroAgent" in card) == (True, True)


def test_the_card_of_a_changed_warm_start_names_the_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changed = {
        "warm_start.games": 50,
        "warm_start.bank_share": 0.5,
        "warm_start.reflect_share": 0.0,
        "warm_start.several_share": 0.0,
    }
    taught = load_section(WarmStartConfig, "warm_start", "nano-webshop", changed)
    manifest = json.loads((PROJECT / load_config("nano-webshop").policy.model / MANIFEST).read_text())
    card = card_of(Path("mine"), "nano-webshop", "webshop", manifest | {"warm_start": asdict(taught)})
    options = "--preset nano-webshop --set warm_start.games=50 --set warm_start.several_share=0.0 --set warm_start.bank_share=0.5 "
    options += "--set warm_start.reflect_share=0.0 --out mine"
    assert f"`skill1 warmstart {options}`" in card
    assert "also taught blocks of a skill bank (SkillRL)." in card
    usual = asdict(load_section(WarmStartConfig, "warm_start", "nano"))
    other = card_of(Path("mine"), "nano", "webshop", manifest | {"warm_start": usual})
    assert "`skill1 warmstart --preset nano --set environment.name=webshop --out mine`" in other
    assert "brand that a skill names" in other


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
