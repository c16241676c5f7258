"""The same training on 1, 2 and 4 processes (gloo): the same tasks and rows, and parameters within 1e-6?

Run: OMP_NUM_THREADS=1 python benchmarks/exactness.py
Full fine-tuning and LoRA, with the KL term, several updates a step, and five groups, which neither 2 nor 4 divide. The
games are easy, so that the library fills and is part of what must agree. Adam's first steps are of the size of the rate
whatever the gradient: the rate is such that a difference in sign could not hide.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1] / "tests")  # for this script's folder: it has an alfworld.py

from nano_runs import make_warm, make_world, settings  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from skill1.store.run_directory import RunDirectory  # noqa: E402

STEPS, RATE, TOLERANCE = 3, 1e-5, 1e-6
PROCESSES = (1, 2, 4)
MODES = {"full": {}, "lora": {"policy.lora_rank": 4}}
SETTINGS = {
    "environment.max_steps": 5,
    "rollout.tasks_per_step": 5,
    "method.max_distill_tokens": 16,
    "train.steps": STEPS,
    "train.save_every": STEPS,
    "train.validate_every": STEPS,
    "train.learning_rate": RATE,
    "train.kl": 0.05,
    "train.rows_per_update": 40,
    "train.rows_per_micro_batch": 16,
}


def train(directory: Path, given: dict[str, object], processes: int) -> float:
    """Seconds of the run."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    script = Path(sys.path[0]) / "distributed_train.py"
    started = time.monotonic()
    subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), str(script), str(directory), json.dumps(given)],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return time.monotonic() - started


def played(run: RunDirectory) -> list[tuple[object, ...]]:
    """All that decides the rows: tasks, retrieval, tokens, outcomes."""
    return [
        (step, r.group, r.index, r.task, r.outcome, r.candidates, r.selected, r.lesson,
         [(t.stage, t.prompt_ids.tolist(), t.completion_ids.tolist()) for t in r.turns])
        for step in run.rollout_steps() for r in run.read_rollouts(step)
    ]  # fmt: skip


def weights(run: RunDirectory) -> dict[str, object]:
    """Of the last checkpoint."""
    (file,) = run.latest_checkpoint().path.glob("*.safetensors")
    return load_file(file)


@dataclass(frozen=True)
class Differences:
    """What two runs have in common: prints as a sentence."""

    same: dict[str, bool]
    off: float  # largest difference of a parameter

    @property
    def none(self) -> bool:
        return all(self.same.values()) and self.off < TOLERANCE

    def __str__(self) -> str:
        words = [f"{name} {'the same' if equal else 'DIFFER'}" for name, equal in self.same.items()]
        verdict = "" if self.off < TOLERANCE else f", TOO FAR: {TOLERANCE:g} is allowed"
        return f"{', '.join(words)}; parameters within {self.off:.1e}{verdict}"


def differences(one: RunDirectory, run: RunDirectory) -> Differences:
    a, b = weights(one), weights(run)
    same = {
        "rollouts": played(run) == played(one),
        "library": (run.library_dir / "journal.jsonl").read_bytes() == (one.library_dir / "journal.jsonl").read_bytes(),
        "validation": run.evaluations("validation").equals(one.evaluations("validation")),
    }
    return Differences(same, max(float((a[name] - b[name]).abs().max()) for name in a))


def main() -> None:
    good = True
    with tempfile.TemporaryDirectory() as folder:
        world, policy = make_world(Path(folder) / "world"), make_warm(Path(folder) / "policy")
        for mode, own in MODES.items():
            one = None
            for processes in PROCESSES:
                directory = Path(folder) / f"{mode}{processes}"
                seconds = train(directory, settings(world, policy) | SETTINGS | own, processes)
                run = RunDirectory.open(directory)
                one = one or run
                found = differences(one, run)
                good &= found.none
                rows = run.metrics()["rows/total"].astype(int).tolist()
                updates = run.metrics()["rows/updates"].astype(int).tolist()
                print(
                    f"{mode}, {processes} processes ({seconds:.0f} s): rows {rows}, updates {updates}, skills "
                    f"{int(run.metrics()['library/size'].iloc[-1])}; {found}",
                    flush=True,
                )
    sys.exit(int(not good))


if __name__ == "__main__":
    main()
