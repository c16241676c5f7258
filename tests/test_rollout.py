"""The skill loop: what each stage is shown, what is recorded, and that a rollout is its own."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from nano_runs import configure, contents, environment, load_policy, success

from skill1.config import load_config
from skill1.encoder import HashEncoder
from skill1.envs.alfworld.spec import ALFWORLD
from skill1.envs.base import Observation
from skill1.library import SkillLibrary
from skill1.methods.references import ReferenceTrajectories
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.policy import Completion
from skill1.prompts.full import FullPrompts
from skill1.records import Task
from skill1.rollout import SkillLoop, task_key

LESSONS = [("look for a mug", "mugs are in shelf 1"), ("look for an apple", "apples are in fridge 1"),
           ("put things away", "open what is closed"), ("examine a thing", "take it to the lamp")]  # fmt: skip


def library(config, count: int) -> SkillLibrary:
    made = SkillLibrary(config.library, HashEncoder())
    made.learn([success(*lesson) for lesson in LESSONS[:count]], 1)
    return made


def loop(config, policy, skills, **changed) -> SkillLoop:
    settings = dict(temperature=1.0, retrieval="ucb", distill=True) | changed
    return SkillLoop(policy, environment(config), skills, config, **settings)


def play(config, policy, skills, groups=(0, 1), size=3, seed=(0, 0), **changed):
    tasks = environment(config).tasks("train")
    named = [(g, i) for g in groups for i in range(size)]
    return loop(config, policy, skills, **changed).run(
        [tasks[g] for g, _ in named], [g for g, _ in named], [i for _, i in named], seed
    )


class Scripted:
    """Answers each full prompt by rule and keeps what it was asked; tokens are the characters."""

    def __init__(self, walkthroughs: dict[str, list[str]], rank: str = "<rank>2,1</rank>") -> None:
        self.prompts = FullPrompts(ALFWORLD.words)
        self.rank = rank
        self.walkthroughs = walkthroughs  # instruction -> commands
        self.calls: list[tuple[list[str], list[tuple[int, ...]], float, int]] = []

    def answer(self, text: str) -> str:
        if "between <query>" in text:
            return "<query>look for a mug</query>"
        if "between <rank>" in text:
            return self.rank
        if "JSON" in text:
            return json.dumps({"action_lesson": "did it well", "description_head": "whenever it is asked"})
        task = text.partition("Task: ")[2].partition("\n")[0]
        steps = int(text.partition("Actions taken so far: ")[2].partition(".")[0])
        commands = self.walkthroughs[task]
        return f"<action>{commands[steps]}</action>" if steps < len(commands) else "nothing left"

    def generate(self, texts, seeds, *, temperature, max_new_tokens):
        self.calls.append((list(texts), list(seeds), temperature, max_new_tokens))
        out = []
        for text, seed in zip(texts, seeds, strict=True):
            answer = self.answer(text)
            ids = np.frombuffer(answer.encode(), np.uint8).astype(np.int32)
            prompt = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
            out.append(Completion(prompt, ids, np.full(len(ids), -sum(seed), np.float32), answer))
        return out


@pytest.fixture
def paper(world):
    return load_config("paper", overrides={"environment.data": str(world), "library.encoder": "hash"})


@pytest.fixture
def scripted(paper):
    """Wins the first train game and fails the second."""
    env = environment(paper)
    first, second = env.tasks("train")[:2]
    starts = env.reset([first, second])
    assert starts[0].instruction != starts[1].instruction
    walk = env.games.game(first.game).walkthrough
    return Scripted({starts[0].instruction: list(walk), starts[1].instruction: ["fly away", "look"]})


def test_every_stage_is_recorded(paper, scripted):
    longest = len(next(iter(scripted.walkthroughs.values())))
    paper = replace(paper, environment=replace(paper.environment, max_steps=longest))
    skills = library(paper, 3)
    won, lost = play(paper, scripted, skills, size=1, seed=(4, 9))
    env = environment(paper)
    tasks = env.tasks("train")
    starts = env.reset(tasks[:2])
    walk = scripted.walkthroughs[starts[0].instruction]
    assert [t.stage for t in won.turns] == ["query", "rerank", *["act"] * len(walk), "distill"]
    assert (won.task, won.instruction, won.group, won.index) == (tasks[0], starts[0].instruction, 0, 0)
    assert (won.outcome, won.score, won.steps) == (1.0, 1.0, len(walk))
    assert (lost.outcome, lost.score, lost.steps) == (0.0, 0.0, paper.environment.max_steps)
    for rollout in (won, lost):
        query, rerank = rollout.turns[:2]
        assert rollout.query == query.value == "look for a mug" and query.text == "<query>look for a mug</query>"
        retrieved = skills.retrieve([rollout.query], "ucb")[0]
        assert rollout.candidates == retrieved and len(retrieved) == 3
        assert (rollout.ranking, rollout.ranking_parsed, rerank.value) == ((1, 0, 2), True, "2,1,3")
        assert rollout.selected == retrieved[1].skill
        chosen = skills[rollout.selected]
        assert rollout.skill == FullPrompts(ALFWORLD.words).skill_block([chosen.strategy])
        similarity = skills.similarity([rollout.instruction], [chosen.id])[0]
        assert rollout.skill_similarity == pytest.approx(similarity)
        assert (rollout.lesson.desc, rollout.lesson.strategy) == ("whenever it is asked", "Actions: did it well")
        distilled = rollout.turns[-1]
        assert distilled.value == "whenever it is asked\nActions: did it well" and distilled.well_formed
        for turn in rollout.turns:
            assert bytes(turn.completion_ids.astype(np.uint8)).decode() == turn.text
            shown = bytes(turn.prompt_ids.astype(np.uint8)).decode()
            assert rollout.instruction in shown
            assert turn.observation in shown or turn.stage == "distill"  # there it is what the last action led to
        acts = rollout.turns_of("act")
        assert all(rollout.skill in bytes(t.prompt_ids.astype(np.uint8)).decode() for t in acts)
    assert [t.value for t in won.turns_of("act")] == walk
    assert won.turns[2].observation == starts[0].text and won.turns[3].observation != starts[0].text
    assert (won.invalid_actions, won.inadmissible_actions) == (0, 0)
    assert [t.admissible for t in lost.turns_of("act")[:3]] == [False, True, False]
    assert (lost.invalid_actions, lost.inadmissible_actions) == (lost.steps - 2, lost.steps - 1)
    assert lost.turns[2].value == "fly away" and lost.turns[3].observation == "Nothing happens."


def test_each_stage_has_its_limit_and_temperature_and_all_live_episodes_share_a_call(paper, scripted):
    paper = replace(
        paper,
        rollout=replace(paper.rollout, max_query_tokens=1, max_rerank_tokens=2, max_act_tokens=3, max_distill_tokens=4),
        environment=replace(paper.environment, max_steps=20),
    )
    won, lost = play(paper, scripted, library(paper, 2), size=1, temperature=0.7)
    shape = [(len(texts), temperature, limit) for texts, _, temperature, limit in scripted.calls]
    assert won.steps < lost.steps == 20
    acts = [(2, 0.7, 3)] * won.steps + [(1, 0.7, 3)] * (lost.steps - won.steps)
    assert shape == [(2, 0.7, 1), (2, 0.7, 2), *acts, (2, 0.7, 4)]


def test_every_call_has_a_random_stream_of_its_own(paper, scripted):
    play(paper, scripted, library(paper, 2), size=3, seed=(4, 9))
    seeds = [seed for _, seeds, _, _ in scripted.calls for seed in seeds]
    assert len(set(seeds)) == len(seeds) and len({len(seed) for seed in seeds}) == 1
    assert all(seed[:2] == (4, 9) for seed in seeds)


def test_tasks_have_stable_names():
    task = Task("alfworld", "train", "train/a/b", "Pick", seed=3)
    assert task_key(task) == task_key(replace(task, category="Look")) == 3619687165
    assert len({task_key(task), task_key(replace(task, game="train/a/c")), task_key(replace(task, seed=4))}) == 3


def test_without_a_library_only_acts_are_asked(paper, scripted):
    for rollout in play(paper, scripted, None, size=1):
        assert {t.stage for t in rollout.turns} == {"act"}
        assert (rollout.query, rollout.candidates, rollout.selected, rollout.skill) == ("", (), None, "")
        assert math.isnan(rollout.skill_similarity) and rollout.lesson is None
        assert b"Skill from earlier" not in bytes(rollout.turns[0].prompt_ids.astype(np.uint8))


def test_without_selection_the_task_text_retrieves_and_rank_one_is_taken(paper, scripted):
    paper = replace(paper, rollout=replace(paper.rollout, selection=False))
    skills = library(paper, 4)
    for rollout in play(paper, scripted, skills, size=1):
        assert {t.stage for t in rollout.turns} == {"act", "distill"}
        assert rollout.query == rollout.instruction
        assert rollout.candidates == skills.retrieve([rollout.instruction], "ucb")[0]
        assert rollout.ranking == (0, 1, 2, 3) and rollout.selected == rollout.candidates[0].skill


def test_without_distillation_the_raw_trajectory_is_the_lesson(paper, scripted):
    paper = replace(paper, rollout=replace(paper.rollout, distillation=False))
    for rollout in play(paper, scripted, library(paper, 2), size=1):
        assert {t.stage for t in rollout.turns} == {"query", "rerank", "act"}
        assert rollout.lesson.desc == rollout.instruction
        first, *_ = rollout.turns_of("act")
        assert rollout.lesson.strategy.startswith(f"[1] Observation: {first.observation}\n    Action: {first.value}")
        assert rollout.lesson.strategy.count("Action: ") == rollout.steps


def test_evaluation_distils_nothing_and_retrieves_without_the_bonus(paper, scripted):
    paper = replace(paper, library=replace(paper.library, similarity_weight=0.0))
    skills = library(paper, 3)
    skills.learn([replace(success(*LESSONS[0]), candidates=skills.retrieve(["mug"], "greedy")[0][:1])] * 3, 2)
    greedy = play(paper, scripted, skills, size=1, retrieval="greedy", distill=False)
    ucb = play(paper, scripted, skills, size=1, retrieval="ucb", distill=False)
    for a, b in zip(greedy, ucb, strict=True):
        assert {t.stage for t in a.turns} == {"query", "rerank", "act"} and a.lesson is None
        assert a.candidates == skills.retrieve([a.query], "greedy")[0]
        assert a.candidates[0].skill == "s000001" != b.candidates[0].skill  # the proven one against the untried one


def test_inject_all_shows_every_candidate_in_ranked_order(paper, scripted):
    paper = replace(paper, library=replace(paper.library, inject="all"))
    skills = library(paper, 3)
    for rollout in play(paper, scripted, skills, size=1):
        ranked = [skills[rollout.candidates[i].skill].strategy for i in rollout.ranking]
        assert rollout.skill == FullPrompts(ALFWORLD.words).skill_block(ranked) and len(ranked) == 3
        assert rollout.selected == rollout.candidates[rollout.ranking[0]].skill


def test_one_candidate_is_taken_without_a_rerank_call(paper, scripted):
    for rollout in play(paper, scripted, library(paper, 1), size=1):
        assert {t.stage for t in rollout.turns} == {"query", "act", "distill"}
        assert (rollout.selected, rollout.ranking, rollout.ranking_parsed) == ("s000001", (0,), True)


@pytest.mark.parametrize("count, floor", [(0, None), (3, 0.99)])
def test_nothing_retrieved_is_an_episode_without_a_skill(paper, scripted, count, floor):
    paper = replace(paper, library=replace(paper.library, similarity_floor=floor))
    scripted.answer, own = (lambda text: "<query>zebra</query>" if "<query>" in text else own(text)), scripted.answer
    for rollout in play(paper, scripted, library(paper, count), size=1):
        assert {t.stage for t in rollout.turns} == {"query", "act", "distill"}
        assert (rollout.candidates, rollout.ranking, rollout.selected, rollout.skill) == ((), (), None, "")
        assert math.isnan(rollout.skill_similarity) and rollout.query == "zebra"


def test_an_unparsed_ranking_keeps_the_retrieval_order(paper, scripted):
    scripted.rank = "the second one"
    for rollout in play(paper, scripted, library(paper, 3), size=1):
        assert (rollout.ranking, rollout.ranking_parsed) == ((0, 1, 2), False)
        assert rollout.selected == rollout.candidates[0].skill
        assert not rollout.turns_of("rerank")[0].well_formed


def test_given_skills_are_injected_only_without_a_library(paper, scripted):
    tasks = environment(paper).tasks("train")[:2]
    run = loop(paper, scripted, None).run(tasks, [0, 0], [0, 1], (0,), skills=["stay calm", ""])
    assert [r.skill for r in run] == [FullPrompts(ALFWORLD.words).skill_block(["stay calm"]), ""]
    assert [r.selected for r in run] == [None, None]
    with pytest.raises(ValueError, match="only into a loop without a library"):
        loop(paper, scripted, library(paper, 1)).run(tasks, [0, 0], [0, 1], (0,), skills=["stay calm", ""])


def test_references_show_the_last_opposite_outcome(paper, scripted, tmp_path):
    paper = replace(paper, rollout=replace(paper.rollout, distill_reference=True))
    references = ReferenceTrajectories()
    rollouts = play(paper, scripted, library(paper, 2), size=1, references=references)
    assert not any("For comparison" in text for texts, *_ in scripted.calls for text in texts)
    references.learn(rollouts)
    won, lost = rollouts
    assert references.opposite(won.task.game, won=False) == [(t.observation, t.value) for t in won.turns_of("act")]
    assert references.opposite(won.task.game, won=True) is None
    references.save(tmp_path)
    again = ReferenceTrajectories()
    again.load(tmp_path)
    assert again.opposite(lost.task.game, won=True) == references.opposite(lost.task.game, won=True) != []
    scripted.walkthroughs = {name: walk[:1] for name, walk in scripted.walkthroughs.items()}  # now the first fails too
    scripted.calls.clear()
    play(paper, scripted, library(paper, 2), size=1, references=again)
    shown = {text.partition("Task: ")[2].partition("\n")[0]: text for text in scripted.calls[-1][0]}
    assert "an earlier successful attempt" in shown[won.instruction]
    assert won.turns_of("act")[-1].value in shown[won.instruction].partition("an earlier")[2]
    assert "For comparison" not in shown[lost.instruction]  # it never won


# -- with a real policy -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm_policy(world, warm):
    return load_policy(configure(world, warm))


def test_a_rollout_does_not_depend_on_what_runs_beside_it(world, warm, warm_policy):
    config = configure(world, warm, environment__max_steps=6)
    together = play(config, warm_policy, library(config, 4), groups=(0, 1, 2))
    apart = [r for g in (2, 0, 1) for r in play(config, warm_policy, library(config, 4), groups=(g,))]
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
    running = loop(config, warm_policy, library(config, 4))
    tasks = environment(config).tasks("train")[:2]
    first = running.run(tasks, [0, 1], [0, 0], (3, 1))
    running.run(tasks[:1], [0], [5], (3, 2))
    again = running.run(tasks, [0, 1], [0, 0], (3, 1))
    assert [contents(r) for r in again] == [contents(r) for r in first]
    other = running.run(tasks, [0, 1], [0, 0], (3, 2))
    assert [contents(r)[4:6] for r in other] != [contents(r)[4:6] for r in first]


def test_what_a_real_policy_wrote_is_what_the_parsers_took(world, warm, warm_policy):
    config = configure(world, warm, environment__max_steps=6, rollout__max_distill_tokens=24)
    prompts, tokenizer = CompactPrompts(), warm_policy.tokenizer
    seen = set()
    for rollout in play(config, warm_policy, library(config, 4), groups=range(4), size=4):
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
