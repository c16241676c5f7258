"""What the training signals did: the numbers behind Figures 3, 4 and 5, per variant and seed, from a study's metrics.

Curves are raw. Their unit is the seed: no interval is drawn over a handful of them, the seeds themselves are. Where one
number stands for a point of training, it is the mean over the tenth of the steps that ends there.

Differs from the paper in: "selection precision" (Figure 3a) is all three means of U that it may stand for; Figure 4's
checkpoints are the ends of the thirds of training (the paper does not name them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from skill1.analysis.published import LABEL
from skill1.analysis.study import Study
from skill1.analysis.variants import REFERENCE, label
from skill1.errors import RunError

# Metric (credit.METRICS, library/*) -> what it is called in figures and tables.
PRECISION = {
    "library/mean_utility": "mean U, whole library",
    "selection/utility_retrieved": "mean U, retrieved",
    "selection/utility_selected": "mean U, selected",
}
FIGURE_3 = PRECISION | {"reward": "mean r", "distill_positive_rate": r"share of $r - \hat{U} > 0$"}
FIGURE_3_VARIANTS = ("full", "lambda1_0", "lambdas_0")
SIMILARITY = "skill_similarity"  # Figure 4
FIGURE_4_VARIANTS = ("full", "lambda1_0", "no_selection")
U_HAT = "u_hat"  # Figure 5
SIGNALS = FIGURE_3 | {SIMILARITY: "task-skill similarity", U_HAT: r"mean $\hat{U}$"}
_PUBLISHED = {
    **dict.fromkeys(PRECISION, "selection_precision"),
    "reward": "utilization",
    "distill_positive_rate": "distill_positive_rate",
    U_HAT: "u_hat",
}
_SIMILARITY = "task_skill_similarity"


def shown(study: Study, wanted: Sequence[str]) -> list[str]:
    """Select the variants of a figure that the study has. Raises RunError if it has none of them."""
    found = [variant for variant in wanted if variant in study.variants]
    if not found:
        there = ", ".join(study.variants)
        names = ", ".join(wanted)
        raise RunError(f"the study {study.path} has none of {names}, which this figure compares (it has {there})")
    return found


def with_u_hat(study: Study) -> list[str]:
    """Select the variants that estimate U_hat: it is 0 throughout where no skill is selected and none is distilled.

    Raises RunError if there is none.
    """
    frame = study.metrics[study.metrics[U_HAT].fillna(0) != 0] if U_HAT in study.metrics else study.metrics
    return shown(study, [name for name in study.variants if name in set(frame["variant"])] or [REFERENCE])


def curves(study: Study, metric: str, variant: str) -> pd.DataFrame:
    """Tabulate a logged metric, (steps, seeds); NaN where a step had nothing to average, or to estimate from.

    Raises:
        RunError: the study's metrics do not have it.
    """
    if metric not in study.metrics:
        raise RunError(
            f"{study.path}: metrics.parquet has no {metric}, which training with a library logs: "
            f"`skill1 collect {study.path}` writes it again where the runs are"
        )
    own = study.metrics[study.metrics["variant"] == variant]
    table = own.pivot(index="step", columns="seed", values=metric)
    return estimated(table) if metric == U_HAT else table


def estimated(u_hat: Any) -> Any:
    """Leave out the steps that retrieved nothing, where U_hat is 0: there is no estimate."""
    return u_hat.where(u_hat > 0)


def mean_over_seeds(table: pd.DataFrame) -> pd.Series:
    """Average over the seeds at each step; NaN where a seed has no value, so that every point has the same n."""
    return table.mean(axis=1, skipna=False)


def published_values(study: Study, metric: str) -> dict[str, float]:
    """Look up what the paper's text quotes of a signal of full on the study's benchmark: point of training -> value."""
    found = study.published("text", variant=REFERENCE).set_index("metric")[["step", "value"]]
    if metric == SIMILARITY:
        ends = (("first checkpoint", f"{_SIMILARITY}_first"), ("last checkpoint", f"{_SIMILARITY}_last"))
        return {point: found["value"][name] for point, name in ends if name in found.index}
    quoted = found[found.index == _PUBLISHED[metric]]
    return {f"step {row.step}": row.value for row in quoted.itertuples()}


def checkpoints(study: Study) -> list[int]:
    """List the last steps of the three thirds of training."""
    steps = int(study.metrics["step"].max())
    return list(dict.fromkeys(max(1, round(steps * third / 3)) for third in (1, 2, 3)))


def window(study: Study) -> int:
    """Count the steps that are averaged up to a checkpoint: a tenth of training."""
    return max(1, int(study.metrics["step"].max()) // 10)


def at_checkpoints(study: Study, metric: str, variants: Sequence[str]) -> pd.DataFrame:
    """Average a metric at the three checkpoints: metric, variant, seed, step, value (NaN without any in the window)."""
    rows = [
        (metric, variant, seed, step, value)
        for variant in variants
        for step in checkpoints(study)
        for seed, value in curves(study, metric, variant).loc[step - window(study) + 1 : step].mean().items()
    ]
    return pd.DataFrame(rows, columns=["metric", "variant", "seed", "step", "value"])


def signals(study: Study) -> pd.DataFrame:
    """Tabulate every signal of Figures 3 to 5 at the three checkpoints, of the variants of those figures, tidy."""
    wanted = {metric: shown(study, FIGURE_3_VARIANTS) for metric in FIGURE_3}
    wanted |= {SIMILARITY: shown(study, FIGURE_4_VARIANTS), U_HAT: with_u_hat(study)}
    return pd.concat([at_checkpoints(study, metric, names) for metric, names in wanted.items()], ignore_index=True)


def signal_table(study: Study) -> pd.DataFrame:
    """Format `signals` for display: mean over seeds (lowest to highest seed), their number, and what was published."""
    rows = []
    for (metric, variant), part in signals(study).groupby(["metric", "variant"], sort=False):
        cells = {f"step {step}": _spread(at["value"].dropna()) for step, at in part.groupby("step")}
        theirs = published_values(study, metric) if variant == REFERENCE else {}
        cells |= {"seeds": part["seed"].nunique(), LABEL: ", ".join(f"{v:.2f} at {at}" for at, v in theirs.items())}
        rows.append({"signal": SIGNALS[metric], "variant": label(variant)} | cells)
    table = pd.DataFrame(rows).set_index(["signal", "variant"])
    return table if table[LABEL].any() else table.drop(columns=LABEL)


def _spread(values: pd.Series) -> str:
    if values.empty:
        return "none"
    return f"{values.mean():.2f}" + (f" ({values.min():.2f} to {values.max():.2f})" if len(values) > 1 else "")
