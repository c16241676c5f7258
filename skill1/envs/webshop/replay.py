"""Replays recordings of the original: episodes of its text environment, and Lucene's answers to queries.

Episodes (`.jsonl.xz`): a header {source, random_seed_before_load, noun_function, n_goals, goals_sha256, drawn_prices},
then one object an episode: goal_index, goal, reset, available0, steps [{action, observation, reward, done, available,
and at the end components}]. The header's source says in words whether the goals are human ones ("human goals") and the
observations rich ("observation_mode=text_rich"); otherwise they are synthetic ones and plain text.

Queries: one object each: query, tokens, hits (ids of the top 50), scores (of the first ten, rounded to four places).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skill1.envs.base import DataError
from skill1.envs.recording import Record, read_recording
from skill1.envs.webshop.data import Files, load_catalogue
from skill1.envs.webshop.engine import HITS, Shop
from skill1.envs.webshop.goals import Goal, Kind
from skill1.envs.webshop.nouns import words
from skill1.envs.webshop.pages import Mode, State
from skill1.envs.webshop.reward import Nouns, Outcome
from skill1.envs.webshop.text import analyze

# What a recording says its noun function was -> the function here.
NOUN_FUNCTIONS: Mapping[str, Nouns] = {"re.findall(r'[a-z][a-z0-9]*', text.lower())": words}
_HEADER = ("source", "random_seed_before_load", "noun_function", "n_goals", "goals_sha256", "drawn_prices")
_EPISODE = ("goal_index", "goal", "reset", "available0", "steps")
_STEP = ("action", "observation", "reward", "done", "available")
_GOAL = (
    "asin", "category", "query", "name", "product_category", "instruction_text", "attributes", "price_upper",
    "goal_options",
)  # fmt: skip
_QUERY = ("query", "tokens", "hits", "scores")
_SHOWN = 10
_ROUNDED = 0.51e-4  # scores are recorded to four places


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One differing field, of the header, of an episode (step 0 is the reset) or of a query."""

    where: str
    step: int
    action: str | None
    field: str
    recorded: Any
    native: Any


class _Mismatches:
    """Counts differing fields and keeps the first ten."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Mismatch] = []

    def compare(
        self, where: str, step: int, action: str | None, recorded: Mapping[str, Any], native: Mapping[str, Any]
    ) -> None:
        """Compare the fields of `native`."""
        for field, value in native.items():
            if recorded[field] != value:
                self.count += 1
                if len(self.first) < _SHOWN:
                    self.first.append(Mismatch(where, step, action, field, recorded[field], value))


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """`mismatches` counts differing fields; `first` holds the first ten of them."""

    episodes: int
    steps: int
    purchases: int
    mismatches: int
    first: tuple[Mismatch, ...]


@dataclass(frozen=True, slots=True)
class RankingReport:
    """`identical` counts queries with the same top 50 in the same order."""

    queries: int
    identical: int
    mismatches: int
    first: tuple[Mismatch, ...]


def replay(data: str | Path | None, transcripts: str | Path) -> ReplayReport:
    """Play a recording's actions on the catalogue in `data` (None: $WEBSHOP_DATA) and compare every recorded field.

    Raises:
        DataError: the catalogue is missing or malformed, or the recording is unreadable, truncated, malformed or empty.
    """
    catalogue = load_catalogue(Files.find(data))
    lines = _lines(Path(transcripts), (_HEADER, _EPISODE))
    header = next(lines, None)
    if header is None:
        raise DataError(f"the recording {transcripts} is empty")
    if header["noun_function"] not in NOUN_FUNCTIONS:
        raise DataError(
            f"the recording {transcripts} was made with the noun function {header['noun_function']!r}, "
            f"which is none of {', '.join(NOUN_FUNCTIONS)}"
        )
    kind = "human" if "human goals" in header["source"] else "synthetic"
    mode = "text_rich" if "observation_mode=text_rich" in header["source"] else "text"
    nouns = NOUN_FUNCTIONS[header["noun_function"]]
    shop = Shop(catalogue, kind, seed=header["random_seed_before_load"], nouns=nouns)
    found = _Mismatches()
    drawn = {p.asin: float(price) for p, price in zip(shop.products, shop.prices, strict=True) if len(p.prices) > 1}
    native = {"n_goals": len(shop.goals), "goals_sha256": shop.goals.sha256(), "drawn_prices": drawn}
    found.compare("header", 0, None, header, native)
    episodes = steps = purchases = 0
    for record in lines:
        if not 0 <= record["goal_index"] < len(shop.goals):
            raise DataError(f"the recording {transcripts} plays goal {record['goal_index']} of {len(shop.goals)}")
        played, bought = _play(shop, mode, record, found)
        episodes, steps, purchases = episodes + 1, steps + played, purchases + bought
    if not episodes:
        raise DataError(f"the recording {transcripts} holds no episode")
    return ReplayReport(episodes, steps, purchases, found.count, tuple(found.first))


def replay_ranking(data: str | Path | None, queries: str | Path) -> RankingReport:
    """Ask the recorded queries on the catalogue in `data`: tokens, the order of the top 50, and scores.

    Raises DataError as `replay` does.
    """
    catalogue = load_catalogue(Files.find(data))
    found = _Mismatches()
    asked = identical = 0
    for record in _lines(Path(queries), (_QUERY,)):
        hits = catalogue.index.search(record["query"], HITS)
        native = {"tokens": analyze(record["query"]), "hits": [catalogue.products[p].asin for p, _ in hits]}
        scores = [score for _, score in hits[: len(record["scores"])]]
        near = len(scores) == len(record["scores"]) and all(
            abs(ours - theirs) <= _ROUNDED for ours, theirs in zip(scores, record["scores"], strict=True)
        )
        native["scores"] = record["scores"] if near else scores
        found.compare(record["query"], 0, None, record, native)
        asked += 1
        identical += native["hits"] == record["hits"]
    if not asked:
        raise DataError(f"the recording {queries} holds no query")
    return RankingReport(asked, identical, found.count, tuple(found.first))


def report_command(report: ReplayReport | RankingReport) -> int:
    """Print the counts as one JSON line and the first mismatches to stderr; 1 if there are any, else 0."""
    for mismatch in report.first:
        print(json.dumps(asdict(mismatch)), file=sys.stderr)
    print(json.dumps({name: value for name, value in asdict(report).items() if name != "first"}))
    return int(report.mismatches > 0)


def _play(shop: Shop, mode: Mode, record: Mapping[str, Any], found: _Mismatches) -> tuple[int, int]:
    """Steps and purchases of one episode."""
    where = f"goal {record['goal_index']}"
    goal, state = shop.goals[record["goal_index"]], State()
    native = {"goal": {name: value for name, value in _goal(goal, shop.goals.kind).items() if name in record["goal"]}}
    native |= {"reset": shop.observe(state, goal, mode), "available0": _available(shop, state)}
    found.compare(where, 0, None, record, native)
    for number, step in enumerate(record["steps"], start=1):
        before, state = state, shop.step(state, goal, step["action"])
        bought = state.outcome is not None and before.outcome is None
        native = {
            "observation": shop.observe(state, goal, mode),
            "reward": state.outcome.score if bought else 0.0,
            "done": bought,
            "available": _available(shop, state),
        }
        if "components" in step:
            native["components"] = _components(state.outcome, goal) if bought else None
        found.compare(where, number, step["action"], step, native)
    return len(record["steps"]), int(state.outcome is not None)


def _available(shop: Shop, state: State) -> dict[str, Any]:
    return {"has_search_bar": state.page == "index", "clickables": list(shop.clickables(state))}


def _goal(goal: Goal, kind: Kind) -> dict[str, Any]:
    """The goal as the original's dictionary."""
    options = list(goal.options) if kind == "human" else dict(goal.options)
    values = (
        goal.asin, goal.category, goal.query, goal.name, goal.breadcrumb, goal.text, list(goal.attributes),
        goal.price_upper, options,
    )  # fmt: skip
    return dict(zip(_GOAL, values, strict=True))


def _components(outcome: Outcome, goal: Goal) -> dict[str, Any]:
    """The outcome as the original's dictionary of parts and their weights."""
    parts = len(goal.attributes) + len(goal.options) + 1
    components = {
        "r_type": outcome.type, "r_att": outcome.attributes, "w_att": len(goal.attributes) / parts,
        "query_match": outcome.same_query, "category_match": outcome.same_category, "title_score": outcome.title,
        "r_price": outcome.price, "w_price": 1 / parts,
    }  # fmt: skip
    if goal.options:
        components |= {"r_option": outcome.options, "w_option": len(goal.options) / parts}
    return components


def _lines(path: Path, kinds: tuple[tuple[str, ...], ...]) -> Iterator[Record]:
    """The recording's objects; the first has the fields of the first kind, the others those of the last."""
    return read_recording(path, lambda record, number: _check(record, kinds[min(number, len(kinds)) - 1]))


def _check(record: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        record[name]
    for step in record["steps"] if "steps" in names else ():
        _check(step, _STEP)
