"""Supervised fine-tuning on chats: TRL's SFTTrainer with the micro-batches and the trimmed LM head of `skill1.trainer`.

One Trainer step is one update on `cold_start.chats_per_step` chats of like length, drawn by (seed, epoch) and cut as
`skill1.batching.plan_updates` cuts the rows of RL, with padding to the right, where causal attention does not see it.
All answer tokens of an update count the same, on whatever rank and in whatever micro-batch they are:

    loss = -1/N sum_n log p(token_n | what stands before it in its chat),  n over the update's N answer tokens

Nothing depends on what came before but the weights and the optimiser, so a resumed run repeats the rest bit for bit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import pad

from skill1.batching import MicroBatch, Shape, Update, plan_updates
from skill1.config import Config
from skill1.models.chat_tokens import IGNORED, ChatTokens
from skill1.models.options import ColdStartConfig
from skill1.records import Stage
from skill1.sharding import sharding_arguments
from skill1.updates.accumulation import accumulate, computing
from skill1.updates.trl_config import autocast, lora_config

_WARMUP = 0.03  # of the steps
_SAVE_EVERY = 25  # steps: on two cores some minutes of the preset mini
_POOL = 16  # updates, of whose chats each gets some of like length: an update lasts as long as its longest chat
_SUMS = 5  # of a stage's held-out answers: how many, of these right; tokens, of these right; loss


class ChatTrainer(SFTTrainer):
    """Learns the answers of chats. Held-out ones are scored before training, after every epoch, and at the end."""

    model: PreTrainedModel  # transformers allows None before it is set, as for the optimizer
    optimizer: torch.optim.Optimizer

    def __init__(
        self,
        config: Config,
        options: ColdStartConfig,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        chats: Sequence[ChatTokens],
        held_out: Sequence[ChatTokens],
        progress: bool,
    ) -> None:
        """
        Args:
            folder: of the checkpoints, one every 25 steps and at the end of an epoch; the last one is kept.
            progress: show a bar, and the scores of held-out chats.
        """
        self._config = config
        self._chats = chats
        self._lengths = np.array([len(chat.ids) for chat in chats])
        self._chats_per_step = options.chats_per_step
        self._held_out = held_out
        self._positions: torch.Tensor | None = None  # (N,) in the flattened batch, set while answers are scored
        self._per_epoch = math.ceil(len(chats) / options.chats_per_step)
        steps = max(1, math.ceil(options.epochs * self._per_epoch))
        args = _arguments(config, options, folder, min(steps, options.max_steps or steps))
        super().__init__(
            model=model,
            processing_class=tokenizer,
            args=args,
            # of one batch: `training_step` knows the step's chats, and nothing of the data needs a resume
            train_dataset=Dataset.from_dict({"input_ids": [[0]] * args.world_size}),
            peft_config=lora_config(config),
            callbacks=[_Epochs(self, bool(held_out), progress)],
        )
        unset_hf_deepspeed_config()  # as in `skill1.trainer`
        self.remove_callback(PrinterCallback)
        self._planned = lru_cache(maxsize=1)(lambda epoch: self._cut(chats, epoch))  # the updates of one
        causal = self.accelerator.unwrap_model(self.model)
        causal = causal.get_base_model() if is_peft_model(causal) else causal
        causal.base_model.register_forward_hook(self._keep_answers)

    @property
    def losses(self) -> list[float]:
        """The mean loss of the updates of each epoch."""
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        return [float(np.mean(losses[i : i + self._per_epoch])) for i in range(0, len(losses), self._per_epoch)]

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The held-out scores so far: "step", "epoch" and "stages", see `score`."""
        entries: list[Any] = self.state.log_history  # typed as numbers alone
        return [entry["held_out"] for entry in entries if "held_out" in entry]

    def tokens(self, first: int, last: int) -> int:
        """Count the tokens, padding left out, that pass the model in the steps from `first` to before `last`."""
        chosen = [i for step in range(first, last) for micro in self._update(step).micro_batches for i in _all(micro)]
        return int(self._lengths[chosen].sum())

    def ends_epoch(self, done: int) -> bool:
        """Tell whether with `done` steps an epoch or the training is over."""
        return done % self._per_epoch == 0 or done == self.args.max_steps

    # -- learning -----------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of an update. Returns this rank's part of its loss, times the number of ranks."""
        update = self._update(self.state.global_step)
        tokens = torch.tensor(sum(micro.tokens for micro in update.micro_batches), device=self.accelerator.device)
        backward = super().training_step
        batches = [self._batch(chats) for chats in self._mine(self._chats, update)]
        return accumulate(self, self._config, batches, lambda model, batch: backward(model, batch, tokens))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return a micro-batch's part of the update's loss, times the number of ranks, over which it is averaged."""
        loss = -self._score_answers(model, inputs).log_probs.sum()
        return loss / num_items_in_batch * self.accelerator.num_processes

    def _update(self, step: int) -> Update:
        epoch, number = divmod(step, self._per_epoch)
        return self._planned(epoch)[number]

    def _cut(self, chats: Sequence[ChatTokens], epoch: int | None) -> tuple[Update, ...]:
        """The updates of an epoch; without one, a single pass over all chats."""
        learnt = np.array([len(chat.learnt) for chat in chats])
        every = np.ones(len(chats), dtype=bool)
        return plan_updates(
            Shape(np.array([len(chat.ids) for chat in chats]) - learnt, learnt, every.astype(int)),
            every,
            every,
            world=self.accelerator.num_processes,
            rows_per_update=None if epoch is None else self._chats_per_step,
            rows_per_micro_batch=self._config.train.rows_per_micro_batch,
            tokens_per_micro_batch=self._config.train.tokens_per_micro_batch,
            seed=self.args.seed,
            step=epoch or 0,
            pool=_POOL,
        )

    def _mine(self, chats: Sequence[ChatTokens], update: Update) -> list[list[ChatTokens]]:
        """This rank's chats of each micro-batch."""
        return [[chats[i] for i in micro.ranks[self.accelerator.process_index]] for micro in update.micro_batches]

    def _batch(self, chats: Sequence[ChatTokens]) -> dict[str, torch.Tensor]:
        """A micro-batch; of no chats, one whose only label is ignored."""
        ids = [torch.as_tensor(chat.ids, dtype=torch.long) for chat in chats] or [torch.zeros(2, dtype=torch.long)]
        batch = pad(ids, self._tokenizer.pad_token_id, "right")  # (B, W)
        learnt = [row * batch.size(1) + chat.learnt for row, chat in enumerate(chats)]
        places = torch.as_tensor(np.concatenate(learnt) if learnt else [1])
        labels = batch.flatten()[places] if learnt else torch.tensor([IGNORED])
        return {"input_ids": batch, "positions": places - 1, "shift_labels": labels.unsqueeze(0)}

    def _score_answers(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> Any:
        """What the fused LM head says of the labels, (1, N) each, of the states at the positions before them."""
        self._positions = batch["positions"]
        try:
            with self.accelerator.autocast():  # where weights are sharded
                return model(input_ids=batch["input_ids"], shift_labels=batch["shift_labels"], fused_lm_head=True)
        finally:
            self._positions = None

    def _keep_answers(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Forward hook of the backbone: (B, W, H) -> (1, N, H), else TRL projects whole sequences without Triton."""
        if self._positions is not None:
            output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[self._positions].unsqueeze(0)
        return output

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> torch.optim.lr_scheduler.LRScheduler:
        """Linear warmup, then linearly to zero. Unlike transformers' it wastes no step on rate 0."""
        if self.lr_scheduler is None:
            climb = math.ceil(_WARMUP * num_training_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer if optimizer is None else optimizer,
                lambda step: min((step + 1) / climb, (num_training_steps - step) / (num_training_steps - climb + 1)),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # -- held-out chats -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self) -> dict[Stage, dict[str, float]]:
        """Score the held-out answers, each given what stands before it. Every rank must enter.

        Returns:
            Stage -> the numbers of "answers" and "tokens"; "loss", the mean over the tokens; "token_accuracy", the share of
            tokens that are the most likely ones; "answer_accuracy", the share of answers in which all tokens are.
        """
        stages = sorted({answer.stage for chat in self._held_out for answer in chat.answers})
        sums = torch.zeros(len(stages), _SUMS, dtype=torch.float64)
        self.model.eval()
        with computing(self, self._config) as model:
            for update in self._cut(self._held_out, None):
                for chats in self._mine(self._held_out, update):
                    output = self._score_answers(model, self._prepare_inputs(self._batch(chats)))
                    answers = [answer for chat in chats for answer in chat.answers]
                    lengths = [answer.stop - answer.start for answer in answers]
                    for answer, right, logprobs in zip(
                        answers,
                        output.is_top1[0].cpu().split(lengths) if answers else (),
                        output.log_probs[0].double().cpu().split(lengths) if answers else (),
                        strict=True,
                    ):
                        found = (1.0, right.all(), len(right), right.sum(), -logprobs.sum())
                        sums[stages.index(answer.stage)] += torch.tensor(found, dtype=torch.float64)
        self.model.train()
        total = self.accelerator.reduce(sums.to(self.accelerator.device)).cpu()
        return {stage: _shares(*row) for stage, row in zip(stages, total.tolist(), strict=True)}

    def log_score(self) -> dict[str, Any]:
        """Score the held-out chats and keep it in the trainer's state. Every rank must enter."""
        step = self.state.global_step
        found = {"step": step, "epoch": step / self._per_epoch, "stages": self.score()}
        entries: list[Any] = self.state.log_history
        entries.append({"step": step, "held_out": found})
        return found

    # -- what TRL would do besides ------------------------------------------------------------------------------------

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No model card of a checkpoint: `cold_start` writes that of the result."""

    def _send_telemetry(self) -> None:
        """No telemetry."""


class _Epochs(TrainerCallback):
    """Scores and saves where an epoch ends, and shows how far training is: the time left follows from the tokens left."""

    def __init__(self, trainer: ChatTrainer, held_out: bool, shown: bool) -> None:
        self._trainer = trainer
        self._held_out = held_out
        self._shown = shown
        self._bar = tqdm(disable=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == 0:
            self._score()
        total, done = self._trainer.tokens(0, args.max_steps), self._trainer.tokens(0, state.global_step)
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="tok",
            unit_scale=True,
            disable=not self._shown,
            mininterval=2.0,
            smoothing=0.0,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._bar.update(self._trainer.tokens(state.global_step - 1, state.global_step))
        if self._trainer.ends_epoch(state.global_step):
            self._score()
            self._bar.unpause()  # no token is learnt while scoring: the time left does not count it
        if self._trainer.ends_epoch(state.global_step) or state.global_step % _SAVE_EVERY == 0:
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        if "loss" in logs:
            self._bar.set_postfix(
                step=f"{state.global_step}/{args.max_steps}", loss=f"{logs['loss']:.3f}", refresh=False
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._bar.close()

    def _score(self) -> None:
        if not self._held_out:
            return
        first = not self._trainer.scores
        found = self._trainer.log_score()
        if self._shown:
            for line in score_lines(found)[0 if first else 1 :]:
                tqdm.write(line, file=sys.stderr)


def score_lines(found: dict[str, Any]) -> list[str]:
    """Format a score of the held-out chats: a head, then a line a stage."""
    line = "{:>7} {:<8} {:>7} {:>7} {:>7} {:>7}".format
    rows = [
        line(
            f"{found['epoch']:.4g}", stage, of["answers"], f"{of['loss']:.3f}",
            f"{of['token_accuracy']:.3f}", f"{of['answer_accuracy']:.3f}",
        )
        for stage, of in found["stages"].items()
    ]  # fmt: skip
    return [line("epoch", "held out", "answers", "loss", "tokens", "right"), *rows]


def _all(micro: MicroBatch) -> list[int]:
    return [i for rank in micro.ranks for i in rank]


def _shares(answers: float, answers_right: float, tokens: float, tokens_right: float, loss: float) -> dict[str, float]:
    """A stage's sums as its entry in `ChatTrainer.score`."""
    return {
        "answers": int(answers),
        "tokens": int(tokens),
        "loss": loss / tokens,
        "token_accuracy": tokens_right / tokens,
        "answer_accuracy": answers_right / answers,
    }


def _arguments(config: Config, options: ColdStartConfig, folder: Path, steps: int) -> SFTConfig:
    """The cold start in TRL's terms; `_Epochs` says when a checkpoint is written."""
    return SFTConfig(
        output_dir=str(folder),
        seed=config.train.seed,
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        shuffle_dataset=False,
        ignore_data_skip=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        learning_rate=options.learning_rate,
        weight_decay=config.train.weight_decay,
        adam_beta2=config.train.adam_beta2,
        max_grad_norm=config.train.max_grad_norm,
        bf16=autocast(config),
        activation_checkpointing=config.policy.gradient_checkpointing,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        logging_steps=1,
        save_strategy="no",
        save_total_limit=1,
        report_to=config.train.report_to,
        disable_tqdm=True,
        **sharding_arguments(config),
    )
