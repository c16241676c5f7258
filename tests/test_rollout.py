"""The rollout loop: what is asked and recorded, when a method comes in, and that a rollout is its own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from nano_runs import configure, contents, environment, load_policy
from scripted import PROMPTS, Scripted, loop, paper, play, shown, taught, walker

from skill1.envs.base import Observation
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.records import STAGES, Task
from skill1.rollout import Stages, task_key


@pytest.fixture
def config(world):
    return paper(world)


@pytest.fixture
def scripted(config) -> Scripted:
    return walker(config)


class Watched(Stages):
    """Asks once before and once after, and keeps what it saw."""

    def __init__(self) -> None:
        self.seen = []

    def begin(self, episodes, ask):
        self.seen.append(("begin", len(episodes), [len(e.turns) for e in episodes], [e.done for e in episodes]))
        with ask.timed("plan"):
            texts = [ask.prompts.query(e.start) for e in episodes]
            for e, answer in zip(episodes, ask("plan", episodes, texts, 5), strict=True):
                e.record("plan", answer, "a plan", False)
                e.skill, e.extra = f"[{e.index}]\n", {"plan": e.index}

    def end(self, episodes, ask):
        self.seen.append(("end", len(episodes), [len(e.trajectory) for e in episodes], [e.done for e in episodes]))
        answers = ask("plan", episodes[1:], [ask.prompts.query(e.start) for e in episodes[1:]], 6)
        for e, answer in zip(episodes[1:], answers, strict=True):
            e.record("plan", answer, "", True)


def test_acting_alone_asks_for_actions_and_records_them(config, scripted):
    config = replace(config, environment=replace(config.environment, max_steps=20))
    won, lost = play(config, scripted, Stages(), seed=(4, 9))
    env = environment(config)
    tasks = env.tasks("train")
    starts = env.reset(tasks[:2])
    walk = scripted.walkthroughs[starts[0].instruction]
    assert (won.task, won.instruction, won.group, won.index) == (tasks[0], starts[0].instruction, 0, 0)
    assert (lost.task, lost.instruction, lost.group, lost.index) == (tasks[1], starts[1].instruction, 1, 0)
    assert (won.outcome, won.score, won.steps) == (1.0, 1.0, len(walk))
    assert (lost.outcome, lost.score, lost.steps) == (0.0, 0.0, 20)
    assert [t.value for t in won.turns_of("act")] == walk
    assert won.turns[0].observation == starts[0].text and won.turns[1].observation != starts[0].text
    assert (won.invalid_actions, won.inadmissible_actions) == (0, 0)
    assert [t.admissible for t in lost.turns[:3]] == [False, True, False]
    assert (lost.invalid_actions, lost.inadmissible_actions) == (18, 19)
    assert lost.turns[0].value == "fly away" and lost.turns[1].observation == "Nothing happens."
    for rollout in (won, lost):
        assert {t.stage for t in rollout.turns} == {"act"} and len(rollout.turns) == rollout.steps
        assert (rollout.query, rollout.candidates, rollout.selected, rollout.skill) == ("", (), None, "")
        assert math.isnan(rollout.skill_similarity) and rollout.lesson is None and rollout.extra is None
        assert "Skill from earlier" not in shown(rollout.turns[0])
        for turn in rollout.turns:
            assert bytes(turn.completion_ids.astype(np.uint8)).decode() == turn.text
            seen = PROMPTS.words.plain(turn.observation, rollout.instruction)
            assert shown(turn).count(rollout.instruction) == 1 and seen in shown(turn)


def test_all_live_episodes_share_a_call(config, scripted):
    config = replace(
        config,
        rollout=replace(config.rollout, max_act_tokens=3),
        environment=replace(config.environment, max_steps=20),
    )
    won, lost = play(config, scripted, Stages(), temperature=0.7)
    assert won.steps < lost.steps == 20
    asked = [(len(texts), temperature, limit) for texts, _, temperature, limit in scripted.calls]
    assert asked == [(2, 0.7, 3)] * won.steps + [(1, 0.7, 3)] * (lost.steps - won.steps)


def test_a_method_comes_in_before_the_first_action_and_after_the_last_of_all(config, scripted):
    config = replace(config, environment=replace(config.environment, max_steps=20))
    method = Watched()
    running = loop(config, scripted, method, temperature=0.3)
    rollouts = running.run(environment(config).tasks("train")[:2], [0, 1], [4, 5], (0,))
    steps = [r.steps for r in rollouts]
    assert method.seen == [("begin", 2, [0, 0], [False, False]), ("end", 2, steps, [True, True])]
    assert [(len(t), temperature, limit) for t, _, temperature, limit in (scripted.calls[0], scripted.calls[-1])] == [
        (2, 0.3, 5),
        (1, 0.3, 6),
    ]
    first, second = rollouts
    assert [t.stage for t in first.turns] == ["plan", *["act"] * first.steps]
    assert [t.stage for t in second.turns] == ["plan", *["act"] * second.steps, "plan"]
    assert (first.turns[0].value, first.turns[0].well_formed) == ("a plan", False)
    assert first.turns[0].observation == first.turns[1].observation  # what it was shown: the beginning
    assert [(r.skill, r.extra) for r in rollouts] == [("[4]\n", {"plan": 4}), ("[5]\n", {"plan": 5})]
    assert all(r.skill in shown(turn) for r in rollouts for turn in r.turns_of("act"))
    assert set(running.seconds) == {"plan", "act"} and all(spent > 0 for spent in running.seconds.values())


def test_a_block_can_wait_for_the_first_action(config, scripted):
    class Later(Stages):
        def begin(self, episodes, ask):
            for e in episodes:
                e.skill, e.skill_from = "[block]\n", 2

    for rollout in play(config, scripted, Later()):
        assert ["[block]" in shown(turn) for turn in rollout.turns[:4]] == [False, False, True, True]


def test_every_call_has_a_random_stream_of_its_own(config, scripted):
    play(config, scripted, taught(config, 2), size=3, seed=(4, 9))
    play(config, scripted, Watched(), size=3, seed=(4, 9))
    by_play = [[seed for _, seeds, _, _ in part for seed in seeds] for part in _split(scripted.calls)]
    for seeds in by_play:
        assert len(set(seeds)) == len(seeds) and len({len(seed) for seed in seeds}) == 1
        assert all(seed[:2] == (4, 9) for seed in seeds)
    skill1, watched = by_play
    acts = [seed for seed in skill1 if seed[-2] == STAGES.index("act")]
    assert acts == [seed for seed in watched if seed[-2] == STAGES.index("act")]  # whatever was asked before
    plans = {seed[-2] for seed in watched} - {STAGES.index("act")}
    assert len(plans) == 1 and min(plans) >= len(STAGES)  # a method's own stage takes no stream of the paper's


def _split(calls):
    """The calls of the first play and of the second, which begins with the last call for a plan of six episodes."""
    second = next(i for i, (texts, _, _, limit) in enumerate(calls) if limit == 5)
    return calls[:second], calls[second:]


def test_tasks_have_stable_names():
    task = Task("alfworld", "train", "train/a/b", "Pick", seed=3)
    assert task_key(task) == task_key(replace(task, category="Look")) == 3619687165
    assert len({task_key(task), task_key(replace(task, game="train/a/c")), task_key(replace(task, seed=4))}) == 3


# -- with a real policy -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm_policy(world, warm):
    return load_policy(configure(world, warm))


def test_a_rollout_does_not_depend_on_what_runs_beside_it(world, warm, warm_policy):
    config = configure(world, warm, environment__max_steps=6)
    together = play(config, warm_policy, taught(config, 4), groups=(0, 1, 2), size=3)
    apart = [r for g in (2, 0, 1) for r in play(config, warm_policy, taught(config, 4), groups=(g,), size=3)]
    apart.sort(key=lambda r: (r.group, r.index))

    def sampled(rollout):
        return [(t.stage, t.prompt_ids.tolist(), t.completion_ids.tolist(), t.value) for t in rollout.turns]

    assert [sampled(r) for r in together] == [sampled(r) for r in apart]
    assert [(r.candidates, r.ranking, r.selected, r.lesson, r.outcome) for r in together] == [
        (r.candidates, r.ranking, r.selected, r.lesson, r.outcome) for r in apart
    ]
    for a, b in zip(together, apart, strict=True):
        for t, u in zip(a.turns, b.turns, strict=True):
            np.testing.assert_allclose(t.logprobs, u.logprobs, atol=1e-4)
    assert len({tuple(t.text for t in r.turns) for r in together}) == len(together)


def test_the_same_call_again_is_the_same_rollout_bit_for_bit(world, warm, warm_policy):
    config = configure(world, warm, environment__max_steps=6)
    running = loop(config, warm_policy, taught(config, 4))
    tasks = environment(config).tasks("train")[:2]
    first = running.run(tasks, [0, 1], [0, 0], (3, 1))
    running.run(tasks[:1], [0], [5], (3, 2))
    again = running.run(tasks, [0, 1], [0, 0], (3, 1))
    assert [contents(r) for r in again] == [contents(r) for r in first]
    other = running.run(tasks, [0, 1], [0, 0], (3, 2))
    assert [contents(r)[4:6] for r in other] != [contents(r)[4:6] for r in first]


def test_what_a_real_policy_wrote_is_what_the_parsers_took(world, warm, warm_policy):
    config = configure(world, warm, environment__max_steps=6, method__max_distill_tokens=24)
    prompts, tokenizer = CompactPrompts(), warm_policy.tokenizer
    seen = set()
    for rollout in play(config, warm_policy, taught(config, 4), groups=range(4), size=4):
        for turn in rollout.turns:
            assert tokenizer.decode(turn.completion_ids, skip_special_tokens=True) == turn.text
            assert tokenizer.decode(turn.prompt_ids).startswith(f"<{turn.stage}>")
            assert (turn.logprobs <= 0).all() and len(turn.logprobs) == len(turn.completion_ids)
            seen.add((turn.stage, turn.well_formed))
            if turn.stage == "act":
                parsed = prompts.parse_action(turn.text, ())
                assert (parsed.value, parsed.well_formed) == (turn.value, turn.well_formed)
        ranked = prompts.parse_rerank(rollout.turns_of("rerank")[0].text, 4)
        assert (rollout.ranking, rollout.ranking_parsed) == ranked
        start = Observation(rollout.turns_of("query")[0].observation, (), rollout.instruction)
        assert rollout.lesson == prompts.parse_distill(rollout.turns_of("distill")[0].text, start)
    assert {("act", True), ("act", False), ("rerank", True), ("rerank", False), ("query", True)} <= seen
