"""The code that the documents show, for tests that run it."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def code(page: str, heading: str, language: str = "") -> str:
    """Return the first fenced block of a language under a heading of a page."""
    [section] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", (DOCS / page).read_text(), re.M | re.S)
    return re.search(rf"^```{language}\n(.*?)^```$", section, re.M | re.S)[1]
