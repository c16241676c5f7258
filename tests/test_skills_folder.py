"""Skills in the Agent Skills format and as JSON lines: what is written is read again, what does not fit is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from library_runs import config, play_run, rollout, write_run

from skill1.analysis.library.source import Entry, by_utility, read_entries
from skill1.analysis.library.two import compare, merge
from skill1.cli.main import main
from skill1.config import load_config, method_of
from skill1.encoder import HashEncoder
from skill1.errors import RunError, UserError
from skill1.evaluate import evaluate_run
from skill1.library import SkillLibrary
from skill1.store.journal import LibraryError
from skill1.store.run_directory import RunDirectory
from skill1.store.skill_file import WrittenSkill, read_skill_file, write_skill_file
from skill1.store.skill_folders import left_out, read_skill_folders, write_skill_folders
from skill1.store.skill_source import read_written

PAGE = """---
name: cool-first
description: Something must be cold.
---

Find the fridge.
"""


def problems(folder: Path) -> list[str]:
    """What the format's reference validator says of a skill's folder."""
    reference = pytest.importorskip("skills_ref", reason="the reference validator (skills-ref) is not installed")
    return reference.validate(folder)


def numbered(*skills: WrittenSkill) -> dict[str, WrittenSkill]:
    return {f"s{number:06d}": skill for number, skill in enumerate(skills, start=1)}


def page(folder: Path, text: str | bytes = PAGE, name: str = "cool-first") -> Path:
    """Write a skill's folder into `folder`; returns it."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "SKILL.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


# -- there and back ---------------------------------------------------------------------------------------------------

# what readers of YAML, of Markdown and of lines take for something else is drawn often
AWKWARD = st.sampled_from(
    ["---", "--", "\n---\n", "\r\n", "\r", "\n", " ", "\t", ": ", " #", "'", '"', "\\", "\\x2D", "%", "{", "[", "- ", "|",
     "\0", "\x07", "\x1c", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\ufffe", "é", "ß", "中", "😀", "null", "1.0",
     "yes", "x" * 400, "name: y\n"]
)  # fmt: skip
TEXT = st.lists(AWKWARD | st.text(max_size=8), min_size=1, max_size=6).map("".join)
WRITTEN = st.builds(
    WrittenSkill,
    desc=TEXT.filter(str.strip),
    strategy=TEXT.filter(str.strip),
    task=st.just("") | TEXT,
    utility=st.none() | st.floats(0, 1),
    count=st.integers(1, 10**6),
    outcome=st.sampled_from(["success", "failure"]),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(WRITTEN, min_size=1, max_size=3))
def test_any_skills_are_the_same_after_export_and_import_and_fit_the_format(skills):
    with TemporaryDirectory() as place:
        folder, file = Path(place) / "folders", Path(place) / "skills.jsonl"
        write_skill_folders(folder, numbered(*skills))
        write_skill_file(file, skills)
        assert list(read_skill_folders(folder)) == list(read_skill_file(file)) == skills
        assert read_written(folder) == read_written(file)
        for made in folder.iterdir():
            assert problems(made) == []
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", made.name) and len(made.name) <= 64
        assert left_out(folder) == {}


def test_a_page_is_what_a_person_can_edit(tmp_path):
    skill = WrittenSkill("Grüße: a mug -- cold", "Cool it.\n---\nThen go.", "cool some mug.", 0.71, 9)
    write_skill_folders(tmp_path / "out", {"s000012": skill})
    file = tmp_path / "out" / "s000012-grue-a-mug-cold" / "SKILL.md"
    assert file.read_text() == (
        "---\nname: s000012-grue-a-mug-cold\n"
        'description: "Grüße: a mug -\\x2D cold"\n'
        'metadata:\n  skill1-task: "cool some mug."\n  skill1-utility: "0.71"\n  skill1-count: "9"\n'
        "---\n\nCool it.\n---\nThen go.\n"
    )
    assert read_skill_folders(file.parent) == read_skill_folders(tmp_path / "out") == (skill,)


def test_edited_skills_keep_their_statistics(tmp_path):
    """Also where an editor saves with a byte order mark and carriage returns."""
    earned = {"utility": 0.83, "count": 14, "outcome": "failure"}
    write_skill_folders(tmp_path / "out", {"s000001": WrittenSkill("when " * 300, "one\r\ntwo", **earned)})
    [file] = (tmp_path / "out").glob("*/SKILL.md")
    text = file.read_text()
    assert len(text) > 2000  # both texts stand in the metadata too
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n\none", "\n\nedited").replace("\n", "\r\n").encode())
    assert read_skill_folders(tmp_path / "out") == (WrittenSkill("when " * 300, "edited\ntwo", **earned),)
    file.write_text(re.sub("description: .*", "description: short", text))
    assert read_skill_folders(tmp_path / "out") == (WrittenSkill("short", "one\r\ntwo", **earned),)


def test_skills_of_others_are_read_and_what_is_lost_is_said(tmp_path):
    text = (
        "---\nname: pdf-tools\ndescription: >\n  Work with\n  PDF files.\nlicense: Apache-2.0\ncompatibility: Needs qpdf\n"
        'allowed-tools: Read\nmetadata:\n  author: me\n  version: "1.0"\n---\n# PDF\n\nUse qpdf.\n'
    )
    folder = page(tmp_path, text, "pdf-tools")
    (folder / "scripts").mkdir()
    page(tmp_path)
    (tmp_path / "README.md").write_text("about them")
    (tmp_path / ".git").mkdir()
    assert read_skill_folders(tmp_path) == (
        WrittenSkill("Something must be cold.", "Find the fridge."),
        WrittenSkill("Work with PDF files.", "# PDF\n\nUse qpdf."),
    )
    assert left_out(tmp_path) == {
        "pdf-tools": ["license", "compatibility", "allowed-tools", "metadata.author", "metadata.version", "scripts/"]
    }
    assert problems(folder) == problems(tmp_path / "cool-first") == []


# -- what does not fit ------------------------------------------------------------------------------------------------

STATISTICS = PAGE.replace("cold.\n", "cold.\nmetadata:\n  skill1-utility: {}\n  skill1-count: {}\n")
LONG = f"name: {'x' * 65}"
REFUSED = {
    "no front matter: begin it": "Find the fridge.\n",
    "no front matter: begin it with name": PAGE.replace("\n---\n", "\n", 1),
    "no text for name": PAGE.replace("name: cool-first\n", ""),
    "no text for description": PAGE.replace("Something must be cold.", '" "'),
    "name has 65 characters, more than 64": PAGE.replace("name: cool-first", LONG),
    "description has 1,025 characters, more than 1,024": PAGE.replace("Something", "x" * 1011),
    "compatibility has 501 characters": PAGE.replace("cold.\n", f"cold.\ncompatibility: {'x' * 501}\n"),
    "the name 'Cool-first' must be of a-z": PAGE.replace("cool-first", "Cool-first"),
    "the name 'cool--first' must be of a-z": PAGE.replace("cool-first", "cool--first"),
    "the name '-cool' must be of a-z": PAGE.replace("cool-first", "-cool"),
    "the name 'cool_first' must be of a-z": PAGE.replace("cool-first", "cool_first"),
    "the name 'heat-first' is not its folder's ('cool-first')": PAGE.replace("cool-first", "heat-first"),
    "'licence'; did you mean 'license'?": PAGE.replace("cold.\n", "cold.\nlicence: MIT\n"),
    "line 3: mapping values are not allowed here: put texts into double quotes": PAGE.replace("must be", "must: be"),
    "line 4: name stands there twice": PAGE.replace("cold.\n", "cold.\nname: cool-first\n"),
    "its front matter must be entries like name: TEXT": "---\nname\n---\nFind.\n",
}
OURS = {  # what the format leaves open
    "no text below": PAGE.replace("Find the fridge.\n", ""),
    "utility = '1.5': Input should be less than or equal to 1": STATISTICS.format("1.5", 3),
    "utility = 'nan'": STATISTICS.format("nan", 3),
    "count = '0': Input should be greater than or equal to 1": STATISTICS.format("0.5", 0),
    "'utilty'; did you mean 'utility'?": STATISTICS.format(1, 1).replace("utility", "utilty"),
    "metadata must be names and texts": PAGE.replace("cold.\n", "cold.\nmetadata: x\n"),
    "is not UTF-8 text": PAGE.encode("utf-16"),
    "no YAML (unacceptable character #x0007": PAGE.replace("must", "\x07"),
}


@pytest.mark.parametrize("message", [*REFUSED, *OURS])
def test_a_page_that_does_not_fit_is_one_line_with_its_file_and_the_fix(tmp_path, message):
    folder = page(tmp_path, (REFUSED | OURS)[message])
    with pytest.raises(LibraryError, match=re.escape(message)) as told:
        read_skill_folders(tmp_path)
    assert str(told.value).startswith(str(folder / "SKILL.md")) and "\n" not in str(told.value)
    if message in REFUSED:
        assert problems(folder) != []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no skills"),
        (b'{"desc": "a", "strategy": "b"}\n\n', 'line 2: needs an object with the texts "desc" and "strategy"'),
        (b'["desc"]', "line 1: needs an object"),
        (b'{"desc": "a"}', "line 1: strategy: "),
        (b'{"desc": "a", "strategy": " "}', 'line 1: "strategy" is empty'),
        (b'{"desc": "a", "strategey": "b"}', "'strategey'; did you mean 'strategy'?"),
        (b'{"desc": "a", "strategy": "\\ud800"}', "line 1: half of a character"),
        (b'{"desc": "a", "strategy": 3}', "line 1: strategy = 3: Input should be a valid string"),
        (b'{"desc": "a", "strategy": "b", "utility": NaN}', "line 1: utility = nan"),
        (b"[" * 100_000, "line 1: needs an object"),
        ('{"desc": "ä", "strategy": "b"}'.encode("latin-1"), "is not UTF-8 text"),
    ],
)
def test_a_line_that_is_no_skill_is_named(tmp_path, data, message):
    file = tmp_path / "skills.jsonl"
    file.write_bytes(data)
    with pytest.raises(LibraryError, match=re.escape(message)) as told:
        read_written(file)
    assert str(told.value).startswith(str(file)) and "\n" not in str(told.value)


def test_a_file_may_have_a_byte_order_mark_and_carriage_returns(tmp_path):
    file = tmp_path / "skills.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"desc": "a", "strategy": "b"}\r\n{"desc": "c", "strategy": "d", "count": 3}\r\n')
    assert read_written(file) == (WrittenSkill("a", "b"), WrittenSkill("c", "d", count=3))


def test_folders_without_skills_and_places_that_are_taken_are_named(tmp_path):
    with pytest.raises(LibraryError, match="holds no skills: name a folder whose folders have a SKILL.md"):
        read_written(tmp_path)
    page(tmp_path)
    (tmp_path / "draft").mkdir()
    with pytest.raises(LibraryError, match="draft holds no SKILL.md: write one, or move the folder elsewhere"):
        read_written(tmp_path)
    for write, form in ((write_skill_folders, numbered), (write_skill_file, lambda *skills: skills)):
        for place, skills, message in (
            (tmp_path, [WrittenSkill("a", "b")], "exists: choose another place"),
            (tmp_path / "new", [], "there are no skills to write"),
            (tmp_path / "new", [WrittenSkill(" ", "b")], "a skill has an empty desc"),
            (tmp_path / "cool-first" / "SKILL.md" / "new", [WrittenSkill("a", "b")], "cannot write"),
        ):
            with pytest.raises(RunError, match=message):
                write(place, form(*skills))


# -- in a run ---------------------------------------------------------------------------------------------------------


def test_a_run_starts_with_fresh_and_with_used_skills(tmp_path):
    write_skill_folders(tmp_path / "mine", numbered(WrittenSkill("a", "b"), WrittenSkill("c", "d", "t", 0.9, 7)))
    start = {"library.start": str(tmp_path / "mine"), "library.encoder": "hash", "library.initial_utility": 0.25}
    made = load_config("nano", overrides=start)
    method_of(made).check_start(made)
    method, evaluated = method_of(made)(made), method_of(made)(made)
    method.start()
    evaluated.load_skills(tmp_path / "mine")
    assert [(s.id, s.utility, s.count, s.admitted) for s in method.skills] == [
        ("s000001", 0.25, 1, 0), ("s000002", 0.9, 7, 0),
    ]  # fmt: skip
    assert evaluated.skills.state_hash() == method.skills.state_hash()
    page(tmp_path / "mine", "nothing", "broken")
    with pytest.raises(LibraryError, match="broken/SKILL.md has no front matter"):
        method_of(made).check_start(made)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight small steps with a library of six skills, from which some had to go."""
    path = tmp_path_factory.mktemp("skills") / "run"
    RunDirectory.create(path.parent / "none", config("no_library"), "hash").close()
    play_run(path, config(library__capacity=6, rollout__tasks_per_step=3, rollout__group_size=4), steps=8)
    return path


def test_a_library_is_read_from_wherever_it_is(run, tmp_path):
    found = read_entries(run)
    library = SkillLibrary.load(run / "checkpoint-8" / "library", config(library__capacity=6).library, HashEncoder())
    assert [(e.id, e.skill.strategy, e.skill.utility, e.skill.count, e.admitted) for e in found] == [
        (s.id, s.strategy, s.utility, s.count, s.admitted) for s in library
    ]
    assert read_entries(run / "checkpoint-8") == read_entries(run / "checkpoint-8" / "library") == found
    assert [len(read_entries(run, step)) for step in (0, 8)] == [0, 6] and read_entries(run, 3) != read_entries(run, 4)
    everything = read_entries(run, retired=True)
    gone = [e for e in everything if e.retired is not None]
    assert len(found) == 6 and gone and len(everything) == len(found) + len(gone)
    assert [e.id for e in everything] == [f"s{n:06d}" for n in range(1, len(everything) + 1)]
    assert all(e.admitted <= e.retired <= 8 for e in gone)
    write_skill_folders(tmp_path / "out", {e.id: e.skill for e in found})
    assert [e.skill for e in read_entries(tmp_path / "out")] == [e.skill for e in found]
    queries = ["mug home0", "lamp home2"]
    again = loaded(tmp_path / "out")  # its ids begin at 1: the order is the same
    chosen = ([library[c.skill].strategy for c in found] for found in library.retrieve(queries, "greedy"))
    assert list(chosen) == [[again[c.skill].strategy for c in found] for found in again.retrieve(queries, "greedy")]


def loaded(folder: Path) -> SkillLibrary:
    made = config()
    method = method_of(made)(made)
    method.load_skills(folder)
    return method.skills


def test_a_skill_retires_as_it_was_when_it_left(tmp_path):
    """It loses one episode, U = .95 x .5, in the step that admits another: .475 ln 3 > .5 ln 2, so the new one goes."""
    made = config(library__capacity=1)
    first = rollout(outcome=1.0, lesson=("mug", "shelf"))
    write_run(
        tmp_path / "run", [[first], [rollout(["s000001"], 0.0), rollout(outcome=1.0, lesson=("egg", "sink"))]], made
    )
    [left] = read_entries(tmp_path / "run")
    everything = read_entries(tmp_path / "run", retired=True)
    assert (left.id, left.skill.utility, left.skill.count) == ("s000001", pytest.approx(0.475), 2)
    kept, gone = everything
    assert kept == left and (gone.id, gone.retired, gone.skill.utility, gone.skill.count) == ("s000002", 2, 0.5, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("gone", None), "gone does not exist: name a run"),
        (("", None), "holds no skills: name a run, a checkpoint"),
        (("run", 9), "has learnt until step 8, not 9"),
        (("run/checkpoint-8", 3), "checkpoint-8 is no run: only runs have steps"),
        (("none", None), "(variant no_library) keeps no library"),
    ],
)
def test_what_holds_no_skills_is_one_line(run, given, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_entries(run.parent / given[0], given[1])


def test_skills_are_for_runs_with_a_library(run, tmp_path):
    with pytest.raises(UserError, match="the method grpo keeps no skills, but a library is given"):
        evaluate_run(run.parent / "none", library=str(page(tmp_path)), progress=False)


# -- two libraries ----------------------------------------------------------------------------------------------------

A = [WrittenSkill("mug", "shelf", "t", 0.8, 5), WrittenSkill("egg", "look in the sink"), WrittenSkill("new", "x")]
B = [WrittenSkill("egg", "look in the sinks", "", 0.3, 2), WrittenSkill("mug", "shelf", "", 0.5, 3),
     WrittenSkill("new", "x", "", 0.9, 4)]  # fmt: skip


def test_two_libraries_become_one():
    """U = (5 x .8 + 3 x .5) / 8, n = 5 + 3 - 1; what was never used in one of them takes the other's numbers."""
    merged = merge(A, B)
    assert [(s.desc, s.strategy, s.utility, s.count) for s in merged] == [
        ("mug", "shelf", pytest.approx(0.6875), 7), ("egg", "look in the sink", None, 1), ("new", "x", 0.9, 4),
        ("egg", "look in the sinks", 0.3, 2),
    ]  # fmt: skip
    assert merged[0].task == "t" and merge(A, []) == A and merge([A[2]], [A[2]]) == [A[2]]


def test_two_libraries_side_by_side():
    """ "egg / look in the sink(s)": 20 and 21 characters, one insertion: 100 (1 - 1/41)."""
    pairs = compare(*([Entry(i, s) for i, s in numbered(*part).items()] for part in (A, B)))
    sides = [(p.a and p.a.id, p.b and p.b.id, p.moved, p.closest) for p in pairs]
    assert sides == [
        ("s000001", "s000002", True, None), ("s000002", None, False, "s000001"), ("s000003", "s000003", True, None),
        (None, "s000001", False, "s000002"),
    ]  # fmt: skip
    assert pairs[1].similarity == pairs[3].similarity == pytest.approx(100 * (1 - 1 / 41))
    twice = [Entry(f"s00000{n}", A[0]) for n in (1, 2)]
    assert [(p.a and p.a.id, p.b and p.b.id) for p in compare(twice, twice[:1])] == [
        ("s000001", "s000001"), ("s000002", None),
    ]  # fmt: skip


# -- from the command line --------------------------------------------------------------------------------------------


@pytest.fixture
def skill1(run, tmp_path, monkeypatch, capsys):
    """Run `skill1 skills …` in an empty folder; returns its status, output and errors. RUN is the run."""
    monkeypatch.chdir(tmp_path)

    def command(words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["skills", *(str(run) if word == "RUN" else word for word in words.split())])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return command


def test_skills_are_shown_exported_edited_compared_merged_and_imported(skill1, run):
    status, out, _ = skill1("show RUN --retired --json")
    shown = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [s["utility"] for s in shown] == sorted((s["utility"] for s in shown), reverse=True)
    assert {s["id"] for s in shown if s["retired"] is None} == {e.id for e in read_entries(run)}
    status, out, _ = skill1("show RUN")
    best = by_utility(read_entries(run))[0]
    assert out.splitlines()[0] == f"{run}: 6 skills"
    assert out.splitlines()[2] == f"{best.id}  U {best.skill.utility:.3f}  n {best.skill.count}"
    assert f"\n  when  {best.skill.desc}\n  do    {best.skill.strategy}\n  from  {best.skill.task}\n" in out

    assert json.loads(skill1("export RUN --out mine")[1]) == {"folder": "mine", "skills": 6}
    assert skill1("export RUN --out mine")[2] == "error: mine exists: choose another place, or remove it\n"
    edited = sorted(Path("mine").iterdir())[0] / "SKILL.md"
    edited.write_text(edited.read_text().rstrip() + " now\n")
    page(Path("mine"))
    status, out, _ = skill1("compare RUN mine")
    assert "5 in both (0 with another U or n), 1 in A alone, 2 in B alone" in out
    pairs = [json.loads(line) for line in skill1("compare RUN mine --json")[1].splitlines()]
    [new] = [pair["b"] for pair in pairs if pair["a"] is None and pair["closest"] is not None]
    [old] = [pair["a"] for pair in pairs if pair["b"] is None]
    assert new["strategy"] == f"{old['strategy']} now" and new["task"] == old["task"]
    assert (new["utility"], new["count"]) == (old["utility"], old["count"])

    assert json.loads(skill1("import mine --out mine.jsonl")[1]) == {
        "file": "mine.jsonl", "skills": 7, "left_out": {},
    }  # fmt: skip
    assert read_written(Path("mine.jsonl")) == read_written(Path("mine"))
    assert json.loads(skill1("merge RUN mine.jsonl --out both.jsonl")[1]) == {
        "file": "both.jsonl", "skills": 8, "in_both": 5,
    }  # fmt: skip
    assert len(read_written(Path("both.jsonl"))) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("show nowhere", "nowhere does not exist"),
        ("export RUN --step 0 --out new", "there are no skills to write to new"),
        ("import RUN --step 99 --out new", "has learnt until step 8"),
        ("compare RUN nowhere", "nowhere does not exist"),
        ("merge RUN . --out new", ". holds no skills"),
        ("shwo RUN", "No such command 'shwo'. Did you mean 'show'?"),
    ],
)
def test_user_errors_are_one_line_and_make_nothing(skill1, words, message):
    status, out, err = skill1(words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ") and message in err and not list(Path.cwd().iterdir())
