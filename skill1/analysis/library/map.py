"""The paper's Figure 6: a two-dimensional map of the library's embeddings, and what the most-used skills cover.

The map is scikit-learn's t-SNE of the descriptions' embeddings, of all runs together: the same place means the same
description in every panel. Distances between far places, and the axes, mean nothing.

Differs from the paper in: it does not say which method drew its map, nor what "used" counts. Here it is n, which grows
with every retrieval and merge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist
from threadpoolctl import threadpool_limits

from skill1.analysis.dynamics import shown
from skill1.analysis.library.study import LibraryRun
from skill1.analysis.study import Study
from skill1.analysis.variants import label as label_of
from skill1.encoder import load_encoder

MIN_DESCRIPTIONS = 4  # t-SNE of fewer has no neighbours to keep
FIGURE_6_VARIANTS = ("full", "lambdas_0", "plus")
_MOST_USED = 0.1  # share of the skills
_PERPLEXITY = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class CollectedLibrary:
    """The skills that a run of a collected study held at its end."""

    variant: str
    encoder: str
    alive: pd.DataFrame  # by id: desc, strategy, utility, count

    def embed(self, descriptions: Sequence[str]) -> np.ndarray:
        """Embed descriptions, (n, d) float32 unit rows. Raises EncoderError if the encoder cannot be had."""
        return load_encoder(self.encoder).encode(list(descriptions))


Held = LibraryRun | CollectedLibrary  # skills that a run holds at its end


def collected(study: Study) -> dict[str, CollectedLibrary]:
    """Select the libraries of Figure 6 from a collected study: one run of each variant, of a seed that has the most of them.

    Returns:
        "variant, seed N" -> library; empty if the study was collected without skills.
    """
    kept = study.skills[study.skills["variant"].isin(shown(study, FIGURE_6_VARIANTS))]
    if kept.empty:
        return {}
    seed = kept.groupby("seed")["variant"].nunique().idxmax()
    found = {}
    for variant, own in kept[kept["seed"] == seed].groupby("variant"):
        skills = own.set_index("skill")[["desc", "strategy", "utility", "count"]]
        found[variant] = CollectedLibrary(str(variant), own["encoder"].iloc[0], skills)
    return {f"{label_of(name)}, seed {seed}": found[name] for name in FIGURE_6_VARIANTS if name in found}


def most_used(study: Held) -> pd.DataFrame:
    """Select the tenth of the skills at the end that has the highest counts, at least one; of equals the earlier."""
    alive = study.alive
    return alive.sort_values("count", ascending=False, kind="stable").head(math.ceil(_MOST_USED * len(alive)))


def places(studies: Mapping[str, Held]) -> pd.DataFrame:
    """Compute where every description lies.

    Args:
        studies: label -> run.

    Returns:
        One row per label and description: label, desc, x, y, skills (that have it), used (of them, most-used ones).

    Raises:
        ValueError: fewer than `MIN_DESCRIPTIONS` different descriptions, or libraries of different encoders.
        EncoderError, LibraryError: see `Held.embed`.
    """
    encoders = {study.encoder for study in studies.values()}
    if len(encoders) > 1:
        raise ValueError(f"one map needs one encoder, the runs have {', '.join(sorted(encoders))}")
    frames = []
    embeddings: dict[str, np.ndarray] = {}
    for label, study in studies.items():
        frame = study.alive.groupby("desc", sort=True).size().rename("skills").reset_index()
        used = frame["desc"].map(most_used(study).groupby("desc").size()).fillna(0).astype(int)
        frames.append(frame.assign(label=label, used=used))
        embeddings |= dict(zip(frame["desc"], study.embed(frame["desc"]), strict=True))
    descriptions = sorted(embeddings)
    if len(descriptions) < MIN_DESCRIPTIONS:
        raise ValueError(f"a map needs {MIN_DESCRIPTIONS} different descriptions, there are {len(descriptions)}")
    spots = _project(np.stack([embeddings[desc] for desc in descriptions]))
    return pd.concat(frames, ignore_index=True).join(pd.DataFrame(spots, descriptions, ["x", "y"]), on="desc")


def coverage(studies: Mapping[str, Held]) -> pd.DataFrame:
    """Measure what the most-used tenth covers, in numbers that need no map.

    Returns:
        One row per label and part ("all" skills, "most used"): skills, descriptions, strategies, spread (mean cosine
        distance of two skills of the part; nan for one skill), utility (mean), uses (share of all counts).
    """
    rows = []
    for label, study in studies.items():
        for part, skills in (("all", study.alive), ("most used", most_used(study))):
            rows.append(
                {
                    "label": label,
                    "part": part,
                    "skills": len(skills),
                    "descriptions": skills["desc"].nunique(),
                    "strategies": skills["strategy"].nunique(),
                    "spread": pdist(study.embed(skills["desc"]), "cosine").mean() if len(skills) > 1 else math.nan,
                    "utility": skills["utility"].mean(),
                    "uses": skills["count"].sum() / max(study.alive["count"].sum(), 1),
                }
            )
    return pd.DataFrame(rows)


def _project(rows: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE  # takes seconds to import

    # PCA as the start and a fixed seed: the same map at every call. More threads only wait for each other here.
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    with threadpool_limits(limits=1):
        return TSNE(n_components=2, init="pca", perplexity=perplexity, random_state=0).fit_transform(rows)
