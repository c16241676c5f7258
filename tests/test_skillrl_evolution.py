"""How a bank grows: which failures a teacher is shown, what stays of its answer, and that a restart changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill1.config import Config, load_config
from skill1.encoder import HashEncoder
from skill1.methods.skillrl.bank import BankError, Principle, SkillBank
from skill1.methods.skillrl.events import BankJournal
from skill1.methods.skillrl.evolution import Episode, accept, episode_of, pick_failures, tallies, weak_categories
from skill1.methods.skillrl.live import Answer, LiveBank, ask_teacher
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.methods.skillrl.teacher import TeacherError, read_answer
from skill1.records import Rollout, Task, Turn
from skill1.store.journal import Journal, LibraryError

CONFIG = SkillRLConfig()
SENTENCES = {
    "heat": "put a hot mug in shelf.",
    "cool": "put a cool mug in shelf.",
    "clean": "put a clean mug in shelf.",
}
_NO_TOKENS = np.zeros(1, dtype=np.int32)


def rollout(category: str, won: bool, steps: int = 7, name: str = "game") -> Rollout:
    turns = tuple(
        Turn("act", _NO_TOKENS, _NO_TOKENS, np.zeros(1, np.float32), "", f"go to shelf {i}", True, True, f"seen {i}")
        for i in range(steps)
    )
    return Rollout(
        task=Task("alfworld", "train", name, "Heat"), instruction=SENTENCES[category], group=0, index=0, query="",
        turns=turns, candidates=(), ranking=(), ranking_parsed=True, selected=None, skill="",
        skill_similarity=float("nan"), outcome=float(won), score=float(won), steps=steps, lesson=None,
    )  # fmt: skip


def batch(**rates: tuple[int, int]) -> list[Rollout]:
    """category=(won, played)"""
    return [rollout(name, i < won) for name, (won, played) in rates.items() for i in range(played)]


def entry(title: str, principle: str) -> dict[str, str]:
    return {"title": title, "principle": principle, "when_to_apply": ""}


class Says:
    """A teacher with a fixed answer, or a failure; keeps what it was asked."""

    def __init__(self, *answer: Any, error: str = "") -> None:
        self.answer, self.error, self.asked = list(answer), error, []

    def write(self, call: str, inputs: Any) -> list[Any]:
        self.asked.append((call, inputs))
        if self.error:
            raise TeacherError(self.error)
        return self.answer


def live(config: SkillRLConfig = CONFIG, bank: SkillBank = SkillBank()) -> LiveBank:
    return LiveBank(whole(config), HashEncoder(), bank)


def whole(config: SkillRLConfig = CONFIG) -> Config:
    return replace(load_config("nano", "skillrl"), method=config)


def run(bank: LiveBank, teacher: Says, steps: Sequence[Sequence[Rollout]], first: int = 1) -> list[Any]:
    """The events of some training steps."""
    events = []
    for step, rollouts in enumerate(steps, start=first):
        question = bank.observe(rollouts, step, "train")
        if question is not None:
            events.append(bank.learn(question, ask_teacher(teacher, question)))
    return events


# -- which failures ---------------------------------------------------------------------------------------------------


def test_no_call_when_every_category_is_at_the_threshold():
    teacher = Says(entry("a", "b"))
    assert run(live(), teacher, [batch(heat=(4, 10), cool=(10, 10))] * 5) == [] and not teacher.asked
    assert run(live(), teacher, [batch(heat=(3, 10), cool=(10, 10))] * 4) == []  # weak, but not the fifth step
    [event] = run(live(), teacher, [batch(heat=(3, 10), cool=(10, 10))] * 5)
    assert (event.step, event.source, event.success) == (5, "train", {"heat": (15, 50)})


def test_few_episodes_do_not_make_a_category_weak():
    found = tallies([Episode("", "heat", i < 1, ()) for i in range(7)] + [Episode("", "cool", False, ())] * 8)
    assert found == {"cool": (0, 8), "heat": (1, 7)}
    assert weak_categories(found, CONFIG) == ["cool"]
    assert weak_categories(found, replace(CONFIG, weak_rollouts=7)) == ["cool", "heat"]  # weakest first
    assert weak_categories({"a": (0, 8), "b": (0, 8)}, CONFIG) == ["a", "b"]  # ties by name


def test_every_evolution_looks_at_the_steps_since_the_last_one():
    lost, won = batch(heat=(0, 4)), batch(heat=(4, 4))
    events = run(live(), Says(), [lost] * 5 + [won] * 10 + [lost] * 2 + [won] * 3)
    assert [(e.step, e.success) for e in events] == [(5, {"heat": (0, 20)})]  # at step 20 it is 12 of 20


@given(
    lost=st.lists(st.sampled_from(["heat", "cool", "clean"]), max_size=30),
    won=st.lists(st.sampled_from(["heat", "cool"]), max_size=10),
    weak=st.permutations(["heat", "cool", "clean"]).flatmap(lambda p: st.integers(0, 3).map(lambda n: p[:n])),
    count=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_failures_are_lost_episodes_of_weak_categories_in_turn(lost, won, weak, count, seed):
    episodes = [Episode(f"task {i}", name, False, ()) for i, name in enumerate(lost)]
    episodes += [Episode("won", name, True, ()) for name in won]
    picked = pick_failures(episodes, weak, count, np.random.default_rng(seed))
    assert len(picked) == min(count, sum(name in weak for name in lost))
    assert len({e.task for e in picked}) == len(picked) and all(e.category in weak and not e.won for e in picked)
    shown = {name: sum(e.category == name for e in picked) for name in weak}
    for name in weak:  # none has two fewer than another unless it has no more failures
        assert shown[name] == lost.count(name) or shown[name] >= max(shown.values()) - 1
    first = [name for name in weak if name in lost][:count]
    assert [e.category for e in picked[: len(first)]] == first  # the weakest first
    assert picked == pick_failures(episodes, weak, count, np.random.default_rng(seed))


def test_a_failure_is_an_episode_not_a_row():
    """The release passes rows: a "trajectory" of one step."""
    [event_rollout] = batch(heat=(0, 1))
    episode = episode_of(event_rollout, "alfworld", 5)
    assert episode.steps == tuple((f"seen {i}", f"go to shelf {i}") for i in range(2, 7))
    assert (episode.task, episode.category, episode.won) == (SENTENCES["heat"], "heat", False)
    teacher = Says()
    run(live(), teacher, [batch(heat=(0, 2))] * 5)
    [(call, inputs)] = teacher.asked
    assert call == "evolve" and len(inputs.failures) == 5 and all(len(e.steps) == 5 for e in inputs.failures)


def test_failures_are_found_wherever_an_episode_was_lost():
    """The release finds none in some cases, and then asks nothing: here a lost episode is one that was not won."""
    teacher = Says()
    graded = [replace(r, score=0.7) for r in batch(heat=(0, 8))]  # a graded reward is no success
    run(live(), teacher, [graded] * 5)
    assert len(teacher.asked[0][1].failures) == 5


# -- what stays of the answer -----------------------------------------------------------------------------------------


def test_an_answer_adds_at_most_three_new_principles():
    bank = SkillBank(general=(Principle("gen_001", "Search", "open every drawer"),))
    answer = [
        entry("SEARCH", "something else altogether"),
        entry("Again", "every drawer open"),
        {"title": "No principle"},
        "text",
        entry("Heat", "use the microwave"),
        entry("heat", "take the plate first"),
        entry("Warm", "use the microwave first"),  # cosine (3 of 4 words) .866 to the one just accepted
        entry("Cool", "fridge door"),
        {"title": " Clean ", "principle": " sink ", "when_to_apply": 7, "skill_id": "gen_001"},
        entry("More", "and still more"),
    ]
    added, refused = accept(answer, bank, "heat", CONFIG, HashEncoder())
    assert [(e.id, e.title, e.principle, e.when, e.category) for e in added] == [
        ("dyn_001", "Heat", "use the microwave", "", "heat"),
        ("dyn_002", "Cool", "fridge door", "", "heat"),
        ("dyn_003", "Clean", "sink", "", "heat"),
    ]
    assert list(refused) == [
        "SEARCH: a title that is there",
        "Again: a principle that is there",
        "without a title or principle",
        "without a title or principle",
        "heat: a title that is there",
        "Warm: a principle that is there",
        "More: more than 3",
    ]


def test_the_bank_grows_to_its_limit_and_then_asks_no_more():
    config, teacher = replace(CONFIG, limit=2), Says(entry("a", "one"), entry("b", "two"), entry("c", "three"))
    bank = live(config)
    [event] = run(bank, teacher, [batch(heat=(0, 8))] * 10)
    assert [e.id for e in event.added] == ["dyn_001", "dyn_002"] and event.refused == ("c: the bank is full",)
    assert len(bank.bank) == 2 and len(teacher.asked) == 1


def test_principles_belong_to_the_failures_common_category():
    for rates, section, expected in (
        ({"heat": (0, 9)}, "category", "heat"),
        ({"heat": (0, 9), "cool": (0, 9)}, "category", None),
        ({"heat": (0, 9)}, "general", None),  # released
    ):
        bank = live(replace(CONFIG, evolved_section=section))
        [event] = run(bank, Says(entry("a", "b")), [batch(**rates)] * 5)
        assert [e.category for e in event.added] == [expected]
        assert len(bank.bank.of(["heat"])) == (expected == "heat") and len(bank.bank.general) == (expected is None)


def test_evolved_principles_are_numbered_by_the_bank_that_takes_them_in():
    """In the release another bank's numbers are taken, so that evolved principles stop at three."""
    bank = live()
    answers = [[entry(f"{w} {i}", f"{w}{i}") for i in range(3)] for w in ("one", "two", "three")]
    for number, answer in enumerate(answers):
        run(bank, Says(*answer), [batch(heat=(0, 8))] * 5, first=5 * number + 1)
    assert [e.id for e in bank.bank.principles] == [f"dyn_{i:03d}" for i in range(1, 10)]


def test_what_is_learnt_is_shown_wherever_the_bank_is_read():
    """In the release validation reads the first bank for ever."""
    bank = live(replace(CONFIG, retrieval="template"))
    before = bank.frozen()
    run(bank, Says(entry("a", "b")), [batch(heat=(0, 8))] * 5)
    assert [e.id for e in bank.frozen().retrieve([SENTENCES["heat"]])[0].specific] == ["dyn_001"]
    assert before.retrieve([SENTENCES["heat"]])[0].specific == ()  # frozen where it was frozen


@pytest.mark.parametrize("source, other", [("train", "validation"), ("validation", "train")])
def test_only_the_configured_episodes_are_looked_at(source, other):
    bank, lost = live(replace(CONFIG, evolve_from=source)), batch(heat=(0, 40))
    assert bank.observe(lost, 5, other) is None
    question = bank.observe(lost, 5, source)
    assert question.source == source and question.success == {"heat": (0, 40)}
    for config in (replace(CONFIG, evolve_from="never"), replace(CONFIG, evolve_from=source, teacher="file")):
        assert live(config).observe(lost, 5, source) is None and live(config).observe(lost, 5, other) is None


# -- answers that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "no", "[1, 2", "]...[", '{"title": "a"}', "[" * 9000 + "]" * 9000])
def test_an_answer_without_an_array_is_an_error(text):
    with pytest.raises(TeacherError, match="no JSON array in the answer"):
        read_answer(text)


def test_an_answer_is_read_from_the_first_bracket_to_the_last():
    assert read_answer('Here: ```json\n[{"title": "a", "principle": "[b]"}]\n``` done') == [
        {"title": "a", "principle": "[b]"}
    ]


def test_a_failed_call_leaves_the_bank_unchanged_and_is_counted():
    start = SkillBank(general=(Principle("gen_001", "Search", "open"),))
    bank = live(bank=start)
    events = run(bank, Says(error="down \ud800"), [batch(heat=(0, 8))] * 10)
    assert [(e.sequence, e.error, e.added) for e in events] == [(1, "down ?", ()), (2, "down ?", ())]
    assert bank.bank == start and bank.failed == 2
    bank.learn(
        bank.observe(batch(heat=(0, 8)), 15, "train"), Answer(("nonsense", {"title": "\ud800", "principle": "x"}))
    )
    assert bank.bank == start and bank.failed == 2  # answered, but with nothing that can be used


# -- restarts ---------------------------------------------------------------------------------------------------------


def steps(number: int) -> list[list[Rollout]]:
    rng = np.random.default_rng(3)
    return [batch(heat=(int(rng.integers(4)), 9), cool=(int(rng.integers(9)), 9)) for _ in range(number)]


class Numbers(Says):
    """Answers with what it was asked, so that another question shows."""

    def write(self, call: str, inputs: Any) -> list[Any]:
        text = json.dumps([[e.category for e in inputs.failures], inputs.titles])
        return [entry(f"title {hash_of(text)}", f"words {hash_of(text)}")]


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()) % 1_000_003


@pytest.mark.parametrize("saved", [2, 5, 8])
def test_a_restart_asks_the_same_questions(tmp_path, saved):
    straight = live()
    events = run(straight, Numbers(), steps(15))
    first = live()
    before = run(first, Numbers(), steps(15)[:saved])
    first.save(tmp_path)
    again = LiveBank.load(tmp_path, whole(), HashEncoder())
    assert again.state_hash() == first.state_hash()
    after = run(again, Numbers(), steps(15)[saved:], first=saved + 1)
    assert before + after == events and len(events) == 3
    assert again.state_hash() == straight.state_hash() and again.bank == straight.bank


def test_the_journal_repeats_the_run_and_other_ranks_apply_its_events(tmp_path):
    bank, other = live(), live()
    journal = BankJournal(tmp_path / "journal.jsonl")
    for event in run(bank, Numbers(), steps(15)) + run(bank, Says(error="down"), [batch(heat=(0, 8))] * 5, first=16):
        journal.append(event)
    stored = BankJournal(tmp_path / "journal.jsonl").events()
    for event in stored:
        other.apply(event)
    assert len(stored) == 4 and (other.bank, other.sequence, other.failed) == (bank.bank, 4, 1)
    with pytest.raises(BankError, match="event 4 cannot follow event 4"):
        other.apply(stored[-1])
    with pytest.raises(LibraryError, match="skill1-bank-journal"):
        Journal(tmp_path / "journal.jsonl")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "state.json").unlink(), "state.json does not read"),
        (lambda f: (f / "bank.json").unlink(), "bank.json does not exist"),
        (lambda f: (f / "bank.json").write_text((f / "bank.json").read_text().replace("words", "Words")), "was changed"),
        (lambda f: (f / "state.json").write_text((f / "state.json").read_text()[:-9]), "does not read"),
        (lambda f: (f / "state.json").write_text((f / "state.json").read_text().replace('"version": 1', '"version": 2')),
         "use the code version that wrote it"),
    ],
)  # fmt: skip
def test_a_damaged_snapshot_is_refused(tmp_path: Path, change, message):
    bank = live()
    run(bank, Numbers(), steps(7))
    bank.save(tmp_path)
    change(tmp_path)
    with pytest.raises(BankError, match=message):
        LiveBank.load(tmp_path, whole(), HashEncoder())
