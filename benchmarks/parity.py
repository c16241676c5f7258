"""Parity: recordings of the original environments replayed on this project's engines, every difference counted.

    python benchmarks/parity.py alfworld --data DIR --recording FILE.jsonl.xz    # TextWorld; DIR as $ALFWORLD_DATA
    python benchmarks/parity.py webshop --data DIR --recording FILE.jsonl.xz     # WebShop's text environment
    python benchmarks/parity.py lucene --data DIR --recording FILE.jsonl.xz      # its search engine

Prints the counts as one JSON line and the first ten differences to stderr; status 1 on any difference. A recording is
one JSON object a line, xz-compressed:

ALFWorld, one object a game: game ("<split>/<task>/<trial>"), reset {observation, admissible, won}, steps [{action,
observation, admissible, won, reward, done}], with `help` among the admissible commands and without a step limit.

WebShop, a header {source, random_seed_before_load, noun_function, n_goals, goals_sha256, drawn_prices}, whose source
says in words whether the goals are human ones ("human goals") and the pages rich ("observation_mode=text_rich"), then
one object an episode: goal_index, goal, reset, available0, steps [{action, observation, reward, done, available, and at
the end components}]. Only the fields that a header, a goal or the components have are compared.

Lucene, one object a query: query, tokens, hits (ids of the top 50), scores (of the first ten, to four places).
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from skill1.envs.alfworld.data import GameTree
from skill1.envs.alfworld.engine import RunningGame
from skill1.envs.base import DataError
from skill1.envs.webshop.data import Files, load_catalogue
from skill1.envs.webshop.engine import HITS, Shop
from skill1.envs.webshop.goals import Goal, Kind
from skill1.envs.webshop.nouns import words
from skill1.envs.webshop.pages import Mode, State
from skill1.envs.webshop.reward import Nouns, Outcome
from skill1.envs.webshop.text import analyze

Record = Mapping[str, Any]
# What a recording says its noun function was -> the function here.
NOUN_FUNCTIONS: Mapping[str, Nouns] = {"re.findall(r'[a-z][a-z0-9]*', text.lower())": words}
SHOWN = 10
_ROUNDED = 0.51e-4  # scores are recorded to four places


class Report:
    """Counts of what was replayed, and the first ten differences."""

    def __init__(self, *counted: str) -> None:
        self.counts = Counter(dict.fromkeys((*counted, "mismatches"), 0))
        self.first: list[dict[str, Any]] = []

    def compare(self, where: str, step: int, recorded: Record, native: Record) -> None:
        """Compare the fields of `native`; step 0 is a reset. Raises KeyError if the recording lacks one."""
        for field, value in native.items():
            if recorded[field] != value:
                self.counts["mismatches"] += 1
                if len(self.first) < SHOWN:
                    shown = {"action": recorded.get("action"), "recorded": recorded[field], "native": value}
                    self.first.append({"where": where, "step": step, "field": field, **shown})


def read_recording(path: Path) -> Iterator[Record]:
    """The objects of a recording in order. Raises DataError if the file is unreadable, cut off, malformed or empty."""
    number = 0
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):  # noqa: B007 (the errors name it)
                yield json.loads(line)
    except OSError as error:
        raise DataError(f"cannot read the recording {path}: {error.strerror}") from error
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(f"the recording {path} is not an xz file or is cut off after line {number}: {error}") from error
    except ValueError as error:
        raise DataError(f"the recording {path} is malformed in line {number}: {error!r}") from error
    if not number:
        raise DataError(f"the recording {path} is empty")


def replay_alfworld(data: Path, recording: Path) -> Report:
    """Play a recording's actions on the games below `data`. Raises DataError if a game is missing or corrupt."""
    report, tree = Report("games", "steps"), GameTree(data)
    for record in read_recording(recording):
        game = RunningGame(tree.game(record["game"]))
        report.counts["games"] += 1
        for number, row in enumerate((record["reset"], *record["steps"])):
            native: dict[str, Any] = {}
            if number:
                game.step(row["action"])
                report.counts["steps"] += 1
                native = {"reward": int(game.won), "done": game.won}
            native |= {"observation": game.text, "admissible": list(game.admissible), "won": game.won}
            report.compare(record["game"], number, row, native)
    return report


def replay_webshop(data: Path, recording: Path) -> Report:
    """Play a recording's actions on the catalogue in `data`. Raises DataError as `Files.find`."""
    report, lines = Report("episodes", "steps", "purchases"), read_recording(recording)
    header = next(lines)
    if header["noun_function"] not in NOUN_FUNCTIONS:
        known = ", ".join(NOUN_FUNCTIONS)
        raise DataError(f"{recording} was made with the noun function {header['noun_function']!r}, not with {known}")
    kind: Kind = "human" if "human goals" in header["source"] else "synthetic"
    mode: Mode = "text_rich" if "observation_mode=text_rich" in header["source"] else "text"
    nouns, seed = NOUN_FUNCTIONS[header["noun_function"]], header["random_seed_before_load"]
    shop = Shop(load_catalogue(Files.find(data)), kind, seed=seed, nouns=nouns)
    drawn = {p.asin: float(price) for p, price in zip(shop.products, shop.prices, strict=True) if len(p.prices) > 1}
    native = {"n_goals": len(shop.goals), "goals_sha256": shop.goals.sha256(), "drawn_prices": drawn}
    report.compare("header", 0, header, _known(native, header))
    for record in lines:
        if not 0 <= record["goal_index"] < len(shop.goals):
            raise DataError(f"the recording {recording} plays goal {record['goal_index']} of {len(shop.goals)}")
        _shop(shop, mode, record, report)
    return report


def replay_lucene(data: Path, recording: Path) -> Report:
    """Ask the recorded queries on the catalogue in `data`: tokens, the order of the top 50, and scores."""
    report, catalogue = Report("queries", "identical"), load_catalogue(Files.find(data))
    for record in read_recording(recording):
        hits = catalogue.index.search(record["query"], HITS)
        scores = [score for _, score in hits[: len(record["scores"])]]
        near = len(scores) == len(record["scores"]) and all(
            abs(ours - theirs) <= _ROUNDED for ours, theirs in zip(scores, record["scores"], strict=True)
        )
        found = [catalogue.products[p].asin for p, _ in hits]
        native = {"tokens": analyze(record["query"]), "hits": found, "scores": record["scores"] if near else scores}
        report.compare(record["query"], 0, record, native)
        report.counts["queries"] += 1
        report.counts["identical"] += found == record["hits"]
    return report


def _shop(shop: Shop, mode: Mode, record: Record, report: Report) -> None:
    where, goal, state = f"goal {record['goal_index']}", shop.goals[record["goal_index"]], State()
    asked = _known(_goal(goal, shop.goals.kind), record["goal"])
    native: dict[str, Any] = {
        "goal": asked,
        "reset": shop.observe(state, goal, mode),
        "available0": _available(shop, state),
    }
    report.compare(where, 0, record, native)
    for number, step in enumerate(record["steps"], start=1):
        before, state = state, shop.step(state, goal, step["action"])
        bought = state.outcome is not None and before.outcome is None
        native = {
            "observation": shop.observe(state, goal, mode),
            "reward": state.outcome.score if bought and state.outcome else 0.0,
            "done": bought,
            "available": _available(shop, state),
        }
        if "components" in step:
            native["components"] = _components(state.outcome, goal) if bought and state.outcome else None
        report.compare(where, number, step, native)
    report.counts.update(episodes=1, steps=len(record["steps"]), purchases=int(state.outcome is not None))


def _known(native: Record, recorded: Record) -> dict[str, Any]:
    return {name: value for name, value in native.items() if name in recorded}


def _available(shop: Shop, state: State) -> dict[str, Any]:
    return {"has_search_bar": state.page == "index", "clickables": list(shop.clickables(state))}


def _goal(goal: Goal, kind: Kind) -> dict[str, Any]:
    """The goal as the original's dictionary."""
    return {
        "asin": goal.asin, "category": goal.category, "query": goal.query, "name": goal.name,
        "product_category": goal.breadcrumb, "instruction_text": goal.text, "attributes": list(goal.attributes),
        "price_upper": goal.price_upper,
        "goal_options": list(goal.options) if kind == "human" else dict(goal.options),  # type: ignore[arg-type]
    }  # fmt: skip


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


REPLAYS: Mapping[str, Callable[[Any, Path], Report]] = {
    "alfworld": replay_alfworld, "webshop": replay_webshop, "lucene": replay_lucene,
}  # fmt: skip


def main(given: list[str] | None = None) -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", choices=REPLAYS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the games, or of WebShop's files")
    parser.add_argument("--recording", type=Path, required=True, help="jsonl.xz, made with the original")
    asked = parser.parse_args(given)
    try:
        report = REPLAYS[asked.original](asked.data, asked.recording)
    except KeyError as error:
        print(f"error: the recording {asked.recording} lacks the field {error}", file=sys.stderr)
        return 2
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for difference in report.first:
        print(json.dumps(difference), file=sys.stderr)
    print(json.dumps(report.counts))
    return int(report.counts["mismatches"] > 0)


if __name__ == "__main__":
    sys.exit(main())
