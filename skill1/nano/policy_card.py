"""The card of a nano policy: what it was taught, by which command, and how well it learned it. Ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from skill1.config import load_config, load_section
from skill1.nano.options import WarmStartConfig
from skill1.nano.world import nano_of
from skill1.store.card import markdown_table, write_card

_ABOUT = """\
A Qwen2-architecture language model with {parameters:,} parameters and a word-level tokenizer, trained from scratch on
{demonstrations:,} expert demonstrations in generated {places}. It was made for the `{preset}` preset: it knows the
formats of the four stages and has been *taught to use skills*.{also}

{about}"""
_RESULTS = """\
Demonstrations of {games} held-out games answered right (every token, given the ones before; of rankings, the first
candidate):

{table}"""
_TRAINING = """\
Made by `skill1 warmstart {options}` in {seconds} s on {threads} CPU thread(s); configuration and versions
are in `warm_start.json`. Weights are reproducible on the same machine and versions, floating-point order aside."""
_USE = """\
Load it with `AutoModelForCausalLM` and `AutoTokenizer`, or with `skill1.policy.load_model`.

{use}"""
# share of the warm start -> what its demonstrations add
_ALSO = {
    "reflect_share": "reflections (RetroAgent)",
    "bank_share": "blocks of a skill bank (SkillRL)",
    "several_share": "skills shown among others",
}


def write_policy_card(folder: Path, preset: str, environment: str, manifest: Mapping[str, Any]) -> None:
    """Write the README.md of the policy in `folder` that was made for a preset; `manifest`: its warm_start.json."""
    taught, of_preset = WarmStartConfig(**manifest["warm_start"]), load_section(WarmStartConfig, "warm_start", preset)
    also = ", ".join(text for share, text in _ALSO.items() if getattr(taught, share))
    usual = asdict(of_preset)
    changed = {f"warm_start.{name}": value for name, value in asdict(taught).items() if value != usual[name]}
    if environment != load_config(preset).environment.name:
        changed["environment.name"] = environment
    options = " ".join([f"--preset {preset}", *(f"--set {k}={v}" for k, v in changed.items()), f"--out {folder}"])
    right = [(kind, f"{of['right']:.2f}", of["n"]) for kind, of in manifest["held_out"].items()]
    world = nano_of(environment)
    write_card(
        folder,
        ModelCardData(library_name="transformers", pipeline_tag="text-generation", tags=["skill1", environment]),
        title=world.title,
        about=_ABOUT.format(
            **manifest,
            places=world.places,
            preset=preset,
            also=f" It was also taught {also}." if also else "",
            about=world.about,
        ),
        results=_RESULTS.format(
            games=taught.held_out_games, table=markdown_table(("demonstration", "right", "n"), right)
        ),
        training=_TRAINING.format(**manifest, options=options),
        use=_USE.format(use=world.use),
    )
