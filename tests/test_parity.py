"""Recordings of the originals replay without a difference, and `benchmarks/parity.py` notices what differs."""

from __future__ import annotations

import copy
import hashlib
import json
import lzma
import runpy
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from alfworld_room import room, write_game
from webshop_shop import open_shop, write_files

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "data"
parity = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "parity.py")))
(NOUNS,) = parity.NOUN_FUNCTIONS
GAME = "train/pick_heat_then_place_in_recep-Apple-None-Fridge-1/trial_1"
AWAY = ["go to countertop 1", "go to fridge 1", "go to microwave 1", "go to sinkbasin 1", "help", "inventory", "look"]
RECORD = {
    "game": GAME,
    "reset": {
        "observation": "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around "
        "you, you see a countertop 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\nYour task is to: put a hot "
        "apple in fridge.",
        "admissible": AWAY,
        "won": False,
    },
    "steps": [
        {
            "action": "go to fridge 1",
            "observation": "You arrive at fridge 1. The fridge 1 is closed.",
            "admissible": sorted({*AWAY, "examine fridge 1", "open fridge 1"} - {"go to fridge 1"}),
            "won": False, "reward": 0, "done": False,
        }
    ],
}  # fmt: skip
INDEX = {"has_search_bar": True, "clickables": ["search"]}


@pytest.fixture
def games(tmp_path):
    write_game(tmp_path, GAME)
    return tmp_path


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("data"))


@pytest.fixture
def shopping(shop):
    """Header and one purchase of a human goal, written down by hand."""
    opened = open_shop(shop, "human", seed=7)
    texts = [goal.text for goal in opened.goals]
    number = next(n for n, text in enumerate(texts) if text.startswith("any lamp"))
    text = texts[number]
    header = {
        "source": "by hand, human goals", "random_seed_before_load": 7, "noun_function": NOUNS, "n_goals": 2,
        "goals_sha256": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
        "drawn_prices": {"B000000002": float(opened.prices[1])},
    }  # fmt: skip
    head = f"Instruction: [SEP] {text} [SEP] Back to Search [SEP] "
    step = {"reward": 0.0, "done": False}
    episode = {
        "goal_index": number,
        "goal": {"asin": "B000000003", "goal_options": [], "attributes": ["lamp"], "instruction_text": text},
        "reset": f"WebShop [SEP] Instruction: [SEP] {text} [SEP] Search",
        "available0": INDEX,
        "steps": [
            step | {
                "action": "search[plain]",
                "observation": f"{head}Page 1 (Total results: 1) [SEP] Next > [SEP] B000000003 [SEP] "
                "Plain <b>Lamp</b> & More [SEP] $100.0",
                "available": {"has_search_bar": False, "clickables": ["back to search", "next >", "b000000003"]},
            },
            step | {
                "action": "click[b000000003]",
                "observation": f"{head}< Prev [SEP] Plain <b>Lamp</b> & More [SEP] Price: $100.0 [SEP] Rating: N.A. "
                "[SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now",
                "available": {
                    "has_search_bar": False,
                    "clickables": ["back to search", "< prev", "description", "features", "reviews", "buy now"],
                },
            },
            {
                "action": "click[buy now]", "reward": 1.0, "done": True,
                "observation": "Thank you for shopping with us! [SEP] Your code: [SEP] None [SEP] (Paste it in your "
                "MTurk interface.) [SEP] Purchased [SEP] asin [SEP] B000000003 [SEP] options [SEP] {} [SEP] attrs "
                "[SEP] None [SEP] category [SEP] None [SEP] query [SEP] None [SEP] product category [SEP] None [SEP] "
                "Target [SEP] asin [SEP] options [SEP] attrs [SEP] price upper [SEP] instuction text [SEP] category "
                "[SEP] product category [SEP] query [SEP] Goal [SEP] None [SEP] Reward [SEP] Your score (min 0.0, "
                "max 1.0) [SEP] 1.0 [SEP] Reward Details [SEP] None",
                "available": {"has_search_bar": False, "clickables": []},
                "components": {
                    "r_type": 1.0, "r_att": 1.0, "w_att": 0.5, "query_match": True, "category_match": True,
                    "title_score": 0.8, "r_price": True, "w_price": 0.5,
                },
            },
        ],
    }  # fmt: skip
    return header, episode


def write(folder, *records):
    path = folder / "recording.jsonl.xz"
    path.write_bytes(lzma.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    return path


def unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def run(capsys, original, data, recording):
    status = parity.main([original, "--data", str(data), "--recording", str(recording)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def counts(capsys, original, data, recording):
    """What the command counts where nothing differs."""
    status, out, err = run(capsys, original, data, recording)
    assert (status, err) == (0, "")
    return json.loads(out)


@pytest.fixture
def cut_shop(tmp_path):
    for packed in (RECORDED / "webshop").glob("items_*.json.xz"):
        (tmp_path / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
    return tmp_path


def test_recorded_games_replay_without_difference(tmp_path, capsys):
    folder = unpack(RECORDED / "alfworld" / "games.tar.xz", tmp_path)
    found = counts(capsys, "alfworld", folder, RECORDED / "alfworld" / "recording.jsonl.xz")
    assert found == {"games": 12, "steps": 158, "mismatches": 0}


def test_recorded_shopping_replays_without_difference(cut_shop, capsys):
    found = counts(capsys, "webshop", cut_shop, RECORDED / "webshop" / "recording.jsonl.xz")
    assert found == {"episodes": 8, "steps": 131, "purchases": 6, "mismatches": 0}
    found = counts(capsys, "lucene", cut_shop, RECORDED / "webshop" / "lucene.jsonl.xz")
    assert found == {"queries": 40, "identical": 40, "mismatches": 0}


@pytest.mark.slow
def test_all_recordings_replay_without_difference(shared_data, tmp_path, capsys):
    """The whole recordings, where they are at hand."""
    folder = unpack(shared_data / "alfworld" / "valid_seen.tar.xz", tmp_path)
    found = counts(capsys, "alfworld", folder, shared_data / "alfworld" / "transcripts_seen.jsonl.xz")
    assert found == {"games": 140, "steps": 1756, "mismatches": 0}
    shop = shared_data / "webshop"
    found = counts(capsys, "webshop", shop, shop / "transcripts_dev.jsonl.xz")
    assert found == {"episodes": 150, "steps": 3138, "purchases": 18, "mismatches": 0}
    found = counts(capsys, "lucene", shop, shop / "lucene_dev.jsonl.xz")
    assert found == {"queries": 1000, "identical": 1000, "mismatches": 0}


@pytest.mark.parametrize(
    ("field", "value"),
    [("observation", "You arrive."), ("admissible", AWAY), ("won", True), ("reward", 1), ("done", True)],
)
def test_each_field_of_a_game_is_compared(games, capsys, field, value):
    assert counts(capsys, "alfworld", games, write(games, RECORD)) == {"games": 1, "steps": 1, "mismatches": 0}
    changed = RECORD | {"steps": [RECORD["steps"][0] | {field: value}]}
    status, out, err = run(capsys, "alfworld", games, write(games, RECORD, changed))
    assert status == 1 and json.loads(out) == {"games": 2, "steps": 2, "mismatches": 1}
    shown = json.loads(err)
    assert (shown["step"], shown["action"], shown["field"], shown["recorded"]) == (1, "go to fridge 1", field, value)


def test_the_reset_is_compared_and_ten_differences_are_shown(games):
    changed = RECORD | {"reset": RECORD["reset"] | {"won": True}}
    report = parity.replay_alfworld(games, write(games, *[changed] * 12))
    assert (report.counts["mismatches"], len(report.first)) == (12, 10)
    first = report.first[0]
    assert (first["step"], first["action"], first["field"]) == (0, None, "won")


@pytest.mark.parametrize(
    "step, field, value",
    [
        (0, "observation", "Instruction:"), (0, "reward", 0.5), (1, "done", True), (0, "available", INDEX),
        (2, "components", {}), (2, "reward", 0.9),
    ],
)  # fmt: skip
def test_each_field_of_a_purchase_is_compared(shop, shopping, tmp_path, capsys, step, field, value):
    header, episode = shopping
    played = {"episodes": 1, "steps": 3, "purchases": 1}
    assert counts(capsys, "webshop", shop, write(tmp_path, header, episode)) == played | {"mismatches": 0}
    changed = copy.deepcopy(episode)
    changed["steps"][step][field] = value
    status, out, err = run(capsys, "webshop", shop, write(tmp_path, header, changed))
    assert status == 1 and json.loads(out) == played | {"mismatches": 1}
    shown = json.loads(err)
    assert (shown["where"], shown["step"], shown["field"]) == (f"goal {episode['goal_index']}", step + 1, field)
    assert shown["recorded"] == value and shown["action"] == episode["steps"][step]["action"]


def test_the_header_the_goal_and_the_reset_are_compared(shop, shopping, tmp_path):
    header, episode = shopping
    for name, value in (("n_goals", 3), ("goals_sha256", ""), ("drawn_prices", {})):
        (found,) = parity.replay_webshop(shop, write(tmp_path, header | {name: value}, episode)).first
        assert (found["where"], found["field"], found["recorded"]) == ("header", name, value)
    wrong = episode | {"goal": episode["goal"] | {"asin": "other"}, "reset": "", "available0": {}}
    report = parity.replay_webshop(shop, write(tmp_path, header, *[wrong] * 4))
    assert (report.counts["mismatches"], len(report.first)) == (12, 10)
    assert [found["field"] for found in report.first[:3]] == ["goal", "reset", "available0"]


def test_rankings_are_compared(shop, tmp_path, capsys):
    index = open_shop(shop)
    hits = [index.products[p].asin for p in index.search("brass lamps")]
    right = {"query": "brass LAMPS", "tokens": ["brass", "lamp"], "hits": hits, "scores": [2.9]}
    best = parity.replay_lucene(shop, write(tmp_path, right)).first[0]["native"][0]  # the only thing not known
    scored = right | {"scores": [round(best, 4)]}
    others = (scored | {"tokens": []}, scored | {"hits": hits[::-1]})
    status, out, err = run(capsys, "lucene", shop, write(tmp_path, scored, *others))
    assert status == 1 and json.loads(out) == {"queries": 3, "identical": 2, "mismatches": 2}
    assert [json.loads(line)["field"] for line in err.splitlines()] == ["tokens", "hits"]
    (found,) = parity.replay_lucene(shop, write(tmp_path, scored | {"scores": [best + 2e-4]})).first
    assert found["field"] == "scores"


def test_unusable_input_is_refused_in_a_line(games, shop, shopping, tmp_path, capsys):
    def refused(original, data, path, message):
        status, out, err = run(capsys, original, data, path)
        assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err, err

    header, episode = shopping
    path = write(games, RECORD)
    path.write_bytes(path.read_bytes()[:200])
    refused("alfworld", games, path, "cut off after line 0")
    path.write_text("plain text")
    refused("lucene", shop, path, "not an xz file")
    path.write_bytes(lzma.compress(b'{"game": \n'))
    refused("alfworld", games, path, "malformed in line 1")
    refused("alfworld", games, write(games, RECORD, {"game": GAME}), "lacks the field 'reset'")
    refused("webshop", shop, write(tmp_path, episode), "lacks the field 'noun_function'")
    refused("lucene", shop, write(tmp_path, {"query": "x", "tokens": []}), "lacks the field 'scores'")
    for original, data in (("alfworld", games), ("webshop", shop), ("lucene", shop)):
        refused(original, data, write(tmp_path), "is empty")
        refused(original, data, tmp_path / "absent", "cannot read the recording")
        refused(original, tmp_path / "nowhere", write(tmp_path, header, episode), "there is no folder")
    refused("webshop", shop, write(tmp_path, header, episode | {"goal_index": 2}), "plays goal 2 of 2")
    other = header | {"noun_function": "spacy"}
    refused("webshop", shop, write(tmp_path, other, episode), "noun function 'spacy', not with re.findall")
    other = RECORD | {"game": "valid_seen/other/trial_1"}
    refused("alfworld", games, write(games, other), "no game 'valid_seen/other/trial_1'")
    broken = write_game(games, GAME.replace("trial_1", "trial_2"), room() | {"grammar": ""})
    refused("alfworld", games, write(games, RECORD | {"game": GAME.replace("trial_1", "trial_2")}), str(broken))
