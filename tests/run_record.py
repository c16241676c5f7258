"""Everything a finished run leaves that must not depend on how it got there, in a form that `==` compares."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from nano_runs import contents

from skill1.encoder import HashEncoder
from skill1.library import SkillLibrary, replay
from skill1.methods.library_method import JOURNAL
from skill1.store.journal import Journal
from skill1.store.run_directory import RunDirectory


def record(directory: Path, last: int) -> dict[str, object]:
    """Everything a finished run leaves that must not depend on how it got there."""
    found = RunDirectory.open(directory)
    lines = [json.loads(line) for line in found.metrics_file.read_text().splitlines()]
    checkpoint = found.checkpoint(last).path
    optimizer = torch.load(checkpoint / "optimizer.pt")["state"]
    out = {
        "checkpoints": [c.step for c in found.checkpoints()],
        "weights": [file.read_bytes() for file in sorted(checkpoint.glob("*model.safetensors"))],  # or the adapter's
        "optimizer": [(k, name, np.asarray(v).tobytes()) for k, s in optimizer.items() for name, v in s.items()],
        "metrics": [repr({k: v for k, v in line.items() if not k.startswith("time/")}) for line in lines],
        "rollouts": {step: [contents(r) for r in found.read_rollouts(step)] for step in found.rollout_steps()},
        "validation": found.evaluations("validation").to_csv(),
        "files": sorted(p.name for p in found.evaluations_dir.iterdir()),
    }
    if found.config.library is not None:
        library = SkillLibrary.load(checkpoint / "library", found.config.library, HashEncoder())
        journal = found.library_dir / JOURNAL
        replayed = replay(Journal(journal), SkillLibrary(found.config.library, HashEncoder()))
        out |= {"library": library.state_hash(), "replayed": replayed.state_hash(), "journal": journal.read_bytes()}
    kept = [checkpoint / name for name in ("references.json", "potentials.json", "lessons.json")]
    return out | {path.stem: path.read_text() for path in kept if path.exists()}
