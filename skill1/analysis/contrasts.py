"""Planned contrasts: one linear model of a study's runs, one family of questions, stated before the runs are made.

The unit is the run. Its success is explained by its variant and its block, which is the seed (and the generated world that
may change with it):

    y[variant, block] = mean[variant] + effect[block] + error

with one variance of the error for all variants. Whatever makes a block easy or hard drops out of every contrast; what is
left of it is how differently the variants fare from block to block. All contrasts of `PLANNED` that a study can answer are
one family on one split, adjusted by Holm. Beside the t interval stands a bootstrap that draws blocks, and clusters of games
(`EnvironmentSpec.cluster`: the games of a home are alike) within them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats

from skill1.analysis import arms
from skill1.analysis.study import Study, cached_table
from skill1.analysis.tables import display_table, p_value, with_interval
from skill1.errors import RunError
from skill1.stats import LEVEL, holm
from skill1.stats.estimates import RESAMPLES, percentiles


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of variants' means; weights sum to 0, and the positive ones to 1."""

    question: str
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if abs(sum(self.weights.values())) > 1e-9 or abs(sum(w for w in self.weights.values() if w > 0) - 1) > 1e-9:
            raise ValueError(f"the weights of {self.question!r} must sum to 0, the positive ones to 1")


PLANNED = (
    Contrast("skills against none", {"full": 1, "no_library": -1}),
    Contrast("writing queries and rankings", {"full": 1, "no_selection": -1}),
    Contrast("distilling against raw trajectories", {"full": 1, "no_distillation": -1}),
    Contrast("the rerank loss", {"full": 0.5, "lambda2_0": 0.5, "lambda1_0": -0.5, "lambdas_0": -0.5}),
    Contrast("the distill loss", {"full": 0.5, "lambda1_0": 0.5, "lambda2_0": -0.5, "lambdas_0": -0.5}),
    Contrast(
        "both losses beyond the sum of each", {"full": 0.5, "lambdas_0": 0.5, "lambda1_0": -0.5, "lambda2_0": -0.5}
    ),
    Contrast("Skill1+ against Skill1", {"plus": 1, "full": -1}),
    Contrast("its utility of the pick alone", {"plus_utility": 1, "full": -1}),
    Contrast("its credit of the pick alone", {"plus_rerank": 1, "full": -1}),
    Contrast("its credit by use alone", {"plus_lesson": 1, "full": -1}),
)


@cached_table
def estimates(study: Study) -> pd.DataFrame:
    """Estimate every planned contrast that the study has the variants for, in points.

    Returns:
        Columns split, question, points, low, high, p (t), holm (over the split's contrasts), drawn_low, drawn_high
        (bootstrap), blocks, freedom (degrees of freedom of the error), deviation (standard deviation of the error).

    Raises:
        RunError: fewer than two blocks, no contrast that can be answered, or variants of a block that played other games.
    """
    frame = _own(study)
    there = answered(frame["variant"].unique())
    if not there:
        raise RunError(f"the study {study.name} answers no planned contrast: it has {', '.join(study.variants)}")
    return pd.concat([_of_split(study, split, frame, there) for split in study.splits], ignore_index=True)


def can_answer(study: Study) -> bool:
    """Tell whether `estimates` has anything to estimate."""
    return bool(answered(study.variants)) and study.evaluations["seed"].nunique() > 1


def answered(variants: Sequence[str]) -> list[Contrast]:
    """List the planned contrasts whose variants are all there."""
    return [contrast for contrast in PLANNED if set(contrast.weights) <= set(variants)]


def _own(study: Study) -> pd.DataFrame:
    """Every run's own result, with the block's games the same for all its variants."""
    frame = arms.of_each_run(study)
    for (seed, split), block in frame.groupby(["seed", "split"]):
        games = block.groupby("variant")["game"].agg(lambda names: tuple(sorted(set(names))))
        if games.nunique() > 1:
            raise RunError(f"variants of seed {seed} played different games of {split}: a block has one set of games")
    if frame["seed"].nunique() < 2:
        raise RunError(f"the study {study.name} has one block (seed): a contrast between runs needs at least two")
    return frame


def _of_split(study: Study, split: str, frame: pd.DataFrame, contrasts: Sequence[Contrast]) -> pd.DataFrame:
    named = sorted({variant for contrast in contrasts for variant in contrast.weights})
    part = frame[(frame["split"] == split) & frame["variant"].isin(named)].assign(won=lambda f: 100.0 * f["won"])
    model = fit(part.groupby(["variant", "seed"], as_index=False)["won"].mean())
    clusters = _clusters(part, study.environment.cluster)
    rows = []
    for contrast in contrasts:
        found = model.t_test(
            [contrast.weights.get(name[len("variant[") : -1], 0.0) for name in model.params.index]
        )  # blocks have weight 0
        (low, high), drawn = found.conf_int(1 - LEVEL)[0], _bootstrap(clusters, contrast)
        rows.append({
            "split": split, "question": contrast.question, "points": float(found.effect[0]), "low": low, "high": high,
            "p": float(found.pvalue), "drawn_low": drawn[0], "drawn_high": drawn[1], "blocks": part["seed"].nunique(),
            "freedom": int(model.df_resid), "deviation": float(np.sqrt(model.mse_resid)),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(holm=holm(table["p"]))


def fit(rates: pd.DataFrame) -> Any:
    """Fit the model to (variant, seed, won), one row a run; returns statsmodels' results.

    Parameters are the variants' means ("variant[full]") at the average block, then the blocks' effects.
    """
    return smf.ols("won ~ 0 + variant + C(seed, Sum)", rates).fit()


def _clusters(part: pd.DataFrame, cluster: Callable[[str], str]) -> pd.DataFrame:
    """Sum and number of the games' rates by block, variant and cluster; clusters of other worlds have other names."""
    rates = part.groupby(["seed", "variant", "game"], as_index=False)["won"].mean()
    games = rates.groupby("seed")["game"].agg(lambda names: tuple(sorted(set(names))))  # those of one world
    world = pd.Series(pd.factorize(games)[0], games.index)
    named = rates["seed"].map(world).astype(str) + " " + rates["game"].map(cluster)
    return rates.assign(cluster=named).groupby(["seed", "variant", "cluster"])["won"].agg(["sum", "size"])


def _bootstrap(clusters: pd.DataFrame, contrast: Contrast) -> tuple[float, float]:
    """Percentile interval from drawing blocks, and clusters of games, the same ones for blocks that share them.

    Of the blocks that have all variants of the contrast; nan for fewer than two of these.
    """
    generator = np.random.default_rng(0)
    table = clusters.unstack("cluster")  # by block and variant: (sum, size) x cluster, nan where a block lacks it
    sums, sizes = (table[name].fillna(0.0) for name in ("sum", "size"))
    blocks = [block for block in sums.index.unique("seed") if set(contrast.weights) <= set(sums.loc[block].index)]
    if len(blocks) < 2:
        return np.nan, np.nan
    weights = generator.multinomial(len(blocks), [1 / len(blocks)] * len(blocks), RESAMPLES)
    total = np.zeros(RESAMPLES)
    drawn: dict[tuple[str, ...], np.ndarray] = {}  # of each world
    for number, block in enumerate(blocks):
        there = tuple(sizes.columns[sizes.loc[block].to_numpy()[0] > 0])
        if there not in drawn:
            drawn[there] = generator.multinomial(len(there), [1 / len(there)] * len(there), RESAMPLES)
        count = drawn[there] @ sizes.loc[block].iloc[0][list(there)].to_numpy()
        for variant, weight in contrast.weights.items():
            rate = (drawn[there] @ sums.loc[block, variant][list(there)].to_numpy()) / count
            total += weights[:, number] * weight * rate / len(blocks)
    return percentiles(total)


def power(
    deviation: float, contrasts: Sequence[Contrast], *, blocks: int, effect: float, draws: int = 2000
) -> np.ndarray:
    """Simulate how often the whole test, Holm's adjustment included, finds each contrast where it alone is that large.

    Args:
        deviation: standard deviation of a run's error, in points.
        effect: size of the contrast in points, made by moving its variants alone as little as possible.

    Returns:
        (K,) shares of `draws` studies in which the contrast is significant at 5 %.
    """
    names = sorted({variant for contrast in contrasts for variant in contrast.weights})
    matrix = np.array([[contrast.weights.get(name, 0.0) for name in names] for contrast in contrasts])  # (K, V)
    freedom = (len(names) - 1) * (blocks - 1)
    if freedom < 1:
        raise ValueError(f"{blocks} blocks of {len(names)} variants leave nothing to estimate the error from")
    noise = np.random.default_rng(0).normal(0, deviation, (draws, blocks, len(names)))
    found = []
    for number, weights in enumerate(matrix):
        y = noise + effect * weights / (weights @ weights)
        rest = y - y.mean(axis=1, keepdims=True) - y.mean(axis=2, keepdims=True) + y.mean(axis=(1, 2), keepdims=True)
        error = (rest**2).sum(axis=(1, 2)) / freedom  # (draws,)
        size = y.mean(axis=1) @ matrix.T  # (draws, K)
        t = size / np.sqrt(error[:, None] * (matrix**2).sum(axis=1) / blocks)
        p = 2 * stats.t.sf(np.abs(t), freedom)
        found.append(rejected(p)[:, number].mean())
    return np.array(found)


def rejected(p: np.ndarray) -> np.ndarray:
    """(N, K) p values of N families -> (N, K) bool, which of them Holm's procedure rejects: `stats.holm` of many at once."""
    order = p.argsort(axis=1)
    bounds = (1 - LEVEL) / np.arange(p.shape[1], 0, -1)
    passed = np.logical_and.accumulate(np.take_along_axis(p, order, axis=1) <= bounds, axis=1)
    return np.take_along_axis(passed, order.argsort(axis=1), axis=1)


# -- for display --------------------------------------------------------------------------------------------------------


def contrast_table(study: Study) -> pd.DataFrame:
    """Format `estimates` for display."""
    return display_table(
        estimates(study),
        ["split", "question"],
        {
            "points, 95 %": lambda row: with_interval(row.points, row.low, row.high, "+.1f"),
            "p": lambda row: p_value(row.p),
            "p, Holm": lambda row: p_value(row.holm),
            "blocks and homes drawn, 95 %": lambda row: with_interval(
                row.points, row.drawn_low, row.drawn_high, "+.1f"
            ),
            "runs a side": lambda row: row.blocks,
        },
    )


def power_table(study: Study) -> pd.DataFrame:
    """Tabulate `power` with the error that the study's runs have on its first split, in percent of studies.

    Returns:
        Index question; columns (blocks, effect in points).
    """
    found = estimates(study)
    part = found[found["split"] == study.splits[0]]
    contrasts = [contrast for contrast in PLANNED if contrast.question in set(part["question"])]
    deviation = float(part["deviation"].iloc[0])
    columns = {
        (count, effect): 100 * power(deviation, contrasts, blocks=count, effect=effect)
        for count in (3, 6, 10)
        for effect in (4, 8, 12)
    }
    table = pd.DataFrame(columns, index=pd.Index([c.question for c in contrasts], name="question"))
    table.columns = pd.MultiIndex.from_tuples(columns, names=["blocks", "points"])
    return table.round()
