"""Figures of a study: their numbers are the tables', their bytes depend on the data alone; notebooks 03 and 04 run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
import synthetic_study
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from study_runs import make_study
from synthetic_study import STEPS

from skill1.analysis import ablations, arms, dynamics, per_category, variants
from skill1.analysis.figures import study as study_figures
from skill1.analysis.figures import style as plots
from skill1.analysis.study import Study, load
from skill1.errors import RunError
from skill1.running.batch import run_notebook
from skill1.running.collect import collect

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SIZES = {"valid_seen": 12, "valid_unseen": 6}
DRAWN: dict[str, Callable[[Study], Figure]] = {
    "ablations": study_figures.ablation_dots,
    "effects": study_figures.effect_dots,
    "training_signals": study_figures.training_signals,
    "similarity": study_figures.similarity_dots,
    "u_hat": study_figures.u_hat_curves,
    "category_spread": study_figures.category_spread,
    "category_gains": study_figures.gain_dots,
    "behaviour": lambda study: study_figures.behaviour_dots(study, "valid_seen"),
}
HOLLOW = {"ablations", "effects", "training_signals", "similarity", "u_hat", "category_spread"}


@pytest.fixture(scope="module")
def study() -> Study:
    runs = {"full": [0, 1], "lambda1_0": [1, 0], "no_selection": [0], "no_library": [0, 1]}
    return synthetic_study.make(runs, missing={"no_selection": [1]}, sizes=SIZES)


@pytest.fixture(scope="module")
def figures(study: Study) -> dict[str, Figure]:
    return {name: draw(study) for name, draw in DRAWN.items()}


def texts(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


def bars(axes: Axes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) values and (n, 2) interval bounds of the dots of a variant, by its colour."""
    colour = variants.colour(name)
    found = [c for c in axes.containers if c.lines[0].get_color() == colour]
    values = np.concatenate([c.lines[0].get_xdata() for c in found])
    bounds = np.concatenate([[s[:, 0] for s in c.lines[2][0].get_segments()] for c in found])
    return values, bounds


def hollow(axes: Axes) -> list[list[float]]:
    """Positions of the published markers."""
    marked = [
        line for line in axes.lines if line.get_markerfacecolor() == "none" and line.get_marker() in ("o", "^", "v")
    ]
    return [line.get_xydata().tolist() for line in marked if len(line.get_xdata())]


def on_scale(axes: Axes, published: float) -> float:
    """Where a published value is drawn: at the edge of the scale of own data, with its number, if it is beyond."""
    low, high = axes.get_ylim()
    assert (f": {published:.2f}" in " ".join(text.get_text() for text in axes.texts)) == (not low <= published <= high)
    return min(max(published, low), high)


@pytest.mark.slow
def test_bytes_depend_on_the_data_alone(study: Study, tmp_path: Path) -> None:
    """Of the others too: see the notebooks below, which draw them in another process."""
    first = plots.save(study_figures.effect_dots(study), tmp_path / "a", "effects")
    same = replace(study, path=Path("elsewhere"))  # a study of its own: nothing is remembered of the first
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):  # someone else's settings
        second = plots.save(study_figures.effect_dots(same), tmp_path / "b", "effects")
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_published_values_are_hollow_and_said_to_be_published(name: str, figures: dict[str, Figure]) -> None:
    marked = [hollow(axes) for axes in figures[name].axes]
    assert any(marked) == (name in HOLLOW) == ("published" in texts(figures[name]))


def test_ablation_dots_show_table_2(study: Study, figures: dict[str, Figure]) -> None:
    figure, tidy = figures["ablations"], arms.results(study).query("category == 'Overall'")
    assert [axes.get_title() for axes in figure.axes] == ["seen homes", "unseen homes"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    seeds = ["2 seeds", "2 seeds", "1 of 2 seeds", "2 seeds"]
    assert labels == [f"{variants.label(name)}\n{n}" for name, n in zip(study.variants, seeds, strict=True)]
    for axes, split in zip(figure.axes, SIZES, strict=True):
        for row in tidy[tidy["split"] == split].itertuples():
            values, bounds = bars(axes, row.variant)
            assert values == pytest.approx([row.value]) and bounds[0] == pytest.approx([row.low, row.high])
        assert hollow(axes) == [[[97.5, 0], [80.9, 1], [91.8, 2], [94.0, 3]]]
        assert f"n = {SIZES[split]} games, 2 passes" in axes.get_xlabel()
    own = arms.own(study).query("variant == 'full' and split == 'valid_seen'")
    [ticks] = [x for x in figure.axes[0].lines if x.get_marker() == "|" and x.get_color() == variants.colour("full")]
    assert sorted(ticks.get_xdata()) == pytest.approx(sorted(100 * own.groupby("seed")["won"].mean()))


def test_effect_dots_show_the_effects(study: Study, figures: dict[str, Figure]) -> None:
    table = ablations.effects(study)
    for axes, split in zip(figures["effects"].axes, SIZES, strict=True):
        for row, effect in enumerate(table[table["split"] == split].itertuples()):
            lines = [x for x in axes.lines if x.get_color() == variants.colour(effect.variant) and len(x.get_xdata())]
            drawn = [x.get_xdata().tolist() for x in lines]
            spans = [[effect.both_low, effect.both_high], [effect.games_low, effect.games_high]]
            assert drawn == [*spans, [effect.points]]
            assert all(set(x.get_ydata()) == {row} for x in lines)
        assert hollow(axes) == [[[-16.6, 0], [-5.7, 1], [-3.5, 2]]]
    assert "no selection\n1 of 2 seeds" in texts(figures["effects"])


@pytest.mark.parametrize(
    ("name", "metrics", "names", "quoted"),
    [
        ("training_signals", list(dynamics.FIGURE_3), ["full", "lambda1_0"], [0.95] * 3 + [0.8] * 2),
        ("u_hat", [dynamics.U_HAT], ["full", "no_selection", "lambda1_0"], [0.91]),
    ],
)
def test_curves_are_the_logged_metrics(
    name: str, metrics: list[str], names: list[str], quoted: list, study: Study, figures: dict[str, Figure]
) -> None:
    for axes, metric, point in zip(figures[name].axes, metrics, quoted, strict=False):
        for variant in names:
            lines = [x for x in axes.lines if x.get_color() == variants.colour(variant) and len(x.get_xdata())]
            table = dynamics.curves(study, metric, variant)
            expected = [*(table[seed] for seed in table if table.shape[1] > 1), table.mean(axis=1, skipna=False)]
            for line, values in zip(lines, expected, strict=True):
                np.testing.assert_array_equal(line.get_ydata(), values)
            assert lines[-1].get_linewidth() > 2 * lines[0].get_linewidth() or len(lines) == 1
        [[[at, there]]] = hollow(axes)
        assert at == pytest.approx(1.05 * STEPS)  # at the edge: the paper's steps are others
        assert there == on_scale(axes, point)
    assert ("step 85" if name == "u_hat" else "step 20") in texts(figures[name])


def test_u_hat_of_variants_that_estimate_it_alone(figures: dict[str, Figure]) -> None:
    assert "no library" not in texts(figures["u_hat"]) and "no selection, 1 of 2 seeds" in texts(figures["u_hat"])


def test_signals_that_are_equal_share_a_panel(study: Study, figures: dict[str, Figure]) -> None:
    """A reward of 0 or 1: r - U_hat > 0 says that r is 1."""
    assert [axes.get_title()[:3] for axes in figures["training_signals"].axes] == ["(a)"] * 3 + ["(b)", "(c)", ""]
    equal = study.metrics.assign(distill_positive_rate=study.metrics["reward"])
    figure = study_figures.training_signals(replace(study, metrics=equal))
    assert [axes.get_title()[:3] for axes in figure.axes] == ["(a)"] * 3 + ["(b)"]
    assert "(b) mean r = (c) share of" in figure.axes[3].get_title()


def test_similarity_dots_show_the_checkpoints(study: Study, figures: dict[str, Figure]) -> None:
    [axes] = figures["similarity"].axes
    table = dynamics.at_checkpoints(study, dynamics.SIMILARITY, ["full"])
    [mean] = [x for x in axes.lines if x.get_label() == "Skill1, 2 seeds"]
    assert mean.get_ydata() == pytest.approx(table.groupby("step")["value"].mean())
    seeds = [x for x in axes.lines if x.get_color() == variants.colour("full") and x is not mean]
    assert sorted(np.concatenate([x.get_ydata() for x in seeds])) == pytest.approx(sorted(table["value"]))
    assert hollow(axes) == [[[0, on_scale(axes, 0.51)]], [[2, on_scale(axes, 0.60)]]]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["step 10", "step 20", "step 30"]


def test_category_spread_shows_mean_and_std_over_seeds(study: Study, figures: dict[str, Figure]) -> None:
    tidy = pd.concat([arms.results(study), arms.results(study, before=True)])
    for axes, split in zip(figures["category_spread"].axes, SIZES, strict=True):
        for name in ("full", "no_library", "untrained"):
            part = tidy[(tidy["split"] == split) & (tidy["variant"] == name)]
            values, bounds = bars(axes, name)
            std = part["seed_std"].fillna(0.0)
            assert values == pytest.approx(part["value"])
            spread = np.column_stack([part["value"] - std, part["value"] + std])
            assert bounds == pytest.approx(spread.clip(0, 100))  # no bar leaves the scale
        skill1, retroagent = hollow(axes)
        assert [x for x, _ in skill1] == [97.5, 100.0, 98.6, 97.3, 99.2, 96.1, 96.0]
        assert [x for x, _ in retroagent] == [94.9, 97.9, 90.9, 99.2, 92.9, 85.3, 91.0]
        assert not {y for _, y in skill1} & {y for _, y in retroagent}  # beside each other
    labels = [label.get_text() for label in figures["category_spread"].axes[1].get_yticklabels()]
    assert labels[:2] == ["Overall\nn = 6", "Pick\nn = 1"]


def test_gain_dots_show_the_gains(study: Study, figures: dict[str, Figure]) -> None:
    table = per_category.gains(study)
    for axes, split in zip(figures["category_gains"].axes, SIZES, strict=True):
        part = table[(table["split"] == split) & (table["variant"] == "full")]
        values, bounds = bars(axes, "full")
        assert values == pytest.approx(part["points"])
        known = part["both_low"].notna().to_numpy()
        assert bounds[known] == pytest.approx(part[["both_low", "both_high"]].to_numpy()[known])
        assert (bounds[~known] == values[~known, None]).all() and (split == "valid_seen" or not known.all())


def test_behaviour_dots_show_the_behaviour(study: Study, figures: dict[str, Figure]) -> None:
    table = per_category.behaviour(study).query("split == 'valid_seen' and variant == 'untrained'")
    for axes, measure in zip(figures["behaviour"].axes, ("steps", "invalid"), strict=True):
        values, bounds = bars(axes, "untrained")
        assert values == pytest.approx(table[measure])
        assert bounds == pytest.approx(table[[f"{measure}_low", f"{measure}_high"]].to_numpy())
    none = replace(study, evaluations=study.evaluations.assign(invalid_actions=0))
    assert len(study_figures.behaviour_dots(none, "valid_seen").axes) == 1  # no panel of all zeros
    with pytest.raises(RunError, match="not evaluated on 'train' .it was on valid_seen, valid_unseen"):
        study_figures.behaviour_dots(study, "train")


def test_a_single_seed_and_a_single_split_are_drawn() -> None:
    small = synthetic_study.make({"full": [0], "gigpo": [0]}, splits=["valid_unseen"], passes=1, sizes=SIZES)
    for name, draw in DRAWN.items():
        if name != "behaviour":
            figure = draw(small)
            assert "one seed" not in texts(figure)
    assert "n = 6 games, 1 pass, 1 seed" in texts(study_figures.ablation_dots(small))


# --- The notebooks, by the strict runner -----------------------------------------------------------------------------


def shown(path: Path) -> str:
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    data = [output.get("data", {}) for cell in cells for output in cell.outputs]
    return "\n".join(text for part in data for kind, text in part.items() if kind.startswith("text/"))


def check_figures(folder: Path, again: Path, names: list[str], compared: list[str]) -> None:
    """The study's figures are those `names`; the `compared` ones are byte by byte what this process draws."""
    there = sorted(path.name for path in (folder / "figures").iterdir())
    assert there == [f"{name}.{kind}" for name in names for kind in ("pdf", "png")]
    study = load(folder)
    for name in compared:
        for path in plots.save(DRAWN[name](study), again, name):
            assert path.read_bytes() == (folder / "figures" / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_notebook_03_reads_a_committed_study(study: Study, tmp_path: Path) -> None:
    folder = synthetic_study.write(study, tmp_path / "reference")
    done = run_notebook(NOTEBOOKS / "03_ablations.ipynb", tmp_path / "03.ipynb", {"study": str(folder)})
    names = ["ablations", "effects", "similarity", "training_signals", "u_hat"]
    check_figures(folder, tmp_path / "again", names, ["u_hat"])
    text = shown(done)
    assert ablations.summary(study) in text and "no rerank loss" in text


@pytest.mark.slow
def test_notebook_04_reads_a_collected_sweep(tmp_path: Path) -> None:
    """Real run directories, and games that are all of one category."""
    folder = make_study(tmp_path / "tiny", {"full": [0, 1], "no_library": [0]}, {"full": [0, 1], "no_library": [0]})
    asked = json.loads((folder / "sweep.json").read_text())
    asked["settings"]["data"] = "data/games"  # as a real sweep has it
    (folder / "sweep.json").write_text(json.dumps(asked))
    collect(folder)
    done = run_notebook(NOTEBOOKS / "04_per_category.ipynb", tmp_path / "04.ipynb", {"study": str(folder)})
    check_figures(folder, tmp_path / "again", ["behaviour", "category_gains", "category_spread"], ["category_spread"])
    # stand-ins win every other episode, before and after: no game changes
    assert "Skill1 gained +0.0 points over the untrained policy" in shown(done)
