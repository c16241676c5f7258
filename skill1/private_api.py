"""The names below the public surface of torch, transformers, TRL and accelerate that this package calls or overrides.

pyproject.toml pins these packages exactly. A new release is adopted by going through this list and making
tests/test_private_api.py pass, which also finds private names that are used and not listed.
"""

from __future__ import annotations

# User module -> names it relies on (importable path, or Class.attribute that instances have).
PRIVATE_API: dict[str, tuple[str, ...]] = {
    "skill1.trainer": (
        "trl.GRPOTrainer._compute_loss",  # reads the batch's keys (`RowTrainer._batch`), writes `_metrics`
        "trl.GRPOTrainer._get_per_token_logps_and_entropies",  # overridden: scores the completion tokens only
        "trl.GRPOTrainer._prepare_inputs",  # overridden: TRL would generate and score here
        "trl.GRPOTrainer._metrics",  # per micro-batch lists, drained into one entry a step
        "trl.GRPOTrainer._tokenizer",
        "trl.GRPOTrainer._send_telemetry",  # overridden: a run talks to no server but the tracker asked for
        "transformers.Trainer._clip_grad_norm",  # extended: an update that is not finite stops the run
        "transformers.Trainer._save_checkpoint",  # overridden: states and the completeness marker
        "transformers.PreTrainedConfig._name_or_path",  # where the reference copy is loaded from
    ),
    "skill1.accumulation": (
        "accelerate.state.GradientState._set_sync_gradients",  # gradients are exchanged once an update
    ),
    "skill1.models.chat_trainer": (
        "trl.SFTTrainer._tokenizer",
        "trl.SFTTrainer._send_telemetry",  # overridden, as above
        "transformers.Trainer._prepare_inputs",
    ),
    "skill1.generation.continuous": (
        "transformers.generation.continuous_batching.cb_logits_processors.ContinuousBatchingLogitsProcessor",
        "transformers.ContinuousBatchingManager.logit_processor",  # replaced before the manager starts
    ),
    "skill1.generation.weights": (
        "torch.distributed.fsdp.FSDPModule._get_fsdp_state",  # whether a unit reshards after its forward pass
        "torch.distributed.fsdp._fully_shard._fsdp_state.FSDPState._fsdp_param_groups",
    ),
    "skill1.precision": ("torch.nn.Module._parameters",),  # copies take the parameters' places
    "skill1.plan.passes": (
        "trl.trainer.utils.add_fused_lm_head",  # TRL installs it; the trainer passes its `shift_labels`, `fused_lm_head`
        "torch._subclasses.fake_tensor.FakeTensorMode",
        "torch.utils._python_dispatch.TorchDispatchMode",
        "torch.utils._pytree.tree_leaves",
        "torch.UntypedStorage._cdata",  # the identity of a storage
    ),
}
