"""What users can cause and mend: a wrong name or value, a folder that is not there, a file of another version."""

from __future__ import annotations


class UserError(Exception):
    """The base of errors whose message, one line, names what is wrong and what to do: no traceback is needed."""
