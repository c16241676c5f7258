"""Stored episodes, read and shown."""
