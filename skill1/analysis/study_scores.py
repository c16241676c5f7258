"""Score beside success in a study of an environment that grades, and what its tasks let anyone reach.

The score is 100 times the mean reward, which also counts purchases that are right in part.
"""

from __future__ import annotations

import pandas as pd

from skill1.analysis import ablations, arms, per_category
from skill1.analysis.published import OVERALL
from skill1.analysis.scores import in_words
from skill1.analysis.study import Study
from skill1.analysis.tables import with_bounds
from skill1.analysis.wording import worded

_KEYS = ["split", "variant", "category"]


def overall(study: Study) -> pd.DataFrame:
    """For the eye: score and success of every variant's own result over all goals of a split, with 95 % intervals."""
    tidy = _beside(arms.scores(study, arms.own(study)), ablations.success(study))
    return _for_the_eye(study, tidy[tidy["category"] == OVERALL], _KEYS[:2])


def by_category(study: Study) -> pd.DataFrame:
    """For the eye: `overall`, the untrained policy with it, and both in every product category."""
    played = [arms.scores(study, frame) for frame in (arms.untrained(study), arms.own(study))]
    return _for_the_eye(study, _beside(pd.concat(played), per_category.success(study)), _KEYS)


def ceiling_note(study: Study) -> str:
    """How many of the tasks evaluated can be met at all, as Markdown, a line per split."""
    return "\n".join(
        f"* Ceiling, {split}: {in_words(found, study.environment)}" for split, found in study.ceilings.items()
    )


def _beside(scores: pd.DataFrame, success: pd.DataFrame) -> pd.DataFrame:
    """Rows of `arms.rates` in their order, each with the columns of `arms.scores` that belong to it."""
    return success.merge(scores, on=_KEYS, suffixes=("", "_of_score"))


def _for_the_eye(study: Study, tidy: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    shown = tidy.assign(
        **{
            "score": [with_bounds(row.score, row.low_of_score, row.high_of_score) for row in tidy.itertuples()],
            "success %": [with_bounds(row.success, row.low, row.high) for row in tidy.itertuples()],
        }
    ).set_index(keys)[["score", "success %", "games", "passes", "seeds"]]
    return worded(shown, study.environment)
