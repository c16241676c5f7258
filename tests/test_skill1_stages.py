"""Skill1's stages: what each is shown, what is recorded, and what evaluation and the ablations leave out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from nano_runs import environment, success
from scripted import LESSONS, PROMPTS, Scripted, paper, play, shown, taught, walker

from skill1.config import Config, override
from skill1.envs.alfworld.spec import plain
from skill1.methods.skill1 import Skill1


@pytest.fixture
def config(world) -> Config:
    return paper(world)


@pytest.fixture
def scripted(config) -> Scripted:
    return walker(config)


def test_every_stage_is_recorded(config, scripted):
    longest = len(next(iter(scripted.walkthroughs.values())))
    config = override(config, {"environment.max_steps": longest})
    method = taught(config, 3)
    skills = method.skills
    won, lost = play(config, scripted, method, seed=(4, 9))
    env = environment(config)
    tasks = env.tasks("train")
    starts = env.reset(tasks[:2])
    walk = scripted.walkthroughs[starts[0].instruction]
    assert [t.stage for t in won.turns] == ["query", "rerank", *["act"] * len(walk), "distill"]
    assert (won.task, won.instruction, won.group, won.index) == (tasks[0], starts[0].instruction, 0, 0)
    assert (won.outcome, won.score, won.steps) == (1.0, 1.0, len(walk))
    assert (lost.outcome, lost.score, lost.steps) == (0.0, 0.0, config.environment.max_steps)
    for rollout in (won, lost):
        query, rerank = rollout.turns[:2]
        assert rollout.query == query.value == "look for a mug" and query.text == "<query>look for a mug</query>"
        retrieved = skills.retrieve([rollout.query], "ucb")[0]
        assert rollout.candidates == retrieved and len(retrieved) == 3
        assert (rollout.ranking, rollout.ranking_parsed, rerank.value) == ((1, 0, 2), True, "2,1,3")
        assert rollout.selected == retrieved[1].skill
        chosen = skills[rollout.selected]
        assert rollout.skill == PROMPTS.skill_block([chosen.strategy])
        similarity = skills.similarity([rollout.instruction], [chosen.id])[0]
        assert rollout.skill_similarity == pytest.approx(similarity)
        assert (rollout.lesson.desc, rollout.lesson.strategy) == ("whenever it is asked", "Actions: did it well")
        distilled = rollout.turns[-1]
        assert distilled.value == "whenever it is asked\nActions: did it well" and distilled.well_formed
        for turn in rollout.turns:
            assert bytes(turn.completion_ids.astype(np.uint8)).decode() == turn.text
            assert rollout.instruction in shown(turn)
            assert (
                plain(turn.observation, rollout.instruction) in shown(turn) or turn.stage == "distill"
            )  # there it is what the last action led to
        acts = rollout.turns_of("act")
        assert all(rollout.skill in shown(t) for t in acts)
    assert [t.value for t in won.turns_of("act")] == walk
    assert won.turns[2].observation == starts[0].text and won.turns[3].observation != starts[0].text
    assert lost.turns[2].value == "fly away" and lost.turns[3].observation == "Nothing happens."


def test_each_stage_has_its_limit_and_temperature_and_all_live_episodes_share_a_call(config, scripted):
    config = override(config, {
        "method.max_query_tokens": 1, "method.max_rerank_tokens": 2, "rollout.max_act_tokens": 3,
        "method.max_distill_tokens": 4, "environment.max_steps": 20,
    })  # fmt: skip
    won, lost = play(config, scripted, taught(config, 2), temperature=0.7)
    asked = [(len(texts), temperature, limit) for texts, _, temperature, limit in scripted.calls]
    assert won.steps < lost.steps == 20
    acts = [(2, 0.7, 3)] * won.steps + [(1, 0.7, 3)] * (lost.steps - won.steps)
    assert asked == [(2, 0.7, 1), (2, 0.7, 2), *acts, (2, 0.7, 4)]


def test_without_selection_the_task_text_retrieves_and_rank_one_is_taken(config, scripted):
    method = taught(override(config, {"method.selection": False}), 4)
    for rollout in play(config, scripted, method):
        assert {t.stage for t in rollout.turns} == {"act", "distill"}
        assert rollout.query == rollout.instruction
        assert rollout.candidates == method.skills.retrieve([rollout.instruction], "ucb")[0]
        assert rollout.ranking == (0, 1, 2, 3) and rollout.selected == rollout.candidates[0].skill


def test_without_distillation_the_raw_trajectory_is_the_lesson(config, scripted):
    method = taught(override(config, {"method.distillation": False}), 2)
    for rollout in play(config, scripted, method):
        assert {t.stage for t in rollout.turns} == {"query", "rerank", "act"}
        assert rollout.lesson.desc == rollout.instruction
        first, *_ = rollout.turns_of("act")
        seen = plain(first.observation, rollout.instruction)
        assert rollout.lesson.strategy.startswith(f"[1] Observation: {seen}\n    Action: {first.value}")
        assert rollout.lesson.strategy.count("Action: ") == rollout.steps


def test_evaluation_distils_nothing_and_retrieves_without_the_bonus(config, scripted):
    method = taught(override(config, {"library.similarity_weight": 0.0}), 3)
    skills = method.skills
    skills.learn([replace(success(*LESSONS[0]), candidates=skills.retrieve(["mug"], "greedy")[0][:1])] * 3, 2)
    frozen = method.frozen()
    greedy, ucb = play(config, scripted, frozen), play(config, scripted, method)
    for a, b in zip(greedy, ucb, strict=True):
        assert {t.stage for t in a.turns} == {"query", "rerank", "act"} and a.lesson is None
        assert {t.stage for t in b.turns} == {"query", "rerank", "act", "distill"}
        assert a.candidates == skills.retrieve([a.query], "greedy")[0]
        assert b.candidates == skills.retrieve([b.query], "ucb")[0]
        assert a.candidates[0].skill == "s000001" != b.candidates[0].skill  # the proven one against the untried one
    skills.learn([success("look for a mug", "mugs are gone")], 3)
    assert [r.candidates for r in play(config, scripted, frozen)] == [r.candidates for r in greedy]  # as it was


def test_inject_all_shows_every_candidate_in_ranked_order(config, scripted):
    method = taught(override(config, {"library.inject": "all"}), 3)
    for rollout in play(config, scripted, method):
        ranked = [method.skills[rollout.candidates[i].skill].strategy for i in rollout.ranking]
        assert rollout.skill == PROMPTS.skill_block(ranked) and len(ranked) == 3
        assert rollout.selected == rollout.candidates[rollout.ranking[0]].skill


def test_an_evaluation_may_show_all_where_training_shows_one(config, scripted):
    method = taught(override(config, {"library.evaluation_inject": "all"}), 3)
    for stages, count in ((method, 1), (method.frozen(), 3)):
        for rollout in play(config, scripted, stages):
            ranked = [method.skills[rollout.candidates[i].skill].strategy for i in rollout.ranking]
            assert rollout.skill == PROMPTS.skill_block(ranked[:count])


def test_one_candidate_is_taken_without_a_rerank_call(config, scripted):
    for rollout in play(config, scripted, taught(config, 1)):
        assert {t.stage for t in rollout.turns} == {"query", "act", "distill"}
        assert (rollout.selected, rollout.ranking, rollout.ranking_parsed) == ("s000001", (0,), True)


@pytest.mark.parametrize("count, floor", [(0, None), (3, 0.99)])
def test_nothing_retrieved_is_an_episode_without_a_skill(config, scripted, count, floor):
    tree = {"library.similarity_floor": floor} if floor else {}
    scripted.answer, own = (lambda text: "<query>zebra</query>" if "<query>" in text else own(text)), scripted.answer
    for rollout in play(config, scripted, taught(override(config, tree), count)):
        assert {t.stage for t in rollout.turns} == {"query", "act", "distill"}
        assert (rollout.candidates, rollout.ranking, rollout.selected, rollout.skill) == ((), (), None, "")
        assert math.isnan(rollout.skill_similarity) and rollout.query == "zebra"


def test_an_unparsed_ranking_keeps_the_retrieval_order(config, scripted):
    scripted.rank = "the second one"
    for rollout in play(config, scripted, taught(config, 3)):
        assert (rollout.ranking, rollout.ranking_parsed) == ((0, 1, 2), False)
        assert rollout.selected == rollout.candidates[0].skill
        assert not rollout.turns_of("rerank")[0].well_formed


def test_references_show_the_last_opposite_outcome(config, scripted, tmp_path):
    config = override(config, {"method.distill_reference": True})
    method = taught(config, 2)
    rollouts = play(config, scripted, method)
    assert not any("For comparison" in text for texts, *_ in scripted.calls for text in texts)
    method.observe(rollouts, 1, "train", scripted)
    method.save(tmp_path)
    again = Skill1(config)
    again.load(tmp_path)
    assert again.skills.state_hash() == method.skills.state_hash()
    won, lost = rollouts
    scripted.walkthroughs = {name: walk[:1] for name, walk in scripted.walkthroughs.items()}  # now the first fails too
    scripted.calls.clear()
    play(config, scripted, again)
    asked = {text.partition("Task: ")[2].partition("\n")[0]: text for text in scripted.calls[-1][0]}
    assert "an earlier successful attempt" in asked[won.instruction]
    other = asked[won.instruction].partition("an earlier")[2]
    assert all(turn.value in other for turn in won.turns_of("act"))
    assert "For comparison" not in asked[lost.instruction]  # it never won
    (tmp_path / "references.json").unlink()
    with pytest.raises(FileNotFoundError, match="references.json"):
        Skill1(config).load(tmp_path)


def test_validation_episodes_teach_nothing(config, scripted):
    method = taught(override(config, {"method.distill_reference": True}), 2)
    rollouts, before = play(config, scripted, method), method.skills.state_hash()
    method.observe(rollouts, 1, "validation", scripted)
    assert method.learn(rollouts, 1, "validation") is None and method.skills.state_hash() == before
    scripted.walkthroughs = {name: walk[:1] for name, walk in scripted.walkthroughs.items()}
    play(config, scripted, method)
    assert not any("For comparison" in text for text in scripted.calls[-1][0])


def test_what_rank_0_learns_the_others_apply(config, scripted, tmp_path):
    first, other = Skill1(config, tmp_path), Skill1(config)
    won, lost = play(config, scripted, first)
    event = first.learn([won, lost], 1, "train")
    other.apply(event)
    assert first.skills.state_hash() == other.skills.state_hash() and len(first.skills) == 1
    assert first.state(event) == other.state(event) == {
        "library/size": 1.0, "library/admitted": 1.0, "library/merged": 0.0, "library/retired": 0.0,
        "library/mean_utility": 0.5,
    }  # fmt: skip
    assert Skill1.skills_before(config, tmp_path, 1) == {}
    [(identity, skill)] = Skill1.skills_before(config, tmp_path, 2).items()
    assert (identity, skill.strategy) == ("s000001", won.lesson.strategy)
    [row] = first.skill_table()
    assert (row["id"], row["U"], row["n"], row["strategy"]) == ("s000001", "0.500", 1, won.lesson.strategy)
