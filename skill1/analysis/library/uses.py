"""Which skills a run's episodes retrieved and were shown: its stored rollouts as two tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skill1.errors import RunError
from skill1.store.run_directory import RunDirectory

_COLUMNS = ["task.game", "group", "index", "candidates", "ranking", "selected", "outcome"]


def read_uses(run: RunDirectory, steps: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read what was retrieved in `steps`; no token and no text of a turn is read.

    Returns:
        episodes: one row each: step, group (within the step), index, game, outcome, selected (skill, None without),
            candidates (their number), place (step and group as one number, unique in the run).
        retrievals: one row per episode and candidate: episode (row of `episodes`), step, skill, rank (in the policy's
            order, from 0), utility (as retrieved).

    Raises:
        RunError: no steps, or a file is missing or corrupt.
    """
    if not steps:
        raise RunError(f"{run.path} has no rollouts yet: a run stores them with every training step")
    tables = []
    for step in steps:
        file = run.rollouts_file(step)
        try:
            table = pq.read_table(file, columns=_COLUMNS)
        except (pa.ArrowInvalid, OSError) as error:
            raise RunError(f"{file} is corrupt ({error}): restore it") from None
        tables.append(table.append_column("step", pa.array(np.full(len(table), step))))
    table = pa.concat_tables(tables).combine_chunks()

    owner = pc.list_parent_indices(table["candidates"]).to_numpy()  # (R,) episode of each retrieval
    found = pc.list_flatten(table["candidates"])
    first = np.searchsorted(
        owner, owner
    )  # (R,) row of its episode's first candidate: those of an episode are neighbours
    rank = np.empty(len(owner), dtype=int)
    rank[first + pc.list_flatten(table["ranking"]).to_numpy()] = np.arange(len(owner)) - first
    episodes = table.drop_columns(["candidates", "ranking"]).flatten().to_pandas()
    episodes = episodes.rename(columns={"task.game": "game"})
    episodes["candidates"] = pc.list_value_length(table["candidates"]).to_numpy()
    episodes["place"] = episodes["step"] * (episodes["group"].max() + 1) + episodes["group"]
    retrievals = pd.DataFrame(
        {
            "episode": owner,
            "step": episodes["step"].to_numpy()[owner],
            "skill": pc.struct_field(found, "skill").to_pandas(),
            "rank": rank,
            "utility": pc.struct_field(found, "utility").to_numpy(),
        }
    )
    return episodes, retrievals
