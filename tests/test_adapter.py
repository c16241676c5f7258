"""An adapter as a policy: what it says of its base, that it is folded in wherever a policy is loaded, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distributed_train import run
from nano_runs import configure
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from test_coldstart import CHATS, LEARNING, chat_config, make_base, make_prompts

from skill1.checks import check_run
from skill1.config import Config, ConfigError, load_config
from skill1.errors import RunError
from skill1.models.coldstart import cold_start
from skill1.models.demonstrations import write_chats
from skill1.models.evaluate_model import model_config
from skill1.models.export import export
from skill1.policy import load_model
from skill1.store.model_folder import save_adapter, weights_sha256
from skill1.store.origin import weights_hash
from skill1.store.places import absolute_places
from skill1.store.resources import resource
from skill1.store.run_directory import RunDirectory
from skill1.updates.trl_config import lora_config


def make_adapter(config: Config, folder: Path, seed: int = 1) -> Path:
    """An adapter of rank 4 for the policy's model, far from zero."""
    base, _ = load_model(replace(config.policy, lora_rank=0))
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    raw = folder.with_name(f"{folder.name}.raw")
    model.save_pretrained(raw)
    folder.mkdir()
    save_adapter(raw, model.unload(), config.policy.model, folder)
    return folder


@pytest.fixture
def plain(world: Path, nano: Path) -> Config:
    return configure(world, nano, "no_library")


@pytest.fixture
def adapted(plain: Config, tmp_path: Path) -> Config:
    adapter = make_adapter(plain, tmp_path / "adapter")
    return replace(plain, policy=replace(plain.policy, adapter=str(adapter)))


def folded_by_hand(config: Config) -> dict[str, torch.Tensor]:
    """The base's weights plus B A, times alpha over rank."""
    weights = dict(load_model(replace(config.policy, adapter=None))[0].named_parameters())
    made = load_file(Path(str(config.policy.adapter)) / "adapter_model.safetensors")
    for name, down in made.items():
        if name.endswith("lora_A.weight"):
            place = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            up = made[name.replace("lora_A", "lora_B")]
            weights[place] = weights[place] + 8 / 4 * up.float() @ down.float()
    return weights


def test_an_adapter_is_folded_into_plain_weights(plain, adapted):
    found = dict(load_model(adapted.policy)[0].named_parameters())
    expected = folded_by_hand(adapted)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    assert all(weight.requires_grad for weight in found.values())  # to be trained in full
    base = dict(load_model(plain.policy)[0].named_parameters())
    assert sum(not torch.allclose(found[name], base[name]) for name in base) >= 7  # every linear layer but the head
    assert {weight.dtype for weight in load_file(f"{adapted.policy.adapter}/adapter_model.safetensors").values()} == {
        torch.bfloat16
    }


def test_the_base_is_known_by_its_weights_however_they_are_stored(plain, tmp_path):
    model, tokenizer = load_model(plain.policy)
    moved = tmp_path / "moved"
    for part in (model.to(torch.bfloat16), tokenizer):
        part.save_pretrained(moved, **({"max_shard_size": "20KB"} if part is model else {}))
    again = load_model(replace(plain.policy, model=str(moved), lora_rank=2))[0]
    assert weights_sha256(again) == weights_sha256(load_model(plain.policy)[0])
    with torch.no_grad():
        next(again.parameters())[0, 0] += 1
    assert weights_sha256(again) != weights_sha256(load_model(plain.policy)[0])


@pytest.mark.slow
def test_what_does_not_fit_is_refused(plain, adapted, warm, tmp_path):
    def refused(message: str, **policy: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load_model(replace(adapted.policy, **policy))

    refused(f"adapter is an adapter for another base: {plain.policy.model} .* but policy.model={warm}", model=str(warm))
    refused("policy.adapter: there is no folder '/nowhere'", adapter="/nowhere")
    refused(r"does not say which base it belongs to \(base.json is missing\)", adapter=str(tmp_path))
    refused(
        "policy.model: .* holds an adapter: set policy.adapter to it, and policy.model to", model=adapted.policy.adapter
    )
    with pytest.raises(ConfigError, match=r"policy.adapter with train.kl > 0 and policy.lora_rank=0: the reference"):
        check_run(replace(adapted, train=replace(adapted.train, kl=0.01)), 1)
    check_run(adapted, 1)


def test_a_run_knows_its_adapter_by_what_it_holds(plain, adapted, tmp_path):
    place = str(adapted.policy.adapter)
    both = weights_hash(plain.policy.model, place)
    assert both != weights_hash(plain.policy.model)
    other = make_adapter(plain, tmp_path / "other", seed=2)
    assert both not in (weights_hash(plain.policy.model, str(other)), None, weights_hash("Qwen/Qwen3-0.6B", place))
    assert absolute_places(adapted).policy.adapter == place


@pytest.mark.slow
def test_a_run_on_an_adapter_trains_another_on_the_folded_weights(adapted, tmp_path, monkeypatch):
    """With a KL reference, which is the folded policy, and evaluated, exported and trained further like any other."""
    config = replace(
        adapted,
        policy=replace(adapted.policy, lora_rank=2, dtype="float32"),
        train=replace(adapted.train, steps=1, save_every=1, validate_every=0, kl=0.01, learning_rate=0.05),
    )
    directory = tmp_path / "run"
    assert run(config, directory) == 0
    checkpoint = RunDirectory.open(directory).checkpoint(1).path
    found, _ = load_model(config.policy, str(checkpoint))
    folded, _ = load_model(config.policy)
    expected = PeftModel.from_pretrained(get_peft_model(folded, lora_config(config)).unload(), checkpoint)
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        ours, theirs, before = found(ids).logits, expected(ids).logits, load_model(config.policy)[0](ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5) and not torch.allclose(ours, before, atol=1e-3)
    with pytest.raises(RunError, match="trained an adapter on top of another .*: give --merge"):
        export(directory, tmp_path / "alone")
    whole = export(directory, tmp_path / "whole", merge=True)
    evaluated = model_config(str(whole))
    assert evaluated.policy.adapter is None
    with torch.no_grad():
        assert torch.allclose(load_model(evaluated.policy)[0](ids).logits, ours, atol=1e-4)


# -- of a cold start --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cold_start_can_be_an_adapter(tmp_path):
    base, prompts, file = make_base(tmp_path / "base"), make_prompts(tmp_path / "prompts"), tmp_path / "chats.jsonl"
    write_chats(file, CHATS)
    config = chat_config(base, prompts)
    config = replace(config, policy=replace(config.policy, lora_rank=4))
    options = replace(LEARNING, epochs=10, learning_rate=1e-2, held_out=0.25)
    whole = cold_start(config, options, file, tmp_path / "whole")
    about = cold_start(config, replace(options, save="adapter"), file, tmp_path / "small")
    assert about["losses"] == whole["losses"] and about["cold_start"]["save"] == "adapter"
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "base.json", "cold_start.json",
    ]  # fmt: skip
    settings = json.loads((tmp_path / "small/adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)
    ours = load_model(replace(config.policy, adapter=str(tmp_path / "small")))[0].state_dict()
    theirs = load_model(config.policy, str(tmp_path / "whole"))[0].state_dict()
    start = load_model(config.policy)[0].state_dict()
    moved = {name: float((theirs[name] - start[name]).abs().max()) for name in start}
    assert all(torch.allclose(ours[name], theirs[name], atol=0.02 * moved[name] + 1e-6) for name in ours)
    assert max(moved.values()) > 0.01
    card = (tmp_path / "small/README.md").read_text()
    sha256 = json.loads((tmp_path / "small/base.json").read_text())["sha256"]
    assert f"the SHA-256 `{sha256}`" in card and "`adapter`" not in card and "{{" not in card
    assert f"skill1 coldstart {file} --preset small" in card and "--set cold_start.save=adapter" in card
    assert "| 10 | distill |" in card and f"--set policy.model={base} --set policy.adapter=THIS_FOLDER" in card
    again = replace(config, policy=replace(config.policy, adapter=str(tmp_path / "small")))
    with pytest.raises(ConfigError, match="save=adapter on top of policy.adapter=.*: a policy has one adapter"):
        cold_start(again, replace(options, save="adapter"), file, tmp_path / "more")
    assert cold_start(again, options, file, tmp_path / "more")["losses"][0] < 0.7 * about["losses"][0]
    full = replace(config, policy=replace(config.policy, lora_rank=0))
    with pytest.raises(ConfigError, match="save=adapter with policy.lora_rank=0 has no adapter"):
        cold_start(full, replace(options, save="adapter"), file, tmp_path / "none")


def test_the_shipped_cold_start_is_small_and_says_how_it_was_made():
    folder = resource("data/mini-adapter")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10_000_000
    about = json.loads((folder / "cold_start.json").read_text())
    assert about["preset"] == "mini-base" and about["context"] == load_config("mini").rollout.context
    base = json.loads((folder / "base.json").read_text())
    assert base["model"] == load_config("mini").policy.model == load_config("mini-base").policy.model
    card = (folder / "README.md").read_text()
    assert "--preset mini-base --out data/mini-adapter" in card and "skill1 train --preset mini " in card
    assert base["sha256"] in card and "license: apache-2.0" in card
