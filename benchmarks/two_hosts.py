"""Training on two hosts by torchrun's own rendezvous (c10d), against two processes of one host (gloo): the same?

Run as root on Linux: OMP_NUM_THREADS=1 python benchmarks/two_hosts.py
The hosts are two network namespaces of this machine, joined by one cable (a veth pair): neither reaches the other but
through it, loopback included. They share the file system, as the hosts of a run must share its directory. Two steps with
the KL term and uneven groups; tasks, rows, library and validation must be the same, and parameters within 1e-6.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exactness import MODES, SETTINGS, differences, make_warm, make_world, settings, train

from skill1.store.run_directory import RunDirectory

HOSTS = ("10.77.0.1", "10.77.0.2")
PORT = 29400
STEPS = 2
LIMIT = 600.0  # seconds that the run may take


@contextmanager
def namespaces() -> Iterator[list[str]]:
    """Names of two network namespaces whose addresses are HOSTS, removed at the end."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        sys.exit("network namespaces need Linux, root and iproute2: sudo -E python benchmarks/two_hosts.py, as root")
    names = [f"skill1-{os.getpid()}-{host}" for host in range(2)]
    cable = [f"s1v{os.getpid()}{end}" for end in "ab"]  # an interface has at most 15 characters
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cable[0], "netns", names[0], "type", "veth", "peer", "name", cable[1], "netns", names[1])
        for name, end, address in zip(names, cable, HOSTS, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", end, "name", "cable0")
            ip("-n", name, "link", "set", "cable0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)  # and its end of the cable


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"ip {' '.join(words)} failed, is this a container without CAP_NET_ADMIN? {done.stderr.strip()}")


def train_on_two_hosts(directory: Path, given: dict[str, object]) -> float:
    """Seconds of the run. Exits if a host fails, after ending the other."""
    script = Path(__file__).resolve().parents[1] / "tests" / "distributed_train.py"
    started = time.monotonic()
    with namespaces() as names:
        hosts = [
            subprocess.Popen(
                [
                    "ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes=2",
                    "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={HOSTS[0]}:{PORT}",
                    # real hosts know themselves by name, but namespaces have one name between them
                    f"--rdzv-conf=is_host={str(address == HOSTS[0]).lower()}", f"--local-addr={address}",
                    str(script), str(directory), json.dumps(given),
                ],
                env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable0"},
            )
            for name, address in zip(names, HOSTS, strict=True)
        ]  # fmt: skip
        try:
            while any(host.poll() is None for host in hosts) and not any(host.poll() for host in hosts):
                if time.monotonic() - started > LIMIT:
                    sys.exit(f"the two hosts are not done after {LIMIT:g} s")
                time.sleep(0.2)
        finally:
            for host in hosts:
                if host.poll() is None:
                    host.terminate()
                host.wait()
    if any(host.returncode for host in hosts):
        sys.exit(f"the hosts' torchrun ended with status {', '.join(str(host.returncode) for host in hosts)}")
    return time.monotonic() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world, policy = make_world(Path(folder) / "world"), make_warm(Path(folder) / "policy")
        steps = {"train.steps": STEPS, "train.save_every": STEPS, "train.validate_every": STEPS}
        given = settings(world, policy) | SETTINGS | MODES["full"] | steps
        one, two = Path(folder) / "one-host", Path(folder) / "two-hosts"
        seconds = train_on_two_hosts(two, given), train(one, given, processes=2)
        found = differences(RunDirectory.open(one), RunDirectory.open(two))
    print(f"two hosts ({seconds[0]:.0f} s) against two processes of one ({seconds[1]:.0f} s): {found}")
    sys.exit(int(not found.none))


if __name__ == "__main__":
    main()
