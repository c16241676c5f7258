"""Fill in the templates of `views.html.jinja`: what `read` found, as HTML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from skill1.records import Turn

Prompts = Callable[[Turn], str]  # the full prompt of a turn, decoded

# HTML drops or refuses C0 controls (but tab and newline) and DEL: their pictures stand for them.
_PICTURES = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}


def visible(value: Any) -> Any:
    """Replace a text's control characters by their pictures; leave what is no text, or HTML already."""
    return value.translate(_PICTURES) if isinstance(value, str) and not hasattr(value, "__html__") else value


_VIEWS = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=visible,
).get_template("views.html.jinja")


def show(view: str, *parts: Any) -> str:
    """Fill in the macro `view` of `views.html.jinja`, which names its parts. The result is markup."""
    return getattr(_VIEWS.module, view)(*parts)
