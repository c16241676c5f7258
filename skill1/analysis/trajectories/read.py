"""A training step read back whole: its rollouts, their credit, the skills they saw, what became of their lessons.

A rollout does not hold its credit, nor what the library did with its lesson. Both follow from what a run stores: the
credit from the step's rollouts and the configuration (`credit`), the lessons' fate and the library as retrieval saw it
from the journal. Nothing is read but the run directory, and no model is loaded.

Case studies (appendix F of the paper) are chosen by rules over all stored steps, see `find_cases`.

Differs from the paper in: it does not say how its case studies were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow.parquet as pq

from skill1.config import LibraryConfig, closest
from skill1.credit import credit, credit_metrics
from skill1.encoder import HashEncoder
from skill1.library import SkillLibrary, admits
from skill1.methods.skillrl.growth import records_before
from skill1.records import Rollout, Row, Skill
from skill1.store.journal import Journal, LibraryEvent
from skill1.store.run_directory import RunDirectory, RunError

CaseKind = Literal["ahead", "behind", "relied on"]

RULES: dict[CaseKind, str] = {
    "ahead": "Groups in which some rollouts held a skill and the others held another or none, by the success of the "
    "former less that of the latter, largest first and above zero.",
    "behind": "The same groups, smallest difference first and below zero.",
    "relied on": "Skills of the library after the last stored step that some won episode selected, by U log(n + 1), by "
    "which the library itself decides whom to keep; shown is the last won episode with the skill.",
}


@dataclass(frozen=True, slots=True)
class Fate:
    """What the library did with a rollout's lesson."""

    kind: Literal["admitted", "merged", "lost", "misjudged", "unparsed", "none"]
    skill: str | None = None  # the record that was made, or that took the lesson in
    retired: bool = False  # that record left the library in the same step

    def __str__(self) -> str:
        words = {
            "admitted": f"admitted as {self.skill}",
            "merged": f"merged into {self.skill}, which says the same",
            "lost": "not admitted: the episode was lost",
            "misjudged": "not admitted: the outcome was misjudged",
            "unparsed": "not admitted: the text did not parse",
            "none": "there is no library to learn",
        }
        return words[self.kind] + (", which was retired in the same step" if self.retired else "")


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """A rollout and what follows from it and its step."""

    rollout: Rollout
    rows: tuple[Row | None, ...]  # one per turn; None: the turn is not trained (its lambda is 0)
    returned: float  # R of Eq. 4, less penalties
    ndcg: float  # Eq. 6; nan without a ranking call
    u_hat: float  # Eq. 7
    fate: Fate

    @property
    def won(self) -> bool:
        return self.rollout.outcome == 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One training step of a run."""

    run: RunDirectory
    number: int
    episodes: tuple[Episode, ...]  # by group, then rollout
    skills: dict[str, Skill]  # the library as this step's retrieval saw it, in order of admission

    @property
    def groups(self) -> dict[int, tuple[Episode, ...]]:
        """Group -> its episodes, in order."""
        numbers = dict.fromkeys(e.rollout.group for e in self.episodes)
        return {n: tuple(e for e in self.episodes if e.rollout.group == n) for n in numbers}

    def group_of(self, game: str = "") -> int:
        """The group that played `game` (its first, if two did); "" = the one that won and lost most evenly.

        Raises:
            ConfigError: the step has no such game (with the closest match).
        """
        groups = self.groups
        if game:
            games = {members[0].rollout.task.game: n for n, members in reversed(groups.items())}
            return games[closest(game, games, f"game in step {self.number} of {self.run.name}")]
        return min(groups, key=lambda n: abs(sum(e.won for e in groups[n]) / len(groups[n]) - 0.5))


@dataclass(frozen=True, slots=True)
class Case:
    """One case study: a skill, an episode that held it, and one of the same group that did not."""

    kind: CaseKind
    why: str  # a sentence with the numbers it was chosen by
    step: int
    group: int
    skill: Skill  # with the utility and count it had when it was retrieved
    shown: int  # rollout within the group that held the skill
    against: int | None  # rollout of the group that did not, with the opposite outcome


# -- reading a step ---------------------------------------------------------------------------------------------------


def find_runs(folder: Path) -> list[Path]:
    """All run directories in `folder`, at any depth, by name."""
    return sorted(found.parent for found in folder.glob("**/rollouts") if (found.parent / "config.json").is_file())


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
    config = run.config
    skilled = config.library.enabled
    rows = credit(
        rollouts,
        config.credit,
        selection=skilled and config.rollout.selection,
        distillation=skilled and config.rollout.distillation,
    )
    of_turn = {(row.rollout, row.turn): row for row in rows}
    events = _events(run)
    skills = _library_before(run, events, number)
    fates = (
        _fates(rollouts, _event_of(run, events, number), config.library) if skilled else [Fate("none")] * len(rollouts)
    )
    episodes = []
    for i, (rollout, fate) in enumerate(zip(rollouts, fates, strict=True)):
        alone = credit_metrics([rollout], config.credit)
        turns = tuple(of_turn.get((i, turn)) for turn in range(len(rollout.turns)))
        episodes.append(Episode(rollout, turns, alone["return"], alone["ndcg/mean"], alone["u_hat"], fate))
    return Step(run, number, tuple(episodes), skills)


def _events(run: RunDirectory) -> tuple[LibraryEvent, ...]:
    return Journal(run.library_dir / "journal.jsonl").events() if run.config.library.enabled else ()


def _event_of(run: RunDirectory, events: Sequence[LibraryEvent], step: int) -> LibraryEvent:
    found = [event for event in events if event.step == step]
    if not found:
        raise RunError(f"the journal of {run.path} has no event of step {step}: restore it, or continue with --resume")
    return found[0]


def _library_before(run: RunDirectory, events: Sequence[LibraryEvent], step: int) -> dict[str, Skill]:
    """The records as the retrieval of `step` saw them, by id. Their embeddings are not needed, hence no encoder is."""
    if run.config.bank.enabled:
        return records_before(run, step)
    library = SkillLibrary(run.config.library, HashEncoder(dimension=1))
    for event in events:
        if event.step < step:
            library.apply(event)
    return {skill.id: skill for skill in library}


def _fates(rollouts: Sequence[Rollout], event: LibraryEvent, config: LibraryConfig) -> list[Fate]:
    """Follows `SkillLibrary.learn`, which takes the lessons of the rollouts that it `admits` in order.

    Which of two equal lessons was admitted is no question: what merges once, merges ever after.
    """
    admitted, merged = list(event.admitted), list(event.merged)
    fates = []
    for rollout in rollouts:
        lesson = rollout.lesson
        if lesson is None:
            fates.append(Fate("unparsed"))
        elif not admits(rollout, config):
            fates.append(Fate("misjudged" if config.admit == "judged" else "lost"))
        elif admitted and (admitted[0].desc, admitted[0].strategy) == (lesson.desc, lesson.strategy):
            skill = admitted.pop(0).id
            fates.append(Fate("admitted", skill, skill in event.retired))
        elif merged:
            skill = merged.pop(0)
            fates.append(Fate("merged", skill, skill in event.retired))
        else:
            raise RunError(f"the journal's event of step {event.step} is not of this step's rollouts: restore the run")
    return fates


# -- all steps of a run -----------------------------------------------------------------------------------------------

_COLUMNS = ["task", "group", "index", "candidates", "ranking", "selected", "outcome"]


def episode_table(run: RunDirectory) -> pd.DataFrame:
    """Every stored episode, one per row; reads no token and no text of a turn.

    Returns:
        Columns step, group, index, game, category, selected (None without a skill), utility (its U when it was
        retrieved, nan without), won.

    Raises:
        RunError: the run has no rollouts.
    """
    rows = []
    for step in run.rollout_steps():
        for row in pq.read_table(run.rollouts_file(step), columns=_COLUMNS).to_pylist():
            first = row["candidates"][row["ranking"][0]] if row["candidates"] else None
            rows.append(
                {
                    "step": step,
                    "group": row["group"],
                    "index": row["index"],
                    "game": row["task"]["game"],
                    "category": row["task"]["category"],
                    "selected": row["selected"],
                    "utility": first["utility"] if first else math.nan,
                    "won": row["outcome"] == 1.0,
                }
            )
    if not rows:
        raise RunError(f"{run.path} has no rollouts yet: a run stores them with every training step")
    return pd.DataFrame(rows)


def contrasts(episodes: pd.DataFrame) -> pd.DataFrame:
    """Every skill against the rest of its group: one row per step, group and selected skill, where there is a rest.

    Args:
        episodes: see `episode_table`.

    Returns:
        Columns step, group, game, skill, with (episodes), won_with, without, won_without, difference (of the two
        success rates).
    """
    rows = []
    for (step, group), members in episodes.groupby(["step", "group"]):
        for skill, held in members.groupby("selected"):
            rest = members.drop(held.index)
            if len(rest):
                difference = held["won"].mean() - rest["won"].mean()
                sizes = len(held), int(held["won"].sum()), len(rest), int(rest["won"].sum())
                rows.append((step, group, members["game"].iloc[0], skill, *sizes, difference))
    names = ["step", "group", "game", "skill", "with", "won_with", "without", "won_without", "difference"]
    return pd.DataFrame(rows, columns=names)


def find_cases(run: RunDirectory, count: int = 1) -> list[Case]:
    """Case studies by `RULES`, at most `count` of each kind, no skill twice within a kind.

    Ties go to the more balanced group, then to the later step, then to the lower group and skill. A run without a
    library has none.

    Raises:
        RunError: the run has no rollouts.
        LibraryError: the journal is missing or damaged.
    """
    episodes = episode_table(run)
    events = _events(run)
    return [*_contrasting(run, events, episodes, count), *_relied_on(run, events, episodes, count)]


def _contrasting(run: RunDirectory, events: Sequence[LibraryEvent], episodes: pd.DataFrame, count: int) -> list[Case]:
    table = contrasts(episodes)
    table["smaller"] = table[["with", "without"]].min(axis=1)
    cases: list[Case] = []
    for kind, sign in (("ahead", 1), ("behind", -1)):
        signed = table.assign(by=sign * table["difference"])
        ordered = signed[signed["by"] > 0].sort_values(
            ["by", "smaller", "step", "group", "skill"], ascending=[False, False, False, True, True]
        )
        for row in ordered.drop_duplicates("skill").head(count).to_dict("records"):
            members = episodes[(episodes["step"] == row["step"]) & (episodes["group"] == row["group"])]
            held = members["selected"] == row["skill"]
            shown = members[held & (members["won"] == (sign > 0))]["index"].iloc[0]
            against = members[~held & (members["won"] == (sign < 0))]["index"].iloc[0]
            why = (
                f"{row['won_with']} of the {row['with']} episodes with {row['skill']} won, "
                f"{row['won_without']} of the group's {row['without']} others."
            )
            skill = _library_before(run, events, row["step"])[row["skill"]]
            cases.append(Case(kind, why, row["step"], row["group"], skill, int(shown), int(against)))
    return cases


def _relied_on(run: RunDirectory, events: Sequence[LibraryEvent], episodes: pd.DataFrame, count: int) -> list[Case]:
    last = int(episodes["step"].max())
    used = dict(tuple(episodes.groupby("selected")))
    kept = [s for s in _library_before(run, events, last + 1).values() if s.id in used and used[s.id]["won"].any()]
    cases = []
    for skill in sorted(kept, key=lambda s: (-s.utility * math.log(s.count + 1), s.id))[:count]:
        own = used[skill.id]
        latest = own[own["won"]].iloc[-1]
        why = (
            f"After step {last} it has U = {skill.utility:.3f} and n = {skill.count}; "
            f"{len(own)} episodes of the run selected it, {own['won'].sum()} of them won."
        )
        step, group = int(latest["step"]), int(latest["group"])
        then = _library_before(run, events, step)[skill.id]
        cases.append(Case("relied on", why, step, group, then, int(latest["index"]), None))
    return cases
