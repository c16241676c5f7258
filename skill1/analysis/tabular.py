"""What the published credit can teach and what it cannot, in worlds small enough to see through. Ours.

A text or a pick is one token, the policy a softmax over the tokens, and everything else is the kit's own: the method's rows
and advantages, the library, the lessons that wait. Four experiments, each a minute or less on one core:

    lessons      what a lesson says makes no difference to its reward (Skill1 Eq. 7), so nothing is learnt about it
    readability  but whether it can be read does: where unreadable text earns 0, losing teaches to write it
    utilities    candidates retrieved together get the same outcomes (Skill1 Eq. 5): U cannot tell them apart
    rankings     NDCG against such U (Skill1 Eq. 9) reinforces whatever was sampled, more so without a baseline
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from skill1.analysis.tables import number
from skill1.config import LibraryConfig, load_config
from skill1.encoder import HashEncoder
from skill1.library import SkillLibrary
from skill1.methods.lessons import WaitingLessons
from skill1.methods.skill1 import Skill1
from skill1.records import Candidate, Lesson, Rollout, Row, Skill, Stage, Task, Turn
from skill1.store.journal import LibraryEvent

GROUPS, SIZE = 8, 8
RIGHT, WRONG = 0.83, 0.40  # chance to win with a skill that is right, and with one that is not
QUALITIES = np.linspace(0, 1, 5)  # of the texts that a lesson can be
_TEXTS = 10  # of which the first cannot be read


class Softmax:
    """A policy over a few tokens."""

    def __init__(self, tokens: int) -> None:
        self._logits = np.zeros(tokens)

    @property
    def chances(self) -> np.ndarray:
        """Probability of each token."""
        shares = np.exp(self._logits - self._logits.max())
        return shares / shares.sum()

    def learn(self, rows: Sequence[Row], rate: float) -> None:
        """Go along the sum over the rows of advantage * gradient of the log-probability of their token."""
        chances = self.chances
        for row in rows:
            self._logits += rate * row.advantage * (np.eye(len(chances))[int(row.completion_ids[0])] - chances)


def distil(credit: str, seed: int, steps: int = 80) -> float:
    """Return the mean quality of what is distilled in the end; texts help whoever is shown them by their quality.

    Args:
        credit: `method.lesson_credit`.
    """
    rng = np.random.default_rng(seed)
    policy, waiting, known = Softmax(len(QUALITIES)), WaitingLessons(patience=3), dict[str, int]()
    config = _config(lesson_credit=credit)
    for step in range(1, steps + 1):
        played, names, chances = [], [*known], policy.chances
        for i in range(GROUPS * SIZE):
            skill = names[rng.integers(len(names))] if names and rng.random() < 0.7 else None
            chance = 0.2 + 0.6 * QUALITIES[known[skill]] if skill else 0.5
            text = int(rng.choice(len(QUALITIES), p=chances))
            candidates = (Candidate(skill, float(rng.normal(0.5, 0.1)), 0.9, 0.9),) if skill else ()
            won, lesson = float(rng.random() < chance), Lesson(f"{step} {i}", str(text))
            played.append(_rollout(i, won, distill=text, candidates=candidates, lesson=lesson))
        late = waiting.credited(played, step) if credit == "use" else []
        policy.learn(_of("distill", Skill1.rows(played, config, late)), 1 / len(played))
        fresh = [
            Skill(r.lesson.desc, r.lesson.desc, r.lesson.strategy, "", 0.5, 1, step, step, "success")
            for r in played
            if r.outcome and r.lesson
        ]
        waiting.wait(played, LibraryEvent(step, step, (), tuple(fresh), (), ()))
        known = {skill.id: int(skill.strategy) for skill in fresh}  # the last step's lessons are what is shown next
    return float(policy.chances @ QUALITIES)


def unread(unparsed: str, seed: int, steps: int = 80, win: float = 0.3) -> float:
    """Return the chance, in the end, that the lesson of a lost episode cannot be read (one text of `_TEXTS` at the start).

    Args:
        unparsed: `method.unparsed_distill`.
        win: chance to win, with which the utilities of the candidates agree.
    """
    rng, policy = np.random.default_rng(seed), Softmax(_TEXTS)
    config = _config(unparsed_distill=unparsed)
    for _ in range(steps):
        played, chances = [], policy.chances
        for i in range(GROUPS * SIZE):
            text, won = int(rng.choice(_TEXTS, p=chances)), float(rng.random() < win)
            if won:  # what is asked after a win is another prompt: only losses are looked at
                text = 1
            candidates = (Candidate("s", win, 0.9, 0.9),)
            lesson = Lesson("when", "how") if text else None
            played.append(_rollout(i, won, distill=text, candidates=candidates, lesson=lesson))
        rows = _of("distill", Skill1.rows(played, config))
        policy.learn([row for row in rows if not played[row.rollout].outcome], 1 / len(played))
    return float(policy.chances[0])


def utility_gap(whose: str, seed: int, steps: int = 60) -> float:
    """Return U(right) - U(wrong) of two skills that are always retrieved together, either being shown by chance.

    Args:
        whose: `library.utility_of`.
    """
    rng = np.random.default_rng(seed)
    library = SkillLibrary(LibraryConfig(utility_of=whose), HashEncoder())  # type: ignore[arg-type]
    library.learn([_rollout(0, 1.0, lesson=Lesson(name, name)) for name in ("right", "wrong")], 1)
    ids = [skill.id for skill in library]
    for step in range(2, steps + 2):
        candidates = tuple(Candidate(skill, library[skill].utility, 0.9, 0.9) for skill in ids)
        played = []
        for i, pick in enumerate(rng.integers(2, size=4)):
            won = float(rng.random() < (RIGHT, WRONG)[pick])
            played.append(_rollout(i, won, candidates=candidates, ranking=(pick, 1 - pick)))
        library.learn(played, step)
    right, wrong = (library[skill].utility for skill in ids)
    return right - wrong


def rank(credit: str, baseline: str, seed: int, steps: int = 60) -> float:
    """Return the chance, in the end, to put the right one of two first, whose utilities do not tell them apart.

    Args:
        credit: `method.rerank_credit`.
        baseline: `method.rerank_baseline`.
    """
    rng, policy = np.random.default_rng(seed), Softmax(2)
    config = _config(rerank_credit=credit, rerank_baseline=baseline)
    for _ in range(steps):
        played, chances = [], policy.chances
        for i in range(GROUPS * SIZE):
            pick = int(rng.choice(2, p=chances))  # 0 is right
            won, utilities = float(rng.random() < (RIGHT, WRONG)[pick]), rng.normal(0.5, 0.05, 2)
            candidates = tuple(Candidate(f"s{k}", float(u), 0.5, 0.5) for k, u in enumerate(utilities))
            played.append(_rollout(i, won, rerank=pick, candidates=candidates, ranking=(pick, 1 - pick)))
        policy.learn(_of("rerank", Skill1.rows(played, config)), 1 / len(played))
    return float(policy.chances[0])


def experiments(runs: int = 10) -> pd.DataFrame:
    """Run all four `runs` times each, with seeds from 0.

    Returns:
        Columns experiment, measure, credit, start, mean, deviation (over runs), low, high (extremes), runs.
    """
    asked: list[tuple[str, str, float, dict[str, Any]]] = [
        ("lessons", "mean quality of what is distilled (0 to 1)", 0.5, {
            "outcome of its own episode (paper)": lambda seed: distil("outcome", seed),
            "later episodes shown it (Skill1+)": lambda seed: distil("use", seed),
        }),
        ("readability", "chance that a lost episode's lesson cannot be read", 1 / _TEXTS, {
            "unreadable earns 0 (paper)": lambda seed: unread("zero", seed),
            "unreadable earns what a loss does (ours)": lambda seed: unread("lost", seed),
        }),
        ("utilities", "U(right) - U(wrong)", 0.0, {
            "all candidates get the outcome (paper)": lambda seed: utility_gap("candidates", seed),
            "the one that was shown (Skill1+)": lambda seed: utility_gap("selected", seed),
        }),
        ("rankings", "chance to put the right one first", 0.5, {
            "NDCG (paper)": lambda seed: rank("loss", "none", seed),
            "NDCG less the batch's mean": lambda seed: rank("loss", "batch_mean", seed),
            "what the pick brought (Skill1+)": lambda seed: rank("pick", "batch_mean", seed),
        }),
    ]  # fmt: skip
    rows = []
    for experiment, measure, start, credits in asked:
        for credit, run in credits.items():
            found = np.array([run(seed) for seed in range(runs)])
            rows.append({
                "experiment": experiment, "measure": measure, "credit": credit, "start": start, "mean": found.mean(),
                "deviation": found.std(ddof=1), "low": found.min(), "high": found.max(), "runs": runs,
            })  # fmt: skip
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Format `experiments` for display."""
    shown = found.assign(
        start=found["start"].map(lambda x: number(x, ".2f")),
        end=[f"{row.mean:.2f} ± {row.deviation:.2f}" for row in found.itertuples()],
        runs=[f"{row.low:.2f} to {row.high:.2f} ({row.runs})" for row in found.itertuples()],
    )
    return shown.set_index(["experiment", "measure", "credit"])[["start", "end", "runs"]]


def _config(**options: str) -> Any:
    return load_config("paper", overrides={f"method.{name}": value for name, value in options.items()})


def _of(stage: Stage, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.stage == stage and row.advantage]


def episode(
    number: int,
    outcome: float,
    *,
    task: Task | None = None,
    instruction: str = "",
    turns: Sequence[Turn] = (),
    candidates: tuple[Candidate, ...] = (),
    ranking: tuple[int, ...] | None = None,
    lesson: Lesson | None = None,
) -> Rollout:
    """Make the record of an episode that was not written by a policy: the `number`-th of a step, shown its first candidate."""
    order = tuple(range(len(candidates))) if ranking is None else ranking
    return Rollout(
        task=task or Task("", "", str(number // SIZE), ""),
        instruction=instruction,
        group=number // SIZE,
        index=number % SIZE,
        query="",
        turns=tuple(turns),
        candidates=candidates,
        ranking=order,
        ranking_parsed=True,
        selected=candidates[order[0]].skill if order else None,
        skill="",
        skill_similarity=math.nan,
        outcome=outcome,
        score=outcome,
        steps=1,
        lesson=lesson,
    )


def _rollout(number: int, outcome: float, *, rerank: int = 0, distill: int = 0, **given: Any) -> Rollout:
    """An episode of one action; what the policy says in a stage is one token, 0 where it does not matter."""
    several = len(given.get("candidates", ())) > 1
    said = {"query": 0, **({"rerank": rerank} if several else {}), "act": 0, "distill": distill}
    readable = given.get("lesson") is not None
    turns = [_turn(stage, token, stage != "distill" or readable) for stage, token in said.items()]
    return episode(number, outcome, turns=turns, **given)


@cache  # records are not written to
def _turn(stage: Stage, token: int, well_formed: bool) -> Turn:
    return Turn(
        stage=stage,
        prompt_ids=np.zeros(1, np.int32),
        completion_ids=np.array([token], np.int32),
        logprobs=np.zeros(1, np.float32),
        text="",
        value="",
        well_formed=well_formed,
    )
