"""Case studies, as in appendix F of the paper: episodes that held a skill beside those of the same group that did not.

Differs from the paper in: it does not say how its case studies were chosen; here it is by `RULES`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from skill1.analysis.library.uses import read_uses
from skill1.analysis.trajectories.read import skills_before
from skill1.records import Skill
from skill1.store.run_directory import RunDirectory

CaseKind = Literal["ahead", "behind", "relied on"]

RULES: dict[CaseKind, str] = {
    "ahead": "Groups in which some rollouts held a skill and the others held another or none, by the success of the "
    "former less that of the latter, largest first and above zero.",
    "behind": "The same groups, smallest difference first and below zero.",
    "relied on": "Skills of the library after the last stored step that some won episode selected, by U log(n + 1), by "
    "which the library itself decides whom to keep; shown is the last won episode with the skill.",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One case study: a skill, an episode that held it, and one of the same group that did not."""

    kind: CaseKind
    why: str  # a sentence with the numbers it was chosen by
    step: int
    group: int
    skill: Skill  # with the utility and count it had when it was retrieved
    shown: int  # rollout within the group that held the skill
    against: int | None  # rollout of the group that did not, with the opposite outcome


def contrasts(episodes: pd.DataFrame) -> pd.DataFrame:
    """Compare every skill with the rest of its group, where there is a rest.

    Args:
        episodes: see `read_uses`.

    Returns:
        One row per step, group and selected skill: step, group, selected, with (episodes), won_with, without,
        won_without, difference (of the two success rates).
    """
    groups = episodes.groupby(["step", "group"])["outcome"].agg(size="size", won="sum")
    held = episodes.groupby(["step", "group", "selected"])["outcome"].agg(**{"with": "size", "won_with": "sum"})
    table = held.reset_index().join(groups, on=["step", "group"])
    table["without"] = table.pop("size") - table["with"]
    table["won_without"] = table.pop("won") - table["won_with"]
    table = table[table["without"] > 0]
    difference = table["won_with"] / table["with"] - table["won_without"] / table["without"]
    return table.assign(difference=difference).reset_index(drop=True)


def find_cases(run: RunDirectory, count: int = 1) -> list[Case]:
    """Choose case studies by `RULES`, at most `count` of each kind, no skill twice within a kind.

    Ties go to the more balanced group, then to the later step, then to the lower group and skill. A run without skills
    has none.

    Raises:
        RunError: the run has no rollouts.
        LibraryError: the journal is missing or damaged.
    """
    episodes, _ = read_uses(run, run.rollout_steps())
    return [*_contrasting(run, episodes, count), *_relied_on(run, episodes, count)]


def _contrasting(run: RunDirectory, episodes: pd.DataFrame, count: int) -> list[Case]:
    table = contrasts(episodes)
    table["smaller"] = table[["with", "without"]].min(axis=1)
    kinds: tuple[tuple[CaseKind, int], ...] = (("ahead", 1), ("behind", -1))
    cases = []
    for kind, sign in kinds:
        signed = table.assign(by=sign * table["difference"])
        ordered = signed[signed["by"] > 0].sort_values(
            ["by", "smaller", "step", "group", "selected"], ascending=[False, False, False, True, True]
        )
        for row in ordered.drop_duplicates("selected").head(count).to_dict("records"):
            members = episodes[(episodes["step"] == row["step"]) & (episodes["group"] == row["group"])]
            held, won = members["selected"] == row["selected"], members["outcome"] == 1.0
            shown = members.loc[held & (won if sign > 0 else ~won), "index"].iloc[0]
            against = members.loc[~held & (~won if sign > 0 else won), "index"].iloc[0]
            why = (
                f"{row['won_with']:.0f} of the {row['with']} episodes with {row['selected']} won, "
                f"{row['won_without']:.0f} of the group's {row['without']} others."
            )
            skill = skills_before(run, row["step"])[row["selected"]]
            cases.append(Case(kind, why, row["step"], row["group"], skill, int(shown), int(against)))
    return cases


def _relied_on(run: RunDirectory, episodes: pd.DataFrame, count: int) -> list[Case]:
    last = int(episodes["step"].max())
    used = dict(tuple(episodes.groupby("selected")))
    kept = [s for s in skills_before(run, last + 1).values() if s.id in used and used[s.id]["outcome"].max() == 1.0]
    cases = []
    for skill in sorted(kept, key=lambda s: (-s.utility * math.log(s.count + 1), s.id))[:count]:
        own = used[skill.id]
        won = own[own["outcome"] == 1.0]
        why = (
            f"After step {last} it has U = {skill.utility:.3f} and n = {skill.count}; "
            f"{len(own)} episodes of the run selected it, {len(won)} of them won."
        )
        step, group, index = (int(won[name].iloc[-1]) for name in ("step", "group", "index"))
        cases.append(Case("relied on", why, step, group, skills_before(run, step)[skill.id], index, None))
    return cases
