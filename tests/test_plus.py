"""Skill1+: the utility of the pick, the credit of the pick, and lessons credited by use, by hand and in a real run."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_train import run as train_easily
from hand_made import advantages, rollout, rows_of, turn
from nano_runs import configure
from run_record import record
from test_train import in_step
from tiny import random_rows, tiny_policy
from trainer_runs import configure as configure_trainer
from trainer_runs import largest_difference, make_trainer

from skill1.config import Config, LibraryConfig, load_config
from skill1.encoder import HashEncoder
from skill1.library import SkillLibrary
from skill1.methods.lessons import FILE, WaitingLessons
from skill1.methods.skill1 import Skill1
from skill1.records import Candidate, Lesson, Rollout


def config(**changed: object) -> Config:
    return load_config("paper", overrides={name.replace("__", "."): value for name, value in changed.items()})


def taught(lesson: tuple[str, str] | None, outcome: float = 1.0, **more: object) -> Rollout:
    return replace(rollout(outcome=outcome, **more), lesson=Lesson(*lesson) if lesson else None)


def shown(skill: str | None, outcome: float, group: int = 0, index: int = 0) -> Rollout:
    candidates = () if skill is None else (Candidate("s000009", 0.5, 0.5, 0.5), Candidate(skill, 0.5, 0.5, 0.5))
    return replace(
        rollout(group, index, outcome),
        candidates=candidates,
        ranking=tuple(range(len(candidates)))[::-1],
        selected=skill,
    )


# -- utility of the pick ------------------------------------------------------------------------------------------------


def test_the_outcome_moves_the_utility_of_the_pick_alone() -> None:
    for whose, moved in (("candidates", [0.55, 0.55]), ("selected", [0.5, 0.55])):
        library = SkillLibrary(LibraryConfig(utility_of=whose, ema=0.1), HashEncoder())
        library.learn([taught(("mug", "shelf")), taught(("egg", "sink"), index=1)], 1)
        ids = [skill.id for skill in library]
        found = tuple(Candidate(skill, 0.5, 0.9, 0.9) for skill in ids)
        event = library.learn([replace(taught(None), candidates=found, ranking=(1, 0), selected=ids[1])], 2)
        assert [skill.utility for skill in library] == pytest.approx(moved)
        assert [skill.count for skill in library] == [2, 2]  # both were retrieved
        assert event.updates == ((ids[0], None if whose == "selected" else 1.0), (ids[1], 1.0))


# -- credit of the pick -------------------------------------------------------------------------------------------------


def test_a_ranking_is_credited_by_what_its_pick_brought() -> None:
    played = [
        rollout(index=0, outcome=1.0, utilities=(0.9, 0.1)),  # NDCG 1
        rollout(index=1, outcome=0.0, utilities=(0.9, 0.1), ranking_parsed=False),  # NDCG 0
        rollout(index=2, outcome=0.0),  # nothing to rank
    ]
    made = config(
        method__rerank_credit="pick", method__rerank_baseline="batch_mean", credit__scale_by_std=False,
        rollout__group_size=3,
    )  # fmt: skip
    # NDCG less its mean .5, and the outcome less its group's mean 1/3
    assert advantages(Skill1.rows(played, made), "rerank") == pytest.approx([0.5 + 2 / 3, -0.5 - 1 / 3])


# -- credit by use ------------------------------------------------------------------------------------------------------


def learnt(waiting: WaitingLessons, library: SkillLibrary, played: list[Rollout], step: int) -> None:
    waiting.wait(played, library.learn(played, step))


def test_a_lesson_waits_until_its_skill_was_shown(tmp_path: Path) -> None:
    waiting, library = WaitingLessons(patience=3), SkillLibrary(LibraryConfig(), HashEncoder())
    first = [
        taught(("mug", "shelf"), index=0, tokens={"distill": 3}),
        taught(None, index=1),  # did not parse
        taught(("egg", "sink"), 0.0, index=2),  # lost: not admitted
        taught(("mug", "shelf"), index=3, tokens={"distill": 4}),  # merges into the first
        taught(("egg", "sink"), index=4, tokens={"distill": 5}),
    ]
    learnt(waiting, library, first, 1)
    assert [skill.id for skill in library] == ["s000001", "s000002"] and len(waiting) == 3
    second = [shown("s000001", 1.0), shown("s000001", 0.0, index=1), shown(None, 0.0, index=2), shown(None, 1.0, 1)]
    waiting.save(tmp_path)
    again = WaitingLessons(patience=3)
    again.load(tmp_path)
    for lessons in (waiting, again):
        rows = lessons.credited(second, 2)
        # both were shown it in group 0, whose other episode lost: (1 - 0 + 0 - 0) / 2
        assert [(row.advantage, len(row.completion_ids)) for row in rows] == [(0.5, 3), (0.5, 4)]
        assert all(row.earlier and not row.continues and row.stage == "distill" for row in rows)
        for row, source in zip(rows, (first[0], first[3]), strict=True):
            [asked] = source.turns_of("distill")
            np.testing.assert_array_equal(row.prompt_ids, asked.prompt_ids)
            np.testing.assert_array_equal(row.logprobs, asked.logprobs)
        assert len(lessons) == 1 and not lessons.credited([shown(None, 1.0)], 3)
    # nobody else in the group: against the other episodes of the step
    [row] = waiting.credited([shown("s000002", 1.0), shown(None, 1.0, 1), shown("s000001", 0.0, 2)], 3)
    assert row.advantage == pytest.approx(0.5)
    learnt(waiting, library, first, 4)
    for step, left in ((5, 3), (6, 3), (7, 0)):  # three steps without a use
        assert not waiting.credited([shown(None, 1.0)], step) and len(waiting) == left


def test_lessons_that_waited_are_a_term_of_the_step_that_they_join() -> None:
    made = config(method__lesson_credit="use")
    waited = WaitingLessons(patience=9)
    learnt(waited, SkillLibrary(LibraryConfig(), HashEncoder()), [taught(("mug", "shelf"), tokens={"distill": 6})], 1)
    played = [
        replace(shown("s000001", 1.0, index=0), turns=rollout(utilities=(0.5, 0.5)).turns),
        shown(None, 0.0, 0, 1),
    ]
    [late] = waited.credited(played, 2)
    rows = Skill1.rows(played, made, [late])
    assert len(rows) == 9 + 1 and rows[-1].earlier and rows[-1].advantage == 1.0
    # at once a lesson is credited for parsing alone, and both did
    assert advantages(rows, "distill") == [0.0, 0.0, 1.0]
    assert [row.weight for row in rows_of(rows, "distill")] == pytest.approx([0.3 * 10 / 3] * 3)
    unread = [played[0], replace(played[1], turns=rollout(distilled=False).turns, lesson=None)]
    assert advantages(Skill1.rows(unread, made), "distill") == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])
    assert not rows_of(
        Skill1.rows(played, config(method__lesson_credit="use", method__lambda_distill=0.0), [late]), "distill"
    )


def test_a_lesson_of_a_conversation_waits_with_all_that_came_before_it() -> None:
    chat = [turn("query", 1), turn("act", 2), turn("distill", 3)]
    chat = [replace(t, continues=number > 0, prompt_ids=t.prompt_ids + 10 * number) for number, t in enumerate(chat)]
    waiting = WaitingLessons(patience=9)
    learnt(
        waiting, SkillLibrary(LibraryConfig(), HashEncoder()), [replace(taught(("mug", "shelf")), turns=tuple(chat))], 1
    )
    [row] = waiting.credited([shown("s000001", 1.0), shown(None, 0.0)], 2)
    assert row.prompt_ids.tolist() == [0, 1, 2, 0, 10, 11, 12, 0, 1, 20, 21, 22] and not row.continues


@pytest.mark.slow
def test_a_row_of_an_earlier_step_is_weighed_by_how_likely_it_still_is(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path / "policy")
    [row] = random_rows(1, seed=3)
    row = replace(row, advantage=1.0, weight=1.0)
    settings = configure_trainer(train__kl=0.0)

    def gradients(name: str, given: object) -> dict[str, torch.Tensor]:
        trainer, tape = make_trainer(policy, tmp_path / name, settings, lambda step, model: [given])
        trainer.train()
        return tape.steps[0]

    trainer, _ = make_trainer(policy, tmp_path / "score", settings, lambda step, model: [])
    ids = torch.tensor(np.concatenate([row.prompt_ids, row.completion_ids])[None]).long()
    with torch.no_grad():
        logits = trainer.model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1]
    now = torch.log_softmax(logits, -1).gather(1, ids[0, len(row.prompt_ids) :, None])[:, 0].numpy()
    fresh = gradients("fresh", row)
    for shift, share in (
        (0.1, math.exp(-0.1)),
        (-0.5, 0.0),
    ):  # less likely than it was; more than 1 + clip: no gradient
        waited = gradients(f"waited{shift}", replace(row, earlier=True, logprobs=(now + shift).astype(np.float32)))
        expected = {name: share * gradient for name, gradient in fresh.items()}
        assert largest_difference(waited, expected) < 1e-5 * max(float(g.abs().max()) for g in fresh.values())


@pytest.mark.slow
def test_a_run_whose_lessons_wait_resumes_exactly(world: Path, warm: Path, tmp_path: Path) -> None:
    made = configure(
        world, warm, "plus", train__steps=3, train__save_every=1, train__validate_every=0, environment__max_steps=6,
        rollout__group_size=8, method__max_distill_tokens=16,
    )  # fmt: skip
    assert train_easily(made, tmp_path / "straight") == 0
    waiting = [len(json.loads((tmp_path / "straight" / f"checkpoint-{step}" / FILE).read_text())) for step in (1, 2, 3)]
    assert any(waiting)
    assert train_easily(made, tmp_path / "run", sabotage=in_step(2)) == -signal.SIGKILL
    assert train_easily(made, tmp_path / "run", resume=True) == 0
    assert record(tmp_path / "run", 3) == record(tmp_path / "straight", 3)
