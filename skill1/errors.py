"""What users can cause and mend: a wrong name or value, a folder that is not there, a file of another version."""

from __future__ import annotations

import textwrap


class UserError(Exception):
    """The base of errors whose message, one line, names what is wrong and what to do: no traceback is needed."""

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows under the cell (IPython asks for it): the message alone."""
        return [f"error: {self}"]


class RunError(UserError, RuntimeError):
    """A run directory, notebook run or launched process is not as it must be. The message names it and the fix."""


class PromptTooLong(UserError, ValueError):
    """A prompt exceeds `rollout.max_prompt_tokens`, or a conversation what the model can read."""


class NotFinite(UserError, ArithmeticError):
    """A policy's probabilities are no finite numbers: its weights are of no use. The message says what to do."""


class MissingPackage(UserError, ImportError):
    """A package that not every run needs is not installed. The message names it and how to install it."""


def one_line(error: Exception) -> str:
    """Return an error's whole message as one line, cut at 400 characters: libraries put what helps on later lines."""
    return textwrap.shorten(str(error), 400, placeholder=" …")
