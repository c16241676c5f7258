"""Figures of hand-made stored runs: what they show is what is stored, and their bytes depend on nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_printable, texts
from matplotlib.figure import Figure

from skill1.analysis import variants
from skill1.analysis.figures import run as figures
from skill1.analysis.figures import style as plots
from skill1.config import load_config
from skill1.envs.alfworld.spec import ALFWORLD
from skill1.records import Skill
from skill1.stats import wilson
from skill1.store.journal import Journal, LibraryEvent
from skill1.store.run_directory import RunDirectory

CATEGORIES = ("Pick", "Look", "Clean", "Heat", "Cool", "Pick2")
STEPS = 30


def outcomes(
    rate: float, *, step: int, library: str, split: str = "valid_seen", games: int = 48, passes: int = 2, seed: int = 0
) -> pd.DataFrame:
    """Outcomes of one evaluation, won with probability about `rate`, some categories being harder."""
    rng = np.random.default_rng((seed, step, len(library), games))
    ease = np.clip(rate + np.linspace(0.15, -0.15, len(CATEGORIES)), 0, 1)
    rows = [
        {
            "variant": "full",
            "seed": seed,
            "step": step,
            "split": split,
            "game": f"{split}/g{game:03d}",
            "category": CATEGORIES[game % len(CATEGORIES)],
            "pass": number,
            "won": bool(rng.random() < ease[game % len(CATEGORIES)]),
            "score": 0.0,
            "steps": 12,
            "invalid_actions": 0,
            "inadmissible_actions": 1,
            "library": library,
        }
        for number in range(passes)
        for game in range(games)
    ]
    return pd.DataFrame(rows)


def write_run(path: Path, variant: str = "full", seed: int = 0) -> RunDirectory:
    """A run of 30 steps that learns, with a journal and a validation every 10 steps."""
    config = load_config("nano", variant, {"train.steps": STEPS, "train.seed": seed})
    run = RunDirectory.create(path, config, "hash")
    rng = np.random.default_rng((seed, len(variant)))
    journal = Journal(run.library_dir / "journal.jsonl")
    size = 0
    for step in range(1, STEPS + 1):
        share = step / STEPS
        new = tuple(skill(size + i + 1, f"strategy {(size + i) % (size // 2 + 5)}", step) for i in range(step // 4))
        old = ("s000001",) if step == 20 else ()
        size += len(new)
        journal.append(LibraryEvent(step, step, (), new, ("s000002",) if step > 8 else (), old))
        seen = math.nan if step < 5 else 1.0
        run.log(
            step,
            {
                "reward": 0.2 + 0.4 * share + 0.1 * rng.normal(),
                "u_hat": 0.5 + 0.3 * share if step >= 5 else 0.0,
                "ndcg/mean": seen * (0.85 + 0.1 * share),
                "ndcg/std": seen * 0.1,
                "selection/utility_retrieved": seen * (0.48 + 0.2 * share),
                "selection/utility_selected": seen * (0.5 + 0.25 * share),
                "selection/selected_share": 0.0 if step < 5 else 1.0,
                "distill_positive_rate": 0.2 + 0.4 * share,
                "library/mean_utility": seen * (0.47 + 0.1 * share),
            },
        )
    for step in range(0, STEPS + 1, 10):
        frame = outcomes(0.2 + 0.5 * step / STEPS, step=step, library=f"step{step}", passes=1, seed=seed)
        run.write_evaluation("validation", frame.assign(variant=variant))
    run.close()
    return run


def skill(number: int, strategy: str, step: int) -> Skill:
    return Skill(f"s{number:06d}", "d", strategy, "", 0.5, 1, admitted=step, last_used=step, outcome="success")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return write_run(tmp_path_factory.mktemp("runs") / "full")


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    def both(rate: float, **given: object) -> pd.DataFrame:
        seen = outcomes(rate, **given)
        return pd.concat([seen, outcomes(rate - 0.1, split="valid_unseen", games=18, **given)])

    return {
        "before": both(0.2, step=0, library="step0"),
        "after, with library": both(0.7, step=STEPS, library=f"step{STEPS}"),
        "after, library withheld": both(0.5, step=STEPS, library="none"),
    }


def dots(figure: Figure, label: str, panel: int = 0) -> np.ndarray:
    """(n, 2) positions of the dots with this label."""
    [found] = [c for c in figure.axes[panel].containers if c.get_label() == label]
    return np.column_stack(found.lines[0].get_data())


DRAWN: dict[str, Callable[..., Figure]] = {
    "learning_curve": lambda run, frames: figures.learning_curve(run),
    "library_growth": lambda run, frames: figures.library_growth(run),
    "utilities": lambda run, frames: figures.utilities(run),
    "category_dots": lambda run, frames: figures.category_dots(frames, ALFWORLD),
    "demo_summary": lambda run, frames: figures.demo_summary(frames, ALFWORLD),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_bytes_depend_on_the_data_alone(
    name: str, run: RunDirectory, frames: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = DRAWN[name](run, frames)
    monkeypatch.setattr(plots, "DPI", 75)  # two thirds of the time
    first = plots.save(figure, tmp_path / "a", name)
    assert_printable(figure)
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 50, "lines.linewidth": 9}):  # someone else's settings
        second = plots.save(DRAWN[name](run, frames), tmp_path / "b", name)
        assert matplotlib.rcParams["font.size"] == 30
    assert [p.name for p in first] == [f"{name}.png", f"{name}.pdf"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_learning_curve_shows_the_stored_numbers(run: RunDirectory) -> None:
    figure = figures.learning_curve(run)
    [reward] = [line for line in figure.axes[0].lines if len(line.get_xdata()) == STEPS]
    assert np.allclose(reward.get_ydata(), 100 * run.metrics()["reward"])
    validation = run.evaluations("validation")
    won = validation.groupby("step")["won"].agg(["sum", "size"])
    assert np.allclose(
        dots(figure, "Skill1: validation, n = 48 games"),
        [[step, 100 * row["sum"] / row["size"]] for step, row in won.iterrows()],
    )
    [bars] = figure.axes[0].collections
    interval = wilson(int(won["sum"].iloc[0]), int(won["size"].iloc[0]))
    assert np.allclose(bars.get_segments()[0][:, 1], [100 * interval.low, 100 * interval.high])
    assert "training reward, raw, n = 64 episodes a step" in texts(figure)


def test_category_dots_show_rates_sizes_and_published_values(frames: dict) -> None:
    figure = figures.category_dots(frames, ALFWORLD)
    assert [axes.get_title() for axes in figure.axes] == ["seen homes", "unseen homes"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["Overall", *CATEGORIES]
    seen = frames["before"][frames["before"]["split"] == "valid_seen"]
    by_category = seen.groupby("category")["won"].mean()
    expected = [seen["won"].mean(), *(by_category[name] for name in CATEGORIES)]
    assert np.allclose(dots(figure, "before")[:, 0], 100 * np.array(expected))
    assert figure.axes[0].get_xlabel().endswith("n = 48 games, 2 passes, 8 a category")
    uneven = {"before": frames["before"].query("category != 'Pick' or game > 'valid_seen/g010'")}
    names = [label.get_text() for label in figures.category_dots(uneven, ALFWORLD).axes[0].get_yticklabels()]
    assert names[:3] == ["Overall", "Pick (n = 6)", "Look (n = 8)"]


def test_evaluations_are_drawn_by_what_they_are(frames: dict) -> None:
    """Colours come from the stored step, library and variant, not from the label."""
    figure = figures.demo_summary(frames, ALFWORLD)
    colours = {c.get_label(): c.lines[0].get_color() for c in figure.axes[0].containers}
    assert len(set(colours.values())) == 3
    assert colours["after, with library"] == variants.colour("full")
    plain = {"after": frames["after, library withheld"].assign(variant="no_library")}
    [container] = figures.demo_summary(plain, ALFWORLD).axes[0].containers
    assert container.lines[0].get_color() == variants.colour("no_library")


def test_summary_names_rates_and_sizes(frames: dict) -> None:
    shown = texts(figures.demo_summary(frames, ALFWORLD))
    for frame in frames.values():
        for _, part in frame.groupby("split"):
            assert f"{100 * part['won'].mean():.1f}" in shown
    assert "n = 18 games, 2 passes" in shown


def test_library_trace_follows_the_journal(run: RunDirectory) -> None:
    trace = figures.library_trace(run)
    assert list(trace["step"]) == list(range(1, STEPS + 1))
    assert trace["size"].iloc[-1] == trace["admitted"].sum() - trace["retired"].sum()
    assert trace["retired"].sum() == 1 and trace["merged"].sum() == STEPS - 8
    assert 0 < trace["distinct"].iloc[-1] < trace["size"].iloc[-1]


def test_a_strategy_is_distinct_until_its_last_copy_retires(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", load_config("nano"), "hash")
    journal = Journal(run.library_dir / "journal.jsonl")
    journal.append(LibraryEvent(1, 1, (), (skill(1, "a", 1), skill(2, "a", 1), skill(3, "b", 1)), (), ()))
    journal.append(LibraryEvent(2, 2, (), (), ("s000003",), ("s000001",)))
    journal.append(LibraryEvent(3, 3, (), (), (), ("s000002",)))
    trace = figures.library_trace(run)
    assert trace["size"].tolist() == [3, 2, 1]
    assert trace["distinct"].tolist() == [2, 2, 1]
    assert trace["merged"].tolist() == [0, 1, 0]


def test_what_never_happened_is_not_in_the_legend(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", load_config("nano"), "hash")
    journal = Journal(run.library_dir / "journal.jsonl")
    journal.append(LibraryEvent(1, 1, (), (skill(1, "a", 1),), (), ()))
    journal.append(LibraryEvent(2, 2, (), (), ("s000001",), ()))
    assert [line.get_label() for line in figures.library_growth(run).axes[1].lines] == ["admitted", "merged"]


def test_a_run_without_a_library_has_no_library_figures(run: RunDirectory) -> None:
    plain = replace(run, config=load_config("nano", "no_library"))
    for draw in (figures.library_growth, figures.utilities):
        with pytest.raises(ValueError, match="no_library.*has no library"):
            draw(plain)
