"""Figures of the library study: what they show is what the tables hold, and their bytes depend on nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_printable
from library_runs import config, play_run, rollout, write_run
from matplotlib.figure import Figure

from skill1.analysis import variants
from skill1.analysis.figures import library as figures
from skill1.analysis.figures import style as plots
from skill1.analysis.library import map as library_map
from skill1.analysis.library import payoff as library_payoff
from skill1.analysis.library import study as library_study
from skill1.analysis.library.study import LibraryRun, read


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> LibraryRun:
    """A run whose library of 20 is full from an early step on."""
    made = config(library__capacity=20)
    return read(play_run(tmp_path_factory.mktemp("runs") / "run", made, steps=10, right=0.4).path)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> LibraryRun:
    """A run that shows its only skill twice and retires none."""
    steps = [
        [rollout(outcome=1.0, lesson=("mug", "mug in sink"))],
        [rollout(["s000001"]), rollout(["s000001"], index=1)],
    ]
    return read(write_run(tmp_path_factory.mktemp("quiet") / "run", steps, config("lambdas_0")).path)


def chosen(study: LibraryRun):
    return library_payoff.extremes(study, library_payoff.payoff(study), min_groups=2, top=3)


def conflicts(study: LibraryRun) -> pd.DataFrame:
    return library_payoff.conflicts(study, library_study.keys(study))


def replayed(study: LibraryRun):
    return library_study.counterfactual(study, [20, 10, 5])


DRAWN: dict[str, Callable[[LibraryRun], Figure]] = {
    "lives": figures.lifetimes,
    "use": lambda study: figures.concentration(study, library_study.concentration(study)),
    "pays": lambda study: figures.payoffs(chosen(study)),
    "conflicts": lambda study: figures.conflicts(study, conflicts(study)),
    "smaller": lambda study: figures.counterfactual(replayed(study)),
    "map": lambda study: figures.library_map(library_map.places({"full": study}), ["full"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_bytes_depend_on_the_data_alone(
    name: str, study: LibraryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = DRAWN[name](study)
    monkeypatch.setattr(plots, "DPI", 75)  # two thirds of the time
    first = plots.save(figure, tmp_path / "a", name)
    assert_printable(figure)
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 50}):  # someone else's settings
        second = plots.save(DRAWN[name](read(study.run.path)), tmp_path / "b", name)
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def labels(figure: Figure, panel: int) -> list[str]:
    return figure.axes[panel].get_legend_handles_labels()[1]


def test_lives_shows_ages_utilities_and_the_retired(study: LibraryRun) -> None:
    figure = figures.lifetimes(study)
    ages, utility, retired = figure.axes
    assert sum(patch.get_height() for patch in ages.patches) == 20
    age = study.steps - study.alive["admitted"]
    at: dict[int, float] = {}  # age -> skills, over both parts of the stack
    for patch in ages.patches:
        middle = round(patch.get_x() + patch.get_width() / 2)
        at[middle] = at.get(middle, 0) + patch.get_height()
    assert {k: v for k, v in at.items() if v} == age.value_counts().to_dict()
    [median] = [line for line in utility.lines if line.get_label() == "median"]
    known = study.history[study.history["retrieved"]]
    assert median.get_ydata()[-1] == known.loc[known["step"] == study.steps, "utility"].median()
    gone = study.skills.dropna(subset="retired")
    points = np.concatenate([c.get_offsets() for c in retired.collections])
    assert sorted(map(tuple, points)) == sorted(zip(gone["retired"] - gone["admitted"], gone["utility"], strict=True))
    idle = (gone["retrieved"] == 0).sum()
    assert labels(figure, 2) == [f"retrieved (n = {len(gone) - idle})", f"never retrieved (n = {idle})"]


def test_without_retirement_there_is_no_panel_of_it(quiet: LibraryRun) -> None:
    figure = figures.lifetimes(quiet)
    assert len(figure.axes) == 2
    assert labels(figure, 0) == ["retrieved (n = 1)", "never retrieved (n = 0)"]
    colours = {patch.get_facecolor() for patch in figure.axes[0].patches}
    assert matplotlib.colors.to_rgba(variants.colour("lambdas_0")) in colours


def test_a_library_that_was_never_used_can_be_drawn(tmp_path: Path) -> None:
    steps = [[rollout(outcome=1.0, lesson=(word, word)) for word in ("mug", "egg")], [rollout()]]
    study = read(write_run(tmp_path / "run", steps, config()).path)
    figure = figures.lifetimes(study)
    assert labels(figure, 0) == ["retrieved (n = 0)", "never retrieved (n = 2)"]
    drawn = figures.concentration(study, library_study.concentration(study)).axes[1].lines[0]
    assert drawn.get_ydata().tolist() == [100, 100]
    figures.conflicts(study, conflicts(study))
    assert chosen(study).empty
    table = library_study.counterfactual(study, [1])
    assert np.isnan(figures.counterfactual(table).axes[0].lines[0].get_ydata()).all()


def test_use_shows_the_table(study: LibraryRun) -> None:
    table = library_study.concentration(study)
    figure = figures.concentration(study, table)
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    for label, column in (("retrieved", "retrieved_effective"), ("shown", "shown_effective")):
        assert np.array_equal(drawn[label], table[column], equal_nan=True)
    assert np.array_equal(figure.axes[1].lines[0].get_ydata(), 100 * table["never_retrieved"])


def test_pays_shows_differences_and_sizes(study: LibraryRun) -> None:
    table = chosen(study)
    figure = figures.payoffs(table)
    drawn = np.concatenate([np.column_stack(c.lines[0].get_data()) for c in figure.axes[0].containers])
    assert np.allclose(drawn, np.column_stack([100 * table["difference"], range(len(table))]))
    first = table.iloc[0]
    text = figure.axes[0].get_yticklabels()[0].get_text()
    assert text == f"{first['strategy']}  (n = {first['shown']:.0f} in {first['informative']})"
    segment = figure.axes[0].collections[0].get_segments()[0]
    assert np.allclose(segment[:, 0], [100 * first["low"], 100 * first["high"]])


def test_long_skills_are_cut(study: LibraryRun) -> None:
    table = chosen(study).assign(strategy="look in the\nsink " * 20)
    text = figures.payoffs(table).axes[0].get_yticklabels()[0].get_text().partition("  (n")[0]
    assert len(text) == 46 and text.endswith("…") and "\n" not in text


def test_conflict_shows_shares(study: LibraryRun, quiet: LibraryRun) -> None:
    found = conflicts(study)
    [axes] = figures.conflicts(study, found).axes
    chosen = library_payoff.selections(found)
    last = chosen[chosen["step"] == study.steps]  # ten steps: one a bin
    drawn = {line.get_label(): line for line in axes.lines}
    assert drawn["selected"].get_xdata()[-1] == study.steps
    assert drawn["selected"].get_ydata()[-1] == pytest.approx(100 * last["leads"].mean())
    assert drawn["at random"].get_ydata()[-1] == pytest.approx(100 * last["chance"].mean())
    assert axes.collections[0].get_sizes().tolist() == chosen.groupby("step").size().tolist()
    figures.conflicts(quiet, conflicts(quiet))  # one candidate at most: an empty panel


def test_smaller_shows_the_counterfactual(study: LibraryRun) -> None:
    table = replayed(study)
    assert table["retrievals"].is_monotonic_increasing and table["retrievals"].iloc[-1] > 0
    lines = figures.counterfactual(table).axes[0].lines
    assert [text.get_text() for text in figures.counterfactual(table).axes[0].get_xticklabels()] == ["5", "10", "20"]
    for line, column in zip(lines, ("retrievals", "shown", "won"), strict=True):
        assert list(line.get_ydata()) == list(100 * table[column][::-1])


def test_saturated_draws_every_run_once(study: LibraryRun, tmp_path: Path) -> None:
    other = play_run(tmp_path / "other", config(library__capacity=20, train__seed=1), steps=10, right=0.4, seed=1)
    larger = play_run(tmp_path / "larger", config(library__capacity=40), steps=10, right=0.4)
    curves = library_study.saturation([study.run, other, larger])
    figure = figures.saturation(curves)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["capacity 40", "capacity 20 (2 runs)"]
    for panel, column in enumerate(("reward", "mean_utility", "retired")):
        last = curves.groupby("run", sort=False)[column].last() * (100 if column == "reward" else 1)
        drawn = [line.get_ydata()[-1] for line in figure.axes[panel].lines]
        assert np.allclose(drawn, [last.iloc[2], *last.iloc[:2]])  # the larger lies below
    colours = [line.get_color() for line in figure.axes[1].lines]
    assert colours[0] != colours[1] == colours[2]


def test_map_shows_both_runs_on_one_map(study: LibraryRun, tmp_path: Path) -> None:
    other = read(play_run(tmp_path / "other", config("lambdas_0"), steps=6, seed=3).path)
    spots = library_map.places({"a": study, "b": other})
    figure = figures.library_map(spots, ["full", "lambdas_0"])
    for axes, label, variant in zip(figure.axes, "ab", ("full", "lambdas_0"), strict=True):
        part = spots[spots["label"] == label]
        every, most = axes.collections
        assert np.allclose(every.get_offsets(), part[["x", "y"]])
        assert len(most.get_offsets()) == (part["used"] > 0).sum() > 0
        assert tuple(most.get_facecolor()[0][:3]) == matplotlib.colors.to_rgb(variants.colour(variant))
    used = math.ceil(len(study.alive) / 10)
    assert f"20 skills at {study.alive['desc'].nunique()} places\nmost used: {used} at" in figure.axes[0].get_title()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["skills", "most-used tenth, a", "most-used tenth, b"]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
