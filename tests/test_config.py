"""Presets, variants and overrides: what they change, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, is_dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skill1.config import (
    PRESETS,
    VARIANTS,
    Config,
    ConfigError,
    diff,
    field_names,
    flatten,
    load_config,
    read_config,
    save_config,
)


def changes(preset: str = "paper", variant: str = "full") -> dict:
    return {name: new for name, (_, new) in diff(load_config("paper"), load_config(preset, variant)).items()}


def test_the_defaults_are_table_6():
    paper = flatten(load_config("paper"))
    table = {
        "policy.model": "Qwen/Qwen2.5-7B-Instruct", "rollout.group_size": 16, "rollout.tasks_per_step": 16,
        "train.learning_rate": 1e-6, "train.kl": 0.01, "train.rows_per_update": 256, "train.clip": 0.2,
        "rollout.max_prompt_tokens": 16384, "rollout.max_act_tokens": 2048, "rollout.temperature": 1.0,
        "evaluation.temperature": 0.4, "credit.lambda1": 0.3, "credit.lambda2": 0.3, "library.top_k": 5,
        "library.similarity_weight": 0.6, "library.exploration": 1.0, "library.ema": 0.05, "library.capacity": 5000,
        "library.encoder": "sentence-transformers/all-MiniLM-L6-v2", "environment.max_steps": 50,
        "environment.history": 2, "credit.rerank_credit": "loss", "credit.u_hat": "max", "credit.estimator": "grpo",
    }  # fmt: skip
    assert {name: paper[name] for name in table} == table
    assert load_config("paper") == Config()


def test_the_released_preset_is_the_authors_scripts():
    assert changes("released") == {
        "library.top_k": 3, "library.similarity_weight": 1.0, "library.similarity_floor": 0.4, "library.inject": "all",
        "rollout.group_size": 8, "rollout.distill_reference": True, "credit.rerank_credit": "return",
        "credit.lambda2": 0.0, "credit.token_mean": "batch",
    }  # fmt: skip


@pytest.mark.parametrize(
    "variant, switches",
    [
        ("full", {}),
        ("no_library", {"library.enabled": False}),
        ("no_selection", {"rollout.selection": False}),
        ("no_distillation", {"rollout.distillation": False}),
        ("lambda1_0", {"credit.lambda1": 0.0}),
        ("lambda2_0", {"credit.lambda2": 0.0}),
        ("lambdas_0", {"credit.lambda1": 0.0, "credit.lambda2": 0.0}),
        ("grpo", {"library.enabled": False}),
        ("gigpo", {"library.enabled": False, "credit.estimator": "gigpo"}),
        ("skillrl", {"library.enabled": False, "bank.enabled": True}),
        (
            "skillrl_released",
            {
                "library.enabled": False,
                "bank.enabled": True,
                "bank.retrieval": "template",
                "bank.general_budget": "shared",
                "bank.first_step": False,
                "bank.evolve_from": "validation",
                "bank.weak_rollouts": 1,
                "bank.evolved_section": "general",
            },
        ),
    ],
)
def test_an_ablation_differs_from_full_by_its_switches_alone(variant, switches):
    for preset in ("paper", "nano"):
        found = diff(load_config(preset), load_config(preset, variant))
        assert {name: new for name, (_, new) in found.items()} == switches


def test_no_ablation_is_left_untested():
    assert set(VARIANTS) == {
        "full", "no_library", "no_selection", "no_distillation", "lambda1_0", "lambda2_0", "lambdas_0", "grpo", "gigpo",
        "skillrl", "skillrl_released",
        "retroagent_in_context", "retroagent_rl", "retroagent_in_context_released", "retroagent_rl_released",
    }  # fmt: skip


@pytest.mark.parametrize("preset", ["paper", "nano"])
def test_retroagent_differs_from_full_by_what_defines_it(preset):
    both = {
        "library.top_k": 1, "library.evaluation_top_k": 3, "library.similarity_weight": 0.7,
        "library.similarity_floor": 0.4, "library.inject": "all", "library.admit": "judged", "rollout.selection": False,
        "rollout.memory_share": 0.5, "rollout.same_task": "text", "credit.estimator": "return_to_go",
        "credit.gigpo_statistics": "row", "credit.intrinsic_weight": 0.1,
    }  # fmt: skip
    own = {
        "retroagent_in_context": {
            "rollout.reflection": "told", "rollout.distill_reference": True, "credit.lambda2": 0.0,
        },
        "retroagent_rl": {
            "rollout.reflection": "judged", "credit.lambda2": 1.0, "credit.distill_reward": "judged",
            "credit.distill_baseline": "batch",
        },
    }  # fmt: skip
    released = {
        "retroagent_in_context": {"credit.intrinsic_weight": 0.0},
        "retroagent_rl": {"credit.intrinsic_weight": 0.0, "credit.distill_reward": "intrinsic"},
    }
    for variant, switches in own.items():
        found = diff(load_config(preset), load_config(preset, variant))
        assert {name: new for name, (_, new) in found.items()} == both | switches
        found = diff(load_config(preset, variant), load_config(preset, f"{variant}_released"))
        assert {name: new for name, (_, new) in found.items()} == released[variant]
    assert not load_config("released", "retroagent_rl").rollout.distill_reference


@pytest.mark.parametrize(
    "variant, overrides, message",
    [
        ("full", {"library.admit": "judged"}, "library.admit=judged without reflections: set rollout.reflection to"),
        ("full", {"credit.intrinsic_weight": 0.1}, "credit.intrinsic_weight=0.1 without reflections"),
        ("no_library", {"rollout.reflection": "told"}, "rollout.reflection=told without reflections.*library.enabled"),
        (
            "retroagent_rl",
            {"rollout.reflection": "none"},
            "library.admit=judged, credit.distill_reward=judged, credit.in",
        ),
        ("retroagent_rl", {"rollout.distill_reference": True}, "rollout.distill_reference shows an episode"),
        ("full", {"credit.estimator": "return_to_go"}, "no queries and rankings: set rollout.selection to false"),
        ("gigpo", {"credit.distill_baseline": "batch"}, "credit.distill_baseline=batch have no effect"),
    ],
)
def test_switches_that_do_not_go_together_are_refused(tmp_path, variant, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config("paper", variant, overrides)
    tree = asdict(load_config("paper", variant))
    for name, value in overrides.items():
        section, leaf = name.split(".")
        tree[section][leaf] = value
    (tmp_path / "config.json").write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_line_of_a_preset_changes_something(preset):
    assert changes(preset) == PRESETS[preset]


def test_overrides_win_over_variant_over_preset():
    config = load_config("released", "lambda1_0", {"credit.lambda1": 0.7, "library.top_k": 9})
    assert (config.credit.lambda1, config.library.top_k, config.library.inject) == (0.7, 9, "all")
    assert load_config("released", "lambda1_0").credit.lambda1 == 0.0
    assert (config.preset, config.variant) == ("released", "lambda1_0")


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("train.learning_rate", "1e-6", 1e-6),
        ("train.steps", "7", 7),
        ("library.enabled", "false", False),
        ("rollout.selection", "no", False),
        ("train.rows_per_update", "none", None),
        ("train.rows_per_update", "64", 64),
        ("library.similarity_floor", "None", None),
        ("environment.data", "none", None),
        ("environment.data", "some/folder", "some/folder"),
        ("train.report_to", "none", "none"),
        ("credit.rerank_baseline", "none", "none"),
        ("credit.rerank_baseline", "batch_mean", "batch_mean"),
        ("evaluation.splits", ["valid_seen"], ("valid_seen",)),
    ],
)
def test_an_override_takes_the_type_of_its_field(name, text, value):
    found = flatten(load_config("released", overrides={name: text}))[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"preset": "relaesed"},
            "unknown preset 'relaesed'; did you mean 'released'? (known: nano, nano-baselines, nano-baselines-webshop, nano-webshop, paper, paper-lora, paper-webshop, released, small)",
        ),
        ({"variant": "no_distilation"}, "did you mean 'no_distillation'?"),
        ({"overrides": {"library.topk": 1}}, "field 'library.topk'; did you mean 'library.top_k'?"),
        ({"overrides": {"train": 1}}, "unknown configuration field 'train'"),
        ({"overrides": {"preset": "nano"}}, "unknown configuration field 'preset'"),
        ({"preset": "xyzzy"}, "unknown preset 'xyzzy' (known:"),
    ],
)
def test_unknown_names_are_refused_with_the_closest(arguments, message):
    with pytest.raises(ConfigError) as error:
        load_config(**arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "name, value",
    [
        *((name, wrong) for name in (
            "environment.max_steps", "library.capacity", "library.top_k", "rollout.tasks_per_step", "train.steps",
            "rollout.max_prompt_tokens", "rollout.max_query_tokens", "rollout.max_rerank_tokens",
            "rollout.max_act_tokens", "rollout.max_distill_tokens", "policy.generate_batch", "train.save_every",
            "train.rows_per_update", "train.tokens_per_micro_batch", "train.rows_per_micro_batch",
            "train.validation_tasks", "train.save_total_limit", "evaluation.passes", "train.learning_rate",
            "rollout.temperature", "library.ema", "train.clip",
        ) for wrong in (0, -1)),
        ("rollout.group_size", 1), ("policy.lora_rank", -1), ("environment.history", -1), ("credit.lambda1", -0.1),
        ("train.kl", -1e-9), ("train.kl", math.nan), ("evaluation.temperature", -0.1), ("library.ema", 1.1),
        ("library.similarity_weight", 1.1), ("library.similarity_floor", 2), ("train.validate_every", -1),
        ("train.steps", "many"), ("train.steps", 1.5), ("train.steps", None), ("library.enabled", "maybe"),
        ("policy.model", ""), ("policy.dtype", "float16"), ("library.inject", "both"), ("train.seed", -1),
        ("environment.engine", "java"), ("evaluation.splits", "valid_seen"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(name, value):
    with pytest.raises(ConfigError) as error:
        load_config("nano", overrides={name: value})
    assert str(error.value).startswith(f"{name} = {value!r}: ")


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(ConfigError, match="train.steps = 0.*library.top_k = 0|library.top_k = 0.*train.steps = 0"):
        load_config("nano", overrides={"train.steps": 0, "library.top_k": 0})


@settings(deadline=None)
@given(
    preset=st.sampled_from(sorted(PRESETS)),
    variant=st.sampled_from(sorted(VARIANTS)),
    rate=st.floats(1e-12, 1.0),
    floor=st.none() | st.floats(-1, 1),
    splits=st.lists(st.sampled_from(["valid_seen", "valid_unseen"])),
)
def test_a_config_survives_its_file(tmp_path_factory, preset, variant, rate, floor, splits):
    overrides = {"train.learning_rate": rate, "library.similarity_floor": floor, "evaluation.splits": splits}
    config = load_config(preset, variant, overrides)
    path = tmp_path_factory.getbasetemp() / "config.json"
    save_config(config, path)
    again = read_config(path)
    assert again == config and diff(again, config) == {}
    assert (again.preset, again.variant) == (preset, variant)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text[: len(text) // 2], "is not valid JSON"),
        (lambda text: json.dumps(json.loads(text) | {"extra": 1}), "extra = 1"),
        (lambda text: text.replace('"steps": 40', '"steps": 0'), "train.steps = 0"),
        (lambda text: text.replace('"top_k"', '"top_q"'), "library.top_q"),
        (lambda text: "[]", "[]"),
    ],
)
def test_a_damaged_file_is_a_config_error(tmp_path, change, message):
    path = tmp_path / "config.json"
    save_config(load_config("nano", overrides={"train.steps": 40}), path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ConfigError) as error:
        read_config(path)
    assert message in str(error.value)


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="is this a run directory"):
        read_config(tmp_path / "config.json")


def test_every_field_says_its_unit_and_origin():
    sections = [kind for kind in (type(getattr(Config(), f.name)) for f in fields(Config)) if is_dataclass(kind)]
    leaves = [leaf for kind in sections for leaf in kind.__pydantic_fields__.values()]
    assert len(leaves) == len(set(field_names())) == len(field_names()) > 60
    for leaf in leaves:
        assert set(leaf.json_schema_extra) == {"unit", "origin"} and all(leaf.json_schema_extra.values())
