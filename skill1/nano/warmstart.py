"""Supervised warm start of the nano policies: demonstrations of the four stages, TRL's SFTTrainer. Ours.

The paper starts from an instruction-tuned model, which can already follow a skill it is shown. A policy from scratch
cannot, so it is taught formats, play and the use of skills here, in worlds whose facts do not hold in the worlds it is
trained and evaluated on (`demonstrations.py`, `shop_demonstrations.py`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2ForCausalLM
from trl import SFTConfig, SFTTrainer

from skill1.config import Config, WarmStartConfig
from skill1.envs.alfworld.game import Game
from skill1.envs.alfworld.generate import make_games
from skill1.envs.alfworld.homes import facts
from skill1.nano.alfworld import Demonstrator
from skill1.nano.demonstrator import Demonstration
from skill1.nano.model import END, make_model, make_tokenizer, vocabulary
from skill1.nano.policy_card import policy_card
from skill1.nano.prompts.webshop import shop_vocabulary
from skill1.nano.webshop import shop_demonstrations

MANIFEST = "warm_start.json"
_FINGERPRINT_GAMES = 24


@dataclass(frozen=True, slots=True)
class _Course:
    """What the policy of one environment is taught."""

    tokenizer: Callable[[], PreTrainedTokenizerFast]
    demonstrations: Callable[[WarmStartConfig], Iterator[Demonstration]]


def fingerprint(config: WarmStartConfig, environment: str = "alfworld") -> str:
    """SHA-256 of the vocabulary and of the first games' demonstrations: changes when the code that made them does."""
    course = _COURSES[environment]
    digest = hashlib.sha256(json.dumps(course.tokenizer().get_vocab(), sort_keys=True).encode())
    for row in course.demonstrations(replace(config, games=min(config.games, _FINGERPRINT_GAMES))):
        digest.update(f"{row.stage}\t{row.prompt}\t{row.answer}\n".encode())
    return digest.hexdigest()


def common_places() -> Mapping[str, frozenset[str]]:
    """Object type -> receptacle types that can hold it, lower case, from the installed package."""
    holds = facts().holds
    objects = {kind for kinds in holds.values() for kind in kinds}
    return {o.lower(): frozenset(r.lower() for r, kinds in holds.items() if o in kinds) for o in sorted(objects)}


def nano_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of everything ALFWorld's games can say."""
    known = facts()
    return make_tokenizer(vocabulary((r.lower() for r in known.holds), (thing.lower() for thing in known.things)))


def shop_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of everything generated shops can say."""
    return make_tokenizer(shop_vocabulary())


def demonstrations(config: WarmStartConfig) -> Iterator[Demonstration]:
    """Demonstrations of `config.games` games from ever new worlds."""
    demonstrator = Demonstrator(config, common_places(), config.seed)
    sizes = range(config.receptacles_low, config.receptacles_high + 1)
    done = world = 0
    while done < config.games:
        count = min(config.games_per_world, config.games - done)
        games = make_games(
            # world seeds of the warm start never meet those of evaluation worlds
            config.seed * 1_000_003 + world,
            train=count,
            valid_seen=1,
            valid_unseen=1,
            homes=8,
            unseen_homes=1,
            receptacles=sizes[world % len(sizes)],
        )
        for generated in games:
            if generated.split == "train":
                game = Game.parse(generated.game_dict)
                yield from demonstrator.demonstrate(game, generated.habitual.replace(" ", "_"))
        done += count
        world += 1


_COURSES = {
    "alfworld": _Course(nano_tokenizer, demonstrations),
    "webshop": _Course(shop_tokenizer, shop_demonstrations),
}


def tokenize(rows: Iterator[Demonstration], tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """-> dataset of input_ids and the number of prompt tokens. Raises ValueError on a word outside the vocabulary."""
    unknown = tokenizer.unk_token_id

    def encoded() -> Iterator[dict]:
        for row in rows:
            prompt = tokenizer.encode(row.prompt, add_special_tokens=False)
            answer = tokenizer.encode(f"{row.answer} {END}", add_special_tokens=False)
            if unknown in prompt or unknown in answer:
                raise ValueError(f"a word outside the nano vocabulary in: {row.prompt} {row.answer}")
            yield {
                "input_ids": prompt + answer,
                "length": len(prompt) + len(answer),
                "prompt": len(prompt),
                "kind": row.kind,
            }

    return Dataset.from_list(list(encoded()))


class MuonAdamW(torch.optim.Optimizer):
    """Muon on the blocks' weight matrices, AdamW on embeddings and norms, behind one learning rate.

    At this size Muon forms the copying circuits that following a skill needs in half the steps of AdamW alone
    (results/LOG.md).
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
    def step(self, closure: None = None) -> None:
        for part in self._parts:
            part.step()


@torch.no_grad()
def score(model: PreTrainedModel, data: Dataset, rows_per_step: int, pad: int) -> dict[str, dict[str, float]]:
    """Share of demonstrations answered right per kind: {kind: {"right": share, "n": rows}}.

    An answer is right when every token is the most likely one given the demonstration's tokens before it; a ranking
    when its first candidate is.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for chunk in data.batch(rows_per_step):
        batch = collate([dict(zip(chunk, row, strict=True)) for row in zip(*chunk.values(), strict=True)], pad)
        ids, prompt, length = batch["input_ids"], batch["prompt"], batch["length"]  # (B, T), (B,), (B,)
        hits = model(input_ids=ids, use_cache=False).logits[:, :-1].argmax(-1) == ids[:, 1:]  # (B, T-1)
        position = torch.arange(1, ids.shape[1])
        for row, kind in enumerate(chunk["kind"]):
            last = prompt[row] + 1 if kind.startswith("rerank") else length[row]
            right[kind].append(bool(hits[row, (position >= prompt[row]) & (position < last)].all()))
    return {kind: {"right": round(sum(hits) / len(hits), 3), "n": len(hits)} for kind, hits in sorted(right.items())}


class _WarmStartTrainer(SFTTrainer):
    """Next-token loss over answers plus `prompt_loss` times that over a sample of the prompts' tokens.

    Prompt tokens carry the household's regularities (what follows what), which helps a model from scratch.
    """

    def __init__(self, *args, config: WarmStartConfig, **kwargs) -> None:
        self._config = config
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        ids, prompt, length = inputs["input_ids"], inputs["prompt"], inputs["length"]  # (B, T), (B,), (B,)
        causal = self.accelerator.unwrap_model(model)
        # right padding is out of sight of causal attention: no mask, which is twice as fast here
        states = causal.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]  # (B, T-1, width)
        position = torch.arange(1, ids.shape[1], device=ids.device)
        answer = (position >= prompt[:, None]) & (position < length[:, None])  # (B, T-1)
        sampled = torch.rand(answer.shape, device=ids.device) < self._config.prompt_sample
        shown = (position < prompt[:, None]) & sampled

        def loss(chosen: torch.Tensor) -> torch.Tensor:
            logits, labels = causal.lm_head(states[chosen]), ids[:, 1:][chosen]
            total = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            return total / chosen.sum().clamp(min=1)  # short prompts may have no token in the sample

        return loss(answer) + self._config.prompt_loss * loss(shown)


def collate(rows: list[dict], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded batch."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), width), pad)
    for i, row in enumerate(rows):
        ids[i, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
    return {"input_ids": ids} | {key: torch.tensor([row[key] for row in rows]) for key in ("prompt", "length")}


def warm_start(whole: Config, out: Path) -> None:
    """Train a nano policy for the environment from scratch and save it with its tokenizer, manifest and card to `out`."""
    config, environment = whole.warm_start, whole.environment.name
    course = _COURSES[environment]
    tokenizer = course.tokenizer()
    data = tokenize(course.demonstrations(config), tokenizer)
    model: Qwen2ForCausalLM = make_model(
        tokenizer, width=config.width, layers=config.layers, heads=config.heads, seed=config.seed
    )
    trainer = _WarmStartTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=data,
        data_collator=lambda rows: collate(rows, tokenizer.pad_token_id),
        config=config,
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
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    out.mkdir(parents=True, exist_ok=True)
    held_out = tokenize(
        course.demonstrations(replace(config, seed=config.seed + 1, games=config.held_out_games)), tokenizer
    )
    scores = score(model.eval(), held_out, config.rows_per_step, tokenizer.pad_token_id)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    manifest = {
        "warm_start": asdict(config),
        "fingerprint": fingerprint(config, environment),
        "model_sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "parameters": model.num_parameters(),
        "demonstrations": len(data),
        "held_out": scores,
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in ("torch", "transformers", "trl", "alfworld")},
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    (out / "README.md").write_text(policy_card(whole, manifest, out))
