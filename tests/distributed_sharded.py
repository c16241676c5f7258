"""Done by both ranks of test_sharding.py: real FSDP2 and DeepSpeed ZeRO-3 over gloo, uneven episodes, DDP in bfloat16.

accelerate shards over GPUs only, although torch's FSDP2 and DeepSpeed run on CPUs as well. Here it takes gloo's processes
for GPUs' (FSDP2), or finds begun what it would begin on GPUs (DeepSpeed).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from distributed_train import begin_deepspeed, begin_fsdp2
from tiny import random_rows, tiny_tokenizer
from torch.distributed.fsdp import FSDPModule
from trainer_runs import configure, entries, make_trainer
from transformers import AutoModelForCausalLM

from skill1.config import Config, ConfigError
from skill1.generation.calls import Chat
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.policy import Policy
from skill1.updates.divergence import Diverged

STEPS = 3
SAVED = 2  # of them when the checkpoint is written that a second run resumes from
TURNS = (1, 7)  # rank 0 asks once, rank 1 seven times, as if its episodes were longer
TEXTS = ["go to the apple", "take mug", "put the mug in drawer one"]
CHECKPOINTED = {"policy__gradient_checkpointing": True}  # gathers the weights once more, within backward
RUNS = {
    "ddp-bfloat16": {"policy__dtype": "bfloat16", "train__kl": 0.0},
    "fsdp2": {"train__sharding": "fsdp2", "train__rows_per_update": 12},
    "fsdp2-lora": {"train__sharding": "fsdp2", "policy__lora_rank": 4},
    "fsdp2-bfloat16": {"train__sharding": "fsdp2", "policy__dtype": "bfloat16", "train__kl": 0.0},
    "deepspeed3": {"train__sharding": "deepspeed3", "train__rows_per_update": 12} | CHECKPOINTED,
    "deepspeed3-lora": {"train__sharding": "deepspeed3", "policy__lora_rank": 4} | CHECKPOINTED,
    "deepspeed3-bfloat16": {"train__sharding": "deepspeed3", "policy__dtype": "bfloat16", "train__kl": 0.0},
}
RESUMED = ("fsdp2", "fsdp2-lora", "deepspeed3", "deepspeed3-lora", "deepspeed3-bfloat16")


def main(policy: Path, folder: Path, *, deepspeed: bool) -> None:
    """`folder` gets `<name>-<rank>.pt` of every run with DeepSpeed, or of all others."""
    if deepspeed:
        begin_deepspeed()
    else:
        torch.distributed.init_process_group("gloo")
    names = [name for name in RUNS if name.startswith("deepspeed3") == deepspeed]
    for name in names:
        settings = RUNS[name]
        if name == "fsdp2":
            try:
                make_trainer(policy, folder / "refused", configure(**settings), lambda step, model: [])
            except ConfigError as error:
                torch.save(str(error), folder / f"refused-{torch.distributed.get_rank()}.pt")
            begin_fsdp2()
        config = configure(train__steps=STEPS, train__rows_per_micro_batch=4, train__save_every=SAVED, **settings)
        found = run(policy, folder / name, config)
        if name in RESUMED:
            found["resumed"] = run(policy, folder / name, config, folder / name / f"checkpoint-{SAVED}")
        torch.save(found, folder / f"{name}-{torch.distributed.get_rank()}.pt")
    last = f"{'deepspeed3' if deepspeed else 'fsdp2'}-spoilt"
    torch.save(spoilt(policy, folder / last), folder / f"{last}-{torch.distributed.get_rank()}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def run(policy: Path, folder: Path, config: Config, checkpoint: Path | None = None) -> dict[str, Any]:
    """What a run wrote, the dtypes it wrote with, its log and its weights (on the first rank)."""
    written: list[list[list[int]]] = []
    dtypes: set[torch.dtype] = set()

    def collect(step, model):
        writer = Policy(model, tiny_tokenizer(), CompactPrompts(), config.policy, 64)
        for turn in range(TURNS[trainer.accelerator.process_index] if trainer.accelerator.num_processes > 1 else 7):
            seeds = [(step, turn, i) for i in range(len(TEXTS))]
            chats = [Chat(seed) for seed in seeds] if turn % 2 else None  # a conversation's prompt is read apart
            answers = writer.generate(TEXTS, seeds, temperature=1.0, max_new_tokens=4, chats=chats)
            written.append([answer.ids.tolist() for answer in answers])
        dtypes.update(p.dtype for p in model.parameters())
        rows = random_rows((23, 1, 17)[step], seed=step)
        still = step == 1 and not config.train.kl  # a step without any gradient
        return [replace(row, advantage=0.0) for row in rows] if still else rows

    trainer, _ = make_trainer(policy, folder, config, collect)
    trainer.train(resume_from_checkpoint=checkpoint)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) or {}  # whole, and empty on the other ranks
    empty = any(not p.numel() for p in trainer.model.parameters())  # as DeepSpeed leaves what it does not use
    whole = all(p.numel() for p in AutoModelForCausalLM.from_pretrained(policy).parameters())
    return {
        "sharded": empty or isinstance(trainer.model, FSDPModule), "others": whole, "written": written, "dtypes": dtypes,
        "entries": entries(trainer), "weights": {name: tensor.float().clone() for name, tensor in state.items()},
    }  # fmt: skip


def spoilt(policy: Path, folder: Path) -> dict[str, Any]:
    """What a rank is told of a run whose second step's gradient is not finite, and the weights before and after."""
    seen: list[dict[str, torch.Tensor]] = []

    def collect(step, model):
        seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        rows = random_rows(6, seed=step)
        return rows if step == 0 else [replace(rows[0], advantage=3e38), *rows[1:]]

    kind = folder.name.partition("-")[0]
    config = configure(train__steps=2, train__rows_per_micro_batch=4, train__sharding=kind)
    trainer, _ = make_trainer(policy, folder, config, collect)
    try:
        trainer.train()
    except Diverged as error:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped) or {}
        return {"error": str(error), "before": seen[1], "after": {name: p.clone() for name, p in state.items()}}
    return {}
