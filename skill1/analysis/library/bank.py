"""The life of a run's skill bank: how it grew, what its episodes were shown, and what the teacher did. Ours.

SkillRL (arXiv 2602.08234) reports the number of entries alone. A bank has neither utilities nor retirement, so the
library's study does not fit it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from skill1.analysis.library.uses import read_uses
from skill1.errors import RunError
from skill1.methods.skillrl.bank import SkillBank, load_bank
from skill1.methods.skillrl.categories import known_categories
from skill1.methods.skillrl.events import BankEvent, BankJournal
from skill1.methods.skillrl.method import INITIAL_BANK, JOURNAL
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.store.run_directory import RunDirectory

SECTIONS = ("general", "category", "mistake")


@dataclass(frozen=True, slots=True, eq=False)
class BankRun:
    """A run's bank and what was done with it. Steps count from 1."""

    limit: int  # entries that fit (`method.limit`)
    events: tuple[BankEvent, ...]  # the teacher's calls
    # Entries by id, in the order of the sections: section (of `SECTIONS`), category ("" if none), title, principle (of
    # a mistake: description and what to do instead), step (after which it was there, 0 = from the start), shown
    # (episodes).
    entries: pd.DataFrame
    # One row per step: step, the entries of each section as its rollouts found them, evolved (of these), and the mean
    # per episode of shown, shown_general, shown_category, shown_mistake.
    growth: pd.DataFrame


def read(path: Path) -> BankRun:
    """Read a run's bank, journal and rollouts.

    Raises:
        RunError: no run there, no rollouts, or they show entries that the bank never had.
        ValueError: the run has no bank.
        BankError: the initial bank is damaged or missing.
        LibraryError: the journal is damaged.
    """
    run = RunDirectory.open(path)
    if not isinstance(options := run.config.method, SkillRLConfig):
        raise ValueError(
            f"run {path} (variant {run.config.variant}) has no bank to study: choose one of variant skillrl"
        )
    episodes, shown = read_uses(run, run.rollout_steps())
    first = load_bank(run.library_dir / INITIAL_BANK, known_categories(run.config.environment.name))
    journal = run.library_dir / JOURNAL
    events = BankJournal(journal).events() if journal.exists() else ()
    entries = _entries(first, events)
    if not (foreign := shown[~shown["skill"].isin(entries.index)]).empty:
        step, name = foreign.iloc[0][["step", "skill"]]
        raise RunError(f"{path}: step {step} shows {name}, which its bank never had: not of one run")
    entries["shown"] = shown["skill"].value_counts().reindex(entries.index, fill_value=0)
    return BankRun(options.limit, events, entries, _growth(entries, episodes, shown))


def _entries(first: SkillBank, events: tuple[BankEvent, ...]) -> pd.DataFrame:
    added = {entry.id: event.step for event in events for entry in event.added}
    last = first.add([entry for event in events for entry in event.added])
    rows = [
        (e.id, "general" if e.category is None else "category", e.category or "", e.title, e.principle)
        for e in last.principles
    ]
    rows += [(m.id, "mistake", "", m.description, m.avoid) for m in last.mistakes]
    table = pd.DataFrame(rows, columns=["entry", "section", "category", "title", "principle"]).set_index("entry")
    return table.assign(step=[added.get(identity, 0) for identity in table.index])


def _growth(entries: pd.DataFrame, episodes: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    rows = []
    sections = shown["skill"].map(entries["section"])
    for step, played in episodes.groupby("step").size().items():
        there = entries[entries["step"] < step]
        seen = sections[shown["step"] == step]
        rows.append(
            {"step": step, "evolved": (there["step"] > 0).sum(), "shown": len(seen) / played}
            | {section: (there["section"] == section).sum() for section in SECTIONS}
            | {f"shown_{section}": (seen == section).sum() / played for section in SECTIONS}
        )
    return pd.DataFrame(rows)


def calls(study: BankRun) -> pd.DataFrame:
    """Tabulate the teacher's calls: step, weak categories, episodes shown, entries added and refused, failure."""
    rows = []
    for event in study.events:
        weak = ", ".join(f"{name} {won}/{played}" for name, (won, played) in event.success.items())
        counts = (len(event.shown), len(event.added), len(event.refused))
        rows.append((event.step, weak, *counts, event.error or ""))
    columns = ["step", "weak", "episodes shown", "added", "refused", "failure"]
    return pd.DataFrame(rows, columns=columns).set_index("step")
