"""The card of a model folder (README.md): one form for every policy that this kit writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

_TEMPLATE = Path(__file__).with_name("card.md.jinja")


def write_card(
    folder: Path, data: ModelCardData, *, title: str, about: str, results: str, training: str, use: str
) -> None:
    """Write the README.md of a model folder.

    Args:
        data: the header: library, base model, tags.
        about, results, training, use: Markdown. What it is; how it was evaluated; how it was made; how to load it.
    """
    texts = {"title": title, "about": about, "results": results, "training": training, "use": use}
    ModelCard.from_template(data, template_path=str(_TEMPLATE), **texts).save(folder / "README.md")


def markdown_table(columns: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Format rows of cells as a Markdown table."""
    names = list(columns)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("\\", "\\\\").replace("|", "\\|").split())
