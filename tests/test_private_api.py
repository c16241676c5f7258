"""The private names of other packages that the package calls or overrides: listed here, there, and used where listed.

pyproject.toml pins those packages exactly. A new release is adopted by going through the list and making these tests
pass, which also find private names that are used and not listed.
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import skill1

# User module -> names it relies on (importable path, or Class.attribute that instances have).
PRIVATE_API: dict[str, tuple[str, ...]] = {
    "skill1.trainer": (
        "trl.GRPOTrainer._compute_loss",  # reads the batch's keys (`skill1.updates.layout`), writes `_metrics`
        "trl.GRPOTrainer._get_per_token_logps_and_entropies",  # overridden: scores the completion tokens only
        "trl.GRPOTrainer._prepare_inputs",  # overridden: TRL would generate and score here
        "trl.GRPOTrainer._metrics",  # per micro-batch lists, drained into one entry a step
        "trl.GRPOTrainer._tokenizer",
        "trl.GRPOTrainer._send_telemetry",  # overridden: a run talks to no server but the tracker asked for
        "transformers.Trainer._clip_grad_norm",  # extended: an update that is not finite stops the run
        "transformers.Trainer._save_checkpoint",  # overridden: states and the completeness marker
        "transformers.PreTrainedConfig._name_or_path",  # where the reference copy is loaded from
    ),
    "skill1.updates.accumulation": (
        "accelerate.state.GradientState._set_sync_gradients",  # gradients are exchanged once an update
    ),
    "skill1.models.chat_trainer": (
        "trl.SFTTrainer._tokenizer",
        "trl.SFTTrainer._send_telemetry",  # overridden, as above
        "transformers.Trainer._prepare_inputs",
    ),
    "skill1.generation.attention": (
        "transformers.PreTrainedConfig._attn_implementation",  # which models attend by "sdpa"
        "transformers.PreTrainedModel._can_set_attn_implementation",
    ),
    "skill1.generation.continuous": (
        "transformers.generation.continuous_batching.cb_logits_processors.ContinuousBatchingLogitsProcessor",
        "transformers.ContinuousBatchingManager.logit_processor",  # replaced before the manager starts
    ),
    "skill1.generation.vllm": (
        "trl.generation.vllm_generation.VLLMGeneration._init_vllm",  # extended: an engine in `policy.dtype`, on every rank
        "trl.generation.vllm_generation.VLLMGeneration._iter_named_params",  # extended: adapters are folded into copies
        "trl.generation.vllm_generation.VLLMGeneration._fix_param_name_to_vllm",
        "trl.generation.vllm_generation.VLLMGeneration._dist",  # gathers sharded weights
    ),
    "skill1.generation.weights": (
        "torch.distributed.fsdp.FSDPModule._get_fsdp_state",  # whether a unit reshards after its forward pass
        "torch.distributed.fsdp._fully_shard._fsdp_state.FSDPState._fsdp_param_groups",
    ),
    "skill1.updates.precision": ("torch.nn.Module._parameters",),  # copies take the parameters' places
    "skill1.plan.passes": (
        "trl.trainer.utils.add_fused_lm_head",  # TRL installs it; the trainer passes its `shift_labels`, `fused_lm_head`
        "torch._subclasses.fake_tensor.FakeTensorMode",
        "torch.utils._python_dispatch.TorchDispatchMode",
        "torch.utils._pytree.tree_leaves",
        "torch.UntypedStorage._cdata",  # the identity of a storage
    ),
}

PACKAGE = Path(skill1.__file__).parent
LISTED = [(module, name) for module, names in PRIVATE_API.items() for name in names]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def trees() -> dict[str, ast.Module]:
    files = {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file for file in PACKAGE.rglob("*.py")}
    return {module: ast.parse(file.read_text()) for module, file in files.items()}


def defined(tree: ast.Module) -> set[str]:
    """Names of functions, classes, variables and attributes that a module makes."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def private_names(tree: ast.Module) -> set[str]:
    """Names with a leading underscore that a module imports, or reads as attributes."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()):
                names.add(name)
            case ast.ImportFrom(module=home, names=imported):
                names.update([*(home or "").split("."), *(alias.name for alias in imported)])
    return {name for name in names if is_private(name)}


def test_the_list_was_checked_against_these_releases():
    found = {
        name: version(name).split("+")[0].rsplit(".", 1)[0] for name in ("torch", "transformers", "trl", "accelerate")
    }
    checked = {"torch": "2.13", "transformers": "5.23", "trl": "1.16", "accelerate": "1.15"}
    assert found == checked, "go through PRIVATE_API with the new release, then move this pin"


@pytest.mark.parametrize("module, name", LISTED)
def test_listed_names_exist_and_are_used(module: str, name: str):
    home, _, last = name.rpartition(".")
    try:
        owner = import_module(home)
    except ModuleNotFoundError:
        package, _, kind = home.rpartition(".")
        owner = getattr(import_module(package), kind)
    there = hasattr(owner, last) or last in getattr(owner, "__annotations__", {})
    assert there or f"self.{last}" in inspect.getsource(owner), f"{name} is gone"
    assert last in Path(import_module(module).__file__).read_text(), f"{module} does not use {name}"


def test_every_private_name_of_another_package_is_listed():
    parsed = trees()
    ours = set().union(*map(defined, parsed.values()))
    for module, tree in parsed.items():
        listed = {part for name in PRIVATE_API.get(module, ()) for part in name.split(".")}
        overridden = listed & defined(tree)
        unlisted = private_names(tree) - (ours - overridden) - listed
        assert not unlisted, f"{module} uses {sorted(unlisted)} of another package: list it in PRIVATE_API"
