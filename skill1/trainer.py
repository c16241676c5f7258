"""Rows in, updates out: the clipped policy update of Eq. 11 and 13 on top of TRL's GRPOTrainer.

One Trainer step is one RL iteration: collect the rows of this step, plan them (`batching`), run one or several
updates. TRL owns the model preparation, LoRA, the loss, the optimiser, accelerate, checkpoints and logging; we own
which rows enter an update and how they are cut. For an update with N rows, row i with tokens t = 1..T_i:

    loss = 1/N sum_i 1/T_i sum_t [ -min(ratio * a_i, clip(ratio, 1 - eps, 1 + eps) * a_i) + kl * k3_t ]

with a_i = advantage * weight (weights are >= 0, so they pass through the minimum), ratio against the log-probs before
the step's first update, and k3 = exp(ref - new) - (ref - new) - 1, the low-variance KL to the reference, which the row
weights leave alone. The reference is the starting policy: the base model with its adapter off (LoRA), else a copy
loaded from the folder or hub id the policy came from.

With `train.entropy` > 0 the loss also has - entropy * mean over the update's tokens of the policy's entropy, of all rows.

Rows that continue one another (a conversation) are one sequence, of which every token passes the model once: the loss is
the same sum over rows.

Sequences whose rows all have a_i = 0 have no gradient without the KL term: they are skipped then, but counted in N. So
they are in a run's first update, where policy and reference are the same and the KL is 0 with its gradient. An update
(or a whole step) without any gradient changes nothing, not even by weight decay or momentum.

Differs from the paper in: the mean over all rows of an update with `Row.weight` stands for Eq. 11's mean of each stage
over its own rows (`rows.row_weights`), exact for one update a step, and in expectation for several.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType, gather_object
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_utils import TrainOutput
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.models.utils import disable_gradient_checkpointing

from skill1.batching import Shape, Update, checksum, folded_advantages, padding_waste, plan_updates, sequences_of
from skill1.config import Config, ConfigError
from skill1.generation.weights import generation_weights
from skill1.records import Row
from skill1.store.checkpoints import (
    CheckpointState,
    architecture_of,
    check_resumable,
    check_shards,
    complete_checkpoints,
    mark_complete,
    remove_checkpoint,
    writing,
)
from skill1.store.model_folder import declare_tokenizer
from skill1.updates.accumulation import accumulate
from skill1.updates.devices import peak_flops
from skill1.updates.divergence import Attempt, check_saved, record
from skill1.updates.layout import Batch, layout
from skill1.updates.precision import compute_weights
from skill1.updates.scoring import CompletionScorer
from skill1.updates.trl_config import lora_config, trl_config

_DISTRIBUTED = {"fsdp2": DistributedType.FSDP, "deepspeed3": DistributedType.DEEPSPEED}  # by train.sharding
_WEIGHTED = ("kl", "entropy", "clip_ratio/region_mean")  # TRL's means over a micro-batch's tokens

Collect = Callable[[int, PreTrainedModel], tuple[list[Row], dict[str, float]]]


def build_trainer(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    output_dir: Path,
    collect: Collect,
    stateful: Sequence[CheckpointState] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> RowTrainer:
    """Build the trainer of a run.

    Args:
        model: the starting policy, in float32 for full fine-tuning (`policy.dtype` is the compute dtype: updates of
            1e-6 vanish in bfloat16 weights).
        collect: called on every rank with the step (from 0) and the policy as `RowTrainer.generating` gives it. Must
            return the same rows in the same order on every rank, and metrics to log.
        stateful: saved into every checkpoint and loaded on resume.

    Raises:
        ConfigError: accelerate does not shard here as `train.sharding` asks.
        ValueError: the policy's weights cannot be trained or copied as the configuration asks.
    """
    lora = config.policy.lora_rank > 0
    if not lora and model.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the policy's weights are {model.dtype}: load it with dtype=torch.float32 for full fine-tuning "
            "(policy.dtype only sets the compute dtype), or set policy.lora_rank > 0"
        )
    copies_reference = config.train.kl > 0 and not lora
    if copies_reference and not model.config._name_or_path:
        raise ValueError(
            "train.kl > 0 needs a reference copy of the policy, but the model does not say where it was loaded from: "
            "load it with from_pretrained, or set train.kl to 0"
        )
    trainer = RowTrainer(config, model, tokenizer, output_dir, collect, stateful, callbacks)
    if copies_reference:
        trainer.check_reference()
    return trainer


class RowTrainer(GRPOTrainer):
    """TRL's GRPOTrainer on a variable number of rows a step. Build it with `build_trainer`.

    Every step's log entry holds, besides `loss` (mean over the step's updates), `learning_rate` and what `collect`
    returned: `kl` (only if train.kl > 0), `entropy` and `clip_ratio/region_mean`, means over the trained tokens;
    `grad_norm`, mean over the updates, before clipping; `importance_ratio/mean` and `/max` over the trained tokens (only if
    vLLM wrote them: to its own log-probs); `rows/total`, `rows/trained`, `rows/updates`,
    `rows/padding_waste` (share of the tokens), `tokens/trained` (completion tokens), `time/collect` and `time/update`
    (seconds), `tokens/passed` and `time/update_tokens_per_second` (prompt and completion tokens of all ranks, without
    padding) and, on GPUs whose peak rate is known, `time/update_mfu`: 4 operations per token and parameter, 2 more per
    trained one.
    """

    model: PreTrainedModel  # transformers allows None before it is set, as for the optimizer
    optimizer: torch.optim.Optimizer

    def __init__(
        self,
        config: Config,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        output_dir: Path,
        collect: Collect,
        stateful: Sequence[CheckpointState],
        callbacks: Sequence[TrainerCallback],
    ) -> None:
        args = trl_config(config, output_dir)
        super().__init__(
            model=model,
            args=args,
            reward_funcs=_no_reward,
            train_dataset=Dataset.from_dict({"prompt": [""] * args.world_size}),
            processing_class=tokenizer,
            callbacks=list(callbacks),
            peft_config=lora_config(config),
        )
        unset_hf_deepspeed_config()  # else each model that any rank loads from here on would be spread over all
        wanted = _DISTRIBUTED.get(config.train.sharding)
        if wanted is not None and self.accelerator.distributed_type != wanted:
            raise ConfigError(
                f"train.sharding={config.train.sharding}, but accelerate trains as {self.accelerator.distributed_type}: "
                "it shards over several processes with a GPU each only; set train.sharding to none"
            )
        self.remove_callback(PrinterCallback)
        self.config = config
        self._directory = output_dir
        self._checkpointing: Any = self.args.gradient_checkpointing_kwargs  # typed as it stands on a command line
        self.collect = collect
        self.stateful = tuple(stateful)
        self._architecture = architecture_of(self.model)
        self._entry: dict[str, float] = {}
        self._norms: list[torch.Tensor | float] = []  # of the updates before the last one
        self._ratios: list[torch.Tensor] = []  # of this rank's tokens to vLLM's log-probs, one tensor a micro-batch
        self._update_started = 0.0
        self._passed = 0  # tokens of the step's updates, on all ranks
        device = self.accelerator.device
        self._peak = (
            peak_flops(torch.cuda.get_device_name(device), config.policy.dtype) if device.type == "cuda" else None
        )
        self._attempt: Attempt | None = None  # the update whose optimizer step is next
        self._scorer = CompletionScorer(self.accelerator, [*filter(None, (self.model, self.ref_model))])

    # -- one step -----------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Collect and run all updates but the last optimizer step, which the Trainer takes. Returns the local loss."""
        started = time.perf_counter()
        rows, metrics = self._collect_rows(self.state.global_step)
        self._update_started = time.perf_counter()

        sequences = sequences_of(rows)
        shape = Shape.of(rows)
        advantages = folded_advantages(rows)  # (N,)
        moves = np.array([advantages[sequence].any() for sequence in sequences], dtype=bool)  # (sequences,)
        moved = bool(self.optimizer.state)  # an update has been made: the policy is no longer the reference
        entropy = self.config.train.entropy > 0
        updates = plan_updates(
            shape,
            moves | (self.beta > 0) | entropy,
            moves | (self.beta > 0 and moved) | entropy,
            world=self.accelerator.num_processes,
            rows_per_update=self.config.train.rows_per_update,
            rows_per_micro_batch=self.config.train.rows_per_micro_batch,
            tokens_per_micro_batch=self.config.train.tokens_per_micro_batch,
            seed=self.config.train.seed,
            step=self.state.global_step,
        )
        # Old and reference log-probs of all updates come before the first one. The first needs no old ones: its
        # ratio is 1 by definition, and TRL takes the new log-probs, detached, where the key is missing. Rows that vLLM
        # wrote bring theirs, and so do all where one waited since an earlier step.
        mine = [
            [[sequences[i] for i in micro.ranks[self.accelerator.process_index]] for micro in update.micro_batches]
            for update in updates
        ]
        batches = [
            [
                self._batch(
                    rows, own, advantages, max(shape.rows[[*rank]].sum() for rank in micro.ranks), update, number
                )
                for own, micro in zip(mine[number], update.micro_batches, strict=True)
            ]
            for number, update in enumerate(updates)
        ]
        loss = torch.zeros((), device=self.accelerator.device)
        self._attempt = None
        for number, batch in enumerate(batches):
            if number:
                self._finish_update(model)
            update_loss = self._accumulate(batch)
            loss += update_loss / len(batches)
            flat = [[*chain(*own)] for own in mine[number]]
            self._attempt = Attempt(number, len(updates), rows, flat, batch, update_loss)

        micro_batches = [micro for update in updates for micro in update.micro_batches]
        passed = [i for micro in micro_batches for rank in micro.ranks for i in rank]
        self._passed = int(shape.lengths[passed].sum())
        own = {
            **self._drain_metrics([micro.tokens for micro in micro_batches]),
            **self._drain_ratios(),
            "rows/total": len(rows),
            "rows/trained": int(shape.rows[passed].sum()),
            "rows/updates": len(updates),
            "rows/padding_waste": padding_waste(shape, updates),
            "tokens/passed": self._passed,
            "tokens/trained": sum(update.tokens for update in updates),
            "time/collect": self._update_started - started,
        }
        if clash := own.keys() & metrics.keys():
            raise ValueError(f"collect returned metrics under the trainer's own names: {', '.join(sorted(clash))}")
        self._entry = metrics | own
        return loss

    @contextlib.contextmanager
    def generating(self) -> Iterator[PreTrainedModel]:
        """The policy in eval mode, without gradients, unwrapped, with whole weights in the compute dtype.

        Every rank must enter, once for as many rollouts as it plays; inside, no call to the policy waits for other
        ranks. (vLLM takes the weights as they are held, when the policy begins to write.)
        """
        engine = self.config.policy.vllm
        with (
            torch.no_grad(),
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=not engine,
                gradient_checkpointing_kwargs=self._checkpointing,
            ) as model,
            contextlib.nullcontext() if engine else generation_weights(model, getattr(torch, self.config.policy.dtype)),
        ):
            training = model.training
            model.eval()
            yield model
            model.train(training)

    def _collect_rows(self, step: int) -> tuple[list[Row], dict[str, float]]:
        with self.generating() as model:
            rows, metrics = self.collect(step, model)
        if self.accelerator.num_processes > 1:
            seen = gather_object([(len(rows), checksum(rows))])
            if len(set(seen)) > 1:
                counts = ", ".join(f"rank {rank}: {count} rows ({crc:08x})" for rank, (count, crc) in enumerate(seen))
                raise ValueError(f"collect must return the same rows on every rank, but at step {step}: {counts}")
        return rows, metrics

    def _batch(
        self,
        rows: Sequence[Row],
        mine: Sequence[range],
        advantages: np.ndarray,
        size: int,
        update: Update,
        number: int,
    ) -> Batch:
        """This rank's share of a micro-batch, as `_compute_loss` wants it.

        Args:
            mine, size: see `layout`.
            number: of the update within the step, from 0: from the second on the log-probs before the first are needed.
        """
        sampled = self.config.policy.vllm or any(row.earlier for row in rows)
        batch = layout(rows, mine, advantages, size, self._tokenizer.pad_token_id, sampled=sampled)
        batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
        if number and not sampled:
            batch["old_per_token_logps"] = self._score(batch)
        if self.beta and self.ref_model is not None:
            batch["ref_per_token_logps"] = self._score(batch, self.ref_model)
        elif self.beta:
            with self.accelerator.unwrap_model(self.model).disable_adapter():
                batch["ref_per_token_logps"] = self._score(batch)
        # TRL takes the mean over this rank's rows, and `accumulate` that over ranks; ours is the mean over the update's rows
        # (of the entropy: over its tokens).
        world = self.accelerator.num_processes
        return batch | {"loss_scale": size * world / update.size, "entropy_scale": world / update.tokens}

    def _accumulate(self, batches: Sequence[dict[str, Any]]) -> torch.Tensor:
        """Forward and backward over the micro-batches of an update."""
        step = super().training_step
        return accumulate(self, self.config, batches, lambda model, batch: step(model, batch, None))

    def _finish_update(self, model: nn.Module) -> None:
        self._norms.append(self._clip_grad_norm(model))
        self.optimizer.step()
        model.zero_grad()

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor | float:
        """Every update passes here before its optimizer step. Raises Diverged, on all ranks, unless it is finite."""
        norm: torch.Tensor | float = 0.0
        if self._attempt is not None:  # without an update DeepSpeed would tell an earlier one's
            norm = super()._clip_grad_norm(model)
        if self.accelerator.optimizer_step_was_skipped:  # DeepSpeed steps within backward, but not by such a gradient
            norm = math.inf
        if self._attempt is not None:
            found = torch.stack([self._attempt.loss.float(), self._attempt.loss.new_tensor(float(norm)).float()])
            if not self.accelerator.gather(found).isfinite().all():
                self._stop(self._attempt, *found.tolist())
        return norm

    def _stop(self, attempt: Attempt, loss: float, norm: float) -> None:
        """Save the policy, which the update has not changed yet, and raise Diverged."""
        step = self.state.global_step + 1
        folder = self._directory / f"failed-step-{step}"
        self.save_model(str(folder), _internal_call=True)
        spoilt = gather_object(attempt.spoilt(self._score))
        raise record(folder, step, attempt, spoilt, loss, norm)

    def _score(self, batch: Batch, model: nn.Module | None = None) -> torch.Tensor:
        """A micro-batch's log-probs (S, K), 0 at padding, under the policy as it is now, or another model."""
        self._scorer.batch, model = batch, model or self.model
        ids, mask = batch["completion_ids"], batch["completion_mask"]
        with (
            torch.no_grad(),
            disable_gradient_checkpointing(self.model, self._checkpointing),
            compute_weights(model, self.config),
        ):
            return self._get_per_token_logps_and_entropies(model, ids, mask, ids.size(1))[0]

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs  # `_batch` made them

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return this rank's part of the update's loss, times the number of ranks, over which it is averaged."""
        self._scorer.batch = inputs
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch) * inputs["loss_scale"]
        if self.config.policy.vllm:
            sampled = inputs["old_per_token_logps"][inputs["completion_mask"].bool()]
            self._ratios.append((self._scorer.logprobs[0].detach() - sampled).exp())
        if self.config.train.entropy:
            loss = loss - self.config.train.entropy * inputs["entropy_scale"] * self._scorer.entropies.sum()
        return loss

    # -- log-probabilities --------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: torch.Tensor,  # (S, K) completions
        attention_mask: torch.Tensor,  # (S, K), 0 at their padding
        logits_to_keep: int,  # K
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **multimodal: None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Log-probs and entropies of the completion tokens, both (S, K), 0 at padding: see `CompletionScorer`."""
        return *self._scorer.score(model, input_ids, attention_mask), None

    # -- schedule, log ------------------------------------------------------------------------------------------

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> torch.optim.lr_scheduler.LRScheduler:
        """Linear warmup, then constant; counted in training steps. Unlike transformers' it wastes no step on rate 0."""
        if self.lr_scheduler is None:
            climb = self.args.warmup_steps + 1
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer if optimizer is None else optimizer, lambda step: min(1.0, (step + 1) / climb)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _drain_metrics(self, tokens: Sequence[int]) -> dict[str, float]:
        """TRL's means over each micro-batch's tokens -> means over the step's tokens."""
        lists = self._metrics["train"]
        drained = {name: float(np.average(lists[name], weights=tokens)) for name in _WEIGHTED if lists.get(name)}
        lists.clear()
        return drained

    def _drain_ratios(self) -> dict[str, float]:
        """Take the importance ratios of the step's tokens, of all ranks."""
        own = torch.cat(self._ratios).tolist() if self._ratios else []
        self._ratios.clear()
        ratios = gather_object(own) if self.config.policy.vllm else own
        return {"importance_ratio/mean": float(np.mean(ratios)), "importance_ratio/max": max(ratios)} if ratios else {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's own metrics to its entry; other entries (the summary at the end) pass through."""
        if "loss" in logs:
            norms = [float(norm) for norm in (*self._norms, logs["grad_norm"])]
            logs |= self._entry | {"grad_norm": sum(norms) / len(norms)}
            seconds = logs["time/update"] = time.perf_counter() - self._update_started
            logs["time/update_tokens_per_second"] = self._passed / seconds
            if self._peak is not None:
                flops = (4 * self._architecture["parameters"] + 2 * self._architecture["trainable"]) * self._passed
                logs["time/update_mfu"] = flops / seconds / self._peak / self.accelerator.num_processes
            self._norms.clear()
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Refuse: TRL would generate from its own prompts. Raises RuntimeError."""
        raise RuntimeError(
            "RowTrainer has no evaluation loop: validate in a callback with the environment's games (skill1.evaluate)"
        )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No model card: a run directory describes itself by its configuration and manifest."""

    def _send_telemetry(self) -> None:
        """No telemetry."""

    # -- checkpoints --------------------------------------------------------------------------------------------

    def check_reference(self) -> None:
        """Raise ValueError if the reference, loaded from disk or hub, is not the policy given."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return  # the reference is sharded already, the policy not yet: nothing to compare cheaply
        reference = dict(self.accelerator.unwrap_model(self.ref_model).named_parameters())
        for name, weight in self.model.named_parameters():
            if name not in reference or not torch.equal(weight.cpu(), reference[name].cpu()):
                raise ValueError(
                    f"the policy differs from {self.model.config._name_or_path!r} in {name}, but the KL reference is "
                    "loaded from there: save the policy to a folder and load it from that folder"
                )

    def train(self, resume_from_checkpoint: Path | None = None) -> TrainOutput:  # type: ignore[override]
        """Run to the end, from the start or from a complete checkpoint (also one of another number of processes).

        Raises:
            CheckpointError: the checkpoint is incomplete, of another architecture, or, by DeepSpeed, of another number of
                processes.
        """
        if resume_from_checkpoint is None:
            return super().train()
        check_resumable(resume_from_checkpoint, self._architecture)
        check_shards(resume_from_checkpoint, self.accelerator.num_processes)
        for state in self.stateful:
            state.load(resume_from_checkpoint)
        return super().train(resume_from_checkpoint=str(resume_from_checkpoint))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Everything of transformers' checkpoint, the states, then the marker; only then are older ones deleted.

        Raises:
            CheckpointError: the disk is full, or cannot be written.
            NotFinite: the step's last update has made the policy useless; there is no checkpoint of it.
        """
        folder = self._directory / f"checkpoint-{self.state.global_step}"
        if self._attempt is not None:
            check_saved(folder, gather_object(self._attempt.spoilt(self._score)))
        if self.accelerator.is_main_process:
            remove_checkpoint(folder)  # of a run that died here
        self.accelerator.wait_for_everyone()
        with writing(folder, self._architecture["trainable"]):
            super()._save_checkpoint(model, trial)
            if self.accelerator.is_main_process:
                declare_tokenizer(self._tokenizer, folder)
                for state in self.stateful:
                    state.save(folder)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            with writing(folder, self._architecture["trainable"]):
                mark_complete(folder, self.state.global_step, self._architecture)
            for old in complete_checkpoints(folder.parent)[: -self.config.train.save_total_limit]:
                remove_checkpoint(old)


def _no_reward(prompts: list[str], **kwargs: Any) -> list[float | None]:
    """GRPOTrainer insists on a reward function; it is never called."""
    return [0.0] * len(prompts)
