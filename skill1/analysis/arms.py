"""Which outcomes of a study answer which question.

    own         after training, with the library or bank the variant has then; without one, where it has none
    untrained   before training: one policy for all runs, evaluated in each of them
    withheld    after training, with the library withheld; no variant's own result

An evaluation says which library was at hand ("step60", "none"); "none" is the own result of variants without a library
(no_library, grpo, gigpo) and the withheld one of all others. Every run must have played the same games in as many
passes, so that whatever is compared is compared on the same games.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from skill1.analysis.published import OVERALL
from skill1.analysis.study import Study
from skill1.config import method_of_variant
from skill1.presets import variants as known_variants
from skill1.registry import closest
from skill1.stats import bootstrap_mean, success_rate
from skill1.store.run_directory import RunError

REFERENCE = "full"
UNTRAINED = "untrained"  # stands where a variant's name does


def has_library(variant: str) -> bool:
    """It learns a library, and logs what that does. Raises ConfigError for a variant that this version does not know."""
    return method_of_variant(variant).uses_library


def variants(study: Study) -> list[str]:
    """The study's variants in their fixed order, full first. Raises ConfigError for one this version does not know."""
    return sorted(
        study.variants, key=lambda name: list(known_variants()).index(closest(name, known_variants(), "variant"))
    )


def splits(study: Study) -> list[str]:
    """The evaluated splits, in the environment's order."""
    return study.environment.ordered_splits(study.evaluations["split"])


def known_split(study: Study, split: str) -> str:
    """`split`, if the study was evaluated on it. Raises RunError."""
    if split not in splits(study):
        raise RunError(f"{study.path} was not evaluated on {split!r} (it was on {', '.join(splits(study))})")
    return split


def categories(study: Study, frame: pd.DataFrame) -> list[str]:
    """Overall, then the categories present, in the environment's order."""
    return [OVERALL, *study.environment.ordered_categories(set(frame["category"]) - {OVERALL})]


def own(study: Study) -> pd.DataFrame:
    """Every run's own result: the rows of `study.evaluations` after training, with its own library if it has one.

    Raises:
        RunError: a run has no such evaluation, another last step than the others, or other games or passes.
    """
    frame = _after(study)
    labels = {variant: method_of_variant(variant).keeps_skills for variant in study.variants}
    mine = np.where(frame["variant"].map(labels), "step" + frame["step"].astype(str), "none")
    return _alike(study, frame[frame["library"] == mine], "evaluation after training with its own library")


def withheld(study: Study) -> pd.DataFrame:
    """Trained policies of variants with a library, played without it; no rows of runs without such an evaluation."""
    frame = _after(study)
    return frame[
        (frame["library"] == "none") & frame["variant"].map(lambda v: method_of_variant(v).keeps_skills).astype(bool)
    ]


def untrained(study: Study) -> pd.DataFrame:
    """Outcomes before training, of all runs, as one arm: `variant` is "untrained".

    All runs start from the same policy, so a run's seed is no training seed here: runs repeat each other like passes.

    Raises:
        RunError: a run has no such evaluation, or other games or passes than the others.
    """
    frame = study.evaluations
    before = _alike(study, frame[frame["step"] == 0], "evaluation before training (02_evaluate with baseline = true)")
    return before.assign(variant=UNTRAINED)


def by_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """(seeds, games) table of one arm's success: the mean over passes of each game; the untrained policy is one row."""
    seeds = np.zeros(len(frame), dtype=int) if _is_untrained(frame) else frame["seed"].to_numpy()
    return frame.assign(seed=seeds, won=frame["won"].astype(float)).pivot_table(
        index="seed", columns="game", values="won", aggfunc="mean"
    )


def rates(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """Success of arms of a study, per split, variant and category.

    The mean over seeds, games and passes with its 95 % interval: bootstrap over seeds and games, over games alone for a
    single seed and for the untrained policy, Wilson over games where all games have the same rate.

    Args:
        frame: `own`, `untrained`, `withheld`, or several of them one below the other if their variants differ.

    Returns:
        Columns split, variant, category (Overall first), success, low, high, seed_std (unbiased, over the seeds' rates;
        NaN for fewer than two), all in percent; games, passes, seeds (0 for the untrained policy), method.
    """
    rows = []
    for keys, chosen in _cells(study, frame):
        table = by_seed(chosen)
        seeds = chosen["seed"] if len(table) > 1 else None
        estimate = success_rate(chosen["won"], chosen["game"], seeds)
        rows.append(
            keys
            | {
                "success": 100 * estimate.value,
                "low": 100 * estimate.low,
                "high": 100 * estimate.high,
                "seed_std": 100 * table.mean(axis=1).std(ddof=1),
                "games": table.shape[1],
                "passes": chosen["pass"].nunique(),
                "seeds": 0 if keys["variant"] == UNTRAINED else len(table),
                "method": estimate.method,
            }
        )
    return pd.DataFrame(rows)


def scores(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """Score of arms of a study, 100 times the mean reward, per split, variant and category.

    Args:
        frame: as of `rates`.

    Returns:
        Columns split, variant, category (Overall first), score, low, high: the mean over seeds, games and passes with
        its 95 % interval, by bootstrap over seeds and games, over games alone for a single seed and for the untrained
        policy; NaN bounds for a single game.
    """
    rows = []
    for keys, chosen in _cells(study, frame):
        found = {"score": 100 * chosen["score"].mean(), "low": np.nan, "high": np.nan}
        if chosen["game"].nunique() > 1:
            several = not _is_untrained(chosen) and chosen["seed"].nunique() > 1
            estimate = bootstrap_mean(chosen["score"], chosen["game"], chosen["seed"] if several else None)
            found |= {"low": 100 * estimate.low, "high": 100 * estimate.high}
        rows.append(keys | found)
    return pd.DataFrame(rows)


def overview(study: Study) -> pd.DataFrame:
    """What the study holds: per variant its seeds, the seeds that are missing, steps, passes, and minutes per run."""
    runs = pd.DataFrame(study.manifest["runs"])
    minutes = runs["seconds"].map(lambda spent: sum(spent.values()) / 60 if spent else np.nan)
    rows = [
        {
            "variant": variant,
            "seeds": ", ".join(map(str, study.seeds(variant))) or "none",
            "missing seeds": ", ".join(map(str, study.missing.get(variant, ()))),
            "steps": ", ".join(map(str, sorted(set(runs.loc[runs["variant"] == variant, "steps"])))),
            "minutes a run": round(minutes[runs["variant"] == variant].mean(), 1),
        }
        for variant in known_variants()
        if variant in study.variants or variant in study.missing
    ]
    return pd.DataFrame(rows).set_index("variant")


def setting(study: Study) -> str:
    """What all runs of the study have in common, in a sentence."""
    given = study.manifest
    changed = ", ".join(f"{name} = {value}" for name, value in given["overrides"].items()) or "nothing changed"
    words = study.environment
    return (
        f"Study {study.name}: preset {given['preset']} ({changed}), {words.tasks} of {given['data']}, "
        f"{given['passes']} passes over every {words.task} of {', '.join(splits(study))}."
    )


# -- parts ------------------------------------------------------------------------------------------------------------


def _after(study: Study) -> pd.DataFrame:
    """Outcomes of the last evaluated step of every run. Raises RunError if runs differ in it."""
    frame = study.evaluations[study.evaluations["step"] > 0]
    last = frame.groupby(["variant", "seed"])["step"].max()
    if last.nunique() > 1:
        short, long = last.idxmin(), last.idxmax()
        raise RunError(
            f"{study.path}: {_name(*short)} was evaluated after step {last[short]}, {_name(*long)} after step "
            f"{last[long]}, which is not comparable: evaluate all of them after the same step, then `skill1 collect`"
        )
    return frame[frame["step"] == last.max()]


def _alike(study: Study, frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """`frame`, if every run of the study is in it with the same games and passes."""
    runs = [(variant, seed) for variant in study.variants for seed in study.seeds(variant)]
    groups = dict(tuple(frame.groupby(["variant", "seed"])))
    first = None
    for key in runs:
        if key not in groups:
            raise RunError(f"{study.path}: {_name(*key)} has no {what}: evaluate it, then run `skill1 collect`")
        played = sorted(zip(*(groups[key][name] for name in ("split", "game", "pass")), strict=True))
        first = first or played
        if played != first:
            raise RunError(
                f"{study.path}: {_name(*key)} played other games or passes than {_name(*runs[0])} ({len(played)} and "
                f"{len(first)} episodes of its {what}): evaluate both alike, then run `skill1 collect`"
            )
    return frame


def _arms(study: Study, frame: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """((split, variant), rows), splits in the environment's order, variants in theirs; the untrained policy last."""
    groups = dict(tuple(frame.groupby(["split", "variant"])))
    order = study.environment.ordered_splits(frame["split"])
    names = [*known_variants(), UNTRAINED]
    return sorted(groups.items(), key=lambda item: (order.index(item[0][0]), names.index(item[0][1])))


def _cells(study: Study, frame: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Rows of every arm and category under their split, variant and category."""
    for (split, variant), part in _arms(study, frame):
        for category in categories(study, part):
            chosen = part if category == OVERALL else part[part["category"] == category]
            yield {"split": split, "variant": variant, "category": category}, chosen


def _is_untrained(frame: pd.DataFrame) -> bool:
    return frame["variant"].iloc[0] == UNTRAINED


def _name(variant: str, seed: int) -> str:
    return f"{variant} seed {seed}"
