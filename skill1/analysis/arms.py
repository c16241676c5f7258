"""Which outcomes of a study answer which question.

    own         after training, with the library or bank the variant has then; without one, where it has none
    untrained   before training: one policy for all runs, evaluated in each of them
    withheld    after training, with the library withheld; no variant's own result

An evaluation says which library was at hand ("step60", "none"); "none" is the own result of variants that never have
one and the withheld one of all others. All variants of a seed must have played the same games in as many passes, so that
whatever is compared is compared on the same games; another seed may have a world of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from skill1.analysis import tables, variants
from skill1.analysis.published import OVERALL
from skill1.analysis.study import Study, cached_table
from skill1.analysis.tables import plural
from skill1.analysis.variants import UNTRAINED
from skill1.errors import RunError
from skill1.stats import bootstrap_mean, success_rate


def keeps_skills(study: Study) -> set[str]:
    """Find the variants that have a library or bank: those with an evaluation that names one."""
    frame = study.evaluations
    return set(frame.loc[frame["library"] != "none", "variant"].unique())


def own(study: Study) -> pd.DataFrame:
    """Select every run's own result: its rows of `study.evaluations` after training, with its library if it has one.

    Raises:
        RunError: a run has no such evaluation, another last step than the others, or other games or passes than the
            others of its seed.
    """
    what = "evaluation after training with its own library"
    return _require_same_games(study, of_each_run(study), what, _runs(study))


def of_each_run(study: Study) -> pd.DataFrame:
    """Select as `own` does, also of runs that played other games. Raises RunError for another last step."""
    frame = _after_training(study)
    mine = np.where(frame["variant"].isin(keeps_skills(study)), "step" + frame["step"].astype(str), "none")
    return frame[frame["library"] == mine]


def withheld(study: Study) -> pd.DataFrame:
    """Select trained policies of variants with a library, played without it; no rows of runs not so evaluated."""
    frame = _after_training(study)
    return frame[(frame["library"] == "none") & frame["variant"].isin(keeps_skills(study))]


def untrained(study: Study) -> pd.DataFrame:
    """Select outcomes before training, of all runs, as one arm: `variant` is "untrained".

    All runs start from the same policy, so a run's seed is no training seed here: runs repeat each other like passes. One
    variant's evaluations are enough.

    Raises:
        RunError: no run of a seed has such an evaluation, or runs have other games or passes than the others of their seed.
    """
    frame = study.evaluations
    before = frame[frame["step"] == 0]
    there = set(zip(before["variant"], before["seed"], strict=True))
    known = {seed for _, seed in there}
    lacking = [key for key in _runs(study) if key[1] not in known]
    what = "evaluation before training (02_evaluate with baseline = true)"
    return _require_same_games(study, before, what, [*sorted(there), *lacking]).assign(variant=UNTRAINED)


def by_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """Average one arm's success over passes: a (seeds, games) table, of the untrained policy with one row a world.

    NaN: a game of another seed's world.
    """
    seeds = frame["seed"]
    if _is_untrained(frame):  # one policy: seeds of one world repeat each other
        games = frame.groupby("seed")["game"].agg(lambda names: tuple(sorted(set(names))))
        seeds = seeds.map({seed: games.index[list(games).index(names)] for seed, names in games.items()})
    return frame["won"].astype(float).groupby([seeds, frame["game"]]).mean().unstack("game")


def in_shared_worlds(table: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Leave out the seeds of a (seeds, games) table of whose games the other one has none."""
    there = table.notna() & table.columns.isin(other.columns)
    return table[there.any(axis=1)].dropna(axis=1, how="all")


def categories(study: Study, frame: pd.DataFrame) -> list[str]:
    """List Overall, then the categories present, in the environment's order."""
    return [OVERALL, *study.environment.ordered_categories(set(frame["category"]) - {OVERALL})]


def of_category(frame: pd.DataFrame, category: str) -> pd.DataFrame:
    """Select the outcomes of a category; all of them for Overall."""
    return frame if category == OVERALL else frame[frame["category"] == category]


def rates(study: Study, frame: pd.DataFrame, measure: str = "success") -> pd.DataFrame:
    """Compute success, or the score, of arms of a study, per split, variant and category.

    The mean over seeds, games and passes with its 95 % interval: bootstrap over seeds and games, over games alone for a
    single seed and for the untrained policy. Of success, Wilson over games where all games have the same rate; of the
    score (100 times the mean reward, which also counts what is right in part), NaN bounds for a single game.

    Args:
        frame: `own`, `untrained`, `withheld`, or several of them one below the other if their variants differ.
        measure: "success" or "score".

    Returns:
        Columns split, variant, category (Overall first), value, low, high, seed_std (of success: unbiased, over the
        seeds' rates; NaN for fewer than two), all in percent; games, passes, seeds (0 for the untrained policy).
    """
    parts = [
        (split, variant, frame[(frame["split"] == split) & (frame["variant"] == variant)])
        for split in study.environment.ordered_splits(frame["split"].unique())
        for variant in variants.order(frame["variant"].unique())
    ]
    return pd.DataFrame(
        {"split": split, "variant": variant, "category": category} | _rate(of_category(part, category), measure)
        for split, variant, part in parts
        for category in categories(study, part)
    )


@cached_table
def results(study: Study, measure: str = "success", *, before: bool = False) -> pd.DataFrame:
    """Compute `rates` of every variant's own result, or `before` training of the untrained policy. Raises as these."""
    return rates(study, untrained(study) if before else own(study), measure)


def size(study: Study, split: str) -> str:
    """Say what every run played on a split: "n = 120 games, 4 passes"."""
    return tables.size(study.evaluations[study.evaluations["split"] == split], study.environment)


def overview(study: Study) -> pd.DataFrame:
    """Tabulate what the study holds: per variant its seeds, the seeds that are missing, steps, and minutes per run."""
    runs = pd.DataFrame(study.manifest["runs"])
    minutes = runs["seconds"].map(lambda spent: sum(spent.values()) / 60 if spent else np.nan)
    rows = [
        {
            "variant": variant,
            "label": variants.label(variant),
            "seeds": ", ".join(map(str, study.seeds(variant))) or "none",
            "missing seeds": ", ".join(map(str, study.missing.get(variant, ()))),
            "steps": ", ".join(map(str, sorted(set(runs.loc[runs["variant"] == variant, "steps"])))),
            "minutes a run": round(minutes[runs["variant"] == variant].mean(), 1),
        }
        for variant in variants.order([*study.variants, *study.missing])
    ]
    return pd.DataFrame(rows).set_index("variant")


def setting(study: Study) -> str:
    """Say in a sentence what all runs of the study have in common."""
    given, task = study.manifest, study.environment
    changed = ", ".join(f"{name} = {value}" for name, value in given["overrides"].items()) or "nothing changed"
    return (
        f"Study {study.name}: preset {given['preset']} ({changed}), {task.tasks} of {given['data'] or task.name}, "
        f"{plural(given['passes'], 'pass', 'passes')} over every {task.task} of {', '.join(study.splits)}."
    )


# -- parts ------------------------------------------------------------------------------------------------------------


def _rate(part: pd.DataFrame, measure: str) -> dict[str, float]:
    seeds = part["seed"] if not _is_untrained(part) and part["seed"].nunique() > 1 else None
    mean, column = (success_rate, "won") if measure == "success" else (bootstrap_mean, "score")
    estimate = mean(part[column], part["game"], seeds)
    of_seeds = by_seed(part)
    return {
        "value": 100 * estimate.value,
        "low": 100 * estimate.low,
        "high": 100 * estimate.high,
        "seed_std": 100 * of_seeds.mean(axis=1).std(ddof=1) if measure == "success" else np.nan,
        "games": of_seeds.shape[1],
        "passes": part["pass"].nunique(),
        "seeds": 0 if _is_untrained(part) else len(of_seeds),
    }


def _after_training(study: Study) -> pd.DataFrame:
    """Select outcomes of the last evaluated step of every run. Raises RunError if runs differ in it."""
    frame = study.evaluations[study.evaluations["step"] > 0]
    last = frame.groupby(["variant", "seed"])["step"].max()
    if last.nunique() > 1:
        short, long = last.idxmin(), last.idxmax()
        raise RunError(
            f"{study.path}: {_name(*short)} was evaluated after step {last[short]}, {_name(*long)} after step "
            f"{last[long]}, which is not comparable: evaluate all of them after the same step, then `skill1 collect`"
        )
    return frame[frame["step"] == last.max()]


def _runs(study: Study) -> list[tuple[str, int]]:
    return [(variant, seed) for variant in study.variants for seed in study.seeds(variant)]


def _require_same_games(study: Study, frame: pd.DataFrame, what: str, runs: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """Return `frame` if all the runs are in it, those of a seed with the same games and passes, else raise RunError."""
    groups = dict(tuple(frame.groupby(["variant", "seed"])))
    first: dict[int, tuple[tuple[str, int], list[Any]]] = {}  # of each world
    for key in runs:
        if key not in groups:
            raise RunError(f"{study.path}: {_name(*key)} has no {what}: evaluate it, then run `skill1 collect`")
        played = sorted(zip(*(groups[key][name] for name in ("split", "game", "pass")), strict=True))
        other, theirs = first.setdefault(key[1] if study.own_worlds else 0, (key, played))
        if played != theirs:
            raise RunError(
                f"{study.path}: {_name(*key)} played other games or passes than {_name(*other)} ({len(played)} and "
                f"{len(theirs)} episodes of its {what}): evaluate both alike, then run `skill1 collect`"
            )
    return frame


def _is_untrained(frame: pd.DataFrame) -> bool:
    return frame["variant"].iloc[0] == UNTRAINED


def _name(variant: str, seed: int) -> str:
    return f"{variant} seed {seed}"
