"""The life and the use of a run's skills, read from its journal and its rollouts: what the paper leaves open.

`read` joins the two into tables, from which everything else here is computed: growth and ages, retirement, how
concentrated the use is, duplicates, and runs of several capacities. Of the rollouts only the columns named in
`_COLUMNS` are read, so that a run of thousands of episodes takes a second.

Words: a skill is *retrieved* when it is among an episode's K candidates and *shown* when the act prompts contain it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse.csgraph import connected_components
from scipy.stats import entropy

from skill1.analysis.library.replay import moments
from skill1.config import diff
from skill1.encoder import load_encoder
from skill1.store.journal import Journal, LibraryEvent, read_snapshot
from skill1.store.run_directory import RunDirectory, RunError

_COLUMNS = ["task", "group", "candidates", "ranking", "outcome"]
_BLOCK = 512  # descriptions whose cosines with all others are held at once


@dataclass(frozen=True, slots=True, eq=False)
class LibraryRun:
    """A run's skills and what was done with them. Steps count from 1.

    Attributes:
        run, events: the run and its whole journal.
        episodes: one row each: step, group (unique in the run), game, outcome, candidates (their number).
        retrievals: one row per episode and candidate: episode (row of `episodes`), step, skill, place (in retrieval
            order, from 0), rank (in the policy's, from 0), utility (as retrieved), shown.
        skills: every skill ever admitted, by id: desc, strategy, admitted, retired (step, nan if it stayed), utility
            and count (at the end, or when retired), merged, retrieved and shown (times), first_retrieved (step or nan).
        history: one row per step and skill there after it: step, skill, utility, count, age, retrieved (so far).
    """

    run: RunDirectory
    events: tuple[LibraryEvent, ...]
    episodes: pd.DataFrame
    retrievals: pd.DataFrame
    skills: pd.DataFrame
    history: pd.DataFrame

    @property
    def label(self) -> str:
        return f"{self.run.config.variant} seed {self.run.config.train.seed}"

    @property
    def steps(self) -> int:
        """Last step that learnt."""
        return self.events[-1].step

    @property
    def alive(self) -> pd.DataFrame:
        """The skills that are there at the end."""
        return self.skills[self.skills["retired"].isna()]


def read(path: Path) -> LibraryRun:
    """Read a run's journal and rollouts.

    Raises:
        RunError: no run there, no steps or no rollouts, a torn journal, damaged rollouts, or a
            journal and rollouts of different steps.
        ValueError: the run has no library.
        LibraryError: the journal is damaged, or not of this configuration.
    """
    run = RunDirectory.open(path)
    if not run.config.library.enabled:
        other = "give it as bank of 05_library" if run.config.bank.enabled else "choose another variant"
        raise ValueError(f"run {path} (variant {run.config.variant}) has no library to study: {other}")
    journal = Journal(run.library_dir / "journal.jsonl")
    if journal.torn:
        raise RunError(f"the journal of {path} ends in a torn line, an interrupted run: continue it with --resume")
    events = journal.events()
    if not events:
        raise RunError(f"{path} has not trained a step yet")
    stored, learnt = run.rollout_steps(), [event.step for event in events]
    if not stored:
        raise RunError(
            f"{path} has no rollouts ({run.rollouts_dir} is empty): restore them, the use of skills is there"
        )
    if stored != learnt:
        raise RunError(
            f"{path} has rollouts of {len(stored)} steps (last {stored[-1]}) and library events of {len(learnt)} (last "
            f"{learnt[-1]}): it is being trained (wait), was interrupted (--resume), or rollouts were removed (restore)"
        )
    episodes, retrievals = _uses(run, stored)
    recorded = [sum(len(event.updates) for event in events), len(retrievals)]
    if recorded[0] != recorded[1]:
        raise RunError(f"{path}: the journal has {recorded[0]} uses, the rollouts {recorded[1]}: not of one run")
    skills, history = _lives(run, events, retrievals)
    return LibraryRun(run, events, episodes, retrievals, skills, history)


def _uses(run: RunDirectory, steps: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    tables = []
    for step in steps:
        file = run.rollouts_file(step)
        try:
            table = pq.read_table(file, columns=_COLUMNS)
        except (pa.ArrowInvalid, OSError) as error:
            raise RunError(f"{file} is corrupt ({error}): restore it") from None
        tables.append(table.append_column("step", pa.array(np.full(len(table), step))))
    table = pa.concat_tables(tables).combine_chunks()
    flat = table.drop_columns(["task", "candidates", "ranking"]).to_pandas()
    width = int(flat["group"].max()) + 1
    episodes = pd.DataFrame(
        {
            "step": flat["step"],
            "group": flat["step"] * width + flat["group"],
            "game": pc.struct_field(table["task"], "game").to_pandas(),
            "outcome": flat["outcome"],
            "candidates": pc.list_value_length(table["candidates"]).to_numpy(),
        }
    )
    owner = pc.list_parent_indices(table["candidates"]).to_numpy()  # (R,) episode of each retrieval
    found = pc.list_flatten(table["candidates"])
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)  # rows of one episode are neighbours
    best_first = pc.list_flatten(table["ranking"]).to_numpy()  # (R,) places of each episode's candidates
    rank = np.empty(len(owner), dtype=int)
    rank[np.searchsorted(owner, owner) + best_first] = place
    retrievals = pd.DataFrame(
        {
            "episode": owner,
            "step": flat["step"].to_numpy()[owner],
            "skill": pc.struct_field(found, "skill").to_pandas(),
            "place": place,
            "rank": rank,
            "utility": pc.struct_field(found, "utility").to_numpy(),
        }
    )
    retrievals["shown"] = True if run.config.library.inject == "all" else retrievals["rank"] == 0
    return episodes, retrievals


def _lives(
    run: RunDirectory, events: Sequence[LibraryEvent], retrievals: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    history, last = [], {}
    retired: dict[str, int] = {}
    for moment in moments(events, run.config.library):
        retired |= dict.fromkeys(moment.retired, moment.step)
        last |= {skill.id: skill for skill in moment.skills}
        history += [(moment.step, s.id, s.utility, s.count, s.admitted) for s in moment.skills if s.id not in retired]
    if not last:
        raise RunError(f"{run.path} has admitted no skill in {len(events)} steps: there is nothing to study yet")
    merged = pd.Series([skill for event in events for skill in event.merged], dtype=object).value_counts()
    by_skill = retrievals.groupby("skill")
    ids = pd.Index(sorted(last), name="skill")
    columns = {
        name: [getattr(last[i], name) for i in ids] for name in ("desc", "strategy", "admitted", "utility", "count")
    }
    skills = pd.DataFrame(columns, index=ids).assign(
        retired=pd.Series(retired, dtype=float),
        merged=merged.reindex(ids, fill_value=0),
        retrieved=by_skill.size().reindex(ids, fill_value=0),
        shown=by_skill["shown"].sum().reindex(ids, fill_value=0),
        first_retrieved=by_skill["step"].min().astype(float).reindex(ids),
    )
    frame = pd.DataFrame(history, columns=["step", "skill", "utility", "count", "admitted"])
    frame["age"] = frame["step"] - frame.pop("admitted")
    frame["retrieved"] = frame["skill"].map(skills["first_retrieved"]) <= frame["step"]
    return skills, frame


# -- growth and retirement --------------------------------------------------------------------------------------------


def retirement(study: LibraryRun) -> pd.DataFrame:
    """Who leaves and who stays: medians over the retired skills and over those there at the end.

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
    groups = table.groupby("fate")
    found = groups[["age", "utility", "count"]].median().join(groups[["never_retrieved", "never_shown"]].mean())
    found.insert(0, "skills", groups.size())
    found = found.reindex(["retired", "kept"])
    return found.assign(skills=found["skills"].fillna(0).astype(int))


# -- how concentrated the use is --------------------------------------------------------------------------------------


def concentration(study: LibraryRun) -> pd.DataFrame:
    """How many skills the use of a step is spread over.

    The effective number exp(H) is that of equally used skills with the same entropy H (nats). It cannot exceed the
    number of uses, and the episodes of one task need much the same skills: compare steps, not sizes.

    Returns:
        One row per step: step; for retrieved and shown: <use>_uses, <use>_skills (distinct), <use>_entropy,
        <use>_effective; effective_strategies (of what is shown, equal strategies taken as one); never_retrieved (share
        of the skills there after the step). nan where nothing was used.
    """
    uses = study.retrievals.assign(strategy=study.retrievals["skill"].map(study.skills["strategy"]))
    shown = uses[uses["shown"]]
    steps = pd.Index([event.step for event in study.events], name="step")
    found = pd.DataFrame(index=steps)
    for name, part in (("retrieved", uses), ("shown", shown)):
        groups = part.groupby("step")["skill"]
        found[f"{name}_uses"] = groups.size().reindex(steps, fill_value=0)
        found[f"{name}_skills"] = groups.nunique().reindex(steps, fill_value=0)
        found[f"{name}_entropy"] = groups.agg(_entropy).reindex(steps).astype(float)
        found[f"{name}_effective"] = np.exp(found[f"{name}_entropy"])
    found["effective_strategies"] = np.exp(shown.groupby("step")["strategy"].agg(_entropy).reindex(steps).astype(float))
    found["never_retrieved"] = 1.0 - study.history.groupby("step")["retrieved"].mean().reindex(steps)
    return found.reset_index()


def _entropy(values: pd.Series) -> float:
    return float(entropy(values.value_counts()))


# -- duplicates -------------------------------------------------------------------------------------------------------


def embed(study: LibraryRun, descriptions: Sequence[str]) -> np.ndarray:
    """Embeddings of descriptions: those stored with the checkpoints, and of the others by the run's encoder.

    Returns:
        (n, d) float32 unit rows.

    Raises:
        EncoderError: the encoder is needed and cannot be had.
        LibraryError: a checkpoint's library is damaged.
    """
    known: dict[str, np.ndarray] = {}
    for checkpoint in reversed(study.run.checkpoints()):
        if set(descriptions) <= set(known):
            break
        snapshot = read_snapshot(checkpoint.path / "library")
        known |= {s.desc: row for s, row in zip(snapshot.skills, snapshot.embeddings, strict=True)}
    if missing := [text for text in dict.fromkeys(descriptions) if text not in known]:
        rows = load_encoder(study.run.config.library.encoder).encode(missing)
        known |= dict(zip(missing, rows, strict=True))
    return np.stack([known[text] for text in descriptions])


def duplicates(study: LibraryRun, near: float = 0.85) -> pd.DataFrame:
    """How often the library at its end says the same.

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
    rows = embed(study, alive["desc"])
    strategy = pd.factorize(alive["strategy"])[0]
    nearest, equal, different = (np.empty(len(alive)) for _ in range(3))
    for start in range(0, len(alive), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines = rows[block] @ rows.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -np.inf  # itself
        same = strategy[block, None] == strategy
        nearest[block] = cosines.max(axis=1)
        equal[block] = np.where(same, cosines, -np.inf).max(axis=1)
        different[block] = np.where(same, -np.inf, cosines).max(axis=1)
    return pd.DataFrame(
        {
            "skills": [len(alive)],
            "strategies": alive["strategy"].nunique(),
            "descriptions": alive["desc"].nunique(),
            "distinct": len(alive[["desc", "strategy"]].drop_duplicates()),
            "near": (nearest > near).mean(),
            "near_equal": (equal > near).mean(),
            "near_different": (different > near).mean(),
            "nearest": np.median(nearest),
        }
    )


def keys(study: LibraryRun, same_key: float = 1.0) -> pd.Series:
    """Which skills have the same retrieval key: the same description but for case and spaces, or a near one.

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
    rows = embed(study, distinct)
    _, label = connected_components(rows @ rows.T >= same_key, directed=False)
    first = pd.Series(distinct.index).groupby(label).transform("first")
    return text.map(pd.Series(first.to_numpy(), index=distinct.index))


# -- several capacities -----------------------------------------------------------------------------------------------


def saturation(runs: Sequence[RunDirectory]) -> pd.DataFrame:
    """What runs of one configuration with other capacities did, from their metrics.

    Returns:
        One row per run and step: run, capacity, seed, step, reward, mean_utility, retired, size.

    Raises:
        ValueError: no runs, a run without a library or metrics, or runs that differ in more than capacity and seed.
    """
    if not runs:
        raise ValueError("no runs to compare")
    frames = []
    for run in runs:
        if not run.config.library.enabled:
            raise ValueError(f"run {run.path} (variant {run.config.variant}) has no library: it has no capacity")
        changed = set(diff(runs[0].config, run.config)) - {"library.capacity", "train.seed"}
        if changed:
            raise ValueError(f"{run.path} differs from {runs[0].path} in more than its capacity: {', '.join(changed)}")
        metrics = run.metrics()
        if metrics.empty:
            raise ValueError(f"{run.path} has not trained a step yet")
        columns = {name: f"library/{name}" for name in ("mean_utility", "retired", "size")} | {"reward": "reward"}
        frame = pd.DataFrame({name: metrics[column] for name, column in columns.items()})
        frames.append(
            frame.assign(
                run=str(run.path),
                capacity=run.config.library.capacity,
                seed=run.config.train.seed,
                step=metrics["step"],
            )
        )
    return pd.concat(frames, ignore_index=True)


def saturation_table(curves: pd.DataFrame, share: float = 0.2) -> pd.DataFrame:
    """The last part of every run of `saturation`, smallest capacity first.

    Args:
        share: of the steps, at the end, that is averaged.

    Returns:
        One row per run: run, capacity, seed, steps (averaged), reward, mean_utility, retired (per step), size (at the
        end), full_from (first step that retired, nan if none).
    """
    rows = []
    for (run, capacity, seed), part in curves.groupby(["run", "capacity", "seed"], sort=False):
        end = part.tail(math.ceil(share * len(part)))
        full = part.loc[part["retired"] > 0, "step"]
        rows.append(
            {
                "run": run,
                "capacity": capacity,
                "seed": seed,
                "steps": len(end),
                **end[["reward", "mean_utility", "retired"]].mean().to_dict(),
                "size": part["size"].iloc[-1],
                "full_from": full.min() if len(full) else math.nan,
            }
        )
    return pd.DataFrame(rows).sort_values(["capacity", "seed"], ignore_index=True)
