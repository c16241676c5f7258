"""Plays the arms of `selection`: a run's policy and library at evaluation, without training, on the same games.

Every arm has the same random streams. What an arm played is kept in the run directory, and not played again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from skill1.analysis.library.selection import FLOORS, FOLDER, KEYS, ORDERS, Arm, Order, read
from skill1.config import Config, LibraryConfig, method_of, override
from skill1.distributed import join_processes
from skill1.envs.base import VectorEnvironment
from skill1.envs.make import environment_spec, make_environment
from skill1.errors import RunError
from skill1.evaluate import load_policy
from skill1.library import Library
from skill1.methods.library_method import LibraryMethod
from skill1.methods.skill1 import Skill1Config, query, rerank, retrieve, show
from skill1.play import jobs, missing, outcomes, play_together
from skill1.records import Rollout, Task
from skill1.registry import closest, find
from skill1.rollout import Ask, Episode, Stages
from skill1.store.atomic import replacing
from skill1.store.run_directory import RunDirectory
from skill1.store.writable import check_writable


class Ordered(Stages):
    """Acting with the candidate that an arm puts first."""

    def __init__(self, arm: Arm, config: Config, library: Library, right: Mapping[Task, str | None]) -> None:
        """`right`: the strategy that is right in each task, where it is known."""
        self._arm = arm
        self._options = Skill1Config.of(config)
        self._inject = LibraryConfig.of(config).injected("greedy")
        self._library = library
        self._right = right

    def begin(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """Find candidates and order them as the arm says (`selection`)."""
        if self._arm.order == "none":
            return
        if self._arm.key == "query":
            query(episodes, ask, self._options.max_query_tokens)
        else:
            for e in episodes:
                e.query = e.start.instruction
        if not len(self._library):
            return
        retrieve(episodes, ask, self._library, "greedy")
        if self._arm.order == "policy":
            rerank(episodes, ask, self._library, self._options.max_rerank_tokens)
        else:
            for e in episodes:
                e.ranking = self._ranking(e)
        show(episodes, ask, self._library, self._inject)

    def _ranking(self, e: Episode) -> tuple[int, ...]:
        """Candidates, the first to be shown first."""
        luck = np.random.default_rng(e.seed).random(len(e.candidates))
        first: dict[Order, Callable[[int], float]] = {
            "similarity": lambda i: -e.candidates[i].similarity,
            "utility": lambda i: -e.candidates[i].utility,
            "count": lambda i: -self._library[e.candidates[i].skill].count,
            "random": lambda i: luck[i],
            "oracle": lambda i: float(self._library[e.candidates[i].skill].strategy != self._right[e.task]),
        }
        return tuple(sorted(range(len(e.candidates)), key=first[self._arm.order]))


def arms_of(
    config: Config, orders: Sequence[str] = (), keys: Sequence[str] = (), floors: Sequence[str] = ()
) -> list[Arm]:
    """List the arms that a run can play; by default all.

    Raises:
        ConfigError: an order, key or floor that there is not.
        RunError: the oracle was asked for where no nano world knows what is right.
    """
    chosen = [
        [closest(name, known, kind) for name in given or known]
        for given, known, kind in ((orders, ORDERS, "order"), (keys, KEYS, "key"), (floors, FLOORS, "floor"))
    ]
    if _knowing(config) is None:
        if "oracle" in orders:
            raise RunError(f"{config.environment.name} has no nano world that knows what is right: leave oracle out")
        chosen[0] = [order for order in chosen[0] if order != "oracle"]
    if LibraryConfig.of(config).similarity_floor is None and not floors:
        chosen[2] = ["run"]  # the same arms twice
    found: dict[str, Arm] = {}
    for order, key, floor in product(*chosen):
        arm = Arm("none", "task", "run") if order == "none" else Arm(order, key, floor)  # type: ignore[arg-type]
        found.setdefault(arm.name, arm)
    return list(found.values())


def play_arms(
    path: Path,
    arms: Sequence[Arm] | None = None,
    *,
    split: str | None = None,
    passes: int | None = None,
    step: int | None = None,
    batch: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Play the arms that are not stored yet with a checkpoint's policy and library.

    Args:
        arms: by default all that the run can play.
        split: one split, `environment.validation_split` by default.
        passes, step, batch: as for `evaluate.evaluate_run`.

    Returns:
        `read`'s frame of this step and split.

    Raises:
        RunError: a run that writes no queries and rankings, or without that checkpoint.
    """
    run = RunDirectory.open(path)
    config = override(run.config, {"policy.generate_batch": batch, "evaluation.passes": passes})
    if not {"query", "rerank"} <= method_of(config).trained_stages(config).keys() or config.library is None:
        raise RunError(f"{path} is a run of {config.variant}, which selects nothing: choose a run of variant full")
    latest = run.latest_checkpoint()
    if latest is None:
        raise RunError(f"{path} has no complete checkpoint yet: train it first")
    checkpoint = latest if step is None else run.checkpoint(step)
    environment = make_environment(config.environment)
    split = split or config.environment.validation_split
    todo = jobs(environment.tasks(split), config.evaluation.passes)
    chosen = arms_of(config) if arms is None else list(arms)
    lacking = {arm: missing(todo, _stored(run, arm, checkpoint.step, split)) for arm in chosen}
    if any(lacking.values()):
        check_writable(run.path / FOLDER)
        tasks = list(dict.fromkeys(job.task for job in todo))
        right = _right(config, environment, tasks)
        with load_policy(config, run.weights(config, checkpoint.step)) as policy:
            for arm, rest in lacking.items():
                if not rest:
                    continue
                floor = {} if arm.floor == "run" else {"library.similarity_floor": -1.0}  # no cosine is below
                own = override(config, floor)
                library = _library(own, checkpoint.path)
                rollouts = play_together(
                    rest, policy, environment, Ordered(arm, own, library, right), own, progress=progress
                )
                frame = outcomes(rest, rollouts, own, checkpoint.step, arm.name).assign(
                    **asdict(arm), **_rightness(rollouts, library, right)
                )
                if join_processes().is_main_process:
                    _store(run, arm, pd.concat([_stored(run, arm, checkpoint.step, split), frame], ignore_index=True))
    join_processes().wait_for_everyone()
    found = read(run)
    return found[(found["step"] == checkpoint.step) & (found["split"] == split)]


def _knowing(config: Config) -> str | None:
    """The nano world that can tell what is right: its facts are worded as the compact prompts are."""
    return environment_spec(config.environment.name).nano if config.policy.prompts == "compact" else None


def _right(config: Config, environment: VectorEnvironment, tasks: Sequence[Task]) -> dict[Task, str | None]:
    """The strategy that is right in each task, None where it is not known."""
    world = _knowing(config)
    known = [None] * len(tasks) if world is None else find("nano worlds", world).right(environment, tasks)
    return dict(zip(tasks, known, strict=True))


def _library(config: Config, checkpoint: Path) -> Library:
    method = method_of(config)(config)
    if not isinstance(method, LibraryMethod):
        raise RunError(f"{config.method.name} keeps no library of skills")
    method.load_skills(checkpoint / "library")
    return method.skills.frozen()


def _rightness(
    rollouts: Sequence[Rollout], library: Library, right: Mapping[Task, str | None]
) -> dict[str, list[float | None]]:
    """Whether what was shown, and whether any candidate, is right; None where it is not known."""

    def among(rollout: Rollout, skills: Sequence[str]) -> float | None:
        wanted = right[rollout.task]
        return None if wanted is None else float(any(library[skill].strategy == wanted for skill in skills))

    return {
        "right": [among(r, [r.selected] if r.selected else []) for r in rollouts],
        "offered": [among(r, [c.skill for c in r.candidates]) for r in rollouts],
    }


def _file(run: RunDirectory, arm: Arm, step: int, split: str) -> Path:
    return run.path / FOLDER / f"{arm.name}.{split}.step_{step:06d}.parquet"


def _stored(run: RunDirectory, arm: Arm, step: int, split: str) -> pd.DataFrame:
    file = _file(run, arm, step, split)
    return pd.read_parquet(file) if file.is_file() else pd.DataFrame(columns=["game", "pass"])


def _store(run: RunDirectory, arm: Arm, frame: pd.DataFrame) -> None:
    file = _file(run, arm, int(frame["step"].iloc[0]), str(frame["split"].iloc[0]))
    file.parent.mkdir(exist_ok=True)
    with replacing(file) as partial:
        frame.astype({"right": float, "offered": float}).to_parquet(partial)
