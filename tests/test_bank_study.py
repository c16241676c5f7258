"""The study of a bank against a run whose bank, shown entries and teacher's calls are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from library_runs import config, rollout, write_run

from skill1.analysis.figures import library as figures
from skill1.analysis.library import bank as bank_study
from skill1.errors import RunError
from skill1.methods.skillrl.bank import Mistake, Principle, SkillBank
from skill1.methods.skillrl.events import BankEvent, BankJournal
from skill1.methods.skillrl.method import INITIAL_BANK, JOURNAL
from skill1.store.run_directory import RunDirectory

FIRST = SkillBank(
    general=(Principle("gen_001", "Anywhere", "mug in cabinet"),),
    specific=(Principle("hea_001", "Hot", "egg in fridge", category="heat"),),
    mistakes=(Mistake("err_001", "open open", "look"),),
)
ADDED = (Principle("dyn_001", "New", "soap in sink"), Principle("dyn_002", "Hot again", "egg", category="heat"))
SHOWN = [  # entries of each episode, by step
    [["gen_001", "err_001"], ["gen_001", "hea_001", "err_001"]],
    [["gen_001", "err_001"], ["gen_001", "err_001"]],
    [["gen_001", "dyn_001", "err_001"], ["gen_001", "dyn_001", "hea_001", "err_001"]],
]
EVENTS = (
    BankEvent(1, 1, "train", {"heat": (1, 9)}, ("heat an egg.",), "no JSON", (), ()),
    BankEvent(2, 2, "train", {"heat": (2, 9), "clean": (3, 8)}, ("heat an egg.", "clean it."), None, ADDED, ("old",)),
)


def make(path: Path, shown: list[list[list[str]]]) -> RunDirectory:
    run = RunDirectory.create(path, config("skillrl", method__teacher="scripted"), "hash")
    (run.library_dir / INITIAL_BANK).write_text(FIRST.to_text())
    for step, episodes in enumerate(shown, start=1):
        run.write_rollouts(step, [rollout(found, index=i) for i, found in enumerate(episodes)])
    journal = BankJournal(run.library_dir / JOURNAL)
    for event in EVENTS:
        journal.append(event)
    return run


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> bank_study.BankRun:
    return bank_study.read(make(tmp_path_factory.mktemp("bank") / "run", SHOWN).path)


def test_growth_by_hand(study: bank_study.BankRun) -> None:
    table = study.growth.set_index("step")
    assert (
        table["general"].tolist() == table["category"].tolist() == [1, 1, 2]
    )  # there from the step after it was added
    assert table["mistake"].tolist() == [1, 1, 1] and table["evolved"].tolist() == [0, 0, 2]
    assert table["shown"].tolist() == [2.5, 2, 3.5]
    assert table["shown_general"].tolist() == [1, 1, 2] and table["shown_category"].tolist() == [0.5, 0, 0.5]
    assert table["shown_mistake"].tolist() == [1, 1, 1]


def test_entries_by_hand(study: bank_study.BankRun) -> None:
    table = study.entries
    assert table.index.tolist() == ["gen_001", "dyn_001", "hea_001", "dyn_002", "err_001"]
    assert table["shown"].tolist() == [6, 2, 2, 0, 6] and table["step"].tolist() == [0, 2, 0, 2, 0]
    assert table["category"].tolist() == ["", "", "heat", "heat", ""]
    assert table.loc["err_001", ["section", "title", "principle"]].tolist() == ["mistake", "open open", "look"]


def test_calls_and_failures(study: bank_study.BankRun) -> None:
    table = bank_study.calls(study)
    assert table.loc[1].tolist() == ["heat 1/9", 1, 0, 0, "no JSON"]
    assert table.loc[2].tolist() == ["heat 2/9, clean 3/8", 2, 2, 1, ""]


def test_the_figure_draws_the_tables(study: bank_study.BankRun) -> None:
    figure = figures.bank_growth(study)
    left, right = figure.axes
    for axes, prefix in ((left, ""), (right, "shown_")):
        drawn = dict(zip(bank_study.SECTIONS, axes.lines, strict=False))
        for section, line in drawn.items():
            np.testing.assert_array_equal(line.get_ydata(), study.growth[prefix + section])
    assert [line.get_xdata()[0] for line in left.lines[3:]] == [1]  # the call that failed


def test_runs_that_are_not_a_banks_are_refused(tmp_path: Path) -> None:
    library = write_run(tmp_path / "library", [[rollout()]], config())
    with pytest.raises(ValueError, match="has no bank to study"):
        bank_study.read(library.path)
    with pytest.raises(RunError, match="has no rollouts yet"):
        bank_study.read(make(tmp_path / "empty", []).path)
    with pytest.raises(RunError, match="step 1 shows gen_009, which its bank never had"):
        bank_study.read(make(tmp_path / "other", [[["gen_009"]]]).path)
