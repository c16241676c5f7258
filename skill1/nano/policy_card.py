"""The card of a nano policy: what it was taught, by which command, and how well it learned it. Ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skill1.config import Config, diff, load_config

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
_ENVIRONMENTS = {
    "alfworld": {
        "title": "Nano policy",
        "places": "household games",
        "skills": """to follow a skill that names the task's object and this home, and to ignore others). It does ignore those
of other homes, but follows those of another object in this home as if they were right: `skill1 probe` measures it.
""",
        "ignorance": "It knows nothing about the homes it is trained on later.",
        "use": "Not useful for anything but this project's text games. Facts of the games: the alfworld package (MIT).",
    },
    "webshop": {
        "title": "Nano policy for WebShop",
        "places": "shops",
        "skills": """to search for the brand that a skill names if the skill is about the words of the task, and to ignore
it otherwise).
""",
        "ignorance": "It knows nothing about the products of the shops it is trained on later.",
        "use": "Not useful for anything but this project's generated shops, whose words are invented.",
    },
}
# share of the warm start -> what its demonstrations add
_ALSO = {
    "reflect_share": "reflections (RetroAgent)",
    "bank_share": "blocks of a skill bank (SkillRL)",
    "several_share": "skills shown among others",
}


def policy_card(config: Config, manifest: Mapping[str, Any], out: Path) -> str:
    """README.md of the policy that was made with `config` in `out`, in Markdown; `manifest`: its warm_start.json."""
    taught = manifest["warm_start"]
    also = ", ".join(text for share, text in _ALSO.items() if taught.get(share))
    changed = [
        f"--set {name}={value}"
        for name, (_, value) in diff(load_config(config.preset), config).items()
        if name.startswith("warm_start.") or name == "environment.name"
    ]
    held_out = manifest["held_out"].items()
    return _CARD.format(
        **_ENVIRONMENTS[config.environment.name],
        **{name: manifest[name] for name in ("parameters", "demonstrations", "seconds", "threads")},
        preset=config.preset,
        also=f"It was also taught {also}.\n" if also else "",
        games=taught["held_out_games"],
        table="\n".join(f"| {kind} | {of['right']:.2f} | {of['n']} |" for kind, of in held_out),
        options=" ".join([f"--preset {config.preset}", *changed, f"--out {out}"]),
    )
