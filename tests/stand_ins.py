"""What the stand-ins for 01_train and 02_evaluate do: leave what a run leaves, within a second and without a model.

A `pause<step>` file beside a run holds it after that step, a `fail` file makes its next step fail, `steps.txt` lists
every step that was run, also by attempts that were killed. (Imports little: every kernel of a sweep waits for it.)
"""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd

from skill1.config import Config, load_config, method_of
from skill1.store.checkpoints import mark_complete
from skill1.store.run_directory import RunDirectory

STEPS, SAVE_EVERY = 4, 2
GAMES = [f"{split}/game{i}/trial" for split in ("valid_seen", "valid_unseen") for i in range(3)]


def train(out: str, preset: str, variant: str, fields: dict) -> None:
    """Steps and checkpoints of a run; continues one that stopped."""
    path, config = Path(out), load_config(preset, variant, fields)
    opening = RunDirectory.resume if (path / "config.json").exists() else RunDirectory.create
    run = opening(path, config, "data")
    latest = run.latest_checkpoint()
    for step in range(latest.step + 1 if latest else 1, STEPS + 1):
        if (path.parent / "fail").exists():
            raise ValueError(f"step {step} met a fail file")
        with (path.parent / "steps.txt").open("a") as file:
            file.write(f"{step} ")
        run.log(step, metrics(config, step))
        if step % SAVE_EVERY == 0:
            run.checkpoint_dir(step).mkdir()
            mark_complete(run.checkpoint_dir(step), step, {})
        while (path.parent / f"pause{step}").exists():
            time.sleep(0.05)
    run.close()


def metrics(config: Config, step: int) -> dict[str, float]:
    found = {"reward": (step + config.train.seed) / 10, "loss": float("nan")}
    return found | ({"library/size": 3.0 * step} if method_of(config).uses_library else {})


def evaluate(run: str, passes: int, splits: list[str]) -> None:
    opened = RunDirectory.open(Path(run))
    arms = [(0, "step0"), (STEPS, f"step{STEPS}"), (STEPS, "none")]
    if not method_of(opened.config).keeps_skills:
        arms = [(0, "none"), (STEPS, "none")]
    for step, library in arms:
        for split in splits:
            rows = [(game, number) for game in GAMES if game.startswith(f"{split}/") for number in range(passes)]
            frame = pd.DataFrame(rows, columns=["game", "pass"]).assign(
                variant=opened.config.variant, seed=opened.config.train.seed, step=step, split=split, category="Pick",
                won=lambda f: (f.index + step) % 2 == 0, score=1.0, steps=4, invalid_actions=1,
                inadmissible_actions=2, library=library,
            )  # fmt: skip
            opened.write_evaluation(f"evaluation_{library}", frame)
    opened.write_evaluation("validation", frame)  # of training: no part of a study
