"""The processes of a command under torchrun, or the one there is."""

from __future__ import annotations

from datetime import timedelta

import torch
from accelerate import PartialState


def join_processes(timeout: float | None = None) -> PartialState:
    """This process among those that torchrun started, or alone; `timeout`: seconds that one waits for another."""
    waiting = {} if timeout is None else {"timeout": timedelta(seconds=timeout)}
    # without `cpu`, accelerate takes every process of a machine without a GPU for the only one
    return PartialState(cpu=not torch.cuda.is_available(), **waiting)


def leave_processes() -> None:
    """End together: one rank's exit can abort another that still holds connections to it."""
    state = join_processes()
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()
