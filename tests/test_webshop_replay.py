"""Recordings of the original and of Lucene replay without a mismatch, and the replay notices what differs."""

from __future__ import annotations

import copy
import hashlib
import json
import lzma

import pytest
from webshop_shop import open_shop, write_files

from skill1.cli import main as cli
from skill1.envs.base import DataError
from skill1.envs.webshop.replay import NOUN_FUNCTIONS, replay, replay_ranking, report_command

(NOUNS,) = NOUN_FUNCTIONS
INDEX = {"has_search_bar": True, "clickables": ["search"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("data"))


@pytest.fixture
def recording(folder):
    """One purchase of a human goal, written down by hand."""
    shop = open_shop(folder, "human", seed=7)
    texts = [goal.text for goal in shop.goals]
    number = next(n for n, text in enumerate(texts) if text.startswith("any lamp"))
    text = texts[number]
    header = {
        "source": "by hand, human goals", "random_seed_before_load": 7, "noun_function": NOUNS, "n_goals": 2,
        "goals_sha256": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
        "drawn_prices": {"B000000002": float(shop.prices[1])},
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


QUERY = {"query": "brass LAMPS", "tokens": ["brass", "lamp"], "hits": [], "scores": []}


def write(folder, *records):
    path = folder / "recording.jsonl.xz"
    path.write_bytes(lzma.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    return path


def published(shared_data, name):
    folder = shared_data / "webshop"
    for needed in ("items_shuffle_1000.json", name):
        if not (folder / needed).is_file():
            pytest.skip(f"{needed} is not in {folder}")
    return str(folder), str(folder / name)


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["replay", *words])
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


def test_recordings_of_the_original_replay_without_mismatch(shared_data, capsys):
    data, transcripts = published(shared_data, "transcripts_dev.jsonl.xz")
    status, out, err = run(capsys, "webshop", "--data", data, "--transcripts", transcripts)
    assert (status, err) == (0, "")
    assert json.loads(out) == {"episodes": 150, "steps": 3138, "purchases": 18, "mismatches": 0}


def test_lucenes_answers_are_identical(shared_data, capsys):
    data, queries = published(shared_data, "lucene_dev.jsonl.xz")
    status, out, err = run(capsys, "lucene", "--data", data, "--queries", queries)
    assert (status, err) == (0, "")
    assert json.loads(out) == {"queries": 1000, "identical": 1000, "mismatches": 0}


@pytest.mark.parametrize(
    "step, field, value",
    [
        (0, "observation", "Instruction:"), (0, "reward", 0.5), (1, "done", True), (0, "available", INDEX),
        (2, "components", {}), (2, "reward", 0.9),
    ],
)  # fmt: skip
def test_each_recorded_field_is_compared(folder, recording, tmp_path, capsys, step, field, value):
    header, episode = recording
    assert report_command(replay(folder, write(tmp_path, header, episode))) == 0
    counts = {"episodes": 1, "steps": 3, "purchases": 1}
    assert json.loads(capsys.readouterr().out) == counts | {"mismatches": 0}
    changed = copy.deepcopy(episode)
    changed["steps"][step][field] = value
    path = write(tmp_path, header, changed)
    status, out, err = run(capsys, "webshop", "--data", str(folder), "--transcripts", str(path))
    assert status == 1 and json.loads(out) == counts | {"mismatches": 1}
    shown = json.loads(err)
    assert (shown["where"], shown["step"], shown["field"]) == (f"goal {episode['goal_index']}", step + 1, field)
    assert shown["recorded"] == value and shown["action"] == episode["steps"][step]["action"]


def test_the_header_the_goal_and_the_reset_are_compared(folder, recording, tmp_path):
    header, episode = recording
    for name, value in (("n_goals", 3), ("goals_sha256", ""), ("drawn_prices", {})):
        (found,) = replay(folder, write(tmp_path, header | {name: value}, episode)).first
        assert (found.where, found.field, found.recorded) == ("header", name, value)
    goal = episode["goal"] | {"asin": "other"}
    report = replay(folder, write(tmp_path, header, *[episode | {"goal": goal, "reset": "", "available0": {}}] * 4))
    assert (report.mismatches, len(report.first)) == (12, 10)
    assert [found.field for found in report.first[:3]] == ["goal", "reset", "available0"]


def test_rankings_are_compared(folder, tmp_path, capsys):
    index = open_shop(folder)
    right = QUERY | {"hits": [index.products[p].asin for p in index.search("brass lamps")], "scores": [2.9]}
    best = replay_ranking(folder, write(tmp_path, right)).first[0].native[0]  # the only thing not known
    scored = right | {"scores": [round(best, 4)]}
    others = (scored | {"tokens": []}, scored | {"hits": right["hits"][::-1]})
    report = replay_ranking(folder, write(tmp_path, scored, *others))
    assert (report.queries, report.identical) == (3, 2)
    assert [found.field for found in report.first] == ["tokens", "hits"]
    (found,) = replay_ranking(folder, write(tmp_path, scored | {"scores": [best + 2e-4]})).first
    assert found.field == "scores"
    assert report_command(report) == 1 and '"identical": 2' in capsys.readouterr().out


def test_unusable_recordings_are_refused(folder, recording, tmp_path):
    header, episode = recording
    path = write(tmp_path, header, episode)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cut off after line 0"):
        replay(folder, path)
    path.write_text("plain text")
    with pytest.raises(DataError, match="not an xz file"):
        replay_ranking(folder, path)
    with pytest.raises(DataError, match="malformed in line 1: KeyError\\('source'\\)"):
        replay(folder, write(tmp_path, episode))
    with pytest.raises(DataError, match="malformed in line 2: KeyError\\('reward'\\)"):
        replay(folder, write(tmp_path, header, episode | {"steps": [{"action": "x", "observation": ""}]}))
    with pytest.raises(DataError, match="malformed in line 1: KeyError\\('hits'\\)"):
        replay_ranking(folder, write(tmp_path, {"query": "x", "tokens": []}))
    with pytest.raises(DataError, match="is empty"):
        replay(folder, write(tmp_path))
    with pytest.raises(DataError, match="holds no episode"):
        replay(folder, write(tmp_path, header))
    with pytest.raises(DataError, match="holds no query"):
        replay_ranking(folder, write(tmp_path))
    with pytest.raises(DataError, match="cannot read the recording .*absent"):
        replay(folder, tmp_path / "absent")
    with pytest.raises(DataError, match="plays goal 2 of 2"):
        replay(folder, write(tmp_path, header, episode | {"goal_index": 2}))
    with pytest.raises(DataError, match="noun function 'spacy', which is none of re.findall"):
        replay(folder, write(tmp_path, header | {"noun_function": "spacy"}, episode))


def test_user_errors_of_the_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    status, _, err = run(capsys, "webshop", "--transcripts", "x")
    assert status == 2 and err.startswith("error: no WebShop data: no folder is given and $WEBSHOP_DATA is empty")
    status, _, err = run(capsys, "lucene", "--data", str(tmp_path), "--queries", "x")
    assert status == 2 and "items_shuffle_1000.json is missing" in err
