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
from figure_checks import assert_printable, texts
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from study_runs import make_study

from skill1 import presets
from skill1.analysis import ablations, arms, dynamics, per_category, variants
from skill1.analysis.figures import signals
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
    "training_signals": signals.training_signals,
    "similarity": signals.similarity_dots,
    "u_hat": signals.u_hat_curves,
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


def bars(axes: Axes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) values and (n, 2) interval bounds of the dots of a variant, by its colour."""
    colour = variants.colour(name)
    found = [c for c in axes.containers if c.lines[0].get_color() == colour]
    values = np.concatenate([c.lines[0].get_xdata() for c in found])
    bounds = np.concatenate([[s[:, 0] for s in c.lines[2][0].get_segments()] for c in found])
    return values, bounds


def hollow(axes: Axes) -> list[tuple[float, float, str]]:
    """Position and marker of every published value."""
    marked = [line for line in axes.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
    return [(*line.get_xydata()[0], line.get_marker()) for line in marked]


def on_scale(limits: tuple[float, float], published: float, arrows: str) -> tuple[float, str]:
    """Where a published value is drawn, and as what: at the edge of the scale of own data if it is beyond."""
    low, high = limits
    return min(max(published, low), high), arrows[0] if published < low else arrows[1] if published > high else "o"


def in_rows(axes: Axes, published: list[float]) -> list[tuple[float, float, str]]:
    """Published values as they must be drawn above the data of the rows; those off the scale have their numbers."""
    drawn = [on_scale(axes.get_xlim(), value, "<>") for value in published]
    numbers = [f"{value:.1f}" for value, (_, marker) in zip(published, drawn, strict=True) if marker != "o"]
    assert [text.get_text() for text in axes.texts] == numbers
    return [(at, pytest.approx(row - 0.3), marker) for row, (at, marker) in enumerate(drawn)]


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
def test_figures_can_be_printed_and_say_what_is_published(name: str, figures: dict[str, Figure]) -> None:
    assert_printable(figures[name])
    marked = [hollow(axes) for axes in figures[name].axes]
    assert any(marked) == (name in HOLLOW) == ("published" in texts(figures[name]))


@pytest.mark.slow
def test_figures_of_sixteen_variants_can_be_printed() -> None:
    """And say the number of seeds once a panel."""
    names = [name for name in presets.variants() if name in synthetic_study.RATES][:14] + ["mine", "another"]
    many = synthetic_study.make({name: [0, 1] for name in names}, sizes=SIZES)
    for name in ("ablations", "u_hat"):  # effects are drawn as ablations are, the others choose their variants
        assert_printable(figure := DRAWN[name](many))
        assert 0 < texts(figure).count("2 seeds") <= len(many.splits), name


def test_ablation_dots_show_table_2(study: Study, figures: dict[str, Figure]) -> None:
    figure, tidy = figures["ablations"], arms.results(study).query("category == 'Overall'")
    assert [axes.get_title() for axes in figure.axes] == ["seen homes", "unseen homes"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [
        "Skill1, 2 seeds",
        "no library (GRPO), 2 seeds",
        "no selection, 1 of 2 seeds",
        "no rerank loss (λ1 = 0), 2\nseeds",
    ]
    for axes, split in zip(figure.axes, SIZES, strict=True):
        for row in tidy[tidy["split"] == split].itertuples():
            values, bounds = bars(axes, row.variant)
            assert values == pytest.approx([row.value]) and bounds[0] == pytest.approx([row.low, row.high])
        assert hollow(axes) == in_rows(axes, [97.5, 80.9, 91.8, 94.0])
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
        assert hollow(axes) == in_rows(axes, [-16.6, -5.7, -3.5])
    assert "no selection, 1 of 2 seeds" in texts(figures["effects"])


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
        for variant in names if name == "training_signals" else names[:1]:  # a panel a variant in the other one
            [line] = [x for x in axes.lines if x.get_color() == variants.colour(variant) and len(x.get_xdata()) > 1]
            table = dynamics.curves(study, metric, variant)
            np.testing.assert_array_equal(line.get_ydata(), table.mean(axis=1, skipna=False))
            bands = [x for x in axes.collections if to_hex(x.get_facecolor()[0]) == variants.colour(variant)]
            heights = bands[0].get_paths()[0].vertices[:, 1]
            assert heights.min() == np.nanmin(table) and heights.max() == np.nanmax(table)
        assert hollow(axes) == [
            (1, *on_scale(axes.get_ylim(), point, "v^"))
        ]  # at the edge: the paper's steps are others
        assert f"{point:.2f}\nstep" in axes.texts[0].get_text()
    assert ("step 85" if name == "u_hat" else "step 20") in texts(figures[name])


def test_u_hat_of_variants_that_estimate_it_alone(figures: dict[str, Figure]) -> None:
    titles = [axes.get_title() for axes in figures["u_hat"].axes]
    assert titles == ["Skill1, 2 seeds", "no selection, 1 of 2 seeds", "no rerank loss (λ1 = 0), 2\nseeds"]


def test_signals_that_are_equal_share_a_panel(study: Study, figures: dict[str, Figure]) -> None:
    """A reward of 0 or 1: r - U_hat > 0 says that r is 1."""
    assert [axes.get_title()[:3] for axes in figures["training_signals"].axes] == [
        "(a)",
        "(b)",
        "(c)",
        "(d)",
        "(e)",
        "",
    ]
    equal = study.metrics.assign(distill_positive_rate=study.metrics["reward"])
    figure = signals.training_signals(replace(study, metrics=equal))
    assert [axes.get_title()[:3] for axes in figure.axes] == ["(a)", "(b)", "(c)", "(d)"]
    assert "(d) mean r = share of" in figure.axes[3].get_title()


def test_similarity_dots_show_the_checkpoints(study: Study, figures: dict[str, Figure]) -> None:
    [axes] = figures["similarity"].axes
    table = dynamics.at_checkpoints(study, dynamics.SIMILARITY, ["full"])
    [mean] = [x for x in axes.lines if x.get_label() == "Skill1, 2 seeds"]
    assert mean.get_ydata() == pytest.approx(table.groupby("step")["value"].mean())
    own = [x for x in axes.lines if x.get_color() == variants.colour("full") and x.get_markerfacecolor() != "none"]
    seeds = [x for x in own if x is not mean]
    assert sorted(np.concatenate([x.get_ydata() for x in seeds])) == pytest.approx(sorted(table["value"]))
    assert hollow(axes) == [(1, *on_scale(axes.get_ylim(), 0.60, "v^"))]  # both are below the scale
    assert axes.texts[0].get_text() == "0.51\nfirst\n0.60\nlast"
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
        skill1, retroagent = hollow(axes)[:7], hollow(axes)[7:]
        low, high = axes.get_xlim()
        assert [x for x, _, _ in skill1] == [min(x, high) for x in (97.5, 100.0, 98.6, 97.3, 99.2, 96.1, 96.0)]
        assert [x for x, _, _ in retroagent] == [min(x, high) for x in (94.9, 97.9, 90.9, 99.2, 92.9, 85.3, 91.0)]
        assert not {y for _, y, _ in skill1} & {y for _, y, _ in retroagent}  # beside each other
        assert ", 2 a category" in axes.get_xlabel() or ", 1 a category" in axes.get_xlabel()
    labels = [label.get_text() for label in figures["category_spread"].axes[1].get_yticklabels()]
    assert labels[:2] == ["Overall", "Pick"]


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
