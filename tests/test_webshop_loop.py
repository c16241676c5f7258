"""The skill loop on WebShop: configuration, environment, training, validation and evaluation, with a tiny shop."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from nano_runs import load_policy
from shop_runs import configure_shop, make_shop, make_shopper

from skill1 import cli
from skill1.config import VARIANTS, ConfigError, EnvironmentConfig, load_config
from skill1.credit import credit
from skill1.envs.base import DataError
from skill1.envs.make import make_environment
from skill1.envs.webshop.environment import SEARCH_ACTION, WebshopEnvironment
from skill1.evaluate import evaluate_run
from skill1.prompts import CompactShopPrompts, FullShopPrompts, make_prompts
from skill1.rollout import SkillLoop
from skill1.runs import RunDirectory, RunError
from skill1.train import train


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    return make_shop(tmp_path_factory.mktemp("shop") / "shop")


@pytest.fixture(scope="module")
def shopper(tmp_path_factory) -> Path:
    return make_shopper(tmp_path_factory.mktemp("shopper"))


@pytest.fixture(scope="module")
def trained(shop, shopper, tmp_path_factory) -> Path:
    """A run of two steps."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    train(configure_shop(shop, shopper, train__steps=2), directory)
    return directory


def play_scripted(config, answers: dict[str, list[str]]):
    """One rollout of the first test goal with these answers."""
    from skill1.tour import ScriptedPolicy  # takes prompts and answers apart as the loop does

    policy = ScriptedPolicy(load_policy(config)._tokenizer, make_prompts("compact", "webshop"), [answers])
    environment = make_environment(config.environment)
    loop = SkillLoop(policy, environment, None, config, temperature=1.0, retrieval="ucb", distill=False)
    return policy, loop.run(environment.tasks("test")[:1], [0], [0], (0, 0))[0]


def test_the_configuration_names_the_shop(shop, monkeypatch):
    environment = make_environment(EnvironmentConfig(name="webshop", data=str(shop), held_out_goals=9, max_steps=7))
    assert isinstance(environment, WebshopEnvironment) and environment.max_steps == 7
    train_tasks, test_tasks = environment.tasks("train"), environment.tasks("test")
    assert len(test_tasks) == 9 and not {t.game for t in train_tasks} & {t.game for t in test_tasks}
    assert {t.category for t in train_tasks} <= {"fashion", "garden", "electronics", "beauty", "grocery"}
    assert environment.has("test") and not environment.has("valid_seen")
    assert environment.data_hash("train") != environment.data_hash("test")
    again = make_environment(EnvironmentConfig(name="webshop", data=str(shop), held_out_goals=9))
    other = make_environment(EnvironmentConfig(name="webshop", data=str(shop), held_out_goals=9, shop_seed=1))
    assert again.data_hash("train") == environment.data_hash("train") != other.data_hash("train")
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    with pytest.raises(DataError, match=r"\$WEBSHOP_DATA is empty"):
        make_environment(EnvironmentConfig(name="webshop"))
    with pytest.raises(DataError, match="'valid_seen'; it has train and test"):
        environment.tasks("valid_seen")


def test_presets_follow_the_paper_and_variants_overlay_them():
    paper = load_config("paper-webshop")
    assert (paper.environment.max_steps, paper.environment.history_limit, paper.rollout.tasks_per_step) == (15, 13000, 32)
    assert paper.credit.invalid_penalty == 0.05 and paper.rollout.group_size == 16
    assert paper.environment.validation_split == "test" and paper.evaluation.splits == ("test",)
    for variant, changed in VARIANTS.items():
        for preset in ("paper-webshop", "nano-webshop"):
            config = load_config(preset, variant)
            assert config.environment.name == "webshop" and config.variant == variant
            assert all(getattr(getattr(config, n.split(".")[0]), n.split(".")[1]) == v for n, v in changed.items())
    assert isinstance(make_prompts("full", "webshop"), FullShopPrompts)
    assert isinstance(make_prompts("compact", "webshop"), CompactShopPrompts)
    with pytest.raises(ConfigError, match="did you mean 'webshop'"):
        make_prompts("full", "webshp")


def test_a_run_trains_validates_and_is_evaluated(trained):
    run = RunDirectory.open(trained)
    metrics = run.metrics()
    assert list(metrics["step"]) == [1, 2] and not metrics["loss"].isna().any()
    validation = run.evaluations("validation")
    assert set(validation["split"]) == {"test"} and set(validation["step"]) == {0, 2}
    [evaluation] = evaluate_run(trained, passes=2, progress=False)
    frame = evaluation.frame
    assert evaluation.split == "test" and len(frame) == 24 and frame["game"].str.startswith("synthetic/").all()
    assert (frame["won"] == (frame["score"] == 1.0)).all() and frame["score"].between(0, 1).all()
    assert set(evaluation.summary["categories"]) == set(frame["category"])
    assert evaluation.summary["score"] == pytest.approx(frame["score"].mean())


def test_a_resumed_run_refuses_another_shop(trained, tmp_path):
    from dataclasses import replace

    config = RunDirectory.open(trained).config
    other = make_shop_of_seed(tmp_path / "other", 6)
    changed = replace(config, environment=replace(config.environment, data=str(other)))
    with pytest.raises(RunError):
        train(changed, trained, resume=True)


def make_shop_of_seed(folder: Path, seed: int) -> Path:
    from skill1.envs.webshop.generate import generate

    generate(folder, seed=seed, products=60)
    return folder
