"""What a result depends on besides configuration and data: code, package versions, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any


def describe_session() -> dict[str, Any]:
    """Describe what a result depends on besides configuration and data: code, versions, machine. JSON-able."""
    import torch  # not at the top: readers of runs need not wait for it

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git": _git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": _installed_versions(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it; None when the package is not in a git checkout."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([git, "-C", str(folder), *arguments], capture_output=True, text=True)

    commit = ask("rev-parse", "HEAD")
    if commit.returncode != 0:
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no").stdout)}


@cache
def _installed_versions() -> dict[str, str]:
    """Every installed distribution, as `pip freeze` would list it."""
    described = (distribution.metadata for distribution in importlib.metadata.distributions())  # parsed when asked for
    return dict(sorted((about["Name"], about["Version"]) for about in described if about["Name"]))
