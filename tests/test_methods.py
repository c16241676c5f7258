"""The protocol of a method: plain GRPO, a method from a file, one with a stage, options and a record of its own."""

from __future__ import annotations

import json
import math
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hand_made import bare, rollout, turn
from nano_runs import load_policy, settings
from scripted import play, walker

from skill1.checks import check_run
from skill1.config import ConfigError, flatten, load_config, method_of, read_config, save_config
from skill1.credit import returns_of, rollout_metrics
from skill1.errors import UserError
from skill1.generation.endpoint import EndpointError
from skill1.library import LibraryError
from skill1.methods.base import Method
from skill1.methods.grpo import GRPO
from skill1.methods.retroagent.method import RetroAgent
from skill1.methods.retroagent.prompts import FullReflections
from skill1.methods.skillrl.bank import BankError
from skill1.methods.skillrl.method import SkillRL
from skill1.methods.skillrl.prompts import FullBank
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.webshop.prompts import CompactShopPrompts
from skill1.prompts import method_prompts
from skill1.registry import find, names
from skill1.rollout import Stages
from skill1.store.run_directory import RunDirectory

ROOT = Path(__file__).parents[1]
ROOT_HALF = math.sqrt(0.5)
METHODS = names("methods")

# --- plain GRPO --------------------------------------------------------------------------------------------------


def test_grpo_by_hand():
    config = load_config("paper", "grpo", {"credit.invalid_penalty": 0.1})
    rollouts = [
        bare(0, 0, 1.0, [turn("act", 2), turn("act", 6, well_formed=False)]),  # R = .9
        bare(0, 1, 0.0, [turn("act", 3)]),  # R = 0
        bare(1, 0, 1.0, [turn("act", 1)]),
        bare(1, 1, 1.0, [turn("act", 4)]),
    ]
    rows = GRPO.rows(rollouts, config)
    assert [(r.stage, r.group, r.rollout, r.turn) for r in rows] == [
        ("act", 0, 0, 0), ("act", 0, 0, 1), ("act", 0, 1, 0), ("act", 1, 2, 0), ("act", 1, 3, 0),
    ]  # fmt: skip
    assert [r.advantage for r in rows] == pytest.approx([ROOT_HALF, ROOT_HALF, -ROOT_HALF, 0, 0])
    # 5 rows of 4 trajectories: each row weighs 5/4 times its share of its trajectory's tokens
    assert [r.weight for r in rows] == pytest.approx([5 / 4 * 2 / 8, 5 / 4 * 6 / 8, 5 / 4, 5 / 4, 5 / 4])
    centred = load_config(
        "paper", "grpo", {"credit.invalid_penalty": 0.1, "credit.scale_by_std": False, "credit.token_mean": "batch"}
    )
    rows = GRPO.rows(rollouts, centred)
    assert [r.advantage for r in rows] == pytest.approx([0.45, 0.45, -0.45, 0, 0])
    assert [r.weight for r in rows] == pytest.approx([5 * n / 16 for n in (2, 6, 3, 1, 4)])
    assert GRPO.metrics(rollouts, config) == rollout_metrics(rollouts, returns_of(rollouts, config.credit))
    with pytest.raises(ValueError, match="one common size >= 2"):
        GRPO.rows(rollouts[:3], config)


def test_grpo_in_a_group_of_four_by_hand():
    rows = GRPO.rows([bare(index=i, outcome=float(i == 0)) for i in range(4)], load_config("paper", "grpo"))
    # mean .25, unbiased std .5
    assert [r.advantage for r in rows] == pytest.approx([1.5, 1.5, *[-0.5] * 6])


def test_a_method_that_overrides_nothing_learns_and_keeps_nothing(tmp_path):
    method = Method(load_config("paper", "grpo"), tmp_path)
    rollouts = [bare(0, i) for i in range(2)]
    method.start()
    method.observe(rollouts, 1, "train", None)
    event = method.learn(rollouts, 1, "train")
    method.apply(event)
    method.save(tmp_path)
    method.load(tmp_path)
    method.close()
    assert event is None and method.state(event) == {} and method.skill_table() == []
    assert method.skills is None and not method.keeps_skills and not method.uses_library and method.Extra is None
    assert type(method.frozen()) is Stages and method.skills_before(method.config, tmp_path, 3) == {}
    assert method.trained_stages(method.config) == {"act": 2048} and method.skills_shown(method.config) == (0, 0.0)
    assert not method.starts_with_skills(method.config) and method.leak(method.config) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", METHODS)
def test_every_registered_method_keeps_the_protocol(name):
    method = find("methods", name)
    config = load_config("nano", overrides={"method.name": name})
    assert issubclass(method, Method) and method_of(config) is method
    assert type(config.method) is method.Options and (config.library is not None) == method.uses_library
    assert method.keeps_skills == (name in ("skill1", "retroagent", "skillrl"))
    stages = method.trained_stages(config)
    assert stages["act"] == config.rollout.max_act_tokens and all(limit > 0 for limit in stages.values())
    most, share = method.skills_shown(config)
    assert (most > 0) == (share > 0) == method.keeps_skills and share <= 1
    assert not method.starts_with_skills(config)


# --- a method from a file ----------------------------------------------------------------------------------------


def test_rloo_is_found_in_its_file_and_takes_the_others_mean_as_baseline(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    config = load_config("nano", overrides={"method.name": "examples/rloo.py:RLOO", "credit.invalid_penalty": 0.1})
    assert config.method.name == f"{ROOT}/examples/rloo.py:RLOO" and config.library is None
    rloo = method_of(config)
    assert rloo.__name__ == "RLOO" and issubclass(rloo, Method)
    rollouts = [
        bare(4, 0, 1.0),
        bare(4, 1, 0.0),
        bare(4, 2, 1.0, [turn("act", well_formed=False), turn("act")]),  # R = .9
        bare(2, 0, 0.0), bare(2, 1, 1.0), bare(2, 2, 0.0),
    ]  # fmt: skip
    rows = rloo.rows(rollouts, config)
    by_rollout = {row.rollout: row.advantage for row in rows}
    # group 4: 1 - .45, 0 - .95, .9 - .5; group 2: 0 - .5, 1 - 0, 0 - .5
    assert [by_rollout[i] for i in range(6)] == pytest.approx([0.55, -0.95, 0.4, -0.5, 1.0, -0.5])
    assert len(rows) == 12 and all(row.advantage == by_rollout[row.rollout] for row in rows)
    grpo = GRPO.rows(rollouts, load_config("nano", "grpo"))
    assert [row.weight for row in rows] == [row.weight for row in grpo]
    with pytest.raises(ValueError, match="one common size >= 2"):
        rloo.rows(rollouts[:4], config)
    # a run is resumed from any folder
    save_config(config, tmp_path / "config.json")
    monkeypatch.chdir(tmp_path)
    assert read_config(tmp_path / "config.json") == config and method_of(config) is rloo


def test_rloo_is_one_short_file():
    assert len((ROOT / "examples" / "rloo.py").read_text().splitlines()) <= 40


def test_rloo_plays_as_grpo(monkeypatch, world):
    monkeypatch.chdir(ROOT)
    played = []
    for name in ("grpo", "examples/rloo.py:RLOO"):
        config = paper_of(world, name)
        played.append(play(config, walker(config), method_of(config)(config)))
    for a, b in zip(*played, strict=True):
        assert [t.text for t in a.turns] == [t.text for t in b.turns] and {t.stage for t in b.turns} == {"act"}


def paper_of(world, name: str, **overrides):
    """The paper's configuration of a method that keeps no library."""
    return load_config(
        "paper", overrides={"environment.data": str(world), "method.name": name, "environment.max_steps": 6} | overrides
    )


@pytest.mark.parametrize(
    "name, message",
    [
        ("gigop", "unknown method 'gigop'; did you mean 'gigpo'? (known: gigpo, grpo, retroagent, skill1, skillrl)"),
        ("skill-1", "unknown method 'skill-1'; did you mean 'skill1'?"),
        ("nowhere.py:Mine", "nowhere.py', which"),
        ("skill1.methods.grpo:GRPP", "'skill1.methods.grpo:GRPP' does not load"),
    ],
)
def test_a_method_that_is_not_there_is_refused_in_one_line(name, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_config("nano", overrides={"method.name": name})
    assert message in str(error.value) and "\n" not in str(error.value)


# --- a method with a stage, options and a record of its own ------------------------------------------------------

PLANNER = '''
    """Write a plan before the first action, show it in every act prompt, and train it as much as the actions."""

    from __future__ import annotations

    from dataclasses import dataclass

    from pydantic.dataclasses import dataclass as options

    from skill1.config import STRICT, MethodConfig, knob
    from skill1.methods.base import Method


    @options(frozen=True, config=STRICT)
    class PlannerConfig(MethodConfig):
        # How long a plan is.
        max_plan_tokens: int = knob(9, "tokens", "ours", gt=0)
        # Whether it is shown.
        shown: bool = knob(True, "switch", "ours")


    @dataclass(frozen=True)
    class Score:
        words: int
        share: float


    @dataclass(frozen=True)
    class Plan:
        text: str
        score: Score | None
        early: bool = False


    class Planner(Method):
        Options = PlannerConfig
        Extra = Plan

        @classmethod
        def trained_stages(cls, config):
            return {"plan": PlannerConfig.of(config).max_plan_tokens} | super().trained_stages(config)

        def begin(self, episodes, ask):
            with ask.timed("plan"):
                texts = [ask.prompts.query(e.start) for e in episodes]
                for e, answer in zip(episodes, ask("plan", episodes, texts, self.config.method.max_plan_tokens)):
                    score = Score(len(answer.text.split()), 0.5) if e.group == 0 else None
                    e.extra = Plan(answer.text, score, e.index > 0)
                    e.skill = f"Plan: {answer.text}\\n" if self.config.method.shown else ""
                    e.record("plan", answer, answer.text, True)
'''


@pytest.fixture
def planner(tmp_path) -> str:
    file = tmp_path / "planner.py"
    file.write_text(textwrap.dedent(PLANNER).lstrip())
    return f"{file}:Planner"


def test_a_method_of_ones_own_plays_is_credited_and_logged(planner, world, tmp_path):
    config = paper_of(world, planner, **{"method.max_plan_tokens": "7", "rollout.max_act_tokens": 5})
    kind = method_of(config)
    assert flatten(config)["method.max_plan_tokens"] == 7 and flatten(config)["method.shown"] is True
    assert list(kind.trained_stages(config).items()) == [("plan", 7), ("act", 5)]
    scripted = walker(config)
    rollouts = play(config, scripted, kind(config), size=2)
    assert [(len(texts), limit) for texts, _, _, limit in scripted.calls[:2]] == [(4, 7), (4, 5)]
    plan = "<query>look for a mug</query>"
    for r in rollouts:
        assert [t.stage for t in r.turns] == ["plan", *["act"] * r.steps] and r.skill == f"Plan: {plan}\n"
        assert (r.extra.text, r.extra.early) == (plan, r.index > 0)
    assert [r.extra.score and r.extra.score.words for r in rollouts] == [4, 4, None, None]
    rows = kind.rows(rollouts, config)
    assert {row.stage for row in rows} == {"plan", "act"} and len(rows) == sum(len(r.turns) for r in rollouts)
    for i in range(4):
        assert len({row.advantage for row in rows if row.rollout == i}) == 1
    metrics = kind.metrics(rollouts, config)
    assert metrics["plan/parse_failures"] == 0.0 and metrics["plan/tokens"] == len(plan)

    run = RunDirectory.create(tmp_path / "run", config, "hash")
    run.write_rollouts(1, rollouts)
    run.close()
    again = RunDirectory.open(tmp_path / "run")
    assert again.config == config
    assert [r.extra for r in again.read_rollouts(1)] == [r.extra for r in rollouts]
    assert all(type(r.extra) is kind.Extra for r in again.read_rollouts(1))


def test_a_stage_of_ones_own_does_not_depend_on_what_runs_beside_it(planner, world, nano):
    given = settings(world, nano, method=planner) | {"method.name": planner, "method.max_plan_tokens": 4}
    config = load_config("nano", overrides=given)
    policy = load_policy(config)
    [alone] = play(config, policy, method_of(config)(config), groups=(1,))
    _, beside = play(config, policy, method_of(config)(config), groups=(0, 1))
    assert alone.turns[0].stage == "plan" and alone.extra.text == beside.extra.text == alone.turns[0].text
    for a, b in zip(alone.turns, beside.turns, strict=True):
        np.testing.assert_array_equal(a.completion_ids, b.completion_ids)


def test_options_of_ones_own_are_checked_as_all_others(planner):
    for name, value, message in (
        ("method.max_plan_tokens", 0, "method.max_plan_tokens = 0: "),
        ("method.max_plan_token", 3, "did you mean 'method.max_plan_tokens'?"),
        ("method.selection", False, "unknown configuration field 'method.selection'"),
        ("library.top_k", 3, "keeps no library"),
    ):
        with pytest.raises(ConfigError) as error:
            load_config("nano", overrides={"method.name": planner, name: value})
        assert message in str(error.value) and "\n" not in str(error.value)


# --- prompts of a method -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preset, method, prompts",
    [
        ("paper", "retroagent", FullReflections),
        ("paper", "skillrl", FullBank),
        ("nano", "retroagent", CompactPrompts),
        ("nano", "skillrl", CompactPrompts),
        ("nano-webshop", "retroagent", CompactShopPrompts),
        ("nano-webshop", "skillrl", CompactShopPrompts),
    ],
)
def test_what_a_method_asks_is_worded_for_every_prompt_set(preset, method, prompts):
    assert type(method_prompts(load_config(preset, overrides={"method.name": method}))) is prompts


def test_a_prompt_set_without_a_methods_prompts_is_refused_in_one_line(monkeypatch):
    monkeypatch.chdir(ROOT)
    terse = "examples/terse_prompts.py:make"
    config = load_config("paper", "retroagent_rl", {"policy.prompts": terse, "library.encoder": "hash"})
    with pytest.raises(ConfigError) as error:
        RetroAgent(config)
    message = str(error.value)
    assert "has no prompts for the method retroagent: register them in the entry point group" in message
    assert f"policy.prompts={ROOT}/{terse}" in message and "\n" not in message
    config = load_config("paper", "skillrl", {"policy.prompts": terse, "method.encoder": "hash"})
    with pytest.raises(ConfigError, match="has no prompts for the method skillrl"):
        SkillRL(config).frozen()


@pytest.mark.parametrize("variant", ["retroagent_rl", "skillrl"])
def test_methods_without_words_for_a_conversation_do_not_begin_one(variant):
    config = load_config("paper", variant, {"rollout.context": "conversation", "train.sharding": "none"})
    with pytest.raises(
        ConfigError, match=f"method.name={config.method.name} has no words for rollout.context=conversation"
    ):
        check_run(config, 1)


# --- what a run begins with --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant, overrides, error, message",
    [
        ("skillrl", {"method.bank": "gone.json"}, BankError, "gone.json does not exist"),
        ("skillrl", {"method.teacher": "file"}, ConfigError, "needs method.bank"),
        (
            "skillrl",
            {
                "method.teacher": "endpoint", "method.teacher_url": "http://localhost:1", "method.teacher_model": "m",
                "method.teacher_key": "NO_SUCH_KEY_HERE",
            },
            EndpointError,
            "NO_SUCH_KEY_HERE is not set",
        ),
        ("full", {"library.start": "gone.jsonl"}, LibraryError, "gone.jsonl does not read"),
        ("retroagent_rl", {"library.start": "gone.jsonl"}, LibraryError, "gone.jsonl does not read"),
    ],
)  # fmt: skip
def test_files_and_keys_are_needed_to_start_a_run_but_not_to_read_it(tmp_path, variant, overrides, error, message):
    config = load_config("nano", variant, overrides)
    with pytest.raises(error, match=message):
        check_run(config, 1)
    assert issubclass(error, UserError)
    save_config(config, tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == config


def test_a_library_begins_with_the_skills_of_a_file(tmp_path):
    file = tmp_path / "skills.jsonl"
    lines = [{"desc": "a mug", "strategy": "look in shelf 1"}, {"desc": "heat", "strategy": "microwave", "task": "t"}]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    config = load_config("nano", overrides={"library.start": str(file), "library.encoder": "hash"})
    kind = method_of(config)
    (tmp_path / "library").mkdir()
    first, other, evaluated = kind(config, tmp_path / "library"), kind(config), kind(config)
    assert kind.starts_with_skills(config) and len(first.skills) == 0
    for method in (first, other):
        method.start()
    assert [(s.id, s.desc, s.strategy, s.task, s.utility, s.admitted) for s in first.skills] == [
        ("s000001", "a mug", "look in shelf 1", "", 0.5, 0), ("s000002", "heat", "microwave", "t", 0.5, 0),
    ]  # fmt: skip
    first.learn([rollout(0, 0, 1.0)], 1, "train")
    evaluated.load_initial(tmp_path / "library")  # step 0 of the run, which has learnt since
    assert evaluated.skills.state_hash() == other.skills.state_hash()
    assert list(kind.skills_before(config, tmp_path / "library", 1)) == ["s000001", "s000002"]
    assert list(kind.skills_before(config, tmp_path / "library", 2)) == ["s000001", "s000002", "s000003"]


def test_a_bank_is_taken_when_the_run_starts(tmp_path):
    file = tmp_path / "bank.json"
    file.write_text(json.dumps({
        "general_skills": [{"skill_id": "gen_001", "title": "Search", "principle": "Open what is closed"}],
        "task_specific_skills": {}, "common_mistakes": [],
    }))  # fmt: skip
    config = load_config("nano", "skillrl", {"method.bank": str(file), "method.encoder": "hash"})
    (tmp_path / "library").mkdir()
    first, evaluated = SkillRL(config, tmp_path / "library"), SkillRL(config)
    assert SkillRL.starts_with_skills(config) and len(first.skills) == 0
    first.start()
    assert [entry.id for entry in first.skills.bank.principles] == ["gen_001"]
    file.unlink()  # it is kept with the run
    evaluated.load_initial(tmp_path / "library")
    assert evaluated.skills.state_hash() == first.skills.state_hash()
    assert list(SkillRL.skills_before(config, tmp_path / "library", 1)) == ["gen_001"]


@pytest.mark.parametrize(("name", "told"), [("method.name", "no method"), ("environment.name", "no environment")])
def test_an_object_of_another_kind_is_refused(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config("nano", overrides={name: "pathlib:Path"})
