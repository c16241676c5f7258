"""Cold start: supervised fine-tuning on demonstrations, before reinforcement learning (SkillRL's third stage).

Single calls are learnt, not dialogues: a prompt with the skill block as the skill loop sends it, and the answer.
The result is a model folder for `policy.model`, which makes it the KL reference too, as SkillRL has it.

Differs from the paper in: its learning rate, epochs and batch size are not published; ours are those of
`ColdStartConfig`. An adapter (`policy.lora_rank`) is folded into the weights that are written.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from pydantic.dataclasses import dataclass as options_dataclass
from transformers import PreTrainedTokenizerBase, PrinterCallback
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTConfig, SFTTrainer

from skill1.config import STRICT, Config, ConfigError, knob
from skill1.distributed import join_processes
from skill1.models import demonstrations
from skill1.policy import load_model
from skill1.prompts import make_prompts
from skill1.sharding import check_sharding, sharding_arguments
from skill1.store.atomic import replace_file
from skill1.store.model_folder import merge_adapter, save_model, whole_folder
from skill1.store.run_directory import RunError
from skill1.trl_config import lora_config

MANIFEST = "cold_start.json"
_TRAINED = "trained"
_WARMUP = 0.03  # of the steps


@options_dataclass(frozen=True, config=STRICT)
class ColdStartConfig:
    """Supervised fine-tuning on demonstrations before reinforcement learning (SkillRL publishes no values)."""

    # How often every demonstration is learnt.
    epochs: float = knob(3.0, "passes over the demonstrations", "ours", gt=0)
    # Peak learning rate of AdamW, linear to zero.
    learning_rate: float = knob(1e-5, "per update", "ours", gt=0)
    # How many calls make an update.
    rows_per_step: int = knob(32, "calls, of all processes", "ours", gt=0)


@dataclass(frozen=True, slots=True)
class Line:
    """One call to learn, and where it stands."""

    prompt: str
    completion: str
    place: str  # "file:number"


def read_demonstrations(path: Path) -> list[Line]:
    """The different calls of a file or folder, in their order.

    Raises:
        ConfigError: see `demonstrations.read_demonstrations`; or a chat is a conversation.
    """
    chats = demonstrations.read_demonstrations(path)
    if long := [chat.place for chat in chats if len(chat.calls) > 1]:
        raise ConfigError(f"{long[0]}: a conversation; demonstrate with rollout.context=window")
    return [Line(call.prompt, call.completion, chat.place) for chat in chats for call in chat.calls]


def tokenize(lines: list[Line], config: Config, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """-> dataset of input_ids (T,) and labels (T,), which are -100 before the answer's first token.

    Raises:
        ConfigError: a prompt, or an answer with its end, is longer than the limits of `rollout`, or holds a word that
            the tokenizer does not know.
    """
    prompts = make_prompts(config.policy.prompts, config.environment.name, config.rollout.context)
    limits = {
        "prompt": ("rollout.max_prompt_tokens", config.rollout.max_prompt_tokens),
        "completion": ("rollout.max_act_tokens", config.rollout.max_act_tokens),
    }

    def encoded() -> Iterator[dict[str, Any]]:
        for line in lines:
            ids = {
                "prompt": prompts.encode(tokenizer, line.prompt),
                "completion": tokenizer.encode(line.completion, add_special_tokens=False) + [tokenizer.eos_token_id],
            }
            for name in ids:
                if len(ids[name]) > limits[name][1]:
                    field, limit = limits[name]
                    raise ConfigError(f"{line.place}: the {name} has {len(ids[name])} tokens, {field} is {limit}")
                if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids[name]:
                    raise ConfigError(f"{line.place}: the {name} has a word that the tokenizer does not know")
            yield {
                "input_ids": ids["prompt"] + ids["completion"],
                "labels": [-100] * len(ids["prompt"]) + ids["completion"],
                "length": len(ids["prompt"]) + len(ids["completion"]),
            }

    return Dataset.from_list(list(encoded()))


def cold_start(
    config: Config, options: ColdStartConfig, source: Path, out: Path, *, progress: bool = False
) -> dict[str, Any]:
    """Fine-tune `policy.model` and write it to the new folder `out`; the same command resumes after an interruption.

    Checkpoints lie beside it in `<out>.checkpoints`, one an epoch, until it is written.

    Returns:
        What `cold_start.json` in the folder says.

    Raises:
        RunError: `out` exists, or the checkpoints are of another fine-tuning.
        ConfigError: see `read_demonstrations`, `tokenize`, `load_model` and `check_sharding`.
    """
    if out.exists():
        raise RunError(f"{out} exists: choose another folder, or remove it")
    state = join_processes(config.train.timeout)
    check_sharding(config, state.num_processes)
    lines = read_demonstrations(source)
    model, tokenizer = load_model(config.policy)
    data = tokenize(lines, config, tokenizer)
    about = {
        "model": config.policy.model,
        "preset": config.preset,
        "lora_rank": config.policy.lora_rank,
        "seed": config.train.seed,
        "cold_start": asdict(options),
        "lines": len(data),
        "sha256": hashlib.sha256("".join(f"{x.prompt}\0{x.completion}\n" for x in lines).encode()).hexdigest(),
    }
    place = out.with_name(f"{out.name}.checkpoints")
    if state.is_main_process:
        _begin(place, about)
    state.wait_for_everyone()
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=data,
        peft_config=lora_config(config),
        args=_arguments(config, options, place, max(data["length"]), state.num_processes, progress),
    )
    trainer.remove_callback(PrinterCallback)  # the loss of every epoch is in the result
    trainer.train(resume_from_checkpoint=_last_checkpoint(place))
    about["losses"] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]  # mean of each epoch
    trained = place / _TRAINED
    trainer.save_model(str(trained))  # whole weights, or the adapter, gathered where they are sharded
    if state.is_main_process:
        policy = config.policy
        with whole_folder(out) as folder:
            whole = load_model(policy, None if policy.lora_rank else str(trained))[0]
            save_model(merge_adapter(whole, trained) if policy.lora_rank else whole, tokenizer, folder)
            (folder / MANIFEST).write_text(json.dumps(about, indent=2) + "\n")
        shutil.rmtree(place)
    state.wait_for_everyone()
    return about


def _begin(place: Path, about: dict[str, Any]) -> None:
    """Make the folder of checkpoints, or see that those there are of the same fine-tuning."""
    file = place / MANIFEST
    if file.exists() and (there := json.loads(file.read_text())) != about:
        other = ", ".join(name for name in about if there.get(name) != about[name])
        raise RunError(
            f"{place} holds checkpoints made with other values of {other}: remove it, or choose another --out"
        )
    place.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(about, indent=2).encode())


def _last_checkpoint(place: Path) -> str | None:
    """The last one that is whole: its state is written last."""
    whole = [folder for folder in place.glob("checkpoint-*") if (folder / TRAINER_STATE_NAME).exists()]
    return str(max(whole, key=lambda folder: int(folder.name.partition("-")[2]))) if whole else None


def _arguments(
    config: Config, options: ColdStartConfig, folder: Path, longest: int, processes: int, progress: bool
) -> SFTConfig:
    """Rows go through the model as many at a time as `train.tokens_per_micro_batch` holds of the longest."""
    rows = options.rows_per_step
    fit = max(1, config.train.tokens_per_micro_batch // longest)
    accumulated = max(1, math.ceil(rows / (processes * fit)))
    return SFTConfig(
        output_dir=str(folder),
        seed=config.train.seed,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=math.ceil(rows / (processes * accumulated)),
        gradient_accumulation_steps=accumulated,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=_WARMUP,
        weight_decay=config.train.weight_decay,
        adam_beta2=config.train.adam_beta2,
        max_grad_norm=config.train.max_grad_norm,
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=config.policy.dtype == "bfloat16",
        activation_checkpointing=config.policy.gradient_checkpointing,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        logging_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        report_to=config.train.report_to,
        disable_tqdm=not progress,
        **sharding_arguments(config),
    )
