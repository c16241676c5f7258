"""Cold start: supervised fine-tuning on demonstrations, before reinforcement learning (SkillRL's third stage).

What is learnt is what the skill loop asks and how it is answered: single calls in the context "window", whole rollouts
in a conversation. The result is a model folder for `policy.model`, or an adapter for `policy.adapter`, which makes it the
KL reference too, as SkillRL has it.

Differs from the paper in: its learning rate, epochs and batch size are not published; ours are those of
`ColdStartConfig`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers.trainer import TRAINER_STATE_NAME

from skill1.config import Config, ConfigError, flatten
from skill1.distributed import join_processes
from skill1.errors import RunError
from skill1.models.chat_tokens import tokenize
from skill1.models.chat_trainer import ChatTrainer
from skill1.models.coldstart_card import write_cold_start_card
from skill1.models.demonstrations import MANIFEST as DEMONSTRATED
from skill1.models.demonstrations import Chat, read_demonstrations
from skill1.models.options import ColdStartConfig
from skill1.policy import load_model
from skill1.sharding import check_sharding
from skill1.store.atomic import whole_folder
from skill1.store.checkpoints import check_shards
from skill1.store.json_file import read_json, write_json
from skill1.store.model_folder import merge_adapter, save_adapter, save_model
from skill1.store.writable import check_new

MANIFEST = "cold_start.json"
_TRAINED = "trained"
_WORDING = ("environment.name", "policy.prompts", "rollout.context")


def cold_start(
    config: Config, options: ColdStartConfig, demonstrations: Path, out: Path, *, progress: bool = False
) -> dict[str, Any]:
    """Fine-tune `policy.model` and write it to the new folder `out`; the same command resumes after an interruption.

    Checkpoints lie beside it in `<out>.checkpoints` until it is written.

    Returns:
        What `cold_start.json` in the folder says.

    Raises:
        RunError: `out` exists, or the checkpoints are of another fine-tuning.
        CheckpointError: see `check_shards`.
        ConfigError: there is no adapter to save, or one too many; or see `read_demonstrations`, `split_by_game`, `tokenize`, `load_model` and `check_sharding`.
    """
    check_new(out)
    if options.save == "adapter" and not config.policy.lora_rank:
        raise ConfigError("cold_start.save=adapter with policy.lora_rank=0 has no adapter: set a rank, or save=merged")
    if options.save == "adapter" and config.policy.adapter:
        raise ConfigError(
            f"cold_start.save=adapter on top of policy.adapter={config.policy.adapter}: a policy has one adapter; set "
            "cold_start.save=merged"
        )
    state = join_processes(config.train.timeout)
    check_sharding(config, state.num_processes)
    chats = read_demonstrations(demonstrations)
    _check_origin(demonstrations, config)
    learnt, held_out = split_by_game(chats, options.held_out, config.train.seed)
    model, tokenizer = load_model(config.policy)
    tokens, too_long = tokenize(learnt, config, tokenizer)
    scored, scored_too_long = tokenize(held_out, config, tokenizer) if held_out else ([], [])
    left_out = too_long + scored_too_long
    about: dict[str, Any] = {
        "model": config.policy.model,
        "adapter": config.policy.adapter,
        "preset": config.preset,
        "variant": config.variant,
        "context": config.rollout.context,
        "lora_rank": config.policy.lora_rank,
        "seed": config.train.seed,
        "cold_start": asdict(options),
        "chats": len(tokens),
        "answers": sum(len(chat.answers) for chat in tokens),
        "tokens": sum(len(chat.ids) for chat in tokens),
        "answer_tokens": sum(len(chat.learnt) for chat in tokens),
        "held_out": {"games": len({chat.game for chat in scored}), "chats": len(scored)},
        "left_out": len(left_out),
        "sha256": _fingerprint(chats),
    }
    place = out.with_name(f"{out.name}.checkpoints")
    if state.is_main_process:
        _begin(place, about)
        if left_out and progress:
            limit = config.rollout.max_prompt_tokens
            tqdm.write(
                f"{len(left_out)} of {len(chats)} conversations are longer than rollout.max_prompt_tokens={limit} and left "
                f"out, the first one {left_out[0].place}",
                file=sys.stderr,
            )
    state.wait_for_everyone()
    shown = progress and state.is_main_process
    trainer = ChatTrainer(config, options, model, tokenizer, place, tokens, scored, shown)
    latest = _last_checkpoint(place)
    if latest is not None:
        check_shards(Path(latest), state.num_processes)
    trainer.train(resume_from_checkpoint=latest)
    about |= {"losses": trainer.losses, "held_out": about["held_out"] | {"scores": trainer.scores}}
    trained = place / _TRAINED
    trainer.save_model(str(trained))  # whole weights, or the adapter, gathered where they are sharded
    if state.is_main_process:
        policy = config.policy
        with whole_folder(out) as folder:
            whole = load_model(policy, None if policy.lora_rank else trained)[0]
            base_sha256 = None
            if options.save == "adapter":
                base_sha256 = save_adapter(trained, whole, policy.model, folder)
            else:
                save_model(merge_adapter(whole, trained) if policy.lora_rank else whole, tokenizer, folder)
            write_json(folder / MANIFEST, about)
            write_cold_start_card(folder, config, about, demonstrations, out, base_sha256)
        shutil.rmtree(place)
    state.wait_for_everyone()
    return about


def split_by_game(chats: Sequence[Chat], share: float, seed: int) -> tuple[list[Chat], list[Chat]]:
    """Set apart all chats of a share of the games, drawn by `seed`: (the others, these).

    Raises:
        ConfigError: a chat does not say which game it is of, or no game would be left on one side.
    """
    if not share:
        return list(chats), []
    if nameless := [chat for chat in chats if not chat.game]:
        raise ConfigError(
            f'cold_start.held_out={share:g} holds out games, and {nameless[0].place} names none: add "game", or set it to 0'
        )
    games = sorted({chat.game for chat in chats})
    count = round(share * len(games))
    if not 0 < count < len(games):
        raise ConfigError(
            f"cold_start.held_out={share:g} of {len(games)} games is {count} games: set it to 0, or between"
        )
    chosen = {games[i] for i in np.random.default_rng(seed).permutation(len(games))[:count]}
    return [chat for chat in chats if chat.game not in chosen], [chat for chat in chats if chat.game in chosen]


def _check_origin(demonstrations: Path, config: Config) -> None:
    """Refuse a folder of demonstrations that are worded otherwise than the policy will be asked."""
    file = demonstrations / DEMONSTRATED
    made = read_json(file).get("config", {}) if file.exists() else {}
    for name, value in flatten(config).items():
        if name in _WORDING and made.get(name, value) != value:
            raise ConfigError(
                f"{demonstrations} was demonstrated with {name}={made[name]}, not {value}: set it, or demonstrate again"
            )


def _fingerprint(chats: Sequence[Chat]) -> str:
    """SHA-256 of the demonstrations."""
    lines = [json.dumps([chat.game, [asdict(call) for call in chat.calls]], sort_keys=True) for chat in chats]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _begin(place: Path, about: dict[str, Any]) -> None:
    """Make the folder of checkpoints, or see that those there are of the same fine-tuning."""
    file = place / MANIFEST
    if file.exists() and (there := read_json(file)) != about:
        other = ", ".join(name for name in about if there.get(name) != about[name])
        raise RunError(
            f"{place} holds checkpoints made with other values of {other}: remove it, or choose another --out"
        )
    place.mkdir(parents=True, exist_ok=True)
    write_json(file, about)


def _last_checkpoint(place: Path) -> str | None:
    """The last one that is whole: its state is written last."""
    whole = [folder for folder in place.glob("checkpoint-*") if (folder / TRAINER_STATE_NAME).exists()]
    return str(max(whole, key=lambda folder: int(folder.name.partition("-")[2]))) if whole else None
