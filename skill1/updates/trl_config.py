"""Write the run's configuration in TRL's terms."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from trl import GRPOConfig

from skill1.config import Config
from skill1.sharding import sharding_arguments

# what transformers calls it: vLLM 0.31 wants a release before 5.18, which has the old name only
_NAMES = {field.name for field in fields(GRPOConfig)}
_CHECKPOINTING = "activation_checkpointing" if "activation_checkpointing" in _NAMES else "gradient_checkpointing"


def trl_config(config: Config, output_dir: Path) -> GRPOConfig:
    """The run's configuration in TRL's terms. Names every field that touches the loss: TRL's defaults move."""
    train = config.train
    checkpointing: dict[str, Any] = {_CHECKPOINTING: config.policy.gradient_checkpointing}
    return GRPOConfig(
        output_dir=str(output_dir),
        seed=train.seed,
        # One Trainer step is one epoch over a dummy dataset of one batch: nothing of the data needs a resume.
        max_steps=train.steps,
        per_device_train_batch_size=2,
        num_generations=2,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        num_iterations=1,
        shuffle_dataset=False,
        ignore_data_skip=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        # Eq. 13
        loss_type="grpo",
        epsilon=train.clip,
        epsilon_high=None,
        delta=train.dual_clip,
        importance_sampling_level="token",
        beta=train.kl,
        use_bias_correction_kl=False,
        sync_ref_model=False,
        temperature=config.rollout.temperature,
        max_completion_length=None,
        # what GRPOConfig offers beyond Eq. 13, all off
        entropy_coef=0.0,  # a mean over each micro-batch: `RowTrainer.compute_loss` takes it over the update
        use_adaptive_entropy=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        mask_truncated_completions=False,
        scale_rewards="none",
        reward_weights=None,
        multi_objective_aggregation="sum_then_normalize",
        router_aux_loss_coef=0.0,
        label_smoothing_factor=0.0,
        neftune_noise_alpha=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        use_liger_kernel=False,
        # numerics
        bf16=autocast(config),
        fp16=False,
        cast_lm_head_to_fp32=False,
        disable_dropout=True,
        **checkpointing,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        **sharding_arguments(config),
        # optimiser
        optim="adamw_torch_fused",
        learning_rate=train.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        adam_beta1=0.9,
        adam_beta2=train.adam_beta2,
        adam_epsilon=1e-8,
        max_grad_norm=train.max_grad_norm,
        # logs and checkpoints
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        log_completions=False,
        disable_tqdm=True,
        report_to=train.report_to,
        eval_strategy="no",
        save_strategy="steps",
        save_steps=train.save_every,
        # of the reference, which TRL loads from where the policy came from
        model_init_kwargs=None if config.policy.revision is None else {"revision": config.policy.revision},
        save_total_limit=None,  # RowTrainer deletes old checkpoints, after the new one is complete
    )


def autocast(config: Config) -> bool:
    """Whether accelerate sees to the compute dtype, as where weights are sharded; whole ones: `compute_weights`."""
    return config.policy.dtype == "bfloat16" and config.train.sharding != "none"


def lora_config(config: Config) -> LoraConfig | None:
    """Adapters on every linear layer but the head; None for full fine-tuning."""
    if config.policy.lora_rank == 0:
        return None
    return LoraConfig(
        r=config.policy.lora_rank,
        lora_alpha=config.policy.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        bias="none",
        task_type="CAUSAL_LM",
    )
