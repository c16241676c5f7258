"""vLLM's real server for tests, started by `trl vllm-serve` or `vllm serve`, killed and started again."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import requests

_PATIENCE = 900  # seconds for a server to come up


class Server:
    """One server at a time on one port. Any process may kill it or start it again: its number is in a file."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        """
        Args:
            command: without the address.
            folder: gets the log and the number of the process.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*command, "--host", "127.0.0.1", "--port", str(port)]
        self._environment = dict(environment)
        self._number, self._log = folder / "server.pid", folder / "server.log"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("a") as log:
            process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._number.write_text(str(process.pid))
        for _ in range(_PATIENCE):
            if process.poll() is not None:
                raise RuntimeError(self._log.read_text()[-3000:])
            try:
                if requests.get(f"{self.url}/health", timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(1)
        raise TimeoutError(self._log.read_text()[-3000:])

    def kill(self) -> None:
        """End it, and what it started, at once."""
        if not self._number.exists():
            return
        try:
            first = psutil.Process(int(self._number.read_text()))
        except psutil.NoSuchProcess:
            return
        ours = [*first.children(recursive=True), first]
        for process in ours:
            process.kill()
        while any(map(_runs, ours)):
            time.sleep(0.1)
        self._number.unlink()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # whose parent does not wait for it
    except psutil.NoSuchProcess:
        return False
