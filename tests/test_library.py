"""The skill library against hand-computed numbers and a float64 brute force; its files and kills."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skill1.analysis.tabular import episode
from skill1.config import LibraryConfig
from skill1.encoder import HashEncoder
from skill1.library import FrozenLibrary, SkillLibrary, replay
from skill1.records import Candidate, Lesson, Rollout, Skill, Task
from skill1.store.journal import Journal, LibraryError, Snapshot, read_snapshot, write_snapshot

WORDS = ("mug", "egg", "fridge", "lamp", "clean", "heat")


def rollout(candidates: Sequence[str | Candidate] = (), outcome: float = 0.0, lesson: Lesson | None = None) -> Rollout:
    """A rollout with only what the library reads; candidates by id or as retrieved."""
    found = tuple(c if isinstance(c, Candidate) else Candidate(c, 0.5, 0.0, 0.0) for c in candidates)
    task = Task("alfworld", "train", "game", "Pick")
    made = episode(0, outcome, task=task, instruction="put a mug in the sink", candidates=found, lesson=lesson)
    return replace(made, query="mug")


def win(desc: str, strategy: str) -> Rollout:
    return rollout(outcome=1.0, lesson=Lesson(desc, strategy))


def new_library(encoder: object = None, **fields: object) -> SkillLibrary:
    return SkillLibrary(LibraryConfig(**fields), encoder or HashEncoder())


def filled(number: int, **fields: object) -> SkillLibrary:
    """A library of `number` different skills, all admitted in step 1."""
    library = new_library(**fields)
    library.learn([win(f"when {i}", f"do {i}") for i in range(number)], step=1)
    return library


def ids(library: SkillLibrary | FrozenLibrary) -> list[str]:
    return [skill.id for skill in library]


class Vectors:
    """An encoder that looks its vectors up."""

    def __init__(self, vectors: dict[str, Sequence[float]]) -> None:
        self._rows = {text: np.asarray(v, dtype=np.float32) for text, v in vectors.items()}
        self.dimension = len(next(iter(self._rows.values())))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self._rows[t] for t in texts], dtype=np.float32).reshape(len(texts), self.dimension)


# --- learning ---------------------------------------------------------------------------------------------------


def test_utility_moves_in_rollout_order_for_every_candidate():
    library = filled(3)
    library.learn([rollout(["s000001", "s000002"], 1.0), rollout(["s000002"], 0.0)], step=7)
    one, two, three = library
    assert (one.utility, one.count, one.last_used) == (pytest.approx(0.525, abs=1e-15), 2, 7)
    assert (two.utility, two.count, two.last_used) == (pytest.approx(0.49875, abs=1e-15), 3, 7)  # .5 > .525 > .49875
    assert (three.utility, three.count, three.last_used) == (0.5, 1, 1)
    library.learn([rollout(["s000003"], 0.0), rollout(["s000003"], 1.0)], step=8)
    assert library["s000003"].utility == pytest.approx(0.50125, abs=1e-15)  # .5 > .475 > .50125


def test_only_a_won_rollout_with_a_lesson_admits():
    library = new_library(initial_utility=0.3)
    event = library.learn(
        [rollout(lesson=Lesson("when lost", "do nothing")), win("when won", "do it"), rollout(outcome=1.0)],
        step=4,
    )
    assert ([s.id for s in event.admitted], event.merged, event.retired) == (["s000001"], (), ())
    expected = Skill("s000001", "when won", "do it", "put a mug in the sink", 0.3, 1, 4, 4, "success")
    assert list(library) == [expected] == [library["s000001"]]


def test_equal_strategy_and_near_description_merge():
    near, far = 0.86, 0.84
    encoder = Vectors({"a": (1, 0), "near": (near, math.sqrt(1 - near**2)), "far": (far, -math.sqrt(1 - far**2))})
    library = new_library(encoder)
    library.learn([win("a", "same")], step=1)
    event = library.learn([win("near", "same"), win("near", "other"), win("far", "same")], step=2)
    assert (len(event.merged), len(event.admitted)) == (1, 2)
    assert ids(library) == ["s000001", "s000002", "s000003"]
    assert (library["s000001"].utility, library["s000001"].count) == (0.5, 2)
    assert library["s000001"].last_used == 1  # taking a lesson in is no use


def test_utilities_move_before_lessons_merge_and_a_merge_moves_toward_one_half():
    library = new_library()
    library.learn([win("mug", "look")], step=1)
    library.learn([win("mug", "look"), rollout(["s000001"], 1.0)], step=2)
    assert library["s000001"].count == 3
    assert library["s000001"].utility == pytest.approx(0.95 * 0.525 + 0.05 * 0.5, abs=1e-15)


def test_equal_lessons_of_one_step_merge_into_the_nearest_record():
    encoder = Vectors({"a": (1, 0), "b": (0.8, 0.6), "b again": (0.8, 0.6)})
    library = new_library(encoder, merge_similarity=0.75 + 0.06)
    event = library.learn([win("a", "same"), win("b", "same"), win("b again", "same")], step=1)
    assert event.merged == ("s000002",)
    assert [s.count for s in library] == [1, 2]


def test_retirement_drops_the_least_utility_times_log_count_plus_one():
    library = filled(3, capacity=3, ema=0.5)
    # s000001: n = 4, U = .0625: .1006. s000002: n = 2, U = .75: .824. Fresh: n = 1, U = .5: .3466 (its U log n is 0).
    library.learn([rollout(["s000001"], 0.0)] * 3 + [rollout(["s000002"], 1.0)], step=2)
    event = library.learn([win("when new", "do new")], step=3)
    assert event.retired == ("s000001",)
    assert ids(library) == ["s000002", "s000003", "s000004"]
    assert len(library) == 3


def test_retirement_can_drop_what_was_longest_not_retrieved():
    library = new_library(capacity=2, retire="least_recent")
    library.learn([win("a", "1"), win("b", "2")], 1)
    first, second = (skill.id for skill in library)
    library.learn([rollout([first], 0.0)], 2)  # a loss, but it was asked for
    assert library.learn([win("c", "3")], 3).retired == (second,)


def test_retirement_of_equals_drops_the_lowest_id_and_ids_are_never_reused():
    library = filled(4, capacity=2)
    assert ids(library) == ["s000003", "s000004"]
    library.learn([win("when 9", "do 9")], step=2)
    assert ids(library) == ["s000004", "s000005"]


def test_a_retired_strategy_can_be_admitted_again():
    library = filled(2, capacity=1)
    event = library.learn([win("when 0", "do 0")], step=2)
    assert (len(event.admitted), event.merged) == (1, ())


def test_a_candidate_retired_since_gets_no_update():
    library = filled(2, capacity=1)
    event = library.learn([rollout(["s000001", "s000002"], 1.0)], step=2)
    assert event.updates == (("s000002", 1.0),)
    assert library["s000002"].utility == pytest.approx(0.525)


@pytest.mark.parametrize("wrong", [rollout(["s000009"], 1.0), rollout(["x"], 1.0), rollout(outcome=1.5)])
def test_impossible_rollouts_are_refused_and_change_nothing(wrong: Rollout):
    library = filled(2)
    before = library.state_hash()
    with pytest.raises(LibraryError, match=r"s000009|'x'|1\.5"):
        library.learn([rollout(["s000001"], 1.0), win("when new", "do new"), wrong], step=2)
    assert library.state_hash() == before


# --- retrieval --------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    encoder = Vectors({"x": (1, 0), "y": (0, 1), "query": (0.6, 0.8)})
    library = new_library(encoder, ema=0.5)
    library.learn([win("x", "1"), win("y", "2")], step=1)
    library.learn([rollout(["s000001"], 1.0)], step=2)  # U = .75, n = 2; the other .5, 1; N = 3
    greedy, ucb = library.retrieve(["query"], "greedy")[0], library.retrieve(["query"], "ucb")[0]
    assert [(c.skill, c.utility) for c in greedy] == [("s000002", 0.5), ("s000001", 0.75)]
    assert [c.score for c in greedy] == pytest.approx([0.6 * 0.8 + 0.4 * 0.5, 0.6 * 0.6 + 0.4 * 0.75], abs=1e-7)
    assert [c.similarity for c in greedy] == pytest.approx([0.8, 0.6], abs=1e-7)
    bonus = [0.4 * math.sqrt(math.log(3) / n) for n in (1, 2)]
    assert [c.score for c in ucb] == pytest.approx([c.score + b for c, b in zip(greedy, bonus)], abs=1e-12)


def test_similarity_floor_keeps_what_is_at_the_floor():
    encoder = Vectors({"x": (1, 0), "y": (0, 1), "z": (0.5, math.sqrt(0.75)), "query": (1, 0)})
    library = new_library(encoder, similarity_floor=0.5)
    library.learn([win("x", "1"), win("y", "2"), win("z", "3")], step=1)
    assert [c.skill for c in library.retrieve(["query"], "ucb")[0]] == ["s000001", "s000003"]


def test_empty_library_unknown_mode_and_unknown_skill():
    library = new_library()
    assert library.retrieve(["mug", "egg"], "ucb") == [(), ()]
    assert filled(1).retrieve([], "ucb") == []
    with pytest.raises(ValueError, match="'best'.*ucb, greedy"):
        library.retrieve(["mug"], "best")
    with pytest.raises(KeyError, match="s000001.*retired or never admitted"):
        library["s000001"]
    with pytest.raises(KeyError, match="s000001"):
        library.similarity(["mug"], ["s000001"])
    with pytest.raises(ValueError, match="2 and 1"):
        filled(1).similarity(["mug", "egg"], ["s000001"])


def test_similarity_is_the_cosine_of_text_and_description():
    library = new_library()
    library.learn([win("clean mug", "1"), win("hot egg", "2")], step=1)
    found = library.similarity(["clean egg", "egg hot", "lamp"], ["s000001", "s000002", "s000001"])
    assert found == pytest.approx([0.5, 1.0, 0.0], abs=1e-6)


def brute_force(
    skills: Sequence[Skill], embeddings: np.ndarray, query: np.ndarray, config: LibraryConfig, mode: str
) -> list[Candidate]:
    """The definition, in Python floats: score all, drop below the floor, sort."""
    total = sum(s.count for s in skills)
    ranked = []
    for skill, row in zip(skills, embeddings, strict=True):
        cosine = float(np.dot(row.astype(np.float64), query.astype(np.float64)))
        bonus = config.exploration * math.sqrt(math.log(total) / skill.count) if mode == "ucb" else 0.0
        weight = config.similarity_weight
        score = weight * cosine + (1.0 - weight) * (skill.utility + bonus)
        if config.similarity_floor is None or cosine >= config.similarity_floor:
            ranked.append(Candidate(skill.id, skill.utility, cosine, score))
    return sorted(ranked, key=lambda c: (-c.score, c.skill))[: config.top_k]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    number=st.integers(1, 200),
    dimension=st.sampled_from([2, 16, 384]),
    spread=st.sampled_from([0.0, 1e-8, 1e-6, 1e-4, 1.0]),
    equal_statistics=st.booleans(),
    top_k=st.integers(1, 7),
    weight=st.sampled_from([0.0, 1e-9, 0.6, 1.0]),
    exploration=st.sampled_from([0.0, 1.0, 100.0]),
    floor=st.sampled_from([None, -1.0, 0.0, 0.4, 1.0]),
    mode=st.sampled_from(["ucb", "greedy"]),
)
def test_retrieval_equals_brute_force(
    seed, number, dimension, spread, equal_statistics, top_k, weight, exploration, floor, mode
):
    """Near ties, with descriptions as near as float32 rounding or equal, must not confuse the preselection."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal(dimension) + spread * rng.standard_normal((number + 3, dimension))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    queries = {"a": rows[-1], "b": rows[-2], "c": rows[-3]}
    skills = [
        Skill(
            id=f"s{i + 1:06d}",
            desc="",
            strategy="",
            task="",
            utility=0.5 if equal_statistics else float(rng.random()),
            count=3 if equal_statistics else int(rng.integers(1, 50)),
            admitted=0,
            last_used=0,
            outcome="success",
        )
        for i in range(number)
    ]
    config = LibraryConfig(top_k=top_k, similarity_weight=weight, exploration=exploration, similarity_floor=floor)
    library = FrozenLibrary(config, Vectors(queries), {s.id: s for s in skills}, rows[:number])
    together = library.retrieve(list(queries), mode)
    for (text, query), found in zip(queries.items(), together, strict=True):
        expected = brute_force(skills, rows[:number], query, config, mode)
        assert [c.skill for c in found] == [c.skill for c in expected]
        assert [c.score for c in found] == pytest.approx([c.score for c in expected], rel=1e-12, abs=1e-12)
        assert [library.retrieve([text], mode)[0]] == [found]  # the same alone as among others, to the last bit


# --- laws over whole runs ---------------------------------------------------------------------------------------

lessons = st.builds(
    Lesson, desc=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join), strategy=st.sampled_from("abc")
)
plays = st.tuples(st.sampled_from(WORDS), st.booleans(), st.none() | lessons)
runs = st.lists(st.lists(plays, max_size=6), max_size=8)
configs = st.builds(
    LibraryConfig, capacity=st.integers(1, 6), top_k=st.integers(1, 4), ema=st.sampled_from([0.05, 0.5, 1.0])
)


@settings(max_examples=60, deadline=None)
@given(run=runs, config=configs, saved_at=st.integers(0, 8))
def test_laws_of_a_run(tmp_path_factory: pytest.TempPathFactory, run, config, saved_at):
    """Bounds hold after every step; another rank, a replay, a snapshot plus the journal's rest equal the live state."""
    folder = tmp_path_factory.mktemp("run")
    encoder = HashEncoder(16)
    live, other = SkillLibrary(config, encoder), SkillLibrary(config, encoder)
    journal = Journal(folder / "journal.jsonl")
    live.save(folder / "library")
    admitted = 0
    for step, played in enumerate(run, start=1):
        found = live.retrieve([query for query, _, _ in played], "ucb")
        event = live.learn(
            [rollout(c, float(won), lesson) for c, (_, won, lesson) in zip(found, played, strict=True)], step
        )
        journal.append(event)
        other.apply(event)
        admitted += len(event.admitted)
        assert len(live) <= config.capacity
        assert all(0.0 <= s.utility <= 1.0 and s.count >= 1 for s in live)
        assert ids(live) == sorted(ids(live)) and all(int(i[1:]) <= admitted for i in ids(live))
        assert len(event.admitted) + len(event.merged) == sum(won and lesson is not None for _, won, lesson in played)
        assert other.state_hash() == live.state_hash()
        if step == saved_at:
            live.save(folder / "library")
    restored = SkillLibrary.load(folder / "library", config, encoder)
    assert restored.sequence == (saved_at if saved_at <= len(run) else 0)
    if run:
        replayed = replay(journal, SkillLibrary(config, encoder))
        caught_up = replay(Journal(folder / "journal.jsonl"), restored)
        for again in (replayed, caught_up):
            assert again.state_hash() == live.state_hash()
            assert again.retrieve(WORDS, "ucb") == live.retrieve(WORDS, "ucb")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), max_size=20), st.text(max_size=30))
def test_snapshot_is_exact_for_any_utility_and_text(tmp_path_factory: pytest.TempPathFactory, utilities, text):
    folder = tmp_path_factory.mktemp("snapshot")
    skills = tuple(
        Skill(f"s{i:06d}", text, text, text, u, i + 1, 0, 0, "success", text) for i, u in enumerate(utilities)
    )
    embeddings = np.random.default_rng(0).standard_normal((len(skills), 3)).astype(np.float32)
    write_snapshot(folder, Snapshot(5, 99, {"ema": 0.1}, skills, embeddings))
    found = read_snapshot(folder)
    assert found.skills == skills and (found.sequence, found.next_id, found.settings) == (5, 99, {"ema": 0.1})
    assert found.embeddings.tobytes() == embeddings.tobytes()


def test_frozen_view_is_unaffected_by_later_steps():
    library = filled(70, capacity=70, ema=0.5)
    view = library.frozen()
    skills, found = list(view), view.retrieve(["when 3", "when 69"], "ucb")
    for step in range(2, 5):  # appends past the matrix, updates, retires
        library.learn([rollout([s.id for s in library], 1.0), win(f"when {step} now", f"do {step} now")], step)
    library.learn([rollout([f"s{i:06d}" for i in range(10, 40)], 0.0)] * 30, 5)
    library.learn([win(f"when {i} later", f"do {i} later") for i in range(20)], 6)
    assert ids(library) != ids(view) and len(view) == 70
    assert list(view) == skills
    assert view.retrieve(["when 3", "when 69"], "ucb") == found
    assert not hasattr(view, "learn") and not hasattr(view, "apply")


def test_state_hash_sees_every_field():
    base = filled(2)
    seen = {base.state_hash()}
    for rollouts, step in (([rollout(["s000001"], 0.0)], 2), ([], 3), ([win("when 5", "do 5")], 4)):
        base.learn(rollouts, step)
        seen.add(base.state_hash())
    assert len(seen) == 4
    assert filled(2).state_hash() in seen


def test_apply_refuses_a_gap_and_a_foreign_event():
    library = filled(2)
    event = library.learn([rollout(["s000001"], 1.0)], step=2)
    with pytest.raises(LibraryError, match="event 2 cannot follow event 2"):
        library.apply(event)
    other = filled(1, capacity=1)
    other.learn([win("when 5", "do 5")], step=2)
    with pytest.raises(LibraryError, match="another run"):
        other.apply(dataclasses.replace(event, sequence=3))


# --- files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    library = filled(5)
    library.learn([rollout(["s000002"], 1.0)], step=2)
    library.save(tmp_path / "library")
    return tmp_path / "library"


def load(folder: Path, **fields: object) -> SkillLibrary:
    return SkillLibrary.load(folder, LibraryConfig(**fields), HashEncoder())


def test_a_snapshot_is_replaced_leaves_no_litter_and_can_be_read_by_a_person(saved: Path):
    library = load(saved)
    library.learn([win("wenn der Becher heiß ist", "fridge first")], step=3)
    library.save(saved)
    assert load(saved).state_hash() == library.state_hash()
    assert load(saved).learn([win("x", "y")], 4).admitted[0].id == "s000007"
    assert sorted(p.suffix for p in saved.iterdir()) == [".jsonl", ".npy"]
    lines = (saved / "skills.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 6 + 1 and "wenn der Becher heiß ist" in lines[6]


def test_a_missing_snapshot_is_an_error(tmp_path: Path):
    with pytest.raises(LibraryError, match="skills.jsonl does not exist.*checkpoint"):
        load(tmp_path)


def test_a_snapshot_cut_anywhere_is_an_error(saved: Path):
    path = saved / "skills.jsonl"
    data = path.read_bytes()
    for length in [*range(0, len(data), 13), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(LibraryError, match="skills.jsonl is (truncated|corrupt)"):
            load(saved)


def test_a_snapshot_with_any_byte_changed_is_an_error(saved: Path):
    for path in saved.iterdir():
        data = path.read_bytes()
        for position in range(0, len(data), 11 if path.suffix == ".jsonl" else 501):
            path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
            with pytest.raises(LibraryError, match=path.name):
                load(saved)
        path.write_bytes(data)
    assert len(load(saved)) == 5


def test_a_snapshot_without_its_embeddings_is_an_error(saved: Path):
    next(saved.glob("*.npy")).unlink()
    with pytest.raises(LibraryError, match=r"embeddings-\w+\.npy does not exist"):
        load(saved)


def test_a_snapshot_of_another_version_is_an_error(saved: Path):
    path = saved / "skills.jsonl"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(LibraryError, match="'version': 2.*code version"):
        load(saved)


def test_other_settings_or_another_encoder_are_errors(saved: Path):
    assert len(load(saved, top_k=3, similarity_weight=1.0)) == 5  # how it is read may differ
    with pytest.raises(LibraryError, match="library.ema = 0.05.*0.1"):
        load(saved, ema=0.1)
    for other in (HashEncoder(64), Vectors({f"when {i}": np.eye(384)[i] for i in range(5)})):
        with pytest.raises(LibraryError, match="not those of this encoder"):
            SkillLibrary.load(saved, LibraryConfig(), other)


def test_killed_while_saving_leaves_a_loadable_snapshot(tmp_path: Path):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from test_library import filled, rollout

        library = filled(1000)
        while True:
            library.save(Path(sys.argv[1]))
            print(library.sequence, library.state_hash(), flush=True)
            library.learn([rollout(["s000001"], 1.0)], step=2)
    """)
    draw = random.Random(0)
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(folder)], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
        )
        lines = [child.stdout.readline()]
        time.sleep(draw.uniform(0.0, 0.3))
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines()
        child.wait()
        sequence, state = lines[-1].split()
        library = load(folder)
        assert library.sequence in (int(sequence), int(sequence) + 1)
        if library.sequence == int(sequence):
            assert library.state_hash() == state
        library.save(folder)  # and the rest of the killed save is no obstacle
        assert load(folder).state_hash() == library.state_hash()


def save_and_die(library: SkillLibrary, folder: Path, call: int | None = None, size: int | None = None) -> bool:
    """Save in a forked process that is killed before its `call`-th system call that makes data or names durable, or
    in the middle of writing a file, after `size` bytes. Returns whether it was killed."""
    child = os.fork()
    if child == 0:
        if size is not None:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        calls = itertools.count()
        for name in ("fsync", "replace", "unlink"):

            def dying(*args: object, original: Callable[..., object] = getattr(os, name)) -> object:
                if next(calls) == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args)

            setattr(os, name, dying)
        library.save(folder)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_any_point_of_saving_leaves_the_old_or_the_new_snapshot(saved: Path):
    old = load(saved).state_hash()
    library = load(saved)
    library.learn([win("when new", "do new")], step=3)
    new = library.state_hash()
    sizes = [p.stat().st_size for p in saved.iterdir()]
    for size in (0, 1, 300, min(sizes) - 1, max(sizes) - 1):
        assert save_and_die(library, saved, size=size)
        assert load(saved).state_hash() == old
    seen = []
    while save_and_die(library, saved, call=len(seen)):
        seen.append(load(saved).state_hash())
    # Two files: fsync, replace, fsync of the folder each; then the old embeddings go.
    assert seen == [old] * 5 + [new] * 2
    assert load(saved).state_hash() == new


def journalled(path: Path, steps: int) -> SkillLibrary:
    library, journal = new_library(), Journal(path)
    for step in range(1, steps + 1):
        journal.append(library.learn([win(f"when {step}", f"do {step}")], step))
    return library


def test_a_torn_last_event_is_owed(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    library = journalled(path, 3)
    data = path.read_bytes()
    start = data[:-1].rindex(b"\n") + 1
    for length in [*range(start + 1, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        journal = Journal(path)
        assert journal.torn and journal.sequence == 2 and len(journal.events()) == 2
        owed = replay(journal, new_library())
        event = owed.learn([win("when 3", "do 3")], 3)
        with pytest.raises(LibraryError, match="truncate"):
            journal.append(event)
        journal.truncate(2)
        journal.append(event)
        assert path.read_bytes() == data
        assert replay(Journal(path), new_library()).state_hash() == library.state_hash()


def test_truncate_drops_what_follows_the_checkpoint(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    journalled(path, 3)
    journal = Journal(path)
    with pytest.raises(LibraryError, match="ends at event 3, the checkpoint is at 4"):
        journal.truncate(4)
    journal.truncate(1)
    assert [e.sequence for e in Journal(path).events()] == [1] and not journal.torn
    journal.truncate(0)
    assert Journal(path).events() == ()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_damage_before_the_last_line_is_an_error(tmp_path: Path, number: int):
    path = tmp_path / "journal.jsonl"
    journalled(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in (lines[number - 1][:20] + b"#" + lines[number - 1][21:], lines[number - 1][:20], b""):
        path.write_bytes(b"".join(lines[: number - 1] + [damaged] + lines[number:]))
        with pytest.raises(LibraryError, match="journal.jsonl is "):
            Journal(path)


def test_journal_takes_events_in_order_only_and_must_exist_to_be_read(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with pytest.raises(LibraryError, match="does not exist"):
        replay(Journal(path), new_library())
    event = journalled(path, 2).learn([], 3)
    with pytest.raises(LibraryError, match="event 5 cannot follow"):
        Journal(path).append(dataclasses.replace(event, sequence=5))
    Journal(path).append(event)
    assert Journal(path).sequence == 3
