"""What the library study says in words, made from its tables alone."""

from __future__ import annotations

import math

import pandas as pd

from skill1.analysis.library.payoff import Conflicts, told_apart
from skill1.analysis.library.study import LibraryRun, retirement
from skill1.stats import Estimate

_LEVEL = 0.05


def reading(
    study: LibraryRun,
    *,
    use: pd.DataFrame,
    copies: pd.DataFrame,
    pays: pd.DataFrame,
    least: int,
    found: Conflicts,
    any_skill: Estimate | None,
    smaller: pd.DataFrame,
    covered: pd.DataFrame,
    saturation: pd.DataFrame | None = None,
) -> str:
    """A short reading (Markdown).

    Args:
        use: `library_study.concentration`.
        copies: `library_study.duplicates`.
        pays: `library_payoff.payoff` by skill, of which those with `least` informative groups are judged.
        found: `library_payoff.conflicts`.
        any_skill: `library_payoff.any_skill`.
        smaller: `library_replay.counterfactual`.
        covered: `library_map.coverage`.
        saturation: `library_study.saturation_table`, where runs of other capacities were given.
    """
    lines = [
        _growth(study),
        _use(use),
        _copies(copies.iloc[0], study.run.config.library.merge_similarity),
        _pays(pays, least, any_skill),
        _conflicts(found),
        *_smaller(smaller),
        *_saturated(saturation),
        *_covered(covered),
        "One run is one seed: nothing here says how another seed's library would look.",
    ]
    return "\n".join(f"* {line}" for line in lines)


def _growth(study: LibraryRun) -> str:
    alive, gone = study.alive, retirement(study).loc["retired"]
    old = alive[alive["admitted"] < study.steps]
    unused = ""
    if len(old):
        unused = f"; of those it has held for a step, {_percent((old['retrieved'] == 0).mean())} were never retrieved"
    retired = f"none was retired (capacity {study.run.config.library.capacity})"
    if gone["skills"]:
        retired = (
            f"{gone['skills']:.0f} were retired (median age {gone['age']:.0f} steps, U {gone['utility']:.2f}; "
            f"{_percent(gone['never_retrieved'])} never retrieved)"
        )
    return (
        f"{study.label}: {len(study.skills)} skills were admitted in {study.steps} steps, {retired}. The library "
        f"ends with {len(alive)}{unused}."
    )


def _use(table: pd.DataFrame) -> str:
    used = table[table["shown_uses"] > 0]
    if used.empty:
        return "No episode was shown a skill."
    last = used.tail(math.ceil(len(used) / 5))
    return (
        f"In the last {len(last)} steps with skills, a step showed {last['shown_uses'].mean():.0f} skills to its "
        f"episodes, as concentrated as {last['shown_effective'].mean():.1f} equally used ones "
        f"({last['effective_strategies'].mean():.1f} strategies); retrieval gave "
        f"{last['retrieved_effective'].mean():.1f}."
    )


def _copies(row: pd.Series, merge: float) -> str:
    return (
        f"At the end {row['skills']:.0f} skills have {row['strategies']:.0f} strategies and {row['descriptions']:.0f} "
        f"descriptions. {_percent(row['near'])} have a near neighbour, {_percent(row['near_different'])} one with "
        f"another strategy, {_percent(row['near_equal'])} one with an equal strategy (such a lesson merges above a "
        f"cosine of {merge})."
    )


def _pays(table: pd.DataFrame, least: int, any_skill: Estimate | None) -> str:
    judged = told_apart(table, least)
    if judged.empty:
        text = f"No skill has {least} groups in which it could be compared: which skills pay cannot be told."
    else:
        outside = int((judged["p"] < _LEVEL).sum())
        sure = judged[judged["p_holm"] < _LEVEL]
        text = (
            f"{len(judged)} of {len(table)} skills that were shown can be compared ({least} groups or more). {outside} "
            f"differ from zero at 5 %, where chance alone would give about {_LEVEL * len(judged):.0f}; after Holm's "
            f"correction {(sure['difference'] > 0).sum()} pay and {(sure['difference'] < 0).sum()} harm."
        )
    if any_skill is not None:
        text += f" Being shown any skill, against none in the same group: {_points(any_skill)}."
    return text


def _conflicts(found: Conflicts) -> str:
    if not found.episodes:
        return "No episode had two candidates, so none could contradict each other."
    if found.candidates.empty:
        return f"No candidates contradicted each other in {found.episodes} episodes with two or more."
    lead = found.leading()
    text = f"{_percent(found.share)} of {found.episodes} episodes with two or more candidates had a conflict."
    if not lead["episodes"]:
        return f"{text} U never differed between the selected one and its rivals."
    text += (
        f" Where one of the conflicting was selected, U told it from its rivals in {lead['episodes']} episodes and "
        f"not in {lead['tied']}; the one that leads in U was selected in {_percent(lead['leading'])} (at random "
        f"{_percent(lead['chance'])})."
    )
    if found.effect is None:
        return f"{text} No group allows to say whether the one that leads is the better one."
    inside = found.effect.low <= 0 <= found.effect.high
    verdict = "zero lies inside: U does not tell the right one apart" if inside else "zero lies outside"
    return f"{text} Selecting one that leads instead of one that trails: {_points(found.effect)}; {verdict}."


def _smaller(table: pd.DataFrame) -> list[str]:
    if table.empty:
        return []
    parts = [
        f"{row.capacity}: {_percent(row.retrievals)} of retrievals, {_percent(row.won)} of the skills shown in won "
        "episodes"
        for row in table.itertuples()
    ]
    return [
        "Replaying retirement alone at a smaller capacity, what was used later would have been gone: "
        f"{'; '.join(parts)}."
    ]


def _saturated(table: pd.DataFrame | None) -> list[str]:
    if table is None:
        return []
    parts = [
        f"capacity {row.capacity} (seed {row.seed}): success {100 * row.reward:.1f} %, mean U {row.mean_utility:.2f}, "
        f"{row.retired:.1f} retired a step"
        + (f", full from step {row.full_from:.0f}" if row.full_from == row.full_from else ", never full")
        for row in table.itertuples()
    ]
    return [f"Runs of several capacities, their last {table['steps'].min()} steps: {'; '.join(parts)}."]


def _covered(table: pd.DataFrame) -> list[str]:
    lines = []
    for label, part in table.groupby("label", sort=False):
        every, most = part.iloc[0], part.iloc[1]
        name = label.replace("\n", ", ")
        spread = f", mean cosine distance {most['spread']:.2f} (all skills: {every['spread']:.2f})"
        lines.append(
            f"{name}: the most-used tenth, {most['skills']} skills, has {_percent(most['uses'])} of all uses and "
            f"covers {most['descriptions']} of {every['descriptions']} descriptions and {most['strategies']} of "
            f"{every['strategies']} strategies" + (spread if most["spread"] == most["spread"] else "") + "."
        )
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(estimate: Estimate) -> str:
    bounds = f"[{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    return f"{100 * estimate.value:+.1f} points {bounds}, n = {estimate.n} groups"
