"""The card of a nano policy: what it was taught, by which command, and how well it learned it. Ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skill1.config import load_config, load_section
from skill1.nano.options import WarmStartConfig
from skill1.nano.world import nano_of

_CARD = """# {title}

A Qwen2-architecture language model with {parameters:,} parameters and a word-level tokenizer, trained from scratch on
{demonstrations:,} expert demonstrations in generated {places} (`skill1 warmstart`).
It was made for the `{preset}` preset: it knows the formats of the four stages and has been *taught to use skills*
({skills}{also}{ignorance}

Demonstrations of {games} held-out games answered right (every token, given the ones before; of rankings, the first
candidate):

| demonstration | right | n |
|---|---|---|
{table}

* Made by `skill1 warmstart {options}`
  (configuration and versions in `warm_start.json`; weights are reproducible on the same machine and versions,
  floating-point order aside).
* Training time: {seconds} s on {threads} CPU thread(s).
* Load it with `skill1.policy.load_model`: AutoTokenizer would take Qwen2's byte-level tokenizer, not the saved one.
* {use}
"""
# share of the warm start -> what its demonstrations add
_ALSO = {
    "reflect_share": "reflections (RetroAgent)",
    "bank_share": "blocks of a skill bank (SkillRL)",
    "several_share": "skills shown among others",
}


def policy_card(preset: str, environment: str, manifest: Mapping[str, Any], out: Path) -> str:
    """README.md, in Markdown, of the policy in `out` that was made for a preset; `manifest`: its warm_start.json."""
    taught, of_preset = WarmStartConfig(**manifest["warm_start"]), load_section(WarmStartConfig, "warm_start", preset)
    also = ", ".join(text for share, text in _ALSO.items() if getattr(taught, share))
    usual = asdict(of_preset)
    changed = {f"warm_start.{name}": value for name, value in asdict(taught).items() if value != usual[name]}
    if environment != load_config(preset).environment.name:
        changed["environment.name"] = environment
    return _CARD.format(
        **asdict(nano_of(environment).card),
        **{name: manifest[name] for name in ("parameters", "demonstrations", "seconds", "threads")},
        preset=preset,
        also=f"It was also taught {also}.\n" if also else "",
        games=taught.held_out_games,
        table="\n".join(f"| {kind} | {of['right']:.2f} | {of['n']} |" for kind, of in manifest["held_out"].items()),
        options=" ".join([f"--preset {preset}", *(f"--set {k}={v}" for k, v in changed.items()), f"--out {out}"]),
    )
