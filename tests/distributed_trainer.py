"""Done by both ranks of test_trainer.py: the same run on two processes, a resume, and ranks that disagree."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import random_rows
from trainer_runs import Counter, configure, entries, make_trainer, weights

RUN = {"steps": 4, "resume": 2}


def config():
    return configure(
        train__steps=RUN["steps"], train__save_every=RUN["resume"], train__rows_per_update=12,
        train__rows_per_micro_batch=4, train__kl=0.05,
    )  # fmt: skip


def collect(step, model):
    """Uneven numbers of rows; nothing at all at step 1; fewer rows than ranks at step 3."""
    return random_rows((23, 0, 17, 1)[step], seed=step)


def main(policy: Path, folder: Path) -> None:
    """`folder` has `start`, a checkpoint of the run on one process, and gets `two.pt`."""
    two, tape = make_trainer(policy, folder / "two", config(), collect, [Counter()])
    two.train()
    resumed, _ = make_trainer(policy, folder / "resumed", config(), collect, [Counter()])
    resumed.train(folder / "start")
    rank = two.accelerator.process_index
    torn, _ = make_trainer(policy, folder / "torn", config(), lambda step, model: random_rows(5 - rank))
    try:
        torn.train()
    except ValueError as error:
        mismatch = str(error)
    if rank == 0:
        found = {"gradients": tape.steps, "weights": weights(two), "resumed": weights(resumed)}
        torch.save(found | {"entries": entries(two), "mismatch": mismatch}, folder / "two.pt")
    two.accelerator.wait_for_everyone()
    two.accelerator.end_training()
