"""Runs with a library whose truth is known: a real run directory, journal and SkillLibrary, and a player by a rule.

In every home each object has one true place. A task asks for an object; a lesson names a place, the right one or
another, and a skill that names the right place helps to win. No policy is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skill1.config import Config, load_config, method_of_variant
from skill1.encoder import HashEncoder
from skill1.library import SkillLibrary
from skill1.methods.library_method import JOURNAL
from skill1.records import Candidate, Lesson, Rollout, Task
from skill1.store.checkpoints import mark_complete
from skill1.store.journal import Journal, LibraryEvent
from skill1.store.run_directory import RunDirectory
from skill1.store.skill_file import as_skills
from skill1.store.skill_source import read_written

OBJECTS, PLACES = ("mug", "egg", "lamp", "book", "soap", "knife"), ("shelf", "drawer", "fridge", "table", "sink")
WITH, WITHOUT = 0.8, 0.2  # chance to win with a skill that names the right place, and otherwise


def rollout(
    candidates: Sequence[Candidate | str] = (),
    outcome: float = 0.0,
    *,
    group: int = 0,
    index: int = 0,
    ranking: Sequence[int] | None = None,
    lesson: tuple[str, str] | None = None,
    query: str = "mug",
    game: str = "game",
) -> Rollout:
    """A rollout without turns; candidates by id (with U = .5) or as retrieved, the first ranked is selected."""
    found = tuple(c if isinstance(c, Candidate) else Candidate(c, 0.5, 0.9, 0.9) for c in candidates)
    order = tuple(range(len(found)) if ranking is None else ranking)
    return Rollout(
        task=Task("alfworld", "train", game, "Pick"), instruction=query, group=group, index=index, query=query,
        turns=(), candidates=found, ranking=order, ranking_parsed=True,
        selected=found[order[0]].skill if found else None, skill="", skill_similarity=float("nan"), outcome=outcome,
        score=outcome, steps=1, lesson=Lesson(*lesson) if lesson else None,
    )  # fmt: skip


def config(variant: str = "full", **changed: object) -> Config:
    """The nano preset with the hash encoder; `a__b` stands for `a.b`."""
    library = {"library.encoder": "hash", "library.similarity_floor": None, "library.exploration": 0.0}
    given = library if method_of_variant(variant).uses_library else {}
    return load_config("nano", variant, given | {name.replace("__", "."): value for name, value in changed.items()})


def write_run(path: Path, steps: Sequence[Sequence[Rollout]], made: Config) -> RunDirectory:
    """Store `steps` as a run that ends with a checkpoint of its library."""
    run = RunDirectory.create(path, made, "hash")
    library = SkillLibrary(made.library, HashEncoder())
    if made.library.start is not None:
        skills = as_skills(read_written(Path(made.library.start)), made.library.initial_utility)
        event = LibraryEvent(1, 0, (), skills, (), ())
        library.apply(event)
        Journal(run.library_dir / JOURNAL).append(event)
    for step, rollouts in enumerate(steps, start=1):
        _store(run, library, step, rollouts)
    _finish(run, library, len(steps))
    return run


def play_run(
    path: Path,
    made: Config,
    *,
    steps: int = 12,
    homes: int = 3,
    right: float = 0.7,
    pick: str = "random",
    seed: int = 0,
) -> RunDirectory:
    """A run of `steps` steps in `homes` homes.

    Args:
        right: share of the lessons that name the right place.
        pick: "random" candidate, or the one of highest "utility".
    """
    rng = np.random.default_rng(seed)
    truth = {(home, thing): str(rng.choice(PLACES)) for home in range(homes) for thing in OBJECTS}
    run = RunDirectory.create(path, made, "hash")
    library = SkillLibrary(made.library, HashEncoder())
    for step in range(1, steps + 1):
        rollouts = []
        for group in range(made.rollout.tasks_per_step):
            home, thing = int(rng.integers(homes)), str(rng.choice(OBJECTS))
            query = f"{thing} home{home}"
            for index in range(made.rollout.group_size):
                [found] = library.retrieve([query], "ucb")
                order = list(rng.permutation(len(found)))
                if pick == "utility":
                    order = sorted(order, key=lambda i: -found[i].utility)
                helps = bool(found) and library[found[order[0]].skill].strategy == f"{query} in {truth[home, thing]}"
                told = truth[home, thing] if rng.random() < right else str(rng.choice(PLACES))
                won = float(rng.random() < (WITH if helps else WITHOUT))
                lesson = (query, f"{query} in {told}")
                rollouts.append(
                    rollout(found, won, group=group, index=index, ranking=order, lesson=lesson, query=query, game=query)
                )
        _store(run, library, step, rollouts)
    _finish(run, library, steps)
    return run


def _store(run: RunDirectory, library: SkillLibrary, step: int, rollouts: Sequence[Rollout]) -> None:
    event = library.learn(rollouts, step)
    Journal(run.library_dir / JOURNAL).append(event)
    run.write_rollouts(step, rollouts)
    metrics = {
        "reward": np.mean([r.outcome for r in rollouts]),
        "library/size": float(len(library)),
        "library/retired": float(len(event.retired)),
        "library/mean_utility": float(np.mean([s.utility for s in library])) if len(library) else float("nan"),
    }
    run.log(step, metrics)


def _finish(run: RunDirectory, library: SkillLibrary, step: int) -> None:
    folder = run.checkpoint_dir(step)
    folder.mkdir()
    library.save(folder / "library")
    mark_complete(folder, step, {})
    run.close()
