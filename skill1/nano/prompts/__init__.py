"""Compact prompts of the nano policies, one module per environment."""
