"""The skill loop on WebShop: configuration, environment, training, validation, evaluation, demo, with a tiny shop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from shop_runs import configure_shop, make_shop, make_shopper, settings_of_shop
from test_notebooks import NOTEBOOKS
from without_kernels import execute, run_cells

from skill1.analysis.chosen import choose_run, choose_study
from skill1.analysis.comparison import success_table
from skill1.analysis.scores import ceiling_note
from skill1.analysis.tour import ScriptedPolicy
from skill1.config import ConfigError, flatten, load_config
from skill1.envs.base import DataError
from skill1.envs.make import make_environment
from skill1.envs.webshop.environment import WebshopEnvironment
from skill1.envs.webshop.generate import generate
from skill1.envs.webshop.options import WebShopConfig
from skill1.envs.webshop.spec import WEBSHOP
from skill1.errors import RunError
from skill1.evaluate import evaluate_run
from skill1.methods.skill1 import Skill1
from skill1.nano.model import nano_tokenizer
from skill1.nano.webshop import NANO
from skill1.nano.webshop.expert import ShopExpert
from skill1.nano.webshop.prompts import CompactShopPrompts
from skill1.nano.webshop.reading import read_wish
from skill1.nano.world import nano_world, world_folder
from skill1.presets import preset_of, variants
from skill1.prompts import make_prompts
from skill1.prompts.full import FullPrompts
from skill1.rollout import Ask, RolloutLoop, Stages
from skill1.running.demo import demo
from skill1.running.sweep import Sweep
from skill1.store.run_directory import RunDirectory
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


def test_the_configuration_names_the_shop(shop, monkeypatch):
    environment = make_environment(WebShopConfig(name="webshop", data=str(shop), held_out_goals=9, max_steps=7))
    assert isinstance(environment, WebshopEnvironment) and environment.max_steps == 7
    to_train, to_test = environment.tasks("train"), environment.tasks("test")
    assert len(to_test) == 9 and not {t.game for t in to_train} & {t.game for t in to_test}
    assert {t.category for t in to_train} <= {"fashion", "garden", "electronics", "beauty", "grocery"}
    assert environment.has("test") and not environment.has("valid_seen")
    assert environment.goal(to_test[3]).text == environment.reset([to_test[3]])[0].instruction

    def train_hash(**changes):
        given = {"name": "webshop", "data": str(shop), "held_out_goals": 9} | changes
        return make_environment(WebShopConfig(**given)).data_hash("train")

    assert train_hash() == train_hash(max_steps=3) == environment.data_hash("train") != environment.data_hash("test")
    assert len({train_hash(), train_hash(shop_seed=1), train_hash(held_out_goals=8), train_hash(goals="human")}) == 4
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    with pytest.raises(DataError, match=r"\$WEBSHOP_DATA is empty"):
        make_environment(WebShopConfig(name="webshop"))
    with pytest.raises(DataError, match="'valid_seen'; it has train and test"):
        environment.data_hash("valid_seen")
    with pytest.raises(DataError, match="items_shuffle_1000.json is missing"):
        make_environment(WebShopConfig(name="webshop", data=str(shop), catalogue="small"))


def test_presets_follow_the_paper_and_variants_lie_over_them():
    paper = load_config("paper-webshop")
    of_shop = paper.environment
    assert (of_shop.max_steps, of_shop.history_limit, paper.rollout.tasks_per_step) == (15, 13_000, 32)
    assert paper.credit.invalid_penalty == 0.05 and paper.rollout.group_size == 16
    for preset in ("paper-webshop", "nano-webshop"):
        for name, variant in variants().items():
            config = load_config(preset, name)
            assert config.environment.name == "webshop" and config.evaluation.splits == ("test",)
            assert variant.changes.items() <= flatten(config).items()
    for environment, name, found in (("webshop", "nano", "nano-webshop"), ("alfworld", "nano", "nano"),
                                     ("webshop", "paper-webshop", "paper-webshop")):  # fmt: skip
        assert preset_of(name, environment) == found
    with pytest.raises(ConfigError, match="unknown preset 'nano-webshp'; did you mean 'nano-webshop'"):
        preset_of("nano", "webshp")
    with pytest.raises(ConfigError, match="unknown preset 'nano-webshop-alfworld'"):
        preset_of("nano-webshop", "alfworld")  # of the other environment
    assert make_prompts("full", "webshop").words == WEBSHOP.words
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
    ceiling = ceiling_note(run.config.environment, frame["game"], "evaluated")
    assert ceiling.startswith("Ceiling: 12 of the 12 goals evaluated (100.0 %)")


def test_a_resumed_run_refuses_another_shop(shopper, tmp_path):
    generate(tmp_path / "shop", seed=5, products=60)
    config = configure_shop(tmp_path / "shop", shopper, train__steps=1, train__save_every=1, train__validate_every=0)
    train(config, tmp_path / "run")
    (tmp_path / "shop").rename(tmp_path / "gone")
    generate(tmp_path / "shop", seed=6, products=60)
    with pytest.raises(RunError, match="was started on other data"):
        train(config, tmp_path / "run", resume=True)


def test_one_outcome_credits_a_shopping_group(shop, shopper):
    """An expert and a player who buys at once: score and success are both kept, r is success alone."""
    config = configure_shop(shop, shopper, environment__max_steps=12)
    environment = make_environment(config.environment)
    task = next(t for t in environment.tasks("train") if len(environment.goal(t).options) == 2)
    [start] = environment.reset([task])
    goal = environment.goal(task)
    expert, now, answers = ShopExpert(start, hint=None), start, []
    prompts = make_prompts("compact", "webshop")
    listed = [environment.shop.products[p].asin for p in environment.shop.search(goal.text)[:10]]
    assert goal.asin in listed  # so that the hand-written way below exists
    wish = read_wish(start.instruction)
    search = f"search {' '.join(wish.terms)}"
    done = False
    while not done:
        answers.append(expert.act(now))
        step = environment.step([prompts.parse_action(answers[-1], now.admissible).value])[0]
        now, done = step.observation, step.done
        expert.moved(answers[-1], now) if not done else None
    lesson = f"{' '.join(wish.terms)} | {expert.found}"
    scripts = [
        {"query": [" ".join(wish.terms)], "act": answers, "distill": [lesson]},
        {"query": ["none"], "act": [search, "open 1", "buy"], "distill": [lesson]},
        {"query": ["none"], "act": ["buy me that", search, "open 1", "buy"], "distill": ["none"]},
    ]
    method = Skill1(config)
    policy = ScriptedPolicy(nano_tokenizer("webshop"), prompts, scripts)
    loop = RolloutLoop(Ask(policy, 1.0), environment, method, config)
    rollouts = loop.run([task] * 3, groups=[0] * 3, indices=range(3), seed=(0, 0))
    assert [r.outcome for r in rollouts] == [float(step.won), 0.0, 0.0] and step.won
    assert rollouts[0].score == 1.0 and 0 < rollouts[1].score == rollouts[2].score < 1
    assert (
        rollouts[1].score
        == environment.shop.rate(environment.shop.search(" ".join(wish.terms).replace("_", " "))[0], {}, goal).score
    )
    assert [r.invalid_actions for r in rollouts] == [0, 0, 1] and rollouts[0].task.category == goal.category
    rows = Skill1.rows(rollouts, replace(config, credit=replace(config.credit, scale_by_std=False)))
    acted = {row.rollout: row.advantage for row in rows if row.stage == "act"}
    # returns 1, 0, -.1 (one ill-formed action), the mean .3 taken off
    assert acted == pytest.approx({0: 0.7, 1: -0.3, 2: -0.4})
    assert len(method.learn(rollouts, 1, "train").admitted) == 1
    [skill] = method.skills
    assert skill.desc == " ".join(wish.terms).replace("_", " ") and skill.strategy.startswith(f"{skill.desc} : ")


def test_a_long_prompt_drops_its_history(shop, shopper):
    def prompts_shown(limit):
        config = configure_shop(
            shop, shopper, "grpo", environment__history_limit=limit, environment__max_steps=4
        )  # fmt: skip
        environment = make_environment(config.environment)
        asked = []

        class Remembering(ScriptedPolicy):
            def generate(self, texts, *given, **named):
                asked.extend(texts)
                return super().generate(texts, *given, **named)

        policy = Remembering(
            nano_tokenizer("webshop"), FullPrompts(WEBSHOP.words), [{"act": ["<action>search[lamp]</action>"] * 4}]
        )
        policy.prompts.encode = lambda tokenizer, text: [0]
        loop = RolloutLoop(Ask(policy, 1.0), environment, Stages(), config)
        loop.run(environment.tasks("test")[:1], [0], [0], (0, 0))
        return asked

    whole, cut = prompts_shown(None), prompts_shown(1600)
    assert "The most recent ones" not in whole[0] and all("The most recent ones" in text for text in whole[1:])
    longer = [len(text) > 1600 for text in whole]
    assert True in longer and False in longer[1:]
    for text, short, long in zip(whole, cut, longer, strict=True):
        assert ("The most recent ones" not in short and len(short) < len(text)) if long else short == text


def test_scores_are_shown_beside_success(trained):
    frame = RunDirectory.open(trained).evaluations("validation").iloc[:4].copy()
    frame = frame.assign(game=["a", "a", "b", "b"], split="test", won=[True, False, False, False],
                         score=[1.0, 0.5, 0.25, 0.25])  # fmt: skip
    [row] = success_table({"after": frame}, WEBSHOP).to_dict("records")
    assert (row["success %"], row["goals"], row["passes"]) == (25.0, 2, 1)
    assert row["score, 95 % over goals"] == "50.0 [25.0, 75.0]"  # goals' means .75 and .25


def test_generated_shops_are_made_for_the_nano_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path(nano_world(3, "nano-webshop"))
    assert folder == world_folder(3, "nano-webshop") == Path("data/nano-shop-3")
    assert json.loads((folder / "generation.json").read_text())["parameters"] == {"seed": 3, **NANO.sizes}
    NANO.generate(world_folder(4, "nano-webshop"), seed=4, products=60)
    with pytest.raises(RunError, match="holds another generation"):
        nano_world(4, "nano-webshop")
    with pytest.raises(ConfigError, match="the preset small has no generated games"):
        world_folder(0, "small")
    study = {"folder": tmp_path / "study", "variants": ("full",), "seeds": (0,)}
    assert Sweep(**study, preset="nano-webshop").data is None
    with pytest.raises(ConfigError, match=r"paper-webshop needs a games folder: .*\$WEBSHOP_DATA"):
        Sweep(**study, preset="paper-webshop")


@pytest.mark.slow
def test_the_demo_runs_in_a_shop(shop, shopper, tmp_path, monkeypatch):
    """Its two notebooks, which tests/test_demo.py executes for ALFWorld, are replaced by what their cells call."""
    asked = []
    monkeypatch.setattr("skill1.running.demo.execute", lambda todo, *given: asked.extend(todo) or execute(todo, *given))
    monkeypatch.setattr("skill1.running.demo.nano_world", lambda seed, preset: str(shop))
    overrides = settings_of_shop(shop, shopper) | {"train.steps": 1, "train.save_every": 1, "train.validate_every": 1}
    overrides.pop("environment.data")
    done = demo(2, preset="nano-webshop", nproc=1, overrides=overrides, passes=2, results=tmp_path)
    assert [(experiment.preset, experiment.splits) for experiment in asked] == [("nano-webshop", ("test",))]
    summary = json.loads(done.read_text())
    assert summary["steps"] == 1 and summary["after"]["library"]["n"] == 24 and summary["data"] == "generated"
    assert 0 <= summary["after"]["library"]["score"] <= 1 and "test" not in summary
    with pytest.raises(ConfigError, match="the preset paper has no generated games of its own"):
        demo(2, preset="paper")


@pytest.mark.slow
def test_the_notebooks_of_a_run_show_the_ceiling_in_a_shop(shop, tmp_path):
    """The shipped policy wins at once, so that there are skills to study."""
    shipped = NOTEBOOKS.parent / "data" / "nano-webshop-policy"
    limits = {f"method.max_{stage}_tokens": 16 for stage in ("query", "rerank", "distill")}
    limits["rollout.max_act_tokens"] = 16
    given = settings_of_shop(shop, shipped) | limits | {"train.steps": 2, "environment.max_steps": 12}
    run = tmp_path / "run"
    assert train(load_config("nano-webshop", overrides={"train.seed": 0, **given}), run)
    overrides = dict(given)
    data, out = overrides.pop("environment.data"), str(run)
    shown = run_cells(
        NOTEBOOKS / "01_train.ipynb", {"env": "webshop", "out": out, "data": data, "overrides": overrides}
    )
    for name, words in {
        "02_evaluate": {"passes": 1}, "07_trajectories": {"out": str(tmp_path / "page.html")},
    }.items():  # fmt: skip
        text = run_cells(NOTEBOOKS / f"{name}.ipynb", {"env": "webshop", "run": out, **words})
        assert "(100.0 %) can reach a score of 1.0" in text, name
    assert "(100.0 %)" not in shown and "2 of 2 steps" in shown
    assert "goals played (100.0 %)" in (tmp_path / "page.html").read_text()


def test_a_study_or_run_of_the_other_environment_is_refused(trained):
    assert choose_run(str(trained), "", "rollouts") == choose_run(str(trained), "webshop", "rollouts") == trained
    with pytest.raises(ConfigError, match="is of webshop, but env = 'alfworld': give one of alfworld"):
        choose_run(str(trained), "alfworld", "rollouts")
    with pytest.raises(ConfigError, match="unknown environment 'webshp'; did you mean 'webshop'"):
        choose_run(str(trained), "webshp", "rollouts")
    study = str(NOTEBOOKS.parent / "results" / "reference" / "nano")
    assert choose_study(study, "alfworld").environment.name == "alfworld"
    with pytest.raises(ConfigError, match="is of alfworld, but env = 'webshop'"):
        choose_study(study, "webshop")
