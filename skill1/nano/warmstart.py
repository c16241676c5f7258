"""Supervised warm start of the nano policies: demonstrations of the four stages, TRL's SFTTrainer. Ours.

The paper starts from an instruction-tuned model, which can already follow a skill it is shown. A policy from scratch
cannot, so it is taught formats, play and the use of skills here, in worlds whose facts do not hold in the worlds it is
trained and evaluated on (`demonstrator.py`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from skill1.nano.demonstrator import Demonstration
from skill1.nano.model import END, make_model, nano_tokenizer
from skill1.nano.options import WarmStartConfig
from skill1.nano.policy_card import write_policy_card
from skill1.nano.world import nano_of
from skill1.store.json_file import write_json
from skill1.store.model_folder import save_model
from skill1.store.writable import check_new

MANIFEST = "warm_start.json"
_PACKAGES = ("torch", "transformers", "trl", "alfworld")  # as far as they are installed
_FINGERPRINT_GAMES = 24


def fingerprint(config: WarmStartConfig, environment: str) -> str:
    """Hash the vocabulary and the first games' demonstrations by SHA-256: changes when the code that made them does."""
    vocabulary = nano_tokenizer(environment).get_vocab()
    digest = hashlib.sha256(json.dumps(vocabulary, sort_keys=True).encode())
    few = replace(config, games=min(config.games, _FINGERPRINT_GAMES))
    for row in nano_of(environment).demonstrator(few).demonstrations():
        digest.update(f"{row.stage}\t{row.prompt}\t{row.answer}\n".encode())
    return digest.hexdigest()


def tokenize(rows: Iterable[Demonstration], tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """Make a dataset of input_ids and numbers of prompt tokens. Raises ValueError on a word outside the vocabulary."""
    encoded = []
    for row in rows:
        prompt = tokenizer.encode(row.prompt, add_special_tokens=False)
        answer = tokenizer.encode(f"{row.answer} {END}", add_special_tokens=False)
        if tokenizer.unk_token_id in prompt + answer:
            raise ValueError(f"a word outside the nano vocabulary in: {row.prompt} {row.answer}")
        ids = prompt + answer
        encoded.append({"input_ids": ids, "length": len(ids), "prompt": len(prompt), "kind": row.kind})
    return Dataset.from_list(encoded)


class MuonAdamW(torch.optim.Optimizer):
    """Muon on the blocks' weight matrices, AdamW on embeddings and norms, behind one learning rate.

    At this size Muon forms the copying circuits that following a skill needs in half the steps of AdamW alone.
    """

    def __init__(self, model: PreTrainedModel, learning_rate: float) -> None:
        matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
        self._parts = (
            torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
        )
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups = [group]  # one object: a scheduler's change reaches both

    @torch.no_grad()
    def step(self, closure=None):
        for part in self._parts:
            part.step()


@torch.no_grad()
def score(model: PreTrainedModel, data: Dataset, rows_per_step: int, pad: int) -> dict[str, dict[str, float]]:
    """Measure the share of demonstrations answered right per kind: {kind: {"right": share, "n": rows}}.

    An answer is right when every token is the most likely one given the demonstration's tokens before it; a ranking
    when its first candidate is.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    rows = data.to_list()
    for first in range(0, len(rows), rows_per_step):
        chunk = rows[first : first + rows_per_step]
        batch = collate(chunk, pad)
        ids, prompt, length = batch["input_ids"], batch["prompt"], batch["length"]  # (B, T), (B,), (B,)
        hits = model(input_ids=ids, use_cache=False).logits[:, :-1].argmax(-1) == ids[:, 1:]  # (B, T-1)
        position = torch.arange(1, ids.shape[1])
        for i, row in enumerate(chunk):
            last = prompt[i] + 1 if row["kind"].startswith("rerank") else length[i]
            right[row["kind"]].append(bool(hits[i, (position >= prompt[i]) & (position < last)].all()))
    return {kind: {"right": round(sum(hits) / len(hits), 3), "n": len(hits)} for kind, hits in sorted(right.items())}


class _WarmStartTrainer(SFTTrainer):
    """Next-token loss over answers plus `prompt_loss` times that over a sample of the prompts' tokens.

    Prompt tokens carry the household's regularities (what follows what), which helps a model from scratch.
    """

    options: WarmStartConfig

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        ids, prompt, length = inputs["input_ids"], inputs["prompt"], inputs["length"]  # (B, T), (B,), (B,)
        causal = self.accelerator.unwrap_model(model)
        # right padding is out of sight of causal attention: no mask, which is twice as fast here
        states = causal.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]  # (B, T-1, width)
        position = torch.arange(1, ids.shape[1], device=ids.device)
        answer = (position >= prompt[:, None]) & (position < length[:, None])  # (B, T-1)
        sampled = torch.rand(answer.shape, device=ids.device) < self.options.prompt_sample
        shown = (position < prompt[:, None]) & sampled

        def loss(chosen: torch.Tensor) -> torch.Tensor:
            logits, labels = causal.lm_head(states[chosen]), ids[:, 1:][chosen]
            total = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            return total / chosen.sum().clamp(min=1)  # short prompts may have no token in the sample

        return loss(answer) + self.options.prompt_loss * loss(shown)


def collate(rows: list[dict], pad: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right into a batch."""
    ids = pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True, padding_value=pad)
    return {"input_ids": ids} | {key: torch.tensor([row[key] for row in rows]) for key in ("prompt", "length")}


def make_trainer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: Dataset, config: WarmStartConfig, out: Path
) -> SFTTrainer:
    """Make the trainer of a warm start: rows of like lengths together, learning rate linear to zero after a warm-up."""
    gpu = torch.cuda.is_available()
    trainer = _WarmStartTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=data,
        data_collator=lambda rows: collate(rows, tokenizer.pad_token_id),
        optimizers=(MuonAdamW(model, config.learning_rate), None),
        args=SFTConfig(
            output_dir=str(out),
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.rows_per_step,
            lr_scheduler_type="linear",
            warmup_steps=100,
            max_grad_norm=1.0,
            seed=config.seed,
            train_sampling_strategy="group_by_length",
            length_column_name="length",
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            logging_steps=100,
            save_strategy="no",
            report_to="none",
            bf16=False,
            activation_checkpointing=False,
            use_cpu=not gpu,
            dataloader_pin_memory=gpu,
        ),
    )
    trainer.options = config
    return trainer


def warm_start(config: WarmStartConfig, environment: str, preset: str, out: Path) -> None:
    """Train a nano policy for the environment from scratch and save it with its tokenizer, manifest and card to `out`.

    Args:
        preset: which the policy is for and `config` comes from, for the card.

    Raises:
        ConfigError: an environment without a nano world.
        RunError: `out` holds something, or cannot be written.
    """
    world = nano_of(environment)
    check_new(out)
    tokenizer = nano_tokenizer(environment)
    data = tokenize(world.demonstrator(config).demonstrations(), tokenizer)
    model = make_model(tokenizer, width=config.width, layers=config.layers, heads=config.heads, seed=config.seed)
    trainer = make_trainer(model, tokenizer, data, config, out)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    out.mkdir(parents=True, exist_ok=True)
    others = replace(config, seed=config.seed + 1, games=config.held_out_games)
    held_out = tokenize(world.demonstrator(others).demonstrations(), tokenizer)
    scores = score(model.eval(), held_out, config.rows_per_step, tokenizer.pad_token_id)
    save_model(model, tokenizer, out)
    manifest = {
        "warm_start": asdict(config),
        "fingerprint": fingerprint(config, environment),
        "model_sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "parameters": model.num_parameters(),
        "demonstrations": len(data),
        "held_out": scores,
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in _PACKAGES if find_spec(name)},
    }
    write_json(out / MANIFEST, manifest)
    write_policy_card(out, preset, environment, manifest)
