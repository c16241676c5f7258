"""Sharded training and generation: real FSDP2 and ZeRO-3 between two gloo processes, the shipped files, where they apply.

`make test-deepspeed` runs those of ZeRO-3.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from distributed_sharded import RESUMED, RUNS, SAVED, STEPS, TURNS, main, run
from distributed_train import begin_deepspeed, easy_environment, needs_deepspeed, two_ranks
from nano_runs import configure as nano_configure
from tiny import tiny_model, tiny_policy
from trainer_runs import configure, largest_difference, make_trainer
from transformers import AutoModelForCausalLM

import skill1.train
from skill1.config import ConfigError, load_config
from skill1.generation.weights import generation_weights
from skill1.models.export import export
from skill1.sharding import check_sharding, sharding_arguments
from skill1.store.checkpoints import CheckpointError
from skill1.trainer import RowTrainer
from skill1.updates.trl_config import trl_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy"))


Runs = Callable[[str], tuple[dict, dict]]


def sharded(*names: str) -> pytest.MarkDecorator:
    """Parametrize a test with runs of `RUNS`; without DeepSpeed, those with it are skipped."""
    of = [pytest.param(name, marks=needs_deepspeed if name.startswith("deepspeed3") else ()) for name in names]
    return pytest.mark.parametrize("name", of)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where two processes leave their runs."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def runs(policy, folder) -> Runs:
    """What the first and the second process left of a run."""

    @cache
    def done(deepspeed: bool) -> None:
        assert two_ranks(lambda: main(policy, folder, deepspeed=deepspeed)) == 0

    def of(name: str) -> tuple[dict, dict]:
        done(name.startswith("deepspeed3"))
        first, second = (torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in (0, 1))
        return first, second

    return of


def alone(policy: Path, folder: Path, name: str) -> dict:
    """The same run in this process, unsharded."""
    settings = {key: value for key, value in RUNS[name].items() if key != "train__sharding"}
    return run(policy, folder, configure(train__steps=STEPS, train__rows_per_micro_batch=4, **settings))


@sharded("fsdp2", "fsdp2-lora", "deepspeed3", "deepspeed3-lora")
def test_sharded_between_two_processes_is_the_run_on_one(policy, runs, tmp_path, name):
    first, second = runs(name)
    one = alone(policy, tmp_path, name)
    assert first["sharded"] and not one["sharded"]
    assert largest_difference(first["weights"], one["weights"]) < 1e-6
    for a, b in zip(first["entries"], one["entries"], strict=True):
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)
    # ranks asked 1 and 7 times a step, of the same weights, and neither waited for the other
    assert [len(rank["written"]) for rank in (first, second)] == [STEPS * turns for turns in TURNS]
    assert second["written"] == one["written"]
    assert first["written"] == one["written"][:: TURNS[1]]
    assert first["others"]  # a model that is loaded meanwhile is whole


@sharded(*RESUMED)
def test_a_sharded_run_resumed_from_a_checkpoint_is_the_straight_run(runs, name):
    for rank, straight in enumerate(runs(name)):
        resumed = straight["resumed"]
        assert resumed["sharded"] and resumed["written"] == straight["written"][SAVED * TURNS[rank] :]
        assert resumed["entries"][-1] == straight["entries"][-1]
        if rank == 0:  # the weights are gathered there
            assert all(torch.equal(weight, straight["weights"][key]) for key, weight in resumed["weights"].items())


@sharded(*RESUMED)
def test_a_checkpoint_of_a_sharded_run_is_a_model(runs, folder, name):
    weights = runs(name)[0]["weights"]
    model = AutoModelForCausalLM.from_pretrained(folder / name / f"checkpoint-{STEPS}")  # or base and adapter
    found = {key.replace(".default.", "."): weight.float() for key, weight in model.state_dict().items()}
    known = {key.removeprefix("base_model.model.").replace(".default.", "."): w for key, w in weights.items()}
    assert largest_difference(found, known) == 0


@sharded("deepspeed3")
def test_a_checkpoint_in_parts_continues_on_as_many_processes_only(policy, runs, folder, name, tmp_path):
    runs(name)
    trainer, _ = make_trainer(policy, tmp_path, configure(train__steps=STEPS), lambda step, model: [])
    with pytest.raises(CheckpointError, match="written by 2 processes with train.sharding=deepspeed3, .* not on 1"):
        trainer.train(resume_from_checkpoint=folder / name / f"checkpoint-{SAVED}")


@needs_deepspeed
def test_a_run_with_deepspeed_that_was_killed_resumes_and_is_exported(world, nano, tmp_path):
    config = nano_configure(
        world, nano, train__sharding="deepspeed3", train__steps=3, train__save_every=1, train__validate_every=0
    )  # fmt: skip

    def train(directory: Path, *, resume: bool = False, killed: bool = False) -> int:
        def act() -> None:
            begin_deepspeed()
            skill1.train.make_environment = easy_environment
            save = RowTrainer._save_checkpoint

            def die(trainer: RowTrainer, *given: Any) -> None:
                if trainer.state.global_step == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                save(trainer, *given)

            if killed:
                RowTrainer._save_checkpoint = die
            skill1.train.train(config, directory, resume)

        return two_ranks(act)

    assert train(tmp_path / "straight") == 0
    assert train(tmp_path / "killed", killed=True) == -signal.SIGKILL
    assert train(tmp_path / "killed", resume=True) == 0
    loaded = []
    for name in ("straight", "killed"):
        export(tmp_path / name, tmp_path / f"{name}-model")
        loaded.append(AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}-model").state_dict())
    assert largest_difference(*loaded) == 0
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "straight" / "checkpoint-3").state_dict()
    untrained = AutoModelForCausalLM.from_pretrained(nano).state_dict()
    assert largest_difference(loaded[0], written) == 0 < largest_difference(loaded[0], untrained)


@sharded("fsdp2-spoilt", "deepspeed3-spoilt")
def test_a_sharded_run_stops_before_a_gradient_that_is_not_finite(runs, folder, name):
    first, second = runs(name)
    for rank in (first, second):  # each tells its own share of the loss
        assert rank["error"].startswith("step 2, update 1 of 1: loss ") and "gradient norm inf" in rank["error"]
    assert all(torch.equal(weight, first["after"][name]) for name, weight in first["before"].items())
    assert {p.name for p in (folder / name / "failed-step-2").iterdir()} >= {"failure.json", "model.safetensors"}


@sharded("ddp-bfloat16", "fsdp2-bfloat16", "deepspeed3-bfloat16")
def test_writing_in_bfloat16_leaves_the_exchange_of_gradients_alone(policy, runs, tmp_path, name):
    two, _ = runs(name)
    one = alone(policy, tmp_path, name)
    assert two["dtypes"] == one["dtypes"] == {torch.bfloat16}
    for a, b in zip(two["entries"], one["entries"], strict=True):  # without exchange, a row on one rank counts twice
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=0.05)
    assert two["entries"][1]["grad_norm"] == 0


def test_whole_weights_are_cast_once_and_come_back():
    model = tiny_model()
    before = dict(model.named_parameters())
    values = {name: p.detach().clone() for name, p in before.items()}
    hooked = []
    model.lm_head.weight.register_post_accumulate_grad_hook(hooked.append)
    accumulators = {name: p.expand_as(p).grad_fn.next_functions[0][0] for name, p in before.items()}
    ids = torch.tensor([[3, 5, 7]])
    with generation_weights(model, torch.bfloat16), torch.no_grad():
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert model.lm_head.weight is model.model.embed_tokens.weight
        cache = model(ids, use_cache=True).past_key_values
        assert cache.layers[0].keys.dtype == torch.bfloat16
    for name, parameter in model.named_parameters():
        assert parameter is before[name] and torch.equal(parameter, values[name])
        assert (
            parameter.expand_as(parameter).grad_fn.next_functions[0][0] is accumulators[name]
        )  # DDP's hooks are there
    model(ids).logits.sum().backward()
    assert len(hooked) == 1
    with generation_weights(model, torch.float32):
        assert all(p is before[name] for name, p in model.named_parameters())  # nothing to cast, nothing copied


def test_the_shipped_files_are_what_accelerate_and_transformers_read(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")  # restored afterwards: the plugin sets it
    arguments = trl_config(load_config("paper"), tmp_path)
    plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True and not plugin.cpu_ram_efficient_loading
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type) and "TRANSFORMER" in str(plugin.auto_wrap_policy).upper()
    assert arguments.activation_checkpointing and not plugin.activation_checkpointing  # transformers' own
    deep = sharding_arguments(load_config("paper", overrides={"train.sharding": "deepspeed3"}))["deepspeed"]
    parsed = HfDeepSpeedConfig(json.loads(json.dumps(deep)))
    assert parsed.is_zero3() and not parsed.is_offload() and parsed.get_value("bf16.enabled") == "auto"
    assert parsed.is_true("zero_optimization.stage3_gather_16bit_weights_on_model_save")
    assert sharding_arguments(load_config("nano")) == {}


@pytest.mark.parametrize(
    "sharding, processes, message",
    [
        ("fsdp2", 1, "train.sharding=fsdp2 with one process has nothing to spread"),
        ("fsdp2", 2, "train.sharding=fsdp2 needs GPUs: on CPUs accelerate would silently"),
        ("deepspeed3", 2, r"train.sharding=deepspeed3 needs the package deepspeed: pip install 'skill1\[deepspeed\]'"),
    ],
)
def test_sharding_that_would_not_happen_is_refused(monkeypatch, sharding, processes, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("skill1.sharding.find_spec", lambda name: None)
    config = load_config("nano", overrides={"train.sharding": sharding})
    with pytest.raises(ConfigError, match=message):
        check_sharding(config, processes)


def test_a_launcher_that_asks_for_sharding_is_refused(monkeypatch):
    check_sharding(load_config("nano"), 1)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="ACCELERATE_USE_FSDP is set .* set train.sharding instead"):
        check_sharding(load_config("nano"), 2)


def test_a_trainer_that_accelerate_would_not_shard_is_refused(runs):
    message, _ = runs("refused")
    assert message.startswith("train.sharding=fsdp2, but accelerate trains as DistributedType.MULTI_CPU")
