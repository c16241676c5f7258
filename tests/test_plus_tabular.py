"""What the published credit cannot learn and Skill1+ can, in worlds of one softmax: the library's and methods' own functions.

A text, or a pick, is a token; the policy is a softmax over the tokens, moved along the policy gradient of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hand_made import rollout, rows_of

from skill1.config import Config, LibraryConfig, load_config
from skill1.encoder import HashEncoder
from skill1.library import SkillLibrary
from skill1.methods.lessons import WaitingLessons
from skill1.methods.skill1 import Skill1
from skill1.records import Candidate, Lesson, Rollout, Row, Skill, Turn
from skill1.store.journal import LibraryEvent

GROUPS, SIZE = 8, 8
RIGHT, WRONG = 0.83, 0.40  # chance to win with a skill that is right, and with one that is not


class Softmax:
    """A policy over a few tokens."""

    def __init__(self, tokens: int) -> None:
        self._logits = np.zeros(tokens)

    @property
    def chances(self) -> np.ndarray:
        shares = np.exp(self._logits - self._logits.max())
        return shares / shares.sum()

    def learn(self, rows: Sequence[Row], rate: float) -> None:
        """Go along sum over the rows of advantage * gradient of the log-probability of their token."""
        chances = self.chances
        for row in rows:
            self._logits += rate * row.advantage * (np.eye(len(chances))[int(row.completion_ids[0])] - chances)


def says(played: Rollout, stage: str, token: int) -> Rollout:
    """The rollout with a stage's answer of one token."""

    def said(turn: Turn) -> Turn:
        return replace(turn, completion_ids=np.array([token], np.int32), logprobs=np.zeros(1, np.float32))

    return replace(played, turns=tuple(said(turn) if turn.stage == stage else turn for turn in played.turns))


def paper(**changed: object) -> Config:
    return load_config("paper", overrides={name.replace("__", "."): value for name, value in changed.items()})


# -- lessons ------------------------------------------------------------------------------------------------------------


def distil(credit: str, seed: int, steps: int = 80) -> float:
    """Mean quality of what is distilled in the end; texts are of quality 0 to 1, which helps whoever is shown them."""
    rng, quality = np.random.default_rng(seed), np.linspace(0, 1, 5)
    policy, waiting, known = Softmax(len(quality)), WaitingLessons(patience=3), dict[str, int]()
    made = paper(method__lesson_credit=credit, rollout__group_size=SIZE)
    for step in range(1, steps + 1):
        played = []
        for number in range(GROUPS * SIZE):
            skill = str(rng.choice([*known])) if known and rng.random() < 0.7 else None
            chance = 0.2 + 0.6 * quality[known[skill]] if skill else 0.5
            text = int(rng.choice(len(quality), p=policy.chances))
            candidates = (Candidate(skill, float(rng.normal(0.5, 0.1)), 0.9, 0.9),) if skill else ()
            r = says(rollout(number // SIZE, number % SIZE, float(rng.random() < chance)), "distill", text)
            lesson = Lesson(f"{step} {number}", str(text))
            played.append(replace(r, candidates=candidates, ranking=(0,) * bool(skill), selected=skill, lesson=lesson))
        late = waiting.credited(played, step) if credit == "use" else []
        rows = [row for row in rows_of(Skill1.rows(played, made, late), "distill") if row.advantage]
        policy.learn(rows, 1.0 / (GROUPS * SIZE))
        won = [r for r in played if r.outcome]
        fresh = [
            Skill(f"{r.lesson.desc}", r.lesson.desc, r.lesson.strategy, "", 0.5, 1, step, step, "success") for r in won
        ]
        waiting.wait(played, LibraryEvent(step, step, (), tuple(fresh), (), ()))
        known = {skill.id: int(skill.strategy) for skill in fresh}  # the last step's lessons are what is shown next
    return float(policy.chances @ quality)


@pytest.mark.slow
def test_only_use_tells_a_good_lesson_from_a_bad_one() -> None:
    assert np.mean([distil("outcome", seed) for seed in range(4)]) == pytest.approx(0.5, abs=0.12)
    assert min(distil("use", seed) for seed in range(4)) > 0.75


# -- utilities ----------------------------------------------------------------------------------------------------------


def utilities(whose: str, seed: int, steps: int = 60) -> tuple[float, float]:
    """U of a right and of a wrong skill that are always retrieved together, either being shown by chance."""
    rng = np.random.default_rng(seed)
    library = SkillLibrary(LibraryConfig(utility_of=whose), HashEncoder())
    library.learn([replace(rollout(), lesson=Lesson(name, name)) for name in ("right", "wrong")], 1)
    ids = [skill.id for skill in library]
    for step in range(2, steps + 2):
        candidates = tuple(Candidate(skill, library[skill].utility, 0.9, 0.9) for skill in ids)
        picks = rng.integers(2, size=4)
        library.learn(
            [
                replace(
                    rollout(index=i, outcome=float(rng.random() < (RIGHT, WRONG)[pick])),
                    candidates=candidates, selected=ids[pick], lesson=None,
                )
                for i, pick in enumerate(picks)
            ],
            step,
        )  # fmt: skip
    right, wrong = (library[skill].utility for skill in ids)
    return right, wrong


def test_only_the_picks_utility_tells_candidates_apart_that_are_retrieved_together() -> None:
    for seed in range(4):
        right, wrong = utilities("candidates", seed)
        assert right == wrong  # to the last bit: both get every outcome
    gaps = [right - wrong for right, wrong in (utilities("selected", seed) for seed in range(4))]
    assert np.mean(gaps) == pytest.approx(RIGHT - WRONG, abs=0.12) and min(gaps) > 0.15


# -- rankings -----------------------------------------------------------------------------------------------------------


def rank(credit: str, seed: int, steps: int = 60) -> float:
    """Chance to put the right one of two candidates first, in the end, whose utilities do not tell them apart."""
    rng, policy = np.random.default_rng(seed), Softmax(2)
    made = paper(method__rerank_credit=credit, method__rerank_baseline="batch_mean", rollout__group_size=SIZE)
    for _ in range(steps):
        played = []
        for number in range(GROUPS * SIZE):
            pick = int(rng.choice(2, p=policy.chances))  # 0 is right
            outcome = float(rng.random() < (RIGHT, WRONG)[pick])
            utility = rng.normal(0.5, 0.05, 2).tolist()
            r = rollout(number // SIZE, number % SIZE, outcome, utilities=utility, ranking=(pick, 1 - pick))
            played.append(says(r, "rerank", pick))
        policy.learn(rows_of(Skill1.rows(played, made), "rerank"), 1.0 / (GROUPS * SIZE))
    return float(policy.chances[0])


@pytest.mark.slow
def test_only_the_picks_outcome_teaches_a_ranking_what_utilities_do_not_know() -> None:
    assert np.mean([rank("loss", seed) for seed in range(4)]) == pytest.approx(0.5, abs=0.1)
    assert min(rank("pick", seed) for seed in range(4)) > 0.9
