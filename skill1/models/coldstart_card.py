"""What the result of a cold start says of itself (README.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from skill1.config import Config, diff, load_config, load_section
from skill1.models.options import ColdStartConfig
from skill1.presets import presets
from skill1.store.card import markdown_table, write_card
from skill1.store.resources import find_model, is_path

_ABOUT = """A policy to begin reinforcement learning with in the Skill1 reproduction kit (arXiv 2605.06130): {model},
fine-tuned on {chats:,} demonstrated chats in the context `{context}`: {answers:,} answers of {answer_tokens:,} tokens.

{weights}"""
_ADAPTER = "A LoRA adapter (rank {rank}) in bfloat16 for the base whose weights have the SHA-256 `{sha256}`."
_MERGED = "Full weights."


def write_cold_start_card(
    folder: Path, config: Config, about: Mapping[str, Any], demonstrations: Path, out: Path, base_sha256: str | None
) -> None:
    """Write the README.md of a cold start's result.

    Args:
        about: its `cold_start.json`.
        out: where it was asked for; `folder` may be a place before it.
        base_sha256: of the base that an adapter belongs to; None for whole weights.
    """
    policy = config.policy
    adapter = base_sha256 is not None
    model = policy.model if policy.adapter is None else f"{policy.model} with {policy.adapter}"
    write_card(
        folder,
        ModelCardData(
            library_name="peft" if adapter else "transformers",
            pipeline_tag="text-generation",
            base_model=None if is_path(policy.model) else policy.model,
            license=_licence(policy.model),
            tags=["skill1", config.environment.name],
        ),
        title=f"Skill1: cold start, {config.preset}, {config.environment.name}",
        about=_ABOUT.format(
            **{name: about[name] for name in ("chats", "answers", "answer_tokens", "context")},
            model=f"`{model}`",
            weights=_ADAPTER.format(rank=policy.lora_rank, sha256=base_sha256) if adapter else _MERGED,
        ),
        results=_results(about["held_out"]),
        training=f"```\n{_command(config, about, demonstrations, out)}\n```\n\nConfiguration and losses are in "
        f"`cold_start.json`; the demonstrations have the SHA-256 `{about['sha256']}`.",
        use=_use(config, adapter, out),
    )


def _results(held_out: Mapping[str, Any]) -> str:
    if not held_out["chats"]:
        return "No games were held out."
    columns = ("epoch", "stage", "answers", "loss", "tokens right", "answers right")
    rows = [
        (
            f"{entry['epoch']:.4g}", stage, of["answers"], f"{of['loss']:.3f}", f"{of['token_accuracy']:.3f}",
            f"{of['answer_accuracy']:.3f}",
        )
        for entry in (held_out["scores"][0], held_out["scores"][-1])
        for stage, of in entry["stages"].items()
    ]  # fmt: skip
    games, chats = held_out["games"], held_out["chats"]
    return (
        f"Answers of {chats} chats of {games} games that were not learnt, each given what stands before it (right: every "
        f"token is the most likely one), before and after:\n\n{markdown_table(columns, rows)}"
    )


def _command(config: Config, about: Mapping[str, Any], demonstrations: Path, out: Path) -> str:
    usual = load_section(ColdStartConfig, "cold_start", config.preset)
    changed = {name: new for name, (_, new) in diff(load_config(config.preset, config.variant), config).items()}
    changed |= {
        f"cold_start.{name}": value for name, value in about["cold_start"].items() if value != getattr(usual, name)
    }
    words = [f"--set {name}={value}" for name, value in changed.items() if not name.startswith("evaluation.")]
    variant = [] if config.variant == "full" else [f"--variant {config.variant}"]
    return " ".join(
        ["skill1 coldstart", str(demonstrations), f"--preset {config.preset}", *variant, *words, f"--out {out}"]
    )


def _licence(model: str) -> str | None:
    """What the card of a model's folder says."""
    card = Path(find_model(model)) / "README.md"
    return ModelCard.load(card).data.license if card.is_file() else None


def _use(config: Config, adapter: bool, out: Path) -> str:
    starting = [name for name, preset in presets().items() if str(out) in preset.values()]
    fields = {"policy.model": config.policy.model, "policy.adapter": "THIS_FOLDER"} if adapter else {}
    sets = " ".join(f"--set {name}={value}" for name, value in (fields or {"policy.model": "THIS_FOLDER"}).items())
    how = f"--preset {config.preset} --set rollout.context={config.rollout.context} {sets}"
    checked = "\n\nA base with other weights is refused." if adapter else ""
    return f"```\nskill1 train {f'--preset {starting[0]}' if starting else how} --out results/mine\n```{checked}"
