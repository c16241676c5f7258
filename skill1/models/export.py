"""A trained policy as a folder of its own: model, tokenizer, skills and model card (`skill1 export`).

    config.json, model*.safetensors, tokenizer*    for AutoModelForCausalLM and AutoTokenizer; of a LoRA run the
                                                   adapter, or with `merge` the whole weights
    library/, SKILLS.md                            the skills as of the step, for `Method.load_skills` and to read
    skill1/config.json, skill1/manifest.json       what it was trained with: configuration; step, data, versions
    README.md                                      the model card (skill1.models.model_card)

The weights keep the precision they were trained in. The folder appears whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skill1.config import Config, method_of, read_config, save_config
from skill1.errors import RunError
from skill1.models.model_card import skills_page, write_model_card
from skill1.policy import load_model
from skill1.store.atomic import whole_folder
from skill1.store.json_file import read_json, write_json
from skill1.store.model_folder import merge_adapter, save_model
from skill1.store.run_directory import RunDirectory

LIBRARY = "library"  # folder of the skills, in a checkpoint and in what is exported
_TRAINING = "skill1"  # folder of what it was trained with


@dataclass(frozen=True, slots=True)
class Training:
    """What an exported model says of its training."""

    config: Config
    step: int
    model_hash: str | None  # of the weights that it started from


def export(
    path: Path,
    out: Path,
    *,
    step: int | None = None,
    merge: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Export a checkpoint of the run at `path` into the new folder `out`.

    Args:
        step: None = the last checkpoint.
        merge: fold a LoRA run's adapter into its base model.
        overrides: see `RunDirectory.placed`.

    Raises:
        RunError: no such run or checkpoint, `out` exists or cannot be written, nothing to merge, or an
            adapter that is of no use alone.
        ConfigError, LibraryError, BankError: the checkpoint's model or skills do not load.
    """
    run = RunDirectory.open(path)
    config = run.placed(overrides or {})
    checkpoint = run.latest_checkpoint() if step is None else run.checkpoint(step)
    if checkpoint is None:
        raise RunError(
            f"{path} has no complete checkpoint to export: train it first (one every train.save_every steps)"
        )
    if merge and not config.policy.lora_rank:
        raise RunError(
            f"{path} was trained in full (policy.lora_rank=0): there is no adapter to merge, leave --merge out"
        )
    if config.policy.adapter and config.policy.lora_rank and not merge:
        raise RunError(
            f"{path} trained an adapter on top of another (policy.adapter={config.policy.adapter}): give --merge to write "
            "whole weights"
        )
    with whole_folder(out) as folder:
        model, tokenizer = load_model(config.policy, run.weights(config, checkpoint.step))
        if merge:
            model = merge_adapter(load_model(config.policy)[0], checkpoint.path)
        save_model(model, tokenizer, folder)
        skills = _write_skills(config, checkpoint.path / LIBRARY, folder)
        manifest = run.manifest()
        manifest["sessions"] = [{k: v for k, v in s.items() if k != "command"} for s in manifest["sessions"]]
        (folder / _TRAINING).mkdir()
        save_config(config, folder / _TRAINING / "config.json")
        record = {"step": checkpoint.step, "merged": merge, **manifest}
        write_json(folder / _TRAINING / "manifest.json", record)
        write_model_card(folder, run, checkpoint.step, skills=skills, merged=merge)
    return out


def read_training(folder: Path) -> Training | None:
    """Read what an exported model was trained with; None for a folder (or hub id) that `export` did not write."""
    place = folder / _TRAINING
    if not (place / "manifest.json").is_file():
        return None
    manifest = read_json(place / "manifest.json")
    return Training(read_config(place / "config.json"), manifest["step"], manifest.get("model_hash"))


def _write_skills(config: Config, source: Path, folder: Path) -> int | None:
    """Write the method's skills to load and to read; the number of skills, None where it keeps none."""
    if not method_of(config).keeps_skills:
        return None
    method = method_of(config)(config)
    method.load_skills(source)
    shutil.copytree(source, folder / LIBRARY)
    (folder / "SKILLS.md").write_text(skills_page(method.skill_table()))
    return len(method.skills)
