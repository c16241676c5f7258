"""Which skills pay, and what happens when two skills contradict each other.

Everything is compared *within a group*: the rollouts of one task in one step, played by one policy with one library.
What differs between them is what was sampled, so that the task's difficulty cancels. The estimate is Mantel-Haenszel's
difference of success: with k of a group's n rollouts treated (say, shown the skill), W of all and a of the treated won,

    difference = sum(a - k W / n) / sum(k (n - k) / n)

over the groups. Its standard error is that of dealing the group's outcomes out at random, as in the Cochran-Mantel-
Haenszel test, whose p value is given. The comparison is with what the other rollouts were shown, mostly other skills.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from skill1.analysis.library.study import LibraryRun
from skill1.stats import LEVEL, holm


def payoff(study: LibraryRun, by: str = "skill") -> pd.DataFrame:
    """Compare the success of the episodes that were shown a skill with their group's other episodes.

    Args:
        by: "skill", or "strategy": all skills with an equal strategy as one.

    Returns:
        One row per skill (or strategy) that was shown, by its id (or text): shown (episodes), success (their share
        won), groups (those with both kinds of episodes), informative (of them, those that won some and lost some),
        difference, low, high (95 %), p. The last four are nan without an informative group.
    """
    shown = study.retrievals.loc[study.retrievals["shown"], ["episode", "skill"]]
    if by == "strategy":
        shown = shown.assign(strategy=shown["skill"].map(study.skills["strategy"]))
    return _differences(shown[["episode", by]].drop_duplicates(), study.episodes)


def paired_effect(treated: pd.Series, episodes: pd.DataFrame) -> pd.Series:
    """Compare the success of treated with other episodes of the same group.

    Args:
        treated: (E,) bool, by the episodes' index; only these episodes count.
        episodes: columns place and outcome.

    Returns:
        The columns of `payoff`; all are nan without a treated episode.
    """
    marked = pd.DataFrame({"episode": treated.index[treated.to_numpy()], "key": "treated"})
    return _differences(marked, episodes.loc[treated.index]).reindex(["treated"]).iloc[0]


def _differences(treated: pd.DataFrame, episodes: pd.DataFrame) -> pd.DataFrame:
    """Compute Mantel-Haenszel's difference for every key.

    Args:
        treated: episode and a key (each pair once).
        episodes: place and outcome, by episode.
    """
    key = treated.columns[1]
    outcomes = episodes.groupby("place")["outcome"].agg(n="size", mean="mean", variance="var")  # of n - 1
    joined = treated.join(episodes[["place", "outcome"]], on="episode")
    cells = joined.groupby([key, "place"])["outcome"].agg(k="size", a="sum").reset_index().join(outcomes, on="place")
    cells["excess"] = cells["a"] - cells["k"] * cells["mean"]
    cells["weight"] = cells["k"] * (cells["n"] - cells["k"]) / cells["n"]
    cells["spread"] = cells["weight"] * cells["variance"].fillna(0.0)  # of the excess
    cells["groups"] = (cells["weight"] > 0).astype(int)
    cells["informative"] = (cells["spread"] > 0).astype(int)
    sums = cells.groupby(key)[["k", "a", "excess", "weight", "spread", "groups", "informative"]].sum()
    error = np.sqrt(sums["spread"].where(sums["informative"] > 0))
    weight = sums["weight"].where(sums["informative"] > 0)
    difference = sums["excess"] / weight
    reach = norm.ppf((1 + LEVEL) / 2) * error / weight
    return sums[["k", "groups", "informative"]].assign(
        success=sums["a"] / sums["k"],
        difference=difference,
        low=(difference - reach).clip(lower=-1),
        high=(difference + reach).clip(upper=1),
        p=2 * norm.sf((sums["excess"] / error).abs()),
    ).rename(columns={"k": "shown"})  # fmt: skip


def judged(table: pd.DataFrame, min_groups: int = 3) -> pd.DataFrame:
    """Select the rows of `payoff` with enough informative groups, with Holm's p over them, best first."""
    found = table[table["informative"] >= min_groups]
    return found.assign(p_holm=holm(found["p"])).sort_values("difference", ascending=False, kind="stable")


def extremes(study: LibraryRun, table: pd.DataFrame, min_groups: int = 3, top: int = 8) -> pd.DataFrame:
    """Select the skills that most surely help and harm: of those above 0 the highest lower bounds, of the others the
    lowest upper bounds.

    Of many noisy numbers the extremes are the luckiest and unluckiest too: expect less of them in future.

    Args:
        table: `payoff` by skill.
        min_groups: informative groups a skill needs.
        top: skills of either kind.

    Returns:
        Columns of `judged`, with end ("help" or "harm"), desc, strategy, utility; best first.
    """
    found = judged(table, min_groups).join(study.skills[["desc", "strategy", "utility"]])
    found["end"] = np.where(found["difference"] > 0, "help", "harm")
    best = found[found["end"] == "help"].sort_values("low", ascending=False, kind="stable").head(top)
    worst = found[found["end"] == "harm"].sort_values("high", kind="stable").head(top)
    return pd.concat([best, worst]).sort_values("difference", ascending=False, kind="stable")


def conflicts(study: LibraryRun, key: pd.Series) -> pd.DataFrame:
    """Find candidates of one episode that share a key and differ in strategy.

    A candidate *leads* when its U, as it was retrieved, is above that of every rival (candidate of its key with another
    strategy): `lead` is that distance, below 0 when it trails and 0 when U does not distinguish them.

    Args:
        key: of `study.keys`.

    Returns:
        One row per candidate with a rival: episode, step, skill, utility, rank, key, strategy, lead.
    """
    place = ["episode", "key"]
    found = study.retrievals[["episode", "step", "skill", "utility", "rank"]].copy()
    found["key"] = found["skill"].map(key)
    found["strategy"] = found["skill"].map(study.skills["strategy"])
    best = found.groupby([*place, "strategy"])["utility"].max().reset_index()
    pairs = found.reset_index().merge(best, on=place, suffixes=("", "_rival"))
    pairs = pairs[pairs["strategy"] != pairs["strategy_rival"]]
    found["lead"] = found["utility"] - pairs.groupby("index")["utility_rival"].max()
    return found.dropna(subset="lead")


def selections(found: pd.DataFrame) -> pd.DataFrame:
    """List where a conflicting skill was ranked first and U distinguishes it from its rivals.

    Args:
        found: see `conflicts`.

    Returns:
        One row per episode: step, leads (whether it leads), chance (that one of the key leads if drawn at random).
    """
    leads = found.assign(leads=found["lead"] > 0)
    leads["chance"] = leads.groupby(["episode", "key"])["leads"].transform("mean")
    return leads[(leads["rank"] == 0) & (leads["lead"] != 0)].set_index("episode")[["step", "leads", "chance"]]


def contested(study: LibraryRun, found: pd.DataFrame, top: int = 5) -> pd.DataFrame:
    """Show the keys that conflicted in most episodes, and how their strategies fared.

    Args:
        found: see `conflicts`.

    Returns:
        One row per key and strategy: key, episodes (in which the key conflicted), strategy, skills (that had it),
        selected (episodes), success (their share won; nan if never selected), utility (mean when retrieved).
    """
    often = found.groupby("key")["episode"].nunique().sort_values(ascending=False, kind="stable").head(top)
    part = found[found["key"].isin(often.index)].copy()
    part["won"] = part["episode"].map(study.episodes["outcome"]).where(part["rank"] == 0)
    table = part.groupby(["key", "strategy"]).agg(
        skills=("skill", "nunique"), selected=("won", "count"), success=("won", "mean"), utility=("utility", "mean")
    )
    table = table.reset_index().join(often.rename("episodes"), on="key")
    return table.sort_values(["episodes", "key", "selected"], ascending=[False, True, False], ignore_index=True)


def effects(study: LibraryRun, found: pd.DataFrame) -> pd.DataFrame:
    """Tabulate comparisons within groups, in points of success with their 95 % intervals and informative groups."""
    compared = {
        "any skill, against none": study.episodes["candidates"] > 0,
        "the rival with the highest U selected, against another": selections(found)["leads"],
    }
    table = pd.DataFrame({name: paired_effect(treated, study.episodes) for name, treated in compared.items()}).T
    points = 100 * table[["difference", "low", "high"]].rename(columns={"difference": "points"})
    return points.assign(groups=table["informative"].fillna(0).astype(int))
