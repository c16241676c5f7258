"""Record what training does, or compare two records: rows of three steps of every variant, and a whole run of `full`.

    python benchmarks/behaviour.py record out.json [--steps 3] [--long 45]
    python benchmarks/behaviour.py compare before.json after.json

A refactoring must leave all of it as it was, bit for bit: which tokens every row holds, its log-probs, advantage and
weight; and of the long run every reward, the library's size at each step and its records at the end. Runs take one
thread, since sums of floats depend on how they are split.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not sys.flags.safe_path:
    del sys.path[0]  # this script's folder: it has an alfworld.py

VARIANTS = (
    "full", "no_library", "no_selection", "no_distillation", "lambda1_0", "lambda2_0", "lambdas_0", "gigpo", "skillrl",
    "retroagent_in_context", "retroagent_rl",
)  # fmt: skip
IN_SHOPS = ("full", "no_distillation", "gigpo", "skillrl", "retroagent_in_context", "retroagent_rl")
EXTRA = {"skillrl": {"method.evolve_every": 1}}  # else nothing evolves in three steps


def digest_of(rows) -> dict[str, Any]:
    sha = hashlib.sha256()
    for row in rows:
        for part in (row.prompt_ids, row.completion_ids, row.logprobs):
            sha.update(part.tobytes())
        sha.update(repr((row.stage, row.advantage, row.weight, row.group, row.rollout, row.turn)).encode())
    stages = sorted({row.stage for row in rows})
    return {
        "rows": {stage: sum(row.stage == stage for row in rows) for stage in stages},
        "advantages": {s: repr(sum(abs(r.advantage) for r in rows if r.stage == s)) for s in stages},
        "weights": {s: repr(sum(r.weight for r in rows if r.stage == s)) for s in stages},
        "sha256": sha.hexdigest(),
    }


def record(preset: str, variant: str, data: str, steps: int, folder: Path) -> dict[str, Any]:
    import torch

    from skill1 import train as training
    from skill1.config import load_config

    torch.set_num_threads(1)
    overrides: dict[str, Any] = {"environment.data": data, "train.steps": steps, "train.validate_every": 0}
    overrides |= EXTRA.get(variant, {})
    digests: list[dict[str, Any]] = []
    build = training.build_trainer

    def wrapped(config, model, tokenizer, output_dir, collect, *rest, **named):
        def recording(step, model):
            rows, metrics = collect(step, model)
            digests.append(digest_of(rows) | {"reward": metrics["reward"], "library": metrics.get("library/size")})
            return rows, metrics

        return build(config, model, tokenizer, output_dir, recording, *rest, **named)

    training.build_trainer = wrapped
    try:
        run = folder / f"{preset}-{variant}-{steps}"
        training.train(load_config(preset, variant, overrides), run)
    finally:
        training.build_trainer = build
    files = sorted(
        p for p in (run / f"checkpoint-{steps}" / "library").glob("*") if p.suffix in (".jsonl", ".json", ".parquet")
    )
    return {"steps": digests, "library": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("out", type=Path)
    recording.add_argument("--steps", type=int, default=3)
    recording.add_argument("--long", type=int, default=45)
    recording.add_argument("--keep", type=Path)
    recording.add_argument("--only", default=None)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "compare":
        before, after = (json.loads(path.read_text()) for path in (given.before, given.after))
        different = [name for name in before if name in after and before[name] != after[name]]
        missing = [name for name in before if name not in after]
        print(f"{len(before)} records, {len(missing)} missing {missing}, {len(different)} different: {different}")
        return int(bool(different or missing))
    from skill1.nano.world import nano_world

    found: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    todo = [("nano", v, given.steps) for v in VARIANTS]
    todo += [("nano-webshop", v, given.steps) for v in IN_SHOPS]
    todo += [("nano", "full", given.long)]
    with tempfile.TemporaryDirectory() as scratch:
        for preset, variant, steps in todo:
            key = f"{preset} {variant} {steps}"
            if key in found or (given.only and given.only not in key):
                continue
            data = nano_world(0, preset)
            found[key] = record(preset, variant, data, steps, given.keep or Path(scratch))
            given.out.write_text(json.dumps(found, indent=1) + "\n")
            print(key, found[key]["steps"][-1]["rows"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
