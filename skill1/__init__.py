"""Skill1: one policy that selects, uses and distils skills, trained with GRPO (arXiv 2605.06130)."""

__version__ = "0.1.0"
