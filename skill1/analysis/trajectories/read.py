"""Read a training step back whole: its rollouts, their credit, the skills they saw, what became of their lessons.

A run stores neither the credit of a rollout nor what the library did with its lesson. Credit follows from the step's
rollouts and the configuration; a lesson's fate, and the library as retrieval saw it, from the journal. No model is
loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import pandas as pd

from skill1.config import closest, method_of
from skill1.envs.make import environment_spec
from skill1.errors import RunError
from skill1.records import STAGES, Rollout, Row, Skill, Stage, Turn
from skill1.store.find import find_runs as find_all_runs
from skill1.store.journal import Journal
from skill1.store.run_directory import RunDirectory

# What an episode's credit is made of: name -> the method's metric, for one rollout alone.
_MEASURES = {
    "Return R": "return",
    "Task and skill, cosine": "skill_similarity",
    "NDCG": "ndcg/mean",
    "U\u0302": "u_hat",
}


@dataclass(frozen=True, slots=True)
class Fate:
    """What the library did with a rollout's lesson."""

    kind: Literal["admitted", "merged", "refused", "unparsed", "none"]
    skill: str | None = None  # the record that was made, or that took the lesson in
    retired: bool = False  # that record left the library in the same step

    def __str__(self) -> str:
        words = {
            "admitted": f"admitted as {self.skill}",
            "merged": f"merged into {self.skill}, which says the same",
            "refused": "not admitted",
            "unparsed": "not admitted: the text did not parse",
            "none": "there is no library to learn",
        }
        return words[self.kind] + (", which was retired in the same step" if self.retired else "")


@dataclass(frozen=True, slots=True)
class StageCredit:
    """What the calls of one stage of an episode were credited."""

    stage: Stage
    calls: int
    advantages: str  # "+0.866", "-0.500 to +0.866", or "not trained"
    weight: float  # sum over the calls


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """A rollout and what follows from it and its step."""

    rollout: Rollout
    rows: tuple[Row | None, ...]  # one per turn; None: the turn is not trained (its lambda is 0)
    facts: dict[str, str]  # by name: what its credit is made of, and what the method alone keeps of a rollout
    fate: Fate

    @property
    def won(self) -> bool:
        return self.rollout.outcome == 1.0

    def calls(self) -> list[tuple[Turn, Row | None]]:
        """Pair every turn with its row."""
        return list(zip(self.rollout.turns, self.rows, strict=True))

    def trace(self) -> list[tuple[Turn, str | None]]:
        """Pair every action with what the environment said next; None after the last, unless a distill call saw it."""
        acts = self.rollout.turns_of("act")
        said = [turn.observation for turn in (*acts, *self.rollout.turns_of("distill")[:1])][1:]
        return list(zip_longest(acts, said))

    def credit(self) -> list[StageCredit]:
        """Sum up the credit of each stage that the episode has calls of."""
        found = []
        for stage in STAGES:
            rows = [row for turn, row in self.calls() if turn.stage == stage]
            trained = [row for row in rows if row is not None]
            span = sorted({f"{row.advantage:+.3f}" for row in trained}, key=float)
            text = " to ".join(span[:: max(len(span) - 1, 1)]) or "not trained"
            if rows:
                found.append(StageCredit(stage, len(rows), text, sum(row.weight for row in trained)))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One training step of a run."""

    run: RunDirectory
    number: int
    episodes: tuple[Episode, ...]  # by group, then rollout
    skills: dict[str, Skill]  # as this step's retrieval saw them, in order of admission

    @property
    def groups(self) -> dict[int, list[Episode]]:
        """Group -> its episodes, in order."""
        groups: dict[int, list[Episode]] = {}
        for episode in self.episodes:
            groups.setdefault(episode.rollout.group, []).append(episode)
        return groups

    @property
    def task_word(self) -> str:
        """What the environment calls a task."""
        return environment_spec(self.run.config.environment.name).task

    def group_of(self, game: str = "") -> int:
        """Find the group that played `game` (its first, if two did); "" = the one that won and lost most evenly.

        Raises:
            ConfigError: the step has no such game (with the closest match).
        """
        groups = self.groups
        if game:
            games = {members[0].rollout.task.game: n for n, members in reversed(groups.items())}
            return games[closest(game, games, f"game in step {self.number} of {self.run.name}")]
        return min(groups, key=lambda n: abs(sum(e.won for e in groups[n]) / len(groups[n]) - 0.5))


def find_runs(folder: Path) -> list[Path]:
    """List the run directories in `folder` that store rollouts, at any depth, by name."""
    return sorted(run.path for run in find_all_runs(folder) if run.rollouts_dir.is_dir())


def load_step(path: Path, step: int = 0) -> Step:
    """Read a training step.

    Args:
        path: run directory.
        step: training step (from 1); 0 = the last one stored.

    Raises:
        RunError: no run there, no rollouts of that step, or a journal that is not of these rollouts.
        LibraryError: the journal is missing or damaged.
    """
    run = RunDirectory.open(path)
    stored = run.rollout_steps()
    if not step and not stored:
        raise RunError(f"{path} has no rollouts yet: a run stores them with every training step")
    number = step or stored[-1]
    rollouts = run.read_rollouts(number)
    method = method_of(run.config)
    rows = {(row.rollout, row.turn): row for row in method.rows(rollouts, run.config)}
    episodes = []
    for i, (rollout, fate) in enumerate(zip(rollouts, _fates(run, rollouts, number), strict=True)):
        measured = method.metrics([rollout], run.config)
        facts = {name: f"{measured[metric]:.4f}" for name, metric in _MEASURES.items() if metric in measured}
        if rollout.extra is not None:
            [extra] = pd.json_normalize(asdict(rollout.extra)).to_dict("records")  # nested fields by "outer.inner"
            facts |= {str(name): str(value) for name, value in extra.items()}
        known = {name: text for name, text in facts.items() if text != "nan"}
        own = tuple(rows.get((i, turn)) for turn in range(len(rollout.turns)))
        episodes.append(Episode(rollout, own, known, fate))
    return Step(run, number, tuple(episodes), skills_before(run, number))


def summary(step: Step) -> pd.DataFrame:
    """Tabulate the groups of a step: their task, how many won and held a skill, and what was learnt."""
    rows = []
    for number, members in step.groups.items():
        rollouts = [e.rollout for e in members]
        fates = [e.fate.kind for e in members]
        rows.append(
            {
                "group": number,
                "category": rollouts[0].task.category,
                "task": rollouts[0].instruction,
                "won": f"{sum(e.won for e in members)}/{len(members)}",
                "with a skill": sum(r.selected is not None for r in rollouts),
                "different skills": len({r.selected for r in rollouts} - {None}),
                "ill-formed actions": sum(r.invalid_actions for r in rollouts),
                "inadmissible actions": sum(r.inadmissible_actions for r in rollouts),
                "lessons admitted": fates.count("admitted"),
                "merged": fates.count("merged"),
            }
        )
    return pd.DataFrame(rows).set_index("group")


def skills_before(run: RunDirectory, step: int) -> dict[str, Skill]:
    """Read the skills as the retrieval of `step` saw them, by id."""
    return dict(method_of(run.config).skills_before(run.config, run.library_dir, step))


def _fates(run: RunDirectory, rollouts: Sequence[Rollout], step: int) -> list[Fate]:
    """Follow `SkillLibrary.learn`, which takes the lessons of the rollouts that it admits in order.

    Which of two equal lessons was admitted is no question: what merges once, merges ever after.
    """
    if run.config.library is None:
        return [Fate("none")] * len(rollouts)
    events = Journal(run.library_dir / "journal.jsonl").events()
    event = next((event for event in events if event.step == step), None)
    if event is None:
        raise RunError(f"the journal of {run.path} has no event of step {step}: restore it, or continue with --resume")
    admitted, merged = list(event.admitted), list(event.merged)
    fates = []
    for rollout in rollouts:
        lesson = rollout.lesson
        if lesson is None:
            fates.append(Fate("unparsed"))
        elif not method_of(run.config).admits(rollout):
            fates.append(Fate("refused"))
        elif admitted and (admitted[0].desc, admitted[0].strategy) == (lesson.desc, lesson.strategy):
            skill = admitted.pop(0).id
            fates.append(Fate("admitted", skill, skill in event.retired))
        elif merged:
            skill = merged.pop(0)
            fates.append(Fate("merged", skill, skill in event.retired))
        else:
            raise RunError(f"the journal's event of step {step} is not of this step's rollouts: restore the run")
    return fates
