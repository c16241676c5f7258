"""The life of a run's skill bank: how it grew, what its episodes were shown, and what the teacher did. Ours.

`read` joins the bank that the run started with, its journal and its rollouts; SkillRL (arXiv 2602.08234) reports the
number of entries alone. A bank has neither utilities nor retirement: the library's study has no word for it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from skill1.analysis.figures.style import lines, themed, whole
from skill1.methods.skillrl.bank import SkillBank, load_bank
from skill1.methods.skillrl.categories import known_categories
from skill1.methods.skillrl.events import BankEvent, BankJournal
from skill1.methods.skillrl.growth import INITIAL_BANK, JOURNAL
from skill1.store.run_directory import RunDirectory, RunError

SECTIONS = ("general", "category", "mistake")


@dataclass(frozen=True, slots=True, eq=False)
class BankRun:
    """A run's bank and what was done with it. Steps count from 1.

    Attributes:
        run, events: the run and the teacher's calls.
        entries: one row each, by id, in the order of the sections: section (of `SECTIONS`), category ("" if none),
            title, principle (of a mistake: description and what to do instead), step (after which it was there, 0 = from
            the start), shown (episodes whose prompts had it).
        growth: one row per step: step, the entries of each section as its rollouts found them, evolved (of these),
            shown and, by section, shown_general, shown_category, shown_mistake (mean per episode).
    """

    run: RunDirectory
    events: tuple[BankEvent, ...]
    entries: pd.DataFrame
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
    if not run.config.bank.enabled:
        raise ValueError(
            f"run {path} (variant {run.config.variant}) has no bank to study: choose one of variant skillrl"
        )
    steps = run.rollout_steps()
    if not steps:
        raise RunError(f"{path} has no rollouts ({run.rollouts_dir} is empty): what was shown is there")
    first = load_bank(run.library_dir / INITIAL_BANK, known_categories(run.config.environment.name))
    journal = run.library_dir / JOURNAL
    events = BankJournal(journal).events() if journal.exists() else ()
    entries = _entries(first, events)
    shown, means = Counter(), []
    for step in steps:
        candidates = pq.read_table(run.rollouts_file(step), columns=["candidates"])["candidates"].to_pylist()
        seen = Counter(candidate["skill"] for episode in candidates for candidate in episode)
        if unknown := sorted(set(seen) - set(entries.index)):
            raise RunError(f"{path}: step {step} shows {', '.join(unknown)}, which its bank never had: not of one run")
        shown += seen
        there = entries[entries["step"] < step]
        of = {section: sum(n for i, n in seen.items() if entries.at[i, "section"] == section) for section in SECTIONS}
        means.append(
            {"step": step}
            | {section: int((there["section"] == section).sum()) for section in SECTIONS}
            | {"evolved": int((there["step"] > 0).sum()), "shown": seen.total() / len(candidates)}
            | {f"shown_{section}": count / len(candidates) for section, count in of.items()}
        )
    entries["shown"] = [shown[i] for i in entries.index]
    return BankRun(run, events, entries, pd.DataFrame(means))


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


def calls(study: BankRun) -> pd.DataFrame:
    """The teacher's calls: after which step, the weak categories, episodes shown, entries added and refused, failures."""
    rows = [
        {
            "step": event.step,
            "weak": ", ".join(f"{name} {won}/{played}" for name, (won, played) in event.success.items()),
            "episodes shown": len(event.shown),
            "added": len(event.added),
            "refused": len(event.refused),
            "failure": event.error or "",
        }
        for event in study.events
    ]
    columns = ["step", "weak", "episodes shown", "added", "refused", "failure"]
    return pd.DataFrame(rows, columns=columns).set_index("step")


@themed
def growth(study: BankRun) -> Figure:
    """The bank's entries by section, and how many of each an episode was shown, over the steps."""
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = dict(zip(SECTIONS, ("general", "of a category", "mistakes"), strict=True))
    lines(left, study.growth, names)
    lines(right, study.growth, {f"shown_{section}": label for section, label in names.items()})
    for number, event in enumerate(failed := [event for event in study.events if event.error is not None]):
        label = f"call without an answer (n = {len(failed)})" if number == 0 else None
        left.axvline(event.step, color="0.6", linewidth=0.8, linestyle=":", label=label)
    left.set(xlabel="training step", ylabel=f"entries of the bank (limit {study.run.config.bank.limit})")
    right.set(xlabel="training step", ylabel="entries shown per episode")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        whole(axes.xaxis)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def reading(study: BankRun) -> str:
    """What the tables say, as Markdown, made from them alone."""
    first, last = study.growth.iloc[0], study.growth.iloc[-1]
    before, after = (int(row[list(SECTIONS)].sum()) for row in (first, last))
    failed = sum(event.error is not None for event in study.events)
    added, refused = (sum(len(getattr(event, name)) for event in study.events) for name in ("added", "refused"))
    there = study.entries[study.entries["step"] < last["step"]]
    grown = (
        f"Step {first['step']:.0f} played with {before} entries, step {last['step']:.0f} with {after}, "
        f"{last['evolved']:.0f} of them evolved."
    )
    asked = (
        f"The teacher ({study.run.config.bank.teacher}) was asked {len(study.events)} times; {failed} had no usable "
        f"answer. {added} entries were added, {refused} refused."
    )
    used = (
        f"An episode was shown {study.growth['shown'].mean():.1f} entries, mean over the steps; of the last step's "
        f"{len(there)} entries, {int((there['shown'] == 0).sum())} were never shown."
    )
    return "\n".join(f"* {line}" for line in (grown, asked, used))
