"""The protocol of a method: plain GRPO, one of one's own in a file, one with its own stage, options and columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hand_made import bare, turn
from nano_runs import environment, load_policy, settings

from skill1.config import load_config, method_of, to_tree
from skill1.prompts import method_prompts
from skill1.records import Rollout
from skill1.registry import ConfigError, find
from skill1.rollout import RolloutLoop
from skill1.store.rollout_log import read_rollouts, rollout_schema, write_rollouts

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RLOO = f"{EXAMPLES / 'rloo.py'}:RLOO"


def grouped(*outcomes: float, acts: int = 2) -> list[Rollout]:
    turns = [turn("act") for _ in range(acts)]
    return [bare(index=i, outcome=outcome, acts=turns) for i, outcome in enumerate(outcomes)]


def test_a_method_by_itself_is_grpo() -> None:
    config = load_config("paper", "grpo")
    rows = method_of(config).rows(grouped(1.0, 0.0, 0.0, 0.0), config)
    # mean .25, unbiased std .5: 1.5 and -.5, for both actions of every episode
    assert [row.advantage for row in rows] == pytest.approx([1.5, 1.5, *[-0.5] * 6])
    assert {row.weight for row in rows} == {1.0} and {row.stage for row in rows} == {"act"}
    assert config.library is None and "library" not in to_tree(config)
    assert method_of(config).trained_stages(config) == {"act": 2048} and not method_of(config).keeps_skills


def test_rloo_leaves_one_out() -> None:
    config = load_config("nano", overrides={"method.name": RLOO, "credit.invalid_penalty": 0.0})
    assert config.method.name == RLOO
    rows = method_of(config).rows(grouped(1.0, 1.0, 0.0, 0.0, acts=1), config)
    # a win against (1 + 0 + 0) / 3, a loss against (1 + 1 + 0) / 3
    assert [row.advantage for row in rows] == pytest.approx([2 / 3, 2 / 3, -2 / 3, -2 / 3])
    assert [row.advantage for row in method_of(config).rows(grouped(1.0, 1.0, acts=1), config)] == [0.0, 0.0]


def test_an_unknown_method_is_named_with_the_closest_one() -> None:
    with pytest.raises(ConfigError, match="unknown method 'gipgo'; did you mean 'gigpo'"):
        load_config("nano", overrides={"method.name": "gipgo"})
    with pytest.raises(ConfigError, match=r"unknown configuration field 'method.lamda_rerank'; did you mean"):
        load_config("nano", overrides={"method.lamda_rerank": 0.1})
    with pytest.raises(ConfigError, match="the method grpo keeps no library"):
        load_config("nano", "grpo", {"library.top_k": 3})


def test_a_prompt_set_without_a_methods_prompts_is_refused() -> None:
    terse = f"{EXAMPLES / 'terse_prompts.py'}:make"
    config = load_config("small", "retroagent_rl", {"policy.prompts": terse})
    with pytest.raises(ConfigError, match=r"has no prompts for the method retroagent: register them"):
        method_prompts(config)


OWN = '''
from dataclasses import dataclass
from typing import ClassVar

from pydantic.dataclasses import dataclass as options

from skill1.config import STRICT, MethodConfig, knob
from skill1.methods.base import Method


@options(frozen=True, config=STRICT)
class Planning(MethodConfig):
    """A plan before the first action."""

    # How long the plan may be.
    max_plan_tokens: int = knob(7, "tokens", "ours", gt=0)


@dataclass(frozen=True)
class Grade:
    mark: float
    judge: str


@dataclass(frozen=True)
class Plan:
    text: str
    steps: int
    grade: Grade | None = None


class Planner(Method):
    Options: ClassVar = Planning
    Extra: ClassVar = Plan

    @classmethod
    def trained_stages(cls, config):
        return {"plan": config.method.max_plan_tokens} | super().trained_stages(config)

    def begin(self, episodes, ask):
        texts = [f"<query> plan {e.start.instruction} <write>" for e in episodes]
        for e, answer in zip(episodes, ask("plan", episodes, texts, self.config.method.max_plan_tokens), strict=True):
            e.extra = Plan(answer.text, len(answer.text.split()), Grade(0.5, "nobody"))
            e.record("plan", answer, answer.text, bool(answer.text))
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "planner.py").write_text(OWN)
    return f"{tmp_path / 'planner.py'}:Planner"


def test_a_method_has_options_stages_and_columns_of_its_own(own: str, tmp_path: Path) -> None:
    config = load_config("nano", overrides={"method.name": own, "method.max_plan_tokens": "3"})
    planner = method_of(config)
    assert to_tree(config)["method"] == {"name": own, "max_plan_tokens": 3}
    assert planner.trained_stages(config) == {"plan": 3, "act": 8}
    kind = planner.Extra
    grade = find("methods", own.replace(":Planner", ":Grade"))
    played = [replace(bare(), extra=kind("a b", 2, grade(0.5, "me"))), replace(bare(index=1), extra=kind("", 0))]
    write_rollouts(tmp_path / "log.parquet", played, kind)
    assert [r.extra for r in read_rollouts(tmp_path / "log.parquet", kind)] == [r.extra for r in played]
    assert "extra" in rollout_schema(kind).names and "extra" not in rollout_schema().names


def test_its_stage_is_played_with_a_random_stream_of_its_own(own: str, world: Path, nano: Path) -> None:
    given = settings(world, nano, method=own) | {"method.name": own, "method.max_plan_tokens": 4}
    config = load_config("nano", overrides=given)
    place = environment(config)
    loop = RolloutLoop(load_policy(config), place, method_of(config)(config), config, 1.0)
    tasks = place.tasks("train")[:2]
    alone = loop.run(tasks[:1], [0], [0], (0, 0))
    together = loop.run(tasks, [0, 1], [0, 0], (0, 0))
    assert alone[0].turns[0].stage == "plan" and alone[0].extra.grade.judge == "nobody"
    for a, b in zip(alone[0].turns, together[0].turns, strict=True):
        np.testing.assert_array_equal(a.completion_ids, b.completion_ids)
