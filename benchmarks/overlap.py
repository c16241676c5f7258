"""Seconds of a step with `train.overlap`, and without, beside vLLM's server on a CPU.

    .venv-vllm/bin/python benchmarks/overlap.py [--steps 8]

(After `make vllm`.) Trains the shipped nano policy twice on the same generated homes, with a `trl vllm-serve` of its own each
time (hash encoder): one core or more for the server, one for the trainer. Prints the mean of all steps but the first two.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1] / "tests")  # for this script's folder: it has an alfworld.py

import vllm_cpu  # noqa: E402  before vllm
from nano_runs import forked  # noqa: E402
from vllm_serving import Server  # noqa: E402

from skill1.config import load_config  # noqa: E402
from skill1.nano.world import nano_of  # noqa: E402
from skill1.store.resources import find_model  # noqa: E402
from skill1.store.run_directory import RunDirectory  # noqa: E402


def train(games: Path, run: Path, model: str, server: Server, steps: int, overlap: bool) -> None:
    """Train in this process."""
    from skill1.train import train

    vllm_cpu.load()
    vllm_cpu.connect_trainer()
    given = {"environment.data": str(games), "policy.backend": "vllm_server", "policy.vllm_url": server.url,
             "policy.model": model, "library.encoder": "hash", "train.steps": steps, "train.validate_every": 0, "train.overlap": overlap}  # fmt: skip
    train(load_config("nano", overrides=given), run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    steps = parser.parse_args().steps
    model, seconds = find_model("data/nano-policy"), {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        world = nano_of("alfworld")
        world.generate(root / "games", seed=0, **world.sizes)
        for overlap in (False, True):
            place = root / str(overlap)
            place.mkdir()
            command = [str(Path(sys.executable).with_name("trl")), "vllm-serve", "--model", model, "--dtype", "float32"]
            server = Server([*command, "--enforce_eager", "true"], vllm_cpu.vllm_home(place / "home"), place)
            server.start()
            try:
                if forked(lambda: train(root / "games", place / "run", model, server, steps, overlap)):
                    sys.exit("error: training failed, see above")
            finally:
                server.kill()
            found = RunDirectory.open(place / "run").metrics().iloc[2:]
            seconds[overlap] = (found["time/collect"] + found["time/update"]).mean()
            shown = {name: found[f"time/{name}"].mean() for name in ("rollout", "credit_and_learn", "update")}
            parts = ", ".join(f"{name} {value:.2f}" for name, value in shown.items())
            ratio = found["importance_ratio/max"].max()
            print(f"overlap {overlap}: {seconds[overlap]:.2f} s a step ({parts}); largest importance ratio {ratio:.2f}")
    print(f"without / with: {seconds[False] / seconds[True]:.2f}")


if __name__ == "__main__":
    main()
