"""Plain GRPO: outcomes compared within a group, no skills. It is what `Method` does by itself."""

from __future__ import annotations

from skill1.methods.base import Method


class GRPO(Method):
    """No library, no stage but act (Table 2's "no library")."""
