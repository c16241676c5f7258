"""Intervals and tests for success rates, on scipy and statsmodels.

Which function for which question:
    one run, one split, one pass              `wilson`
    several passes, or several training seeds `success_rate` (0/1 outcomes), `bootstrap_mean` (any)
    an evaluation, per category               `summarise`
    two variants on the same games            `paired_difference`
    the same for new training seeds           `difference_over_seeds` (bootstrap), `seed_difference` (t)
    several comparisons                       `holm` on their p values
    planning                                  `smallest_detectable_difference`

Rates are shares in [0, 1], intervals cover 95 %. Everything is deterministic: draws have a fixed seed.
"""

from skill1.stats.differences import (
    SAME,
    difference_over_seeds,
    holm,
    paired_difference,
    seed_difference,
    smallest_detectable_difference,
)
from skill1.stats.estimates import LEVEL, Estimate, bootstrap_mean, success_rate, summarise, wilson

__all__ = [
    "LEVEL",
    "SAME",
    "Estimate",
    "bootstrap_mean",
    "difference_over_seeds",
    "holm",
    "paired_difference",
    "seed_difference",
    "smallest_detectable_difference",
    "success_rate",
    "summarise",
    "wilson",
]
