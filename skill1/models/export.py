"""A trained policy as a folder of its own: model, tokenizer, skill library and model card (`skill1 export`).

    config.json, model*.safetensors, tokenizer*    for AutoModelForCausalLM and AutoTokenizer; of a LoRA run the adapter,
                                                   or with `merge` the whole weights
    library/                                       the skills as of the step, for `Method.load_skills`
    SKILLS.md                                      the same skills to read
    skill1/config.json, skill1/manifest.json       what it was trained with: configuration; step, data, versions
    README.md                                      the model card (skill1.models.model_card)

The weights keep the precision they were trained in. The folder appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE

from skill1.config import Config, PolicyConfig, method_of, read_config, save_config
from skill1.models.model_card import model_card, skills_page
from skill1.policy import load_model
from skill1.store.run_directory import Checkpoint, RunDirectory, RunError

LIBRARY = "library"
_TRAINING = "skill1"  # folder of what it was trained with


@dataclass(frozen=True, slots=True)
class Training:
    """What an exported model says of its training."""

    config: Config
    step: int


def export(path: Path, out: Path, *, step: int | None = None, merge: bool = False) -> Path:
    """Export a checkpoint of the run at `path` into the new folder `out`.

    Args:
        step: None = the last checkpoint.
        merge: fold a LoRA run's adapter into its base model.

    Raises:
        RunError: no such run or checkpoint, `out` exists or cannot be written, nothing to merge.
        ConfigError, LibraryError, BankError: the checkpoint's model, library or bank does not load.
    """
    run = RunDirectory.open(path)
    if step is None and (latest := run.latest_checkpoint()) is None:
        raise RunError(
            f"{path} has no complete checkpoint to export: train it first (one every train.save_every steps)"
        )
    checkpoint = latest if step is None else run.checkpoint(step)
    if merge and not run.config.policy.lora_rank:
        raise RunError(
            f"{path} was trained in full (policy.lora_rank=0): there is no adapter to merge, leave --merge out"
        )
    if out.exists():
        raise RunError(f"{out} exists: choose another folder, or remove it")
    with whole_folder(out) as folder:
        _write(run, checkpoint, folder, merge)
    return out


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out` when all is well, or never was. Raises RunError where it cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
            made = Path(place) / "made"  # in it, to get the permissions of a folder made by hand
            made.mkdir()
            yield made
            os.rename(made, out)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error


def read_training(folder: Path) -> Training | None:
    """What an exported model was trained with; None for a folder (or hub id) that `export` did not write."""
    place = folder / _TRAINING
    if not (place / "manifest.json").is_file():
        return None
    return Training(read_config(place / "config.json"), json.loads((place / "manifest.json").read_text())["step"])


def _write(run: RunDirectory, checkpoint: Checkpoint, folder: Path, merge: bool) -> None:
    model, tokenizer = load_model(run.config.policy, str(checkpoint.path))
    if merge:
        model = merged(run.config.policy, checkpoint.path)
    save_whole(model, tokenizer, folder)
    skills = (
        _write_skills(run.config, checkpoint.path / LIBRARY, folder) if method_of(run.config).keeps_skills else None
    )
    manifest = run.manifest()
    manifest["sessions"] = [{k: v for k, v in s.items() if k != "command"} for s in manifest["sessions"]]
    (folder / _TRAINING).mkdir()
    save_config(run.config, folder / _TRAINING / "config.json")
    record = {"step": checkpoint.step, "merged": merge, **manifest}
    (folder / _TRAINING / "manifest.json").write_text(json.dumps(record, indent=2) + "\n")
    (folder / "README.md").write_text(model_card(run, checkpoint.step, skills=skills, merged=merge))


def merged(config: PolicyConfig, adapter: Path) -> PreTrainedModel:
    """The policy's model with the adapter of a folder in its weights."""
    base, _ = load_model(config)
    dtype = base.dtype
    # float32 first: a sum of base and adapter in bfloat16 would lose most of a small adapter
    return PeftModel.from_pretrained(base.to(torch.float32), adapter).merge_and_unload().to(dtype)


def save_whole(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Model and tokenizer, as AutoModelForCausalLM and AutoTokenizer load them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _declare_tokenizer(folder, tokenizer)


def _write_skills(config: Config, source: Path, folder: Path) -> int:
    """Write the method's skills to load and to read; the number of skills. Raises if they do not load."""
    method = method_of(config)(config)
    method.load_skills(source)
    shutil.copytree(source, folder / LIBRARY)
    (folder / "SKILLS.md").write_text(skills_page(method.skill_table()))
    return len(method.skills)


def _declare_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make AutoTokenizer load the tokenizer that was saved.

    For some architectures, Qwen2 among them, transformers distrusts the class that a folder declares and builds the
    architecture's own, without a warning. A folder that names remote code it believes, with the remote code left alone.
    """
    if type(AutoTokenizer.from_pretrained(folder)) is type(tokenizer):
        return
    file = folder / TOKENIZER_CONFIG_FILE
    declared = json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": [None, None]}}
    file.write_text(json.dumps(declared, indent=2) + "\n")
    if type(found := AutoTokenizer.from_pretrained(folder)) is not type(tokenizer):
        raise RunError(f"AutoTokenizer reads the tokenizer as {type(found).__name__}, it is {type(tokenizer).__name__}")
