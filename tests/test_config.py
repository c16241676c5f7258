"""Presets, variants and overrides: what they change, what a configuration holds, and what is refused."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import skill1
from skill1 import config as core
from skill1.config import (
    FORMAT,
    Config,
    ConfigError,
    LibraryConfig,
    diff,
    flatten,
    load_config,
    load_section,
    method_of,
    method_of_variant,
    override,
    read_config,
    save_config,
    to_tree,
)
from skill1.models.options import ColdStartConfig, ExpertConfig
from skill1.nano.options import WarmStartConfig
from skill1.presets import Variant, preset_of, presets, variants
from skill1.registry import find, names
from skill1.running.slurm import SlurmConfig

PRESETS, VARIANTS = presets(), variants()
METHODS, ENVIRONMENTS = names("methods"), names("environments")
# sections of commands that are no run
COMMANDS = {"warm_start": WarmStartConfig, "cold_start": ColdStartConfig, "expert": ExpertConfig}
ALWAYS = {name: hint for name, hint in get_type_hints(Config).items() if is_dataclass(hint)}


def changed(a: Config, b: Config) -> dict[str, Any]:
    return {name: new for name, (_, new) in diff(a, b).items()}


def leaves(kind: type) -> set[str]:
    return {leaf.name for leaf in fields(kind)}


def for_run(preset: str, method: str) -> dict[str, Any]:
    """What a preset says to a run of a method in the preset's own environment, by field of the run."""
    there = PRESETS[preset].get("environment.name", "alfworld")
    kinds = ALWAYS | {"environment": find("environments", there).options, "method": find("methods", method).Options}
    kinds |= {"library": LibraryConfig} if find("methods", method).uses_library else {}
    meant = {}
    for name, value in PRESETS[preset].items():
        section, *rest = name.split(".")
        alone = len(rest) == 2 and rest[0] not in (method, there)
        if section in kinds and rest[-1] in leaves(kinds[section]) and not alone:
            meant[f"{section}.{rest[-1]}"] = value
    return meant


# --- defaults and presets ----------------------------------------------------------------------------------------


def test_the_defaults_are_table_6():
    paper = flatten(load_config("paper"))
    table = {
        "policy.model": "Qwen/Qwen2.5-7B-Instruct", "rollout.group_size": 16, "rollout.tasks_per_step": 16,
        "train.learning_rate": 1e-6, "train.kl": 0.01, "train.rows_per_update": 256, "train.clip": 0.2,
        "rollout.max_prompt_tokens": 16384, "rollout.max_act_tokens": 2048, "rollout.temperature": 1.0,
        "method.max_query_tokens": 2048, "method.max_rerank_tokens": 2048, "method.max_distill_tokens": 2048,
        "evaluation.temperature": 0.4, "method.lambda_rerank": 0.3, "method.lambda_distill": 0.3, "library.top_k": 5,
        "library.similarity_weight": 0.6, "library.exploration": 1.0, "library.ema": 0.05, "library.capacity": 5000,
        "library.encoder": "sentence-transformers/all-MiniLM-L6-v2", "environment.max_steps": 50,
        "environment.history": 2, "method.rerank_credit": "loss", "method.u_hat": "max", "method.name": "skill1",
        "method.selection": True, "method.distillation": True, "method.distill_reference": False,
    }  # fmt: skip
    assert {name: paper[name] for name in table} == table
    for section, kind in ALWAYS.items():
        if section not in ("environment", "method"):
            assert getattr(load_config("paper"), section) == kind()
    assert load_config("paper").library == LibraryConfig()


def test_the_released_preset_is_the_authors_scripts():
    assert changed(load_config("paper"), load_config("released")) == {
        "library.top_k": 3, "library.similarity_weight": 1.0, "library.similarity_floor": 0.4,
        "library.evaluation_inject": "all", "rollout.group_size": 8, "method.distill_reference": True,
        "method.same_task": "text", "method.rerank_credit": "return", "method.lambda_rerank": 0.03,
        "method.lambda_distill": 0.0, "credit.token_mean": "batch", "train.dual_clip": 3.0, "train.entropy": 0.001,
    }  # fmt: skip
    shop = changed(load_config("paper-webshop"), load_config("released-webshop"))
    assert shop == changed(load_config("paper"), load_config("released")) | {
        "method.lambda_rerank": 0.1, "rollout.tasks_per_step": 16,
    }  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_every_key_of_a_preset_is_a_field(preset):
    """A run passes over what it lacks, so a misspelt key would change nothing and say nothing."""
    places: dict[str, list[type]] = {section: [kind] for section, kind in (ALWAYS | COMMANDS).items()}
    places |= {"library": [LibraryConfig]}
    places["environment"] = [find("environments", name).options for name in ENVIRONMENTS]
    places["method"] = [find("methods", name).Options for name in METHODS]
    for name in PRESETS[preset]:
        section, *rest = name.split(".")
        assert section in places, name
        if len(rest) == 2:
            group = {"environment": (ENVIRONMENTS, "options"), "method": (METHODS, "Options")}
            registered, options = group[section]
            assert rest[0] in registered and rest[1] in leaves(getattr(find(f"{section}s", rest[0]), options)), name
        else:
            assert len(rest) == 1 and any(rest[0] in leaves(kind) for kind in places[section]), name


@pytest.mark.parametrize("preset", PRESETS)
def test_every_line_of_a_preset_changes_something(preset):
    said: set[str] = set()
    for method in METHODS:
        meant = for_run(preset, method)
        plain = load_config(
            "paper", overrides={"method.name": method, "environment.name": meant.get("environment.name", "alfworld")}
        )
        expected = {name: value for name, value in meant.items() if name != "environment.name"}
        assert changed(plain, load_config(preset, overrides={"method.name": method})) == expected
        said |= set(meant) | {f"method.{method}.{name.partition('.')[2]}" for name in meant if name[:7] == "method."}
    for section, kind in COMMANDS.items():
        own = {name.partition(".")[2]: value for name, value in PRESETS[preset].items() if name.startswith(section)}
        options, plain_options = load_section(kind, section, preset), asdict(kind())
        assert {n: v for n, v in asdict(options).items() if v != plain_options[n]} == own
        said |= {f"{section}.{name}" for name in own}
    assert set(PRESETS[preset]) <= said


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_every_variant(preset, variant):
    if variant == "skillrl_released" and PRESETS[preset].get("train.validate_every") == 0:
        with pytest.raises(ConfigError, match="needs validations: set train.validate_every"):
            load_config(preset, variant)
        return
    config = load_config(preset, variant)
    assert (config.preset, config.variant) == (preset, variant)
    assert method_of(config) is method_of_variant(variant)
    assert type(config.method) is method_of(config).Options
    assert config.environment.name == PRESETS[preset].get("environment.name", "alfworld")
    assert type(config.environment) is find("environments", config.environment.name).options
    changes = VARIANTS[variant].changes
    assert changes.items() <= flatten(config).items()
    assert (for_run(preset, config.method.name) | changes).items() <= flatten(config).items()


def test_the_preset_of_an_environment():
    assert preset_of("nano", "alfworld") == "nano" and preset_of("nano", "webshop") == "nano-webshop"
    assert preset_of("nano-webshop", "webshop") == "nano-webshop"
    with pytest.raises(ConfigError, match="unknown preset 'small-webshop'"):
        preset_of("small", "webshop")


# --- variants ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant, switches",
    [
        ("full", {}),
        ("no_library", {"method.name": "grpo"}),
        ("no_selection", {"method.selection": False}),
        ("no_distillation", {"method.distillation": False}),
        ("lambda1_0", {"method.lambda_rerank": 0.0}),
        ("lambda2_0", {"method.lambda_distill": 0.0}),
        ("lambdas_0", {"method.lambda_rerank": 0.0, "method.lambda_distill": 0.0}),
        ("grpo", {"method.name": "grpo"}),
        ("gigpo", {"method.name": "gigpo"}),
        ("skillrl", {"method.name": "skillrl"}),
        (
            "skillrl_released",
            {
                "method.name": "skillrl",
                "method.retrieval": "template",
                "method.general_budget": "shared",
                "method.first_step": False,
                "method.evolve_from": "validation",
                "method.weak_rollouts": 1,
                "method.evolved_section": "general",
            },
        ),
    ],
)
def test_an_ablation_differs_from_full_by_its_switches_alone(variant, switches):
    assert VARIANTS[variant].changes == switches
    for preset in ("paper", "nano"):
        full, ablated = load_config(preset), load_config(preset, variant)
        method = switches.get("method.name", "skill1")
        of_method = load_config(preset, overrides={"method.name": method})
        assert changed(of_method, ablated) == {n: v for n, v in switches.items() if n != "method.name"}
        common = [section for section in ALWAYS if section != "method"]
        assert [getattr(ablated, s) for s in common] == [getattr(full, s) for s in common]


def test_no_ablation_is_left_untested():
    assert list(VARIANTS) == [
        "full", "no_library", "no_selection", "no_distillation", "lambda1_0", "lambda2_0", "lambdas_0", "grpo", "gigpo",
        "skillrl", "skillrl_released",
        "retroagent_in_context", "retroagent_rl", "retroagent_in_context_released", "retroagent_rl_released",
        "plus", "plus_utility", "plus_rerank", "plus_lesson",
    ]  # fmt: skip
    parts = ({**VARIANTS[f"plus_{part}"].changes} for part in ("utility", "rerank", "lesson"))
    assert VARIANTS["plus"].changes == {name: value for part in parts for name, value in part.items()}
    labels = [variant.label for variant in VARIANTS.values()]
    assert len(set(labels)) == len(labels) and all(labels)


@pytest.mark.parametrize("preset", ["paper", "nano"])
def test_retroagent_differs_from_full_by_what_defines_it(preset):
    library = {
        "library.top_k": 1, "library.evaluation_top_k": 3, "library.similarity_weight": 0.7,
        "library.similarity_floor": 0.4, "library.inject": "all",
    }  # fmt: skip
    both = {
        "name": "retroagent", "memory_share": 0.5, "same_task": "text", "statistics": "row", "intrinsic_weight": 0.1,
        "gamma": 0.95, "max_reflect_tokens": 2048 if preset == "paper" else 32,
    }  # fmt: skip
    own = {
        "retroagent_in_context": {
            "reflection": "told", "reference": True, "lambda_reflect": 0.0, "reflect_reward": "judged",
            "reflect_baseline": "none",
        },
        "retroagent_rl": {
            "reflection": "judged", "reference": False, "lambda_reflect": 1.0, "reflect_reward": "judged",
            "reflect_baseline": "batch",
        },
    }  # fmt: skip
    released = {
        "retroagent_in_context": {"method.intrinsic_weight": 0.0},
        "retroagent_rl": {"method.intrinsic_weight": 0.0, "method.reflect_reward": "intrinsic"},
    }
    full = load_config(preset)
    for variant, options in own.items():
        config = load_config(preset, variant)
        assert asdict(config.method) == both | options
        assert {n: v for n, v in changed(full, config).items() if not n.startswith("method.")} == library
        assert changed(config, load_config(preset, f"{variant}_released")) == released[variant]
    assert not load_config("released", "retroagent_rl").method.reference


def test_a_variant_must_fit_its_run(monkeypatch):
    mine = {
        "of_another_method": Variant("", {"method.omega": 2.0}),
        "of_no_library": Variant("", {"method.name": "grpo", "library.top_k": 3}),
        "misspelt": Variant("", {"method.name": "gigpo", "method.omga": 2.0}),
        "alone": Variant("", {"method.gigpo.omega": 2.0}),
    }
    monkeypatch.setattr(core, "variants", lambda: mine)
    for variant, message in {
        "of_another_method": "unknown configuration field 'method.omega'",
        "of_no_library": "library.top_k: the method grpo keeps no library",
        "misspelt": "'method.omga'; did you mean 'method.omega'?",
        "alone": "unknown configuration field 'method.gigpo.omega'",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(message)):
            load_config("paper", variant)


@pytest.mark.parametrize(
    "variant, overrides, message",
    [
        ("retroagent_rl", {"method.reference": True}, "method.reference shows an episode.*method.reflection=judged"),
        (
            "full",
            {"method.rerank_credit": "return", "method.rerank_baseline": "batch_mean"},
            "method.rerank_baseline has no effect with method.rerank_credit=return: set it to none",
        ),
        ("skillrl_released", {"train.validate_every": 0}, "needs validations: set train.validate_every"),
    ],
)
def test_switches_that_do_not_go_together_are_refused(tmp_path, variant, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config("paper", variant, overrides)
    config = load_config("paper", variant)
    with pytest.raises(ConfigError, match=message):
        override(config, overrides)
    tree = to_tree(config)
    for name, value in overrides.items():
        section, leaf = name.split(".")
        tree[section][leaf] = value
    (tmp_path / "config.json").write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "config.json")


# --- what a configuration holds ----------------------------------------------------------------------------------


def test_a_configuration_holds_only_what_its_run_uses():
    shared = ["format", "preset", "variant", "policy", "environment", "method", "rollout", "credit", "train"]
    for method in METHODS:
        tree = to_tree(load_config("nano", overrides={"method.name": method}))
        kept = ["library"] if method in ("skill1", "retroagent") else []
        assert set(tree) == {*shared, *kept, "evaluation"}
        assert set(tree["method"]) == leaves(find("methods", method).Options)
    assert to_tree(load_config("nano", "grpo"))["method"] == {"name": "grpo"}
    assert load_config("nano", "grpo").library is None
    home, shop = (to_tree(load_config(preset))["environment"] for preset in ("nano", "nano-webshop"))
    assert "engine" in home and "catalogue" not in home and "catalogue" in shop and "engine" not in shop
    assert not [name for name in flatten(load_config("nano-webshop")) if name.startswith(("warm_start", "cold_start"))]


def test_the_difference_of_runs_with_other_fields_names_them_all():
    found = diff(load_config("paper", "gigpo"), load_config("paper", overrides={"train.steps": 7}))
    assert found["method.name"] == ("gigpo", "skill1") and found["train.steps"] == (150, 7)
    assert found["method.omega"] == (1.0, None) and found["library.top_k"] == (None, 5)
    assert "method.selection" in found and "policy.model" not in found


def test_overrides_win_over_variant_over_preset():
    config = load_config("released", "lambda1_0", {"method.lambda_rerank": 0.7, "library.top_k": 9})
    assert (config.method.lambda_rerank, config.library.top_k, config.method.same_task) == (0.7, 9, "text")
    assert load_config("released", "lambda1_0").method.lambda_rerank == 0.0
    assert (config.preset, config.variant) == ("released", "lambda1_0")
    assert load_config("paper", "gigpo", {"method.name": "skill1"}).method.selection


def test_an_option_of_a_command_is_read_as_a_run_s():
    nano = load_section(WarmStartConfig, "warm_start", "nano-webshop")
    assert (nano.games, nano.max_steps, nano.width) == (10000, 12, WarmStartConfig().width)
    mine = load_section(
        WarmStartConfig, "warm_start", "nano-webshop", {"warm_start.games": "9", "warm_start.width": 64}
    )
    assert (mine.games, mine.max_steps, mine.width) == (9, 12, 64)
    assert load_section(ColdStartConfig, "cold_start", "small").learning_rate == 1e-4
    with pytest.raises(ConfigError, match="unknown option 'warm_start.gamse'; did you mean 'warm_start.games'"):
        load_section(WarmStartConfig, "warm_start", "nano", {"warm_start.gamse": 3})
    with pytest.raises(ConfigError, match="warm_start.noise = 1.5"):
        load_section(WarmStartConfig, "warm_start", "nano", {"warm_start.noise": 1.5})
    with pytest.raises(ConfigError, match="unknown preset 'nno'; did you mean 'nano'"):
        load_section(WarmStartConfig, "warm_start", "nno")


def test_a_changed_copy_is_checked_and_leaves_the_original_alone():
    config = load_config("nano", "gigpo")
    copy = override(config, {"environment.data": "there", "method.omega": 2, "train.steps": None})
    assert changed(config, copy) == {"environment.data": "there", "method.omega": 2.0}
    assert config == load_config("nano", "gigpo")
    for values, message in {
        ("train.steps", 0): "train.steps = 0",
        ("library.top_k", 3): "unknown configuration field 'library.top_k'",
        ("method.omga", 3): "did you mean 'method.omega'",
        ("method.name", "skill1"): "method.omega = 1.0",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(message)):
            override(config, dict([values]))


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("train.learning_rate", "1e-6", 1e-6),
        ("train.steps", "7", 7),
        ("method.distillation", "false", False),
        ("method.selection", "no", False),
        ("train.rows_per_update", "none", None),
        ("train.rows_per_update", "64", 64),
        ("library.similarity_floor", "None", None),
        ("environment.data", "none", None),
        ("environment.data", "some/folder", "some/folder"),
        ("train.report_to", "none", "none"),
        ("method.rerank_baseline", "none", "none"),
        ("method.rerank_baseline", "batch_mean", "batch_mean"),
        ("evaluation.splits", ["valid_seen"], ("valid_seen",)),
    ],
)
def test_an_override_takes_the_type_of_its_field(name, text, value):
    overrides = {name: text, "method.rerank_credit": "loss"}
    found = flatten(load_config("released", overrides=overrides))[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"preset": "relaesed"},
            "unknown preset 'relaesed'; did you mean 'released'? (known: mini, mini-base, nano, nano-webshop, paper, paper-lora, paper-webshop, released, released-webshop, small)",
        ),
        ({"variant": "no_distilation"}, "unknown variant 'no_distilation'; did you mean 'no_distillation'?"),
        ({"overrides": {"library.topk": 1}}, "field 'library.topk'; did you mean 'library.top_k'?"),
        ({"overrides": {"train": 1}}, "unknown configuration field 'train'"),
        ({"overrides": {"preset": "nano"}}, "unknown configuration field 'preset'"),
        ({"overrides": {"method.omega": 1}}, "unknown configuration field 'method.omega'"),
        ({"overrides": {"method.skill1.selection": True}}, "did you mean 'method.selection'?"),
        ({"overrides": {"warm_start.games": 1}}, "unknown configuration field 'warm_start.games'"),
        ({"overrides": {"method.name": "gigop"}}, "unknown method 'gigop'; did you mean 'gigpo'?"),
        ({"overrides": {"environment.name": "webshp"}}, "unknown environment 'webshp'; did you mean 'webshop'?"),
        ({"variant": "grpo", "overrides": {"library.top_k": 3}}, "library.top_k: the method grpo keeps no library"),
        ({"preset": "xyzzy"}, "unknown preset 'xyzzy' (known:"),
    ],
)
def test_unknown_names_are_refused_with_the_closest(arguments, message):
    with pytest.raises(ConfigError) as error:
        load_config(**arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


WRONG = [
    *((name, wrong) for name in (
        "environment.max_steps", "library.capacity", "library.top_k", "rollout.tasks_per_step", "train.steps",
        "rollout.max_prompt_tokens", "method.max_query_tokens", "method.max_rerank_tokens",
        "rollout.max_act_tokens", "method.max_distill_tokens", "policy.generate_batch", "train.save_every",
        "train.rows_per_update", "train.tokens_per_micro_batch", "train.rows_per_micro_batch",
        "train.validation_tasks", "train.save_total_limit", "evaluation.passes", "train.learning_rate",
        "rollout.temperature", "library.ema", "train.clip",
    ) for wrong in (0, -1)),
    ("rollout.group_size", 1), ("policy.lora_rank", -1), ("environment.history", -1), ("method.lambda_rerank", -0.1),
    ("method.lambda_distill", -0.1), ("train.kl", -1e-9), ("train.kl", math.nan), ("evaluation.temperature", -0.1),
    ("library.ema", 1.1), ("library.similarity_weight", 1.1), ("library.similarity_floor", 2),
    ("train.validate_every", -1), ("train.steps", "many"), ("train.steps", 1.5), ("train.steps", None),
    ("method.selection", "maybe"), ("policy.model", ""), ("policy.dtype", "float16"), ("library.inject", "both"),
    ("train.seed", -1), ("environment.engine", "java"), ("evaluation.splits", 3),
]  # fmt: skip
OF_METHODS = [
    ("gigpo", "method.omega", -0.1), ("gigpo", "method.gamma", 1.1), ("gigpo", "method.statistics", "token"),
    ("retroagent_rl", "method.memory_share", 0), ("retroagent_rl", "method.memory_share", 1.1),
    ("retroagent_rl", "method.intrinsic_weight", -0.1), ("retroagent_rl", "method.reflection", "none"),
    ("retroagent_rl", "method.reflect_reward", "lost"), ("retroagent_rl", "method.max_reflect_tokens", 0),
    ("skillrl", "method.evolve_every", 0), ("skillrl", "method.limit", 0), ("skillrl", "method.top_k", -1),
]  # fmt: skip


@pytest.mark.parametrize("variant, name, value", [*(("full", *wrong) for wrong in WRONG), *OF_METHODS])
def test_a_wrong_value_is_refused_by_name(variant, name, value):
    with pytest.raises(ConfigError) as error:
        load_config("nano", variant, {name: value})
    assert str(error.value).startswith(f"{name} = {value!r}: ")


def test_all_wrong_values_of_a_section_are_named_at_once():
    with pytest.raises(ConfigError, match="train.steps = 0.*train.kl = -1|train.kl = -1.*train.steps = 0"):
        load_config("nano", overrides={"train.steps": 0, "train.kl": -1})


# --- files -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    preset=st.sampled_from(sorted(PRESETS)),
    variant=st.sampled_from(sorted(VARIANTS)),
    rate=st.floats(1e-12, 1.0),
    floor=st.none() | st.floats(-1, 1),
    splits=st.lists(st.sampled_from(["valid_seen", "valid_unseen"])),
)
def test_a_config_survives_its_file(tmp_path_factory, preset, variant, rate, floor, splits):
    overrides: dict[str, Any] = {"train.learning_rate": rate, "evaluation.splits": splits, "train.validate_every": 9}
    if method_of_variant(variant).uses_library:
        overrides["library.similarity_floor"] = floor
    config = load_config(preset, variant, overrides)
    path = tmp_path_factory.getbasetemp() / "config.json"
    save_config(config, path)
    again = read_config(path)
    assert again == config and diff(again, config) == {}
    assert (again.preset, again.variant) == (preset, variant)


def rewritten(**sections: Any):
    """A file's text with these sections in the place of its own."""
    return lambda text: json.dumps(json.loads(text) | sections)


def without(*sections: str):
    return lambda text: json.dumps({name: part for name, part in json.loads(text).items() if name not in sections})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text[: len(text) // 2], "is not valid JSON"),
        (rewritten(extra=1), "unknown configuration section 'extra'"),
        (lambda text: text.replace('"steps": 40', '"steps": 0'), "train.steps = 0"),
        (lambda text: text.replace('"top_k"', '"top_q"'), "library.top_q"),
        (rewritten(method={"name": "grpo"}), "unknown configuration section 'library'"),
        (rewritten(method={"name": "grpp"}), "unknown method 'grpp'; did you mean 'grpo'?"),
        (rewritten(policy=3), "policy = 3"),
        (rewritten(method=3), "method"),
        (without("preset"), "preset"),
        (without("format"), f"has format 1, this version of skill1 reads {FORMAT}"),
        (rewritten(format=1), f"has format 1, this version of skill1 reads {FORMAT}"),
        (rewritten(format=FORMAT + 1), f"has format {FORMAT + 1}, this version of skill1 reads {FORMAT}"),
        (lambda text: "[]", "[]"),
    ],
)
def test_a_damaged_or_foreign_file_is_a_config_error(tmp_path, change, message):
    path = tmp_path / "config.json"
    save_config(load_config("nano", overrides={"train.steps": 40}), path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ConfigError) as error:
        read_config(path)
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="is this a run directory"):
        read_config(tmp_path / "config.json")


# --- the words beside every field --------------------------------------------------------------------------------


def option_classes() -> Iterator[tuple[str, ast.ClassDef, list[str]]]:
    """Every dataclass of options in the package, as source: its name, its syntax tree, the lines of its file."""
    for path in sorted(Path(skill1.__file__).parent.rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "config=STRICT" in text else ():
            if isinstance(node, ast.ClassDef) and any("config=STRICT" in ast.unparse(d) for d in node.decorator_list):
                yield node.name, node, text.splitlines()


OPTION_CLASSES = {name: (node, lines) for name, node, lines in option_classes() if name != "Config"}


def known_options() -> Mapping[str, type]:
    kinds = [*ALWAYS.values(), LibraryConfig, SlurmConfig, *COMMANDS.values()]
    kinds += [find("environments", name).options for name in ENVIRONMENTS]
    kinds += [find("methods", name).Options for name in METHODS]
    return {kind.__name__: kind for kind in kinds}


def test_all_options_are_among_those_read_as_source():
    assert set(known_options()) == set(OPTION_CLASSES) and len(OPTION_CLASSES) >= 15


@pytest.mark.parametrize("name", OPTION_CLASSES)
def test_every_field_says_what_it_does_its_unit_and_its_origin(name):
    node, lines = OPTION_CLASSES[name]
    declared = [statement for statement in node.body if isinstance(statement, ast.AnnAssign)]
    assert declared
    for field in declared:
        above = lines[field.lineno - 2].strip()
        assert re.fullmatch(r"# \S.*\.", above), f"{name}.{field.target.id} has no sentence above it"
    for leaf in known_options()[name].__pydantic_fields__.values():
        told = leaf.json_schema_extra
        assert set(told) == {"unit", "origin", "free"} and told["unit"] and told["origin"]
