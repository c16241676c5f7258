"""Every variant on real rollouts of one policy: its rows differ from `full`'s by what it changes and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed_train import easy_environment
from nano_runs import any_reflection, configure, contents, forked, load_policy, settings, success
from safetensors.torch import load_file

import skill1.train
from skill1.cli import main as cli
from skill1.config import Config, load_config, method_of
from skill1.methods.base import Method
from skill1.methods.gigpo import discounted_returns, step_advantages
from skill1.methods.retroagent.equations import intrinsic_of, judged_right
from skill1.methods.skill1 import Skill1
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.alfworld.reading import compact
from skill1.presets import variants
from skill1.records import Rollout, Row
from skill1.rollout import Ask, RolloutLoop
from skill1.store.journal import LibraryEvent
from skill1.store.run_directory import RunDirectory

VARIANTS = variants()
LESSONS = [("look for a mug", "mugs are in shelf 1"), ("look for an apple", "apples are in fridge 1"),
           ("put things away", "open what is closed")]  # fmt: skip


@dataclass(frozen=True)
class Batch:
    config: Config
    method: Method
    rollouts: list[Rollout]
    rows: list[Row]
    learnt: Any  # what the method learnt from these rollouts; None: nothing


@pytest.fixture(scope="module")
def batches(world: Path, warm: Path) -> dict[str, Batch]:
    """Two groups of six, the same tasks and seeds for every variant, some episodes won."""

    def play(variant: str, seed: int) -> Batch:
        distilled = {"full", "no_selection", "lambda1_0", "lambda2_0", "lambdas_0"}
        limit = {"method.max_distill_tokens": 16} if variant in distilled else {}
        limit |= {"method.max_reflect_tokens": 16} if variant.startswith("retroagent") else {}
        config = configure(
            world, warm, variant, environment__max_steps=5, rollout__group_size=6,
            **{name.replace(".", "__"): value for name, value in limit.items()},
        )  # fmt: skip
        policy, environment, method = (
            load_policy(config),
            easy_environment(config.environment),
            method_of(config)(config),
        )
        if method.uses_library:
            method.skills.learn([success(*lesson) for lesson in LESSONS], 1)
            proven = method.skills.retrieve(["mug"], "greedy")[0][:1]  # so that not every order is perfect
            method.skills.learn([replace(success(*LESSONS[0]), candidates=proven)] * 9, 2)
        loop = RolloutLoop(Ask(policy, 1.0), environment, method, config)
        tasks = environment.tasks("train")
        named = [(group, index) for group in range(2) for index in range(6)]
        rollouts = loop.run([tasks[g] for g, _ in named], [g for g, _ in named], [i for _, i in named], (0, seed))
        rows = method.rows(rollouts, config)
        method.observe(rollouts, 3, "train", policy)
        return Batch(config, method, rollouts, rows, method.learn(rollouts, 3, "train"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompactPrompts, "parse_reflect", any_reflection)
        seed = next(seed for seed in range(30) if mixed(play("full", seed)))  # which one it is depends on rounding
        return {variant: play(variant, seed) for variant in VARIANTS}


def mixed(batch: Batch) -> bool:
    """Whether there is something to credit: both groups have won and lost episodes."""
    won = np.array([r.outcome for r in batch.rollouts]).reshape(2, 6).mean(axis=1)
    return bool(((won > 0) & (won < 1)).all())


def stages(batch: Batch) -> set[str]:
    return {row.stage for row in batch.rows}


def shares(batch: Batch, left_out: set[str] = frozenset()) -> dict[tuple[int, int], tuple[float, float]]:
    """(rollout, turn) -> advantage, and weight per row of the step: what the row adds to the objective of Eq. 11."""
    return {
        (row.rollout, row.turn): (row.advantage, row.weight / len(batch.rows))
        for row in batch.rows
        if row.stage not in left_out
    }


@pytest.mark.slow
def test_the_batch_has_something_to_credit(batches):
    full = batches["full"]
    assert mixed(full)
    assert stages(full) == {"query", "rerank", "act", "distill"}
    assert all(any(row.advantage for row in full.rows if row.stage == stage) for stage in stages(full))


@pytest.mark.parametrize(
    "variant, off", [("lambda1_0", {"rerank"}), ("lambda2_0", {"distill"}), ("lambdas_0", {"rerank", "distill"})]
)
def test_a_lambda_of_zero_takes_the_stages_rows_and_nothing_else(batches, variant, off):
    full, ablated = batches["full"], batches[variant]
    assert [contents(r) for r in ablated.rollouts] == [contents(r) for r in full.rollouts]  # generated and used
    assert ablated.learnt == full.learnt  # and admitted
    found, expected = shares(ablated), shares(full, off)
    assert found.keys() == expected.keys() and len(expected) < len(full.rows)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value)


def test_no_library_is_acting_alone(batches):
    bare = batches["no_library"]
    assert bare.learnt is None and bare.method.skills is None and stages(bare) == {"act"}
    assert len(bare.rows) == sum(r.steps for r in bare.rollouts)
    for rollout in bare.rollouts:
        assert (rollout.query, rollout.skill, rollout.selected, rollout.candidates) == ("", "", None, ())
    shown = [r.turns_of("act")[0].prompt_ids for r in batches["full"].rollouts]
    for with_skill, rollout in zip(shown, bare.rollouts, strict=True):
        assert len(rollout.turns_of("act")[0].prompt_ids) < len(with_skill)


def test_grpo_is_no_library_by_another_name(batches):
    assert VARIANTS["grpo"].changes == VARIANTS["no_library"].changes
    one, other = batches["grpo"], batches["no_library"]
    assert [contents(r) for r in one.rollouts] == [contents(r) for r in other.rollouts]
    assert shares(one) == shares(other)


def test_gigpo_adds_the_step_advantage_to_grpo(batches):
    gigpo, grpo = batches["gigpo"], batches["grpo"]
    assert [contents(r) for r in gigpo.rollouts] == [contents(r) for r in grpo.rollouts]
    invalid = [[not t.well_formed or not t.admissible for t in r.turns_of("act")] for r in grpo.rollouts]
    rewards = [np.array([-0.1 * bad for bad in flags]) for flags in invalid]  # five steps: within the cap of five
    for reward, rollout in zip(rewards, grpo.rollouts, strict=True):
        reward[-1] += rollout.outcome
    steps = step_advantages(
        np.concatenate([discounted_returns(reward, 0.95) for reward in rewards]),
        np.array([r.group for r in grpo.rollouts for _ in r.turns]),
        [t.observation for r in grpo.rollouts for t in r.turns],
        True,
    )
    before = np.array([row.advantage for row in grpo.rows])
    np.testing.assert_allclose([row.advantage for row in gigpo.rows], before + steps, atol=1e-9)
    assert (steps != 0).any()
    assert [row.weight for row in gigpo.rows] == [row.weight for row in grpo.rows]
    firsts = {group: {r.turns[0].observation for r in grpo.rollouts if r.group == group} for group in (0, 1)}
    assert all(len(seen) == 1 for seen in firsts.values()) and firsts[0] != firsts[1]


RETROAGENT = [v for v in VARIANTS if v.startswith("retroagent")]


def taken(event: LibraryEvent) -> int:
    """How many lessons the library took in."""
    return len(event.admitted) + len(event.merged)


def acts(rollouts: list[Rollout]) -> list[list[tuple[list[int], list[int]]]]:
    return [[(t.prompt_ids.tolist(), t.completion_ids.tolist()) for t in r.turns_of("act")] for r in rollouts]


def standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std(ddof=1)


def test_retroagents_variants_play_alike_and_their_control_half_as_grpo(batches):
    grpo, one = batches["grpo"], batches["retroagent_rl"]
    for variant in RETROAGENT:
        found = batches[variant].rollouts
        assert [r.extra.memory for r in found] == [False, False, False, True, True, True] * 2
        assert acts(found) == acts(one.rollouts)
        for r, plain in zip(found, grpo.rollouts, strict=True):
            assert {t.stage for t in r.turns} == {"act", "distill"} and len(r.candidates) <= r.extra.memory
            assert r.extra.memory or acts([r]) == acts([plain])
    assert any(r.candidates for r in one.rollouts)
    assert {s.outcome for s in one.learnt.admitted} == {"success", "failure"}
    assert taken(one.learnt) == sum(judged_right(r) for r in one.rollouts) < len(one.rollouts)


def test_retroagent_credits_every_action_by_its_return_and_reflections_by_their_judgement(batches):
    weights = {v: 0.0 if v.endswith("_released") else 0.1 for v in RETROAGENT}
    for variant, weight in weights.items():
        batch = batches[variant]
        returns, groups = [], []
        for r in batch.rollouts:
            invalid = [
                not t.well_formed or not t.admissible for t in r.turns_of("act")
            ]  # five at most: all are charged
            reward = r.outcome + weight * intrinsic_of(r)
            returns += [0.95 ** (len(invalid) - 1 - t) * reward - 0.1 * bad for t, bad in enumerate(invalid)]
            groups += [r.group] * len(invalid)
        returns, groups = np.array(returns), np.array(groups)
        expected = np.concatenate([standardised(returns[groups == g]) for g in (0, 1)])
        np.testing.assert_allclose([row.advantage for row in batch.rows if row.stage == "act"], expected, atol=1e-9)
        rewards = {
            "retroagent_rl": np.array([float(judged_right(r)) for r in batch.rollouts]),
            "retroagent_rl_released": np.array([intrinsic_of(r) for r in batch.rollouts]),
        }.get(variant)
        found = [row.advantage for row in batch.rows if row.stage == "distill"]
        assert len(found) == (0 if rewards is None else 12)
        if rewards is not None:
            np.testing.assert_allclose(found, standardised(rewards), atol=1e-9)
    assert any(intrinsic_of(r) for r in batches["retroagent_rl"].rollouts if not r.outcome)


def test_skillrl_is_grpo_while_its_bank_is_empty(batches):
    grpo = batches["grpo"]
    for variant in ("skillrl", "skillrl_released"):
        found = batches[variant]
        assert [contents(r) for r in found.rollouts] == [contents(r) for r in grpo.rollouts]
        assert shares(found) == shares(grpo) and found.learnt is None  # its teacher is asked every five steps


def test_no_selection_takes_the_first_that_the_task_text_finds(batches):
    batch = batches["no_selection"]
    assert stages(batch) == {"act", "distill"}
    for rollout in batch.rollouts:
        assert {t.stage for t in rollout.turns} == {"act", "distill"}
        assert rollout.query == rollout.instruction
        assert len(rollout.candidates) == 3 and rollout.selected == rollout.candidates[0].skill
    distilled = [row.advantage for row in batch.rows if row.stage == "distill"]
    assert len(distilled) == 12 and any(distilled)


def test_no_distillation_admits_raw_trajectories(batches):
    batch, full = batches["no_distillation"], batches["full"]
    assert stages(batch) == {"query", "rerank", "act"}
    won = [r for r in batch.rollouts if r.outcome]
    assert won and taken(batch.learnt) == len(won)
    raw = {r.lesson.strategy: [t.value for t in r.turns_of("act")] for r in won}
    for skill in batch.learnt.admitted:
        assert skill.strategy == f"{skill.desc} : {' ; '.join(compact(action) for action in raw[skill.strategy])}"
    assert {s.strategy for s in batch.learnt.admitted} == set(raw)
    assert {s.desc for s in batch.learnt.admitted} <= {r.lesson.desc for r in won}
    assert all(len({r.lesson.desc for r in batch.rollouts if r.group == g}) == 1 for g in (0, 1))  # key = task text
    written = {t.value for r in full.rollouts for t in r.turns_of("distill") if t.well_formed and r.outcome}
    assert {f"{s.desc}\n{s.strategy}" for s in full.learnt.admitted} <= written


def test_the_released_preset_has_no_row_for_distillation_and_one_credit_for_ranking(batches):
    full = batches["full"]
    rows = Skill1.rows(full.rollouts, load_config("released"))
    assert {row.stage for row in rows} == {"query", "rerank", "act"}
    for i in range(len(full.rollouts)):
        for stages in (("query", "rerank"), ("act",)):  # NDCG joins the return of the calls up to the ranking
            assert len({row.advantage for row in rows if row.rollout == i and row.stage in stages}) == 1


@pytest.mark.slow
def test_gigpo_trains_from_the_command_line(world, warm, tmp_path):
    given = settings(world, warm, "gigpo") | {"train.steps": 2, "train.validate_every": 0, "rollout.group_size": 6}
    sets = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]

    def act(variant: str) -> None:
        skill1.train.make_environment = easy_environment
        cli.main(["train", "--variant", variant, "--out", str(tmp_path / variant), *sets])

    for variant in ("grpo", "gigpo"):
        printed = tmp_path / f"{variant}.txt"
        assert forked(partial(act, variant), printed) == 0, printed.read_text()
    run = RunDirectory.open(tmp_path / "gigpo")
    assert run.config.method.name == "gigpo" and run.config.library is None
    metrics = run.metrics()
    assert list(metrics["step"]) == [1, 2] and (metrics["grad_norm"] > 0).all()
    assert [c.step for c in run.checkpoints()] == [2]
    trained = [load_file(tmp_path / v / "checkpoint-2" / "model.safetensors") for v in ("grpo", "gigpo")]
    start = load_file(warm / "model.safetensors")
    for a, b in (trained, (start, trained[1])):
        assert any((a[name] != b[name]).any() for name in a)
