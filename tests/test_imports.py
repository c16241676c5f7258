"""What only reads runs, plans sweeps or watches their processes starts without torch, which takes seconds to load."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "trl", "sentence_transformers")


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import skill1.running.experiment",  # every job of a sweep
        "import skill1.analysis.ablations, skill1.analysis.comparison, skill1.analysis.paper_tables\n"
        "from skill1.analysis.library import bank, map, payoff, selection, study",
        "import skill1.analysis.trajectories.viewer",
        "from skill1.config import load_config, method_of\n"
        "for variant in ('full', 'gigpo', 'skillrl', 'retroagent_rl'): method_of(load_config('nano', variant))",
    ],
)  # fmt: skip
def test_torch_is_not_loaded_to_read_runs(code: str) -> None:
    check = f"{code}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "[]\n", done.stdout + done.stderr[-500:]
