"""SIGTERM during training: the running step ends, a checkpoint is written, the process ends with status 143.

Cluster schedulers send it some time before they kill. Under torchrun the signal may reach one rank or all; they agree
after every step. `skill1 train --nproc N` hands it on and waits; torchrun itself kills its ranks after
`--shutdown-timeout` (30 s by default), which must be longer than a step and a checkpoint.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TERMINATED = 128 + signal.SIGTERM  # exit status, as a shell reports a process that SIGTERM ended


@contextmanager
def on_sigterm(act: Callable[[], None]) -> Iterator[None]:
    """Inside, SIGTERM calls `act` instead of ending this process.

    In another thread than the main one, which alone may handle signals, it goes on ending the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
