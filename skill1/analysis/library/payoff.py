"""Which skills pay, and what happens when two skills contradict each other.

Everything is compared *within a group*: the rollouts of one task in one step, played by one policy with one library.
What differs between them is what was sampled, so that the task's difficulty cancels. The estimate is Mantel-Haenszel's
difference of success: with k of a group's n rollouts treated (say, shown the skill), W of all and a of the treated won,

    difference = sum(a - k W / n) / sum(k (n - k) / n)

over the groups. Its standard error is that of dealing the group's outcomes out at random, as in the Cochran-Mantel-
Haenszel test, whose p value is given. The comparison is with what the other rollouts were shown, mostly other skills.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from skill1.analysis.library.study import LibraryRun
from skill1.stats import Estimate, holm

_LEVEL = 0.95


def payoff(study: LibraryRun, by: str = "skill") -> pd.DataFrame:
    """Success of the episodes that were shown a skill against their group's other episodes.

    Args:
        by: "skill", or "strategy": all skills with an equal strategy as one.

    Returns:
        One row per skill (or strategy) that was shown, by its id (or text): shown (episodes), success (their share
        won), groups (those with both kinds of episodes), informative (of them, those that won some and lost some),
        difference, low, high (95 %), p. The last four are nan without an informative group.

    Raises:
        ValueError: `by` is another word.
    """
    if by not in ("skill", "strategy"):
        raise ValueError(f"by = {by!r}: expected 'skill' or 'strategy'")
    shown = study.retrievals.loc[study.retrievals["shown"], ["episode", "skill"]]
    key = shown["skill"] if by == "skill" else shown["skill"].map(study.skills["strategy"])
    return _differences(shown.assign(key=key)[["key", "episode"]].drop_duplicates(), study.episodes).rename_axis(by)


def paired_effect(treated: pd.Series, episodes: pd.DataFrame) -> Estimate | None:
    """Success of treated against other episodes of the same group; None when no group is informative.

    Args:
        treated: (E,) bool, by the episodes' index; only these episodes count.
        episodes: columns group and outcome.
    """
    table = episodes.loc[treated.index]
    marked = pd.DataFrame({"key": "treated", "episode": treated.index[treated.to_numpy()]})
    found = _differences(marked, table)
    if found.empty or not found["informative"].iloc[0]:
        return None
    difference, low, high, p = (float(found[name].iloc[0]) for name in ("difference", "low", "high", "p"))
    groups = int(found["informative"].iloc[0])
    return Estimate(difference, low, high, groups, _LEVEL, "Mantel-Haenszel over groups", p)


def any_skill(study: LibraryRun) -> Estimate | None:
    """Success of the episodes that had a skill against those of their group that had none; see `paired_effect`."""
    return paired_effect(study.episodes["candidates"] > 0, study.episodes)


def _differences(treated: pd.DataFrame, episodes: pd.DataFrame) -> pd.DataFrame:
    """Mantel-Haenszel's difference for every key.

    Args:
        treated: key, episode (each pair once).
        episodes: group, outcome, by episode.
    """
    outcomes = episodes.groupby("group")["outcome"].agg(n="size", mean="mean", variance="var")  # of n - 1
    joined = treated.join(episodes[["group", "outcome"]], on="episode")
    cells = joined.groupby(["key", "group"])["outcome"].agg(k="size", a="sum").reset_index().join(outcomes, on="group")
    cells["excess"] = cells["a"] - cells["k"] * cells["mean"]
    cells["weight"] = cells["k"] * (cells["n"] - cells["k"]) / cells["n"]
    cells["spread"] = cells["weight"] * cells["variance"].fillna(0.0)  # of the excess
    cells["groups"] = cells["weight"] > 0
    cells["informative"] = cells["spread"] > 0
    sums = cells.groupby("key")[["k", "a", "excess", "weight", "spread", "groups", "informative"]].sum()
    known = sums["informative"] > 0
    error = np.sqrt(sums["spread"]).where(known)
    weight = sums["weight"].where(known)
    difference = sums["excess"] / weight
    reach = norm.ppf((1 + _LEVEL) / 2) * error / weight
    return pd.DataFrame(
        {
            "shown": sums["k"],
            "success": sums["a"] / sums["k"],
            "groups": sums["groups"].astype(int),
            "informative": sums["informative"].astype(int),
            "difference": difference,
            "low": (difference - reach).clip(lower=-1),
            "high": (difference + reach).clip(upper=1),
            "p": 2 * norm.sf((sums["excess"] / error).abs()),
        }
    )


def told_apart(table: pd.DataFrame, least: int = 3) -> pd.DataFrame:
    """The rows of `payoff` with at least `least` informative groups, with Holm's p over them, best first."""
    found = table[table["informative"] >= least]
    adjusted = holm(found["p"]) if len(found) else []
    return found.assign(p_holm=adjusted).sort_values("difference", ascending=False, kind="stable")


def extremes(study: LibraryRun, table: pd.DataFrame, least: int = 3, top: int = 8) -> pd.DataFrame:
    """The skills that surely pay most and least: the highest lower bounds, then the lowest upper bounds.

    Of many noisy numbers the extremes are the luckiest and unluckiest too: expect less of them in future.

    Args:
        table: `payoff` by skill.
        least: informative groups a skill needs.
        top: skills from either end; none appears twice.

    Returns:
        Columns of `told_apart`, with end ("most" or "least"), desc, strategy, utility; best first.
    """
    found = told_apart(table, least)
    best = found.sort_values("low", ascending=False, kind="stable").head(min(top, (len(found) + 1) // 2))
    worst = found.drop(best.index).sort_values("high", kind="stable").head(top)
    chosen = pd.concat([best.assign(end="most"), worst.assign(end="least")])
    return chosen.join(study.skills[["desc", "strategy", "utility"]]).sort_values(
        "difference", ascending=False, kind="stable"
    )


# -- conflicts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Conflicts:
    """Candidates of one episode that share a key (`library_study.keys`) and differ in strategy."""

    candidates: pd.DataFrame  # those in a conflict: episode, step, key, skill, strategy, utility, rank, lead
    episodes: int  # with two or more candidates
    effect: Estimate | None  # success with the selected skill leading, against trailing, within groups

    @property
    def selected(self) -> pd.DataFrame:
        """The conflicting candidates that were ranked first."""
        return self.candidates[self.candidates["rank"] == 0]

    @property
    def share(self) -> float:
        """Of the episodes with two or more candidates, those with a conflict among them; nan without such episodes."""
        return self.candidates["episode"].nunique() / self.episodes if self.episodes else float("nan")

    def leading(self) -> dict[str, float]:
        """Where a conflicting skill was selected and U differs: how often it was one that leads, and by chance.

        Returns:
            episodes (in which U differs), tied (episodes in which it does not), leading (share selected), chance (share
            if a conflicting candidate were drawn at random). Shares are nan without episodes.
        """
        chosen = self.selected.set_index(["episode", "key"])["lead"]
        differs = chosen[chosen != 0]
        parts = self.candidates.set_index(["episode", "key"])["lead"]
        random = (parts > 0).groupby(level=[0, 1]).mean().reindex(differs.index)
        return {
            "episodes": len(differs),
            "tied": len(chosen) - len(differs),
            "leading": float((differs > 0).mean()),
            "chance": float(random.mean()),
        }


def conflicts(study: LibraryRun, key: pd.Series) -> Conflicts:
    """Find the conflicts among the candidates of every episode.

    A candidate *leads* when its U, as it was retrieved, is above that of every candidate of its key with another
    strategy: `lead` is that distance, below 0 when it trails and 0 when U does not tell them apart.

    Args:
        key: of `library_study.keys`.
    """
    found = study.retrievals[["episode", "step", "skill", "utility", "rank"]].copy()
    found["key"] = found["skill"].map(key)
    found["strategy"] = found["skill"].map(study.skills["strategy"])
    place = ["episode", "key"]
    found = found[found.groupby(place)["strategy"].transform("nunique") > 1]
    rivals = (
        found.groupby([*place, "strategy"], as_index=False)["utility"].max().sort_values("utility", ascending=False)
    )
    first = rivals.drop_duplicates(place)
    second = rivals[rivals.duplicated(place)].drop_duplicates(place)
    both = first.merge(second[[*place, "utility"]], on=place, suffixes=("_best", "_other"))
    both = both.rename(columns={"strategy": "best"})
    found = found.merge(both, on=place)
    rival = found["utility_other"].where(found["strategy"] == found["best"], found["utility_best"])
    found["lead"] = found["utility"] - rival
    found = found.drop(columns=["best", "utility_best", "utility_other"]).reset_index(drop=True)
    differs = found[(found["rank"] == 0) & (found["lead"] != 0)].set_index("episode")["lead"]
    effect = paired_effect(differs > 0, study.episodes)
    return Conflicts(found, int((study.episodes["candidates"] > 1).sum()), effect)


def contested(study: LibraryRun, found: Conflicts, top: int = 5) -> pd.DataFrame:
    """The keys that conflicted in most episodes, and how their strategies fared.

    Returns:
        One row per key and strategy: key, episodes (in which the key conflicted), strategy, skills (that had it),
        selected (episodes), success (their share won; nan if never selected), utility (mean when retrieved).
    """
    often = found.candidates.groupby("key")["episode"].nunique().sort_values(ascending=False, kind="stable").head(top)
    part = found.candidates[found.candidates["key"].isin(often.index)].copy()
    part["won"] = part["episode"].map(study.episodes["outcome"]).where(part["rank"] == 0)
    table = part.groupby(["key", "strategy"]).agg(
        skills=("skill", "nunique"), selected=("won", "count"), success=("won", "mean"), utility=("utility", "mean")
    )
    table = table.reset_index()
    table.insert(1, "episodes", table["key"].map(often))
    return table.sort_values(["episodes", "key", "selected"], ascending=[False, True, False], ignore_index=True)
