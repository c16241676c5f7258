"""The processes of a command under torchrun, or the one there is; and what SIGTERM does to them.

Cluster schedulers send SIGTERM some time before they kill: the running step ends, a checkpoint is written, the process
ends with status 143. Under torchrun the signal may reach one rank or all; they agree after every step. `skill1 train
--nproc N` hands it on and waits; torchrun itself kills its ranks after `--shutdown-timeout` (30 s by default), which must
be longer than a step and a checkpoint.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who only hands SIGTERM on to another process need not wait for torch
    from accelerate import PartialState

TERMINATED = 128 + signal.SIGTERM  # exit status, as a shell reports a process that SIGTERM ended


def join_processes(timeout: float | None = None) -> PartialState:
    """Join the processes that torchrun started, or be alone; `timeout`: seconds that one waits for another."""
    import torch
    from accelerate import PartialState

    waiting = {} if timeout is None else {"timeout": timedelta(seconds=timeout)}
    # without `cpu`, accelerate takes every process of a machine without a GPU for the only one
    return PartialState(cpu=not torch.cuda.is_available(), **waiting)


def leave_processes() -> None:
    """End together: one rank's exit can abort another that still holds connections to it."""
    state = join_processes()
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()


@contextmanager
def on_sigterm(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` at SIGTERM inside, instead of ending this process.

    In another thread than the main one, which alone may handle signals, SIGTERM still ends the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
