"""The life and the use of a run's skills, from its journal and its rollouts: what the paper leaves open.

`read` joins the two into the tables of a `LibraryRun`, from which everything else is computed. A skill is *retrieved*
when it is among an episode's K candidates, and *shown* when the act prompts contain it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components
from scipy.stats import entropy

from skill1.analysis import variants
from skill1.analysis.library.replay import moments
from skill1.analysis.library.uses import read_uses
from skill1.config import LibraryConfig, diff
from skill1.encoder import load_encoder
from skill1.errors import RunError
from skill1.records import Skill
from skill1.store.journal import Journal, LibraryEvent, read_snapshot
from skill1.store.run_directory import RunDirectory

_SMALLEST = 8  # skills: below it no capacity is tried by default


@dataclass(frozen=True, slots=True, eq=False)
class LibraryRun:
    """A run's skills and what was done with them. Steps count from 1."""

    run: RunDirectory
    config: LibraryConfig
    events: tuple[LibraryEvent, ...]  # the whole journal
    episodes: pd.DataFrame  # see `read_uses`
    retrievals: pd.DataFrame  # see `read_uses`; and shown
    # Every skill ever admitted, by id: desc, strategy, admitted, retired (step, nan if it stayed), utility and count
    # (at the end, or when retired), merged, retrieved and shown (times), first_retrieved (step or nan).
    skills: pd.DataFrame
    history: pd.DataFrame  # per step and skill there after it: step, skill, utility, count, age, retrieved (so far)

    @property
    def label(self) -> str:
        return f"{variants.label(self.run.config.variant)}, seed {self.run.config.train.seed}"

    @property
    def steps(self) -> int:
        """Last step that learnt."""
        return self.events[-1].step

    @property
    def alive(self) -> pd.DataFrame:
        """The skills that are there at the end."""
        return self.skills[self.skills["retired"].isna()]

    @property
    def encoder(self) -> str:
        return self.config.encoder

    def embed(self, descriptions: Sequence[str]) -> np.ndarray:
        """Embed descriptions: as stored with the checkpoints, the others by the run's encoder.

        Returns:
            (n, d) float32 unit rows.

        Raises:
            EncoderError: the encoder is needed and cannot be had.
            LibraryError: a checkpoint's library is damaged.
        """
        known: dict[str, np.ndarray] = {}
        for checkpoint in reversed(self.run.checkpoints()):
            if set(descriptions) <= set(known):
                break
            snapshot = read_snapshot(checkpoint.path / "library")
            known |= {s.desc: row for s, row in zip(snapshot.skills, snapshot.embeddings, strict=True)}
        if missing := [text for text in dict.fromkeys(descriptions) if text not in known]:
            known |= dict(zip(missing, load_encoder(self.config.encoder).encode(missing), strict=True))
        return np.stack([known[text] for text in descriptions])


def read(path: Path) -> LibraryRun:
    """Read a run's journal and rollouts.

    Raises:
        RunError: no run there, no steps or no skills, a torn journal, damaged rollouts, or a journal and rollouts that
            do not match.
        ValueError: the run has no library.
        LibraryError: the journal is damaged, or not of this configuration.
    """
    run = RunDirectory.open(path)
    config = run.config.library
    if config is None:
        raise ValueError(
            f"run {path} (variant {run.config.variant}) has no library to study: choose another variant; "
            "one with a skill bank can be the parameter bank of 05_library"
        )
    journal = Journal(run.library_dir / "journal.jsonl")
    if journal.torn:
        raise RunError(f"the journal of {path} ends in a torn line, an interrupted run: continue it with --resume")
    events, stored = journal.events(), run.rollout_steps()
    if stored != [event.step for event in events if event.step]:  # 0: skills to start with
        raise RunError(
            f"{path} has rollouts of {len(stored)} steps and library events of {len(events)}: it is being trained "
            "(wait), was interrupted (--resume), or files were removed (restore them)"
        )
    episodes, retrievals = read_uses(run, stored)
    retrievals["shown"] = (retrievals["rank"] == 0) | (config.inject == "all")
    recorded = sum(len(event.updates) for event in events)
    credited = retrievals[retrievals["rank"] == 0] if config.utility_of == "selected" else retrievals
    if recorded != len(credited):
        raise RunError(f"{path}: the journal has {recorded} uses, the rollouts {len(credited)}: not of one run")
    if not any(event.admitted for event in events):
        raise RunError(f"{path} has admitted no skill in {len(events)} steps: there is nothing to study yet")
    skills, history = _lives(events, config, retrievals)
    return LibraryRun(run, config, events, episodes, retrievals, skills, history)


def _lives(
    events: Sequence[LibraryEvent], config: LibraryConfig, retrievals: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    history: list[tuple[int, str, float, int, int]] = []
    last: dict[str, Skill] = {}
    retired: dict[str, int] = {}
    for moment in moments(events, config):
        retired |= dict.fromkeys(moment.retired, moment.step)
        last |= {skill.id: skill for skill in moment.skills}
        history += [(moment.step, s.id, s.utility, s.count, s.admitted) for s in moment.skills if s.id not in retired]
    merged = pd.Series([skill for event in events for skill in event.merged], dtype=object).value_counts()
    by_skill = retrievals.groupby("skill")
    skills = pd.DataFrame([last[identity] for identity in sorted(last)]).rename(columns={"id": "skill"})
    skills = skills.set_index("skill")[["desc", "strategy", "admitted", "utility", "count"]]
    skills = skills.assign(
        retired=pd.Series(retired, dtype=float),
        merged=merged.reindex(skills.index, fill_value=0),
        retrieved=by_skill.size().reindex(skills.index, fill_value=0),
        shown=by_skill["shown"].sum().reindex(skills.index, fill_value=0),
        first_retrieved=by_skill["step"].min().astype(float).reindex(skills.index),
    )
    frame = pd.DataFrame(history, columns=["step", "skill", "utility", "count", "admitted"])
    frame["age"] = frame["step"] - frame.pop("admitted")
    frame["retrieved"] = frame["skill"].map(skills["first_retrieved"]) <= frame["step"]
    return skills, frame


def retirement(study: LibraryRun) -> pd.DataFrame:
    """Compare retired with kept skills: medians over the retired ones and over those there at the end.

    Returns:
        Rows "retired" and "kept": skills, age (steps; at retirement or at the end), utility, count, never_retrieved and
        never_shown (shares). nan where there is none.
    """
    end = study.skills["retired"].fillna(study.steps)
    table = study.skills.assign(
        age=end - study.skills["admitted"],
        never_retrieved=study.skills["retrieved"] == 0,
        never_shown=study.skills["shown"] == 0,
        fate=np.where(study.skills["retired"].isna(), "kept", "retired"),
    )
    medians, shares = ("age", "utility", "count"), ("never_retrieved", "never_shown")
    found = table.groupby("fate").agg(
        skills=("age", "size"),
        **{name: (name, "median") for name in medians},
        **{name: (name, "mean") for name in shares},
    )
    return found.reindex(["retired", "kept"]).fillna({"skills": 0}).astype({"skills": int})


def concentration(study: LibraryRun) -> pd.DataFrame:
    """Measure over how many skills the use of a step is spread.

    The effective number exp(H) is that of equally used skills with the same entropy H (nats). It cannot exceed the
    number of uses, and the episodes of one task need much the same skills: compare steps, not sizes.

    Returns:
        One row per step: step; retrieved_skills and shown_skills (distinct); their effective numbers
        retrieved_effective and shown_effective; effective_strategies (of what is shown, equal strategies taken as
        one); never_retrieved (share of the skills there after the step). nan where nothing was used.
    """
    shown = study.retrievals[study.retrievals["shown"]]
    strategies = shown.assign(skill=shown["skill"].map(study.skills["strategy"]))
    steps = pd.Index(study.episodes["step"].unique(), name="step")
    found = pd.DataFrame(index=steps)
    for name, part in (("retrieved", study.retrievals), ("shown", shown)):
        found[f"{name}_skills"] = part.groupby("step")["skill"].nunique().reindex(steps, fill_value=0)
        found[f"{name}_effective"] = _effective(part).reindex(steps)
    found["effective_strategies"] = _effective(strategies).reindex(steps)
    found["never_retrieved"] = 1.0 - study.history.groupby("step")["retrieved"].mean().reindex(steps)
    return found.reset_index()


def _effective(uses: pd.DataFrame) -> pd.Series:
    """exp(H) of the skills used, by step."""
    return uses.groupby("step")["skill"].agg(lambda used: math.exp(entropy(used.value_counts()))).astype(float)


def duplicates(study: LibraryRun, near: float = 0.85) -> pd.DataFrame:
    """Measure how often the library at its end says the same.

    Two skills are near when the cosine of their descriptions exceeds `near`. A lesson with an equal strategy merges
    when it is nearer than `library.merge_similarity`, so near skills with equal strategies exist only below that.

    Returns:
        One row: skills, strategies, descriptions, distinct (pairs of both), near (share of skills with a near other
        one), near_equal, near_different (the same, with an equal and with a different strategy), nearest (median cosine
        with the nearest other skill, -inf for a single one).

    Raises:
        EncoderError, LibraryError: see `embed`.
    """
    alive = study.alive
    rows, strategy = study.embed(alive["desc"]), alive["strategy"].to_numpy()
    same = strategy[:, None] == strategy  # (n, n)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = cosines.max(axis=1)
    return pd.DataFrame(
        {
            "skills": [len(alive)],
            "strategies": alive["strategy"].nunique(),
            "descriptions": alive["desc"].nunique(),
            "distinct": len(alive[["desc", "strategy"]].drop_duplicates()),
            "near": (nearest > near).mean(),
            "near_equal": (np.where(same, cosines, -np.inf).max(axis=1) > near).mean(),
            "near_different": (np.where(same, -np.inf, cosines).max(axis=1) > near).mean(),
            "nearest": np.median(nearest),
        }
    )


def keys(study: LibraryRun, same_key: float = 1.0) -> pd.Series:
    """Find which skills have the same retrieval key: the same description but for case and spaces, or a near one.

    Args:
        same_key: cosine of two descriptions from which on they are one key, and so are those they are chained to;
            1 = equal text alone, which needs no embeddings.

    Returns:
        Skill id -> text of its key (the first description that has it), over all skills ever admitted.

    Raises:
        ValueError: same_key outside (0, 1].
        EncoderError, LibraryError: see `embed`.
    """
    if not 0 < same_key <= 1:
        raise ValueError(f"same_key = {same_key}: expected a cosine in (0, 1], 1 = equal text")
    text = study.skills["desc"].str.lower().str.split().str.join(" ")
    if same_key == 1:
        return text
    distinct = study.skills["desc"].groupby(text, sort=False).first()
    rows = study.embed(distinct)
    _, label = connected_components(rows @ rows.T >= same_key, directed=False)
    first = pd.Series(distinct.index).groupby(label).transform("first")
    return text.map(pd.Series(first.to_numpy(), index=distinct.index))


def counterfactual(study: LibraryRun, capacities: Sequence[int] = ()) -> pd.DataFrame:
    """Measure how much of what was used later a smaller capacity would have retired before.

    A counterfactual of retirement only: recorded uses, outcomes and admissions are taken as they were. In a run with
    that capacity other skills would have been retrieved in place of the lost ones, episodes would have gone otherwise,
    and a lesson that merged into a lost skill would have been admitted again; here it stays lost.

    Args:
        capacities: each at most the recorded one; () = half of the last size, a quarter and so on, down to eight.

    Returns:
        One row per capacity: capacity, retired (skills), used_later (of them, retrieved afterwards), retrievals, shown,
        won (shares that are lost: of all retrievals; of the retrievals that were shown; of the shown ones in episodes
        that were won), emptied (share of the episodes with candidates that lose all of them), merges (lessons that
        merged into a lost skill).

    Raises:
        ValueError, LibraryError: see `moments`.
    """
    uses = study.retrievals
    shown, won = uses["shown"], uses["episode"].map(study.episodes["outcome"]) == 1.0
    rows = []
    for capacity in capacities or [len(study.alive) >> i for i in range(1, 7) if len(study.alive) >> i >= _SMALLEST]:
        gone: dict[str, int] = {}
        merges = 0
        for moment in moments(study.events, study.config, capacity):
            gone |= dict.fromkeys(moment.retired, moment.step)
            merges += moment.lost_merges
        lost = uses["step"] > uses["skill"].map(gone).astype(float)  # a step retrieves before it retires
        rows.append(
            {
                "capacity": capacity,
                "retired": len(gone),
                "used_later": uses.loc[lost, "skill"].nunique(),
                "retrievals": lost.mean(),
                "shown": lost[shown].mean(),
                "won": lost[shown & won].mean(),
                "emptied": lost.groupby(uses["episode"]).all().mean(),
                "merges": merges,
            }
        )
    return pd.DataFrame(rows)


def saturation(runs: Sequence[RunDirectory]) -> pd.DataFrame:
    """Join the metrics of runs of one configuration with several capacities.

    Returns:
        One row per run and step: run, capacity, seed, step, reward, mean_utility, retired, size.

    Raises:
        ValueError: a run without a library or metrics, or runs that differ in more than capacity and seed.
    """
    frames = []
    for run in runs:
        if run.config.library is None:
            raise ValueError(f"run {run.path} (variant {run.config.variant}) has no library: it has no capacity")
        if changed := set(diff(runs[0].config, run.config)) - {"library.capacity", "train.seed"}:
            raise ValueError(f"{run.path} differs from {runs[0].path} in more than its capacity: {', '.join(changed)}")
        metrics = run.metrics()
        if metrics.empty:
            raise ValueError(f"{run.path} has not trained a step yet")
        frame = metrics.rename(columns=lambda name: name.removeprefix("library/"))
        frame = frame[["step", "reward", "mean_utility", "retired", "size"]]
        frames.append(frame.assign(run=str(run.path), capacity=run.config.library.capacity, seed=run.config.train.seed))
    return pd.concat(frames, ignore_index=True)


def saturation_table(curves: pd.DataFrame, share: float = 0.2) -> pd.DataFrame:
    """Average the last part of every run of `saturation`, smallest capacity first.

    Args:
        share: of the steps, at the end, that is averaged.

    Returns:
        One row per run: run, capacity, seed, steps (averaged), reward, mean_utility, retired (per step), size (at the
        end), full_from (first step that retired, nan if none).
    """
    rows = []
    for (run, capacity, seed), part in curves.groupby(["run", "capacity", "seed"], sort=False):
        end = part.tail(math.ceil(share * len(part)))
        rows.append(
            {"run": run, "capacity": capacity, "seed": seed, "steps": len(end)}
            | end[["reward", "mean_utility", "retired"]].mean().to_dict()
            | {"size": part["size"].iloc[-1], "full_from": part.loc[part["retired"] > 0, "step"].min()}
        )
    return pd.DataFrame(rows).sort_values(["capacity", "seed"], ignore_index=True)
