"""Run by test_sharding.py under torchrun: real FSDP2 over gloo, with uneven episodes, and DDP in bfloat16.

accelerate shards over GPUs only, although torch's FSDP2 runs on CPUs as well: here it takes gloo's processes for GPUs'.

Arguments: the policy's folder; the output folder, which gets `<name>-<rank>.pt` of every run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from tiny import random_rows, tiny_tokenizer
from torch.distributed.fsdp import FSDPModule
from trainer_runs import configure, entries, make_trainer

from skill1.config import Config, ConfigError
from skill1.policy import Policy
from skill1.prompts import CompactPrompts

STEPS = 3
TURNS = (1, 7)  # rank 0 asks once, rank 1 seven times, as if its episodes were longer
TEXTS = ["go to the apple", "take mug", "put the mug in drawer one"]
RUNS = {
    "ddp-bfloat16": {"policy__dtype": "bfloat16", "train__kl": 0.0},
    "fsdp2": {"train__sharding": "fsdp2", "train__rows_per_update": 12},
    "fsdp2-lora": {"train__sharding": "fsdp2", "policy__lora_rank": 4},
    "fsdp2-bfloat16": {"train__sharding": "fsdp2", "policy__dtype": "bfloat16", "train__kl": 0.0},
}


def main(policy: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    for name, settings in RUNS.items():
        if name == "fsdp2":
            try:
                make_trainer(policy, folder / "refused", configure(**settings), lambda step, model: [])
            except ConfigError as error:
                torch.save(str(error), folder / f"refused-{torch.distributed.get_rank()}.pt")
            os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
            patch.object(PartialState, "_prepare_backend", lambda *_: ("gloo", DistributedType.MULTI_GPU)).start()
        found = run(policy, folder / name, configure(train__steps=STEPS, train__rows_per_micro_batch=4, **settings))
        torch.save(found, folder / f"{name}-{torch.distributed.get_rank()}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def run(policy: Path, folder: Path, config: Config) -> dict[str, Any]:
    """What a run wrote, the dtypes it wrote with, its log and its weights (on the first rank)."""
    written: list[list[list[int]]] = []
    dtypes: set[torch.dtype] = set()

    def collect(step, model):
        writer = Policy(model, tiny_tokenizer(), CompactPrompts(), config.policy, 64)
        for turn in range(TURNS[trainer.accelerator.process_index] if trainer.accelerator.num_processes > 1 else 7):
            seeds = [(step, turn, i) for i in range(len(TEXTS))]
            answers = writer.generate(TEXTS, seeds, temperature=1.0, max_new_tokens=4)
            written.append([answer.ids.tolist() for answer in answers])
        dtypes.update(p.dtype for p in model.parameters())
        return random_rows((23, 1, 17)[step], seed=step)

    trainer, _ = make_trainer(policy, folder, config, collect)
    trainer.train()
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # whole, and empty on the other ranks
    return {
        "sharded": isinstance(trainer.model, FSDPModule), "written": written, "dtypes": dtypes,
        "entries": entries(trainer), "weights": {name: tensor.float().clone() for name, tensor in state.items()},
    }  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
