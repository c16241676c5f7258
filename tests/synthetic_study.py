"""A collected study made of numbers, without runs: outcomes and metrics such as real runs leave, in three files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from skill1.analysis.study import EVALUATIONS, SKILLS, Study

STEPS = 30
CATEGORIES = ("Pick", "Look", "Clean", "Heat", "Cool", "Pick2")
PRODUCTS = ("beauty", "electronics", "fashion", "garden", "grocery", "tools")  # stand for them in a shop
RATES = {
    "full": 0.62, "no_library": 0.45, "no_selection": 0.55, "no_distillation": 0.52, "lambda1_0": 0.58,
    "lambda2_0": 0.6, "lambdas_0": 0.5, "grpo": 0.45, "gigpo": 0.5,
    "skillrl": 0.52, "skillrl_released": 0.51,
    "retroagent_in_context": 0.53, "retroagent_rl": 0.54, "retroagent_in_context_released": 0.53,
    "retroagent_rl_released": 0.54, "mine": 0.56, "another": 0.5,
}  # fmt: skip
_WITHOUT_SKILLS = ("no_library", "grpo", "gigpo", "another")
EMPTY = SKILLS.empty_table().to_pandas()
_SIZES = {"valid_seen": 24, "valid_unseen": 12}


def make(
    runs: Mapping[str, Sequence[int]],
    *,
    passes: int = 2,
    splits: Sequence[str] = tuple(_SIZES),
    missing: Mapping[str, list[int]] | None = None,
    path: Path = Path("results/synthetic"),
    sizes: Mapping[str, int] = _SIZES,
) -> Study:
    """`runs`: variant -> seeds. Games of a split differ in difficulty; seeds of a variant by some points."""
    evaluations, metrics = [], []
    for variant, seeds in runs.items():
        library = variant not in _WITHOUT_SKILLS
        for seed in seeds:
            rng = np.random.default_rng((list(RATES).index(variant), seed))
            rate = RATES[variant] + 0.03 * rng.normal()
            played = [(0, "step0" if library else "none", 0.3), (STEPS, "none", rate - 0.08 if library else rate)]
            if library:
                played.append((STEPS, f"step{STEPS}", rate))
            for step, label, chance in played:
                for split in splits:
                    # before training all runs are one policy with one stream of random numbers
                    stream = np.random.default_rng(1) if step == 0 else rng
                    frame = outcomes(stream, split, chance - 0.1 * (split == "valid_unseen"), passes, sizes[split])
                    evaluations.append(frame.assign(variant=variant, seed=seed, step=step, library=label))
            metrics.append(signals(rng, library, variant).assign(variant=variant, seed=seed))
    manifest = {
        "format": 1,
        "name": path.name,
        "preset": "nano",
        "overrides": {"train.steps": STEPS},
        "passes": passes,
        "splits": list(splits),
        "data": "data/games",
        "data_hash": {"data/games train": "0"},
        "missing": dict(missing or {}),
        "runs": [
            {
                "variant": variant,
                "seed": seed,
                "steps": STEPS,
                "seconds": {"train": 300.0, "evaluate": 60.0 + seed},
                "sessions": [],
            }
            for variant, seeds in runs.items()
            for seed in seeds
        ],
        "machines": [],
    }
    frame = pd.concat(evaluations, ignore_index=True)[EVALUATIONS.names]
    skills = [
        held(variant, seed) for variant, seeds in runs.items() for seed in seeds if variant not in _WITHOUT_SKILLS
    ]
    return Study(path, frame, pd.concat(metrics, ignore_index=True), manifest, pd.concat([EMPTY, *skills]))


def held(variant: str, seed: int) -> pd.DataFrame:
    """Twelve skills of a run, a third of which say the same."""
    number = np.arange(12)
    return pd.DataFrame(
        {
            "variant": variant,
            "seed": seed,
            "encoder": "hash",
            "skill": [f"s{n:02d}" for n in number],
            "desc": [f"find thing {min(n, 8)} in home {seed}" for n in number],
            "strategy": [f"look in drawer {n}" for n in number],
            "utility": number / 12,
            "count": number + 1,
        }
    )


def in_own_worlds(study: Study) -> Study:
    """Return the same outcomes as those of a study in which every seed has a world of its own."""
    frame = study.evaluations
    named = frame.assign(game=frame["seed"].astype(str) + ":" + frame["game"])
    return replace(study, evaluations=named, manifest={**study.manifest, "data": "data/nano-world-{seed}"})


def in_a_shop(study: Study) -> Study:
    """A study of one split as one of WebShop: goals, product categories, and half the score for every second loss."""
    frame = study.evaluations
    half = np.where(frame["game"].str[-1].isin(list("13579")), 0.5, 0.0)
    frame = frame.assign(
        split="test",
        game="synthetic/00000" + frame["game"].str[-3:],
        category=frame["category"].map(dict(zip(CATEGORIES, PRODUCTS, strict=True))),
        score=np.where(frame["won"], 1.0, half),
    )
    goals = frame["game"].nunique()
    told = {"benchmark": "webshop", "ceiling": {"test": {"goals": goals, "reachable": goals - 1}}}
    manifest = {**study.manifest, "preset": "nano-webshop", "splits": ["test"], "data": "data/shop"} | told
    return replace(study, evaluations=frame, manifest=manifest)


def outcomes(rng: np.random.Generator, split: str, chance: float, passes: int, games: int) -> pd.DataFrame:
    ease = np.linspace(0.25, -0.25, len(CATEGORIES))
    frame = pd.DataFrame(
        [
            {"split": split, "game": f"{split}/g{game:03d}", "category": category, "pass": number}
            for game, category in zip(range(games), cycle(CATEGORIES))
            for number in range(passes)
        ]
    )
    hard = [ease[CATEGORIES.index(name)] for name in frame["category"]]
    won = rng.random(len(frame)) < np.clip(chance + np.array(hard), 0.02, 0.98)
    steps = np.where(won, rng.integers(4, 15, len(frame)), 18)
    return frame.assign(won=won, score=won.astype(float), steps=steps, invalid_actions=rng.binomial(steps, 0.04))


def signals(rng: np.random.Generator, library: bool, variant: str) -> pd.DataFrame:
    """Metrics of one run; the first three steps retrieve nothing."""
    step = np.arange(1, STEPS + 1)
    share = step / STEPS
    seen = np.where(step > 3, 1.0, np.nan)
    pull = 0.5 if variant in ("lambda1_0", "lambdas_0", "no_selection") else 1.0

    def noisy(values: np.ndarray, size: float = 0.02) -> np.ndarray:
        return values + size * rng.normal(size=STEPS)

    found = {"step": step, "reward": noisy(0.3 + 0.3 * share, 0.05)}
    if not library:
        return pd.DataFrame(found | {"u_hat": 0.0, "distill_positive_rate": np.nan})
    return pd.DataFrame(
        found
        | {
            "library/mean_utility": seen * noisy(0.5 + 0.04 * share),
            "selection/utility_retrieved": seen * noisy(0.5 + 0.1 * share * pull),
            "selection/utility_selected": seen * noisy(0.5 + 0.16 * share * pull),
            "distill_positive_rate": noisy(0.3 + 0.25 * share, 0.05),
            "skill_similarity": seen * noisy(0.7 + 0.1 * share * pull),
            "u_hat": np.where(step > 3, noisy(0.5 + 0.2 * share * pull), 0.0),
        }
    )


def write(study: Study, folder: Path) -> Path:
    """The files of a committed study; returns `folder`."""
    folder.mkdir(parents=True)
    skills = pa.Table.from_pandas(study.skills, schema=SKILLS, preserve_index=False)
    pq.write_table(skills, folder / "skills.parquet")
    pq.write_table(pa.Table.from_pandas(study.evaluations, schema=EVALUATIONS), folder / "evaluations.parquet")
    keys = [("variant", pa.string()), ("seed", pa.int64()), ("step", pa.int64())]
    names = sorted(set(study.metrics.columns) - {name for name, _ in keys})
    schema = pa.schema([*keys, *((name, pa.float64()) for name in names)])
    pq.write_table(pa.Table.from_pandas(study.metrics, schema=schema), folder / "metrics.parquet")
    (folder / "manifest.json").write_text(json.dumps({**study.manifest, "name": folder.name}))
    return folder
