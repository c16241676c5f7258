"""The trajectory viewer: what it shows is what the run stores, on a tiny real run and on runs made by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pytest
from distributed_train import run as train_easily
from nano_runs import configure
from test_notebooks import NOTEBOOKS, shown

from skill1.analysis.library.uses import read_uses
from skill1.analysis.trajectories import cases as case_studies
from skill1.analysis.trajectories import read as trajectories
from skill1.analysis.trajectories import viewer
from skill1.analysis.trajectories.read import Episode, Step
from skill1.analysis.trajectories.viewer import show
from skill1.config import ConfigError, load_config
from skill1.encoder import HashEncoder
from skill1.errors import RunError
from skill1.library import SkillLibrary
from skill1.methods.retroagent.equations import Reflection, Retrospect
from skill1.records import Candidate, Lesson, Rollout, Task, Turn
from skill1.running.batch import run_notebook
from skill1.store.journal import Journal, LibraryError
from skill1.store.run_directory import RunDirectory

STEPS = 3
OWL = "\u202eעברית \U0001f989 é\u0301"  # right to left, beyond the basic plane, combining
HOSTILE = f'<script>alert("1")</script>\'&amp;</td></details></style><!-- {OWL} \x00\x1b[31m\x7f\r\n\tend'
HOSTILE += "x" * 10_000
SEEN = (
    HOSTILE.replace("\x00", "␀").replace("\x1b", "␛").replace("\x7f", "␡").replace("\r", "␍")
)  # as a reader of the page sees it


class Parsed(HTMLParser):
    """Every element of a document: (tag, classes, text). Refuses tags that do not pair up."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...], list[str]]] = []
        self.attributes: set[str] = set()
        self.open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {[tag for tag, _ in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}
        parts: list[str] = []
        self.elements.append((tag, tuple((dict(attrs).get("class") or "").split()), parts))
        if tag not in ("br", "meta"):
            self.open.append((tag, parts))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        for _, parts in self.open:
            parts.append(data)

    def texts(self, name: str) -> list[str]:
        return ["".join(parts) for _, classes, parts in self.elements if name in classes]

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _, _ in self.elements}


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, world: Path, warm: Path) -> Path:
    """A real run on easily won games: skills are learnt, retrieved, ranked, merged."""
    directory = tmp_path_factory.mktemp("viewer") / "run"
    config = configure(
        world, warm, train__steps=STEPS, train__save_every=STEPS, train__validate_every=0, rollout__group_size=6,
        method__max_distill_tokens=16, credit__invalid_penalty=0.1,
    )  # fmt: skip
    assert train_easily(config, directory) == 0
    return directory


@pytest.fixture(scope="module")
def step(path: Path) -> Step:
    return trajectories.load_step(path)


def call(stage: str, value: str = "", *, text: str | None = None, well_formed: bool = True, seen: str = "") -> Turn:
    ids = np.ones(2, np.int32)
    return Turn(
        stage, ids, ids, np.zeros(2, np.float32), value if text is None else text, value, well_formed, observation=seen
    )


def made(
    outcome: float,
    *skills: str,
    group: int = 0,
    index: int = 0,
    lesson: tuple[str, str] | None = None,
    word: str = "mug",
) -> Rollout:
    """A rollout of one action whose candidates are `skills`; every text of it is `word`."""
    candidates = tuple(Candidate(skill, 0.5, 0.9, 0.8) for skill in skills)
    rerank = [call("rerank", "1,2", seen=word)] if len(skills) > 1 else []
    act, distill = call("act", word, text=f"{word} ", seen=word), call("distill", word, well_formed=lesson is not None)
    return Rollout(
        task=Task("alfworld", "train", f"train/{word}/{group}", word), instruction=word, group=group, index=index,
        query=word, turns=(call("query", word, seen=word), *rerank, act, distill), candidates=candidates,
        ranking=tuple(range(len(skills))), ranking_parsed=True, selected=skills[0] if skills else None,
        skill=word if skills else "", skill_similarity=0.5 if skills else math.nan, outcome=outcome, score=outcome,
        steps=1, lesson=Lesson(*lesson) if lesson else None,
    )  # fmt: skip


def write(folder: Path, *steps: Sequence[Rollout], variant: str = "full", **changed: object) -> Path:
    """Store `steps` as a run whose library learnt from them."""
    fields = {name.replace("__", "."): value for name, value in changed.items()}
    config = load_config("nano", variant, fields)
    run = RunDirectory.create(folder, config, "hash")
    library, journal = SkillLibrary(config.library, HashEncoder()), Journal(run.library_dir / "journal.jsonl")
    for number, rollouts in enumerate(steps, start=1):
        journal.append(library.learn(rollouts, number))
        run.write_rollouts(number, rollouts)
    run.close()
    return folder


# -- an episode -------------------------------------------------------------------------------------------------------


def group_advantages(step: Step, rewards: dict[int, float]) -> dict[int, float]:
    """Skill1 Eq. 10 and 12, written again: rollout of the step -> (reward - mean) / std of its group."""
    result = {}
    for members in step.groups.values():
        numbers = [step.episodes.index(e) for e in members]
        values = np.array([rewards[i] for i in numbers])
        spread = values.std(ddof=1)
        result |= {i: (v - values.mean()) / spread if spread > 1e-8 else 0.0 for i, v in zip(numbers, values)}
    return result


@pytest.mark.slow
def test_an_episode_shows_all_that_is_stored(step: Step) -> None:
    config = step.run.config.credit
    played = [e.rollout for e in step.episodes]
    bad = [sum(not (t.well_formed and t.admissible) for t in r.turns_of("act")) for r in played]
    rewards = {i: r.outcome - 0.1 * min(n, config.max_penalised) for i, (r, n) in enumerate(zip(played, bad))}
    advantages = group_advantages(step, rewards)
    hats = [max((c.utility for c in r.candidates), default=0.0) for r in played]
    lessons = group_advantages(
        step,
        {i: (r.outcome if r.lesson else 0.0) - hats[i] for i, r in enumerate(played)},  # nano: unparsed = lost
    )
    for i, (episode, r) in enumerate(zip(step.episodes, played)):
        view = Parsed(show("body", step, episode))
        assert view.texts("instruction") == [r.instruction] and view.texts("game") == [r.task.game]
        assert view.texts("category") == [r.task.category] and view.texts("outcome") == [f"{r.outcome:g}"]
        assert view.texts("query")[0] == r.query
        assert view.texts("stage") == [t.stage for t in r.turns]
        seen = [t.observation for t in r.turns]
        same = [i > 0 and text == seen[i - 1] for i, text in enumerate(seen)]
        assert view.texts("observation") == ["as above" if s else text for s, text in zip(same, seen)]
        assert view.texts("value") == [t.value for t in r.turns]
        assert view.texts("raw") == [t.text for t in r.turns if t.text != t.value]
        marks = ["ill-formed " * (not t.well_formed) + "inadmissible" * (not t.admissible) for t in r.turns]
        assert view.texts("marks") == marks
        by_stage = {"query": advantages[i], "act": advantages[i], "distill": lessons[i]}
        shown_advantages = dict(zip(range(len(r.turns)), view.texts("advantage"), strict=True))
        for number, turn in enumerate(r.turns):
            if turn.stage in by_stage:
                assert float(shown_advantages[number]) == pytest.approx(by_stage[turn.stage], abs=5e-4)
        measures = {"Return R": rewards[i], "Task and skill, cosine": r.skill_similarity, "U\u0302": hats[i]}
        if r.candidates:
            assert view.texts("utility") == [f"{c.utility:.3f}" for c in r.candidates]
            assert view.texts("score") == [f"{c.score:.3f}" for c in r.candidates]
            assert view.texts("place") == [str(r.ranking.index(k) + 1) for k in range(len(r.candidates))]
            assert view.texts("skill") == [r.skill] and r.skill
        if r.turns_of("rerank"):
            measures["NDCG"] = 0.0  # of a ranking that did not parse
        if r.turns_of("rerank") and r.ranking_parsed:
            gains = np.array([r.candidates[k].utility for k in r.ranking])
            discount = 1 / np.log2(np.arange(len(gains)) + 2)
            expected = (gains * discount).sum() / (np.sort(gains)[::-1] * discount).sum()
            measures["NDCG"] = expected
            assert view.texts("ranking") == [",".join(str(k + 1) for k in r.ranking)]
        told = [(n, float(v)) for n, v in zip(view.texts("name"), view.texts("fact"), strict=True)]
        assert {n: v for n, v in measures.items() if not math.isnan(v)} == pytest.approx(dict(told), abs=5e-5)
        assert view.texts("desc") == ([r.lesson.desc] if r.lesson else [])
        assert view.texts("strategy") == ([r.lesson.strategy] if r.lesson else [])
    # what was compared is there
    assert any(r.candidates for r in played) and any(r.turns_of("rerank") for r in played)
    assert any(r.outcome for r in played) and not all(r.outcome for r in played) and any(advantages.values())


def test_candidates_show_the_skill_as_it_was(path: Path) -> None:
    """Count and text of each candidate, followed through the journal by counting."""
    number = 0
    events = Journal(path / "library" / "journal.jsonl").events()
    loaded = trajectories.load_step(path, STEPS)
    before = [event for event in events if event.step < STEPS]
    admitted = {skill.id: skill for event in before for skill in event.admitted}
    for episode in loaded.episodes:
        for candidate in episode.rollout.candidates:
            skill, born = loaded.skills[candidate.skill], admitted[candidate.skill]
            uses = sum([s for s, _ in event.updates].count(skill.id) + event.merged.count(skill.id) for event in before)
            assert (skill.desc, skill.strategy, skill.count) == (born.desc, born.strategy, 1 + uses)
            assert skill.utility == candidate.utility
            number += 1
    assert number


def test_fates_follow_the_journal(path: Path) -> None:
    for loaded in (trajectories.load_step(path, n) for n in range(1, STEPS + 1)):
        [event] = [e for e in Journal(path / "library" / "journal.jsonl").events() if e.step == loaded.number]
        fates = [e.fate for e in loaded.episodes]
        assert [f.skill for f in fates if f.kind == "admitted"] == [s.id for s in event.admitted]
        assert [f.skill for f in fates if f.kind == "merged"] == list(event.merged)
        texts = {e.fate.skill: e.rollout.lesson for e in loaded.episodes if e.fate.kind == "admitted"}
        assert all(texts[s.id] == Lesson(s.desc, s.strategy) for s in event.admitted)


def test_every_fate_is_told(tmp_path: Path) -> None:
    first = [
        made(1.0, lesson=("a b c", "look")),
        made(1.0, index=1, lesson=("a b c", "look")),
        made(0.0, index=2, lesson=("a b c", "look")),
        made(1.0, index=3),
    ]
    loaded = trajectories.load_step(write(tmp_path / "run", first))
    assert [str(e.fate) for e in loaded.episodes] == [
        "admitted as s000001",
        "merged into s000001, which says the same",
        "not admitted",
        "not admitted: the text did not parse",
    ]
    assert "Merged into s000001, which says the same." in Parsed(show("body", loaded, loaded.episodes[1])).texts("fate")
    full = [made(1.0, lesson=("a", "look here")), made(1.0, index=1, lesson=("b", "look there"))]
    loaded = trajectories.load_step(write(tmp_path / "full", full, library__capacity=1))
    assert str(loaded.episodes[0].fate) == "admitted as s000001, which was retired in the same step"
    assert str(loaded.episodes[1].fate) == "admitted as s000002"


@pytest.mark.parametrize(
    ("changed", "rerank"),
    [
        ({}, "rerank+0.0001"),
        ({"method__rerank_baseline": "none"}, "rerank+1.0001"),
        ({"method__lambda_rerank": 0.0}, "reranknottrained1"),
        ({"method__rerank_baseline": "none", "method__rerank_credit": "return"}, "rerank+0.7071"),
    ],
)
def test_credit_is_summed_up_by_stage(tmp_path: Path, changed: dict[str, object], rerank: str) -> None:
    learnt = [made(1.0, lesson=("a", "left")), made(1.0, index=1, lesson=("b", "right"))]
    used = [made(float(i == 0), "s000001", "s000002", index=i, lesson=("a", "left")) for i in range(2)]
    loaded = trajectories.load_step(write(tmp_path / "run", learnt, used, **changed))
    rows = Parsed(show("body", loaded, loaded.episodes[0])).texts("credit")
    assert any("".join(row.split()).startswith(rerank) for row in rows)
    assert any("".join(row.split()).startswith("distill+0.7071") for row in rows)


def test_what_a_method_keeps_is_shown_by_name(tmp_path: Path) -> None:
    kept = Retrospect(memory=False, reflection=Reflection(None, 1, 3), baseline=0.25)
    won, lost = made(1.0, lesson=("a", "left")), made(0.0, index=1)
    played = [
        replace(r, extra=extra, turns=tuple(turn for turn in r.turns if turn.stage != "query"))
        for r, extra in ((won, Retrospect(reflection=Reflection(True, 2, 2))), (lost, kept))
    ]
    loaded = trajectories.load_step(write(tmp_path / "run", played, variant="retroagent_rl"))
    view = Parsed(show("body", loaded, loaded.episodes[1]))
    facts = dict(zip(view.texts("name"), view.texts("fact"), strict=True))
    assert facts["memory"] == "False" and facts["baseline"] == "0.25" and facts["reflection.success"] == "None"
    assert (facts["reflection.completed"], facts["reflection.listed"]) == ("1", "3")


def test_the_group_stands_beside(step: Step) -> None:
    for members in step.groups.values():
        from_view = Parsed(show("episode", step, members[1]))
        rows = from_view.texts("member")
        assert len(rows) == len(members)
        for e, row in zip(members, rows, strict=True):
            assert f"{e.rollout.index}{'won' if e.won else 'lost'}{e.rollout.steps}" in "".join(row.split())
            assert (e.rollout.selected or "no skill") in row and str(e.fate) in row
        headings = ["".join(parts) for tag, _, parts in from_view.elements if tag == "h4"]
        assert f"The group: {sum(e.won for e in members)} of {len(members)} won" in headings


# -- hostile text -----------------------------------------------------------------------------------------------------


def test_every_character_is_kept_or_pictured() -> None:
    every = "".join(chr(code) for code in range(0x3000) if not 0xD800 <= code < 0xE000) + OWL
    back = Parsed(show("t", every, "x")).texts("x")[0]
    pictures = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}
    assert back == every.translate(pictures)


def test_hostile_texts_are_shown_not_run(tmp_path: Path) -> None:
    evil = {"lesson": (HOSTILE, HOSTILE), "word": HOSTILE}
    learnt = [made(1.0, **evil), made(0.0, index=1, **evil)]
    used = [made(1.0, "s000001", **evil), made(0.0, index=1, **evil)]
    run = write(tmp_path / "run", learnt, used)
    out = viewer.export(run, run)
    text = out.read_text(encoding="utf-8")
    view = Parsed(text)
    assert view.tags == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "h4", "p", "b", "details", "summary", "div",
        "table", "tr", "th", "td", "span", "section", "ol", "li", "br",
    }  # fmt: skip
    assert view.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "id", "open", "colspan"}
    stored = ("instruction", "game", "category", "query", "observation", "value", "raw", "skill", "desc", "strategy")
    for name in stored:
        assert any(SEEN in found for found in view.texts(name)), name
    assert SEEN in "".join(view.texts("case"))
    assert "\x00" not in text and "\x1b" not in text
    explorer = viewer.Explorer(run)
    assert "<script" not in explorer.view.value and show("t", HOSTILE) in explorer.view.value


# -- the export -------------------------------------------------------------------------------------------------------


def test_the_export_holds_every_episode_and_nothing_foreign(path: Path, step: Step, tmp_path: Path) -> None:
    out = viewer.export(path, tmp_path / "new" / "page.html", prompts=True)
    text = out.read_text(encoding="utf-8")
    view = Parsed(text)
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]
    assert not {"script", "link", "img", "iframe", "a"} & view.tags and not re.search(r"https?:|url\(|@import", text)
    assert view.texts("value") == [  # cases show values too, in traces, but not under this name
        t.value for e in step.episodes for t in e.rollout.turns
    ]
    assert len(view.texts("episode")) == len(step.episodes) and len(view.texts("group")) == len(step.groups)
    assert view.texts("outcome") == [f"{e.rollout.outcome:g}" for e in step.episodes]
    tokenizer = viewer.prompt_reader(step.run)
    turns = [t for e in step.episodes for t in e.rollout.turns]
    assert view.texts("prompt") == [tokenizer(t) for t in turns] and "<act>" in view.texts("prompt")[-2]
    opened = [i for i, found in enumerate(re.findall(r'<details class="group"[^>]*>', text)) if " open" in found]
    assert opened == [list(step.groups).index(step.group_of())]
    assert viewer.export(path, tmp_path / "again.html", prompts=True).read_bytes() == out.read_bytes()
    assert str(path.parent) not in text  # readable elsewhere, and the same bytes wherever the run lies
    assert "prefers-color-scheme: dark" in text


def test_a_run_without_a_library_is_shown(world: Path, warm: Path, tmp_path: Path) -> None:
    config = configure(world, warm, "gigpo", train__steps=1, train__save_every=1, train__validate_every=0)
    assert train_easily(config, tmp_path / "run") == 0
    loaded = trajectories.load_step(tmp_path / "run")
    assert {e.fate.kind for e in loaded.episodes} == {"none"} and not loaded.skills
    view = Parsed(viewer.export(tmp_path / "run", tmp_path).read_text())
    assert set(view.texts("stage")) == {"act"} and not view.texts("candidate") and not view.texts("case")
    assert "No case fits" in viewer.cases_view(tmp_path / "run")


# -- case studies -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contrasting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two skills; in step 2 the first wins group 0 and loses group 1, the second the other way round."""
    learnt = [made(1.0, index=0, lesson=("a b", "left")), made(1.0, index=1, lesson=("c d", "right"))]
    used = [
        made(1.0, "s000001", index=0), made(1.0, "s000001", index=1), made(0.0, index=2), made(0.0, "s000002", index=3),
        made(1.0, "s000002", group=1, index=0), made(0.0, "s000001", group=1, index=1),
        made(0.0, group=1, index=2), made(1.0, group=1, index=3),
    ]  # fmt: skip
    return write(tmp_path_factory.mktemp("cases") / "run", learnt, used)


def test_contrasts_by_hand(contrasting: Path) -> None:
    run = RunDirectory.open(contrasting)
    table = case_studies.contrasts(read_uses(run, run.rollout_steps())[0])
    counted = table[["group", "selected", "with", "won_with", "without", "won_without"]].to_numpy().tolist()
    assert counted == [
        [0, "s000001", 2, 2, 2, 0],
        [0, "s000002", 1, 0, 3, 2],
        [1, "s000001", 1, 0, 3, 2],
        [1, "s000002", 1, 1, 3, 1],
    ]
    assert table["difference"].tolist() == pytest.approx([1.0, -2 / 3, -2 / 3, 2 / 3])
    assert set(table["step"]) == {2}  # in step 1 nobody held a skill


def test_cases_follow_their_rules(contrasting: Path) -> None:
    run = RunDirectory.open(contrasting)
    ahead, behind, relied = case_studies.find_cases(run, 1)
    assert (ahead.kind, ahead.skill.id, ahead.group, ahead.shown, ahead.against) == ("ahead", "s000001", 0, 0, 2)
    assert ahead.why == "2 of the 2 episodes with s000001 won, 0 of the group's 2 others."
    assert (behind.kind, behind.skill.id, behind.group, behind.shown, behind.against) == ("behind", "s000002", 0, 3, 0)
    # U of the first: .5, then r = 1, 1, 0 with alpha = .05
    utility = 0.95 * (0.95 * (0.95 * 0.5 + 0.05) + 0.05)
    assert relied.why.startswith(f"After step 2 it has U = {utility:.3f} and n = 4; 3 episodes of the run selected it,")
    assert (relied.kind, relied.skill.id, relied.group) == ("relied on", "s000001", 0)
    assert (relied.shown, relied.against) == (1, None)
    assert (relied.skill.utility, relied.skill.count) == (0.5, 1)  # as it was when it was retrieved
    more = case_studies.find_cases(run, 5)
    assert [(c.kind, c.skill.id) for c in more] == [
        (kind, skill)
        for kind, order in (("ahead", (1, 2)), ("behind", (2, 1)), ("relied on", (1, 2)))
        for skill in (f"s00000{n}" for n in order)
    ]
    text = "".join(Parsed(viewer.cases_view(contrasting)).texts("case"))
    assert "left" in text and "U = 0.500, n = 1" in text and all(c.why in text for c in (ahead, behind, relied))


def test_the_step_in_numbers(contrasting: Path, step: Step) -> None:
    loaded = trajectories.load_step(contrasting)
    assert viewer.won_note(loaded) == "In step 2, 4 of 8 episodes of 2 groups won (50.0 %)."
    table = trajectories.summary(loaded)
    assert table["won"].tolist() == ["2/4", "2/4"] and table["with a skill"].tolist() == [3, 2]
    assert table["different skills"].tolist() == [2, 2] and table["lessons admitted"].tolist() == [0, 0]
    table = trajectories.summary(step)
    assert table["won"].tolist() == [f"{sum(e.won for e in m)}/{len(m)}" for m in step.groups.values()]
    assert table["lessons admitted"].sum() == sum(e.fate.kind == "admitted" for e in step.episodes)
    assert table["ill-formed actions"].sum() == sum(e.rollout.invalid_actions for e in step.episodes)


# -- the widget -------------------------------------------------------------------------------------------------------


def opened(explorer: viewer.Explorer) -> Episode:
    """The episode that the view is of: the only one with this very HTML."""
    found = [
        e
        for e in explorer.current.episodes
        if (e.rollout.group, e.rollout.index) == (explorer.game.value, explorer.rollout.value)
    ]
    assert explorer.view.value == show("fragment", show("episode", explorer.current, found[0]))
    return found[0]


def choices(control: widgets.Dropdown | widgets.ToggleButtons) -> list[object]:
    return [option[1] if isinstance(option, tuple) else option for option in control.options]


def test_the_explorer_follows_its_controls(path: Path, contrasting: Path, step: Step) -> None:
    explorer = viewer.Explorer(path, runs=[path, contrasting])
    assert opened(explorer).rollout.group == step.group_of() and explorer.step.value == STEPS
    assert choices(explorer.game) == list(step.groups)
    explorer.rollout.value = 2
    assert opened(explorer).rollout.index == 2
    explorer.game.value = other = next(g for g in step.groups if g != step.group_of())
    assert opened(explorer).rollout.group == other and explorer.rollout.value == 2
    told = [(e.rollout.index, "won" if e.won else "lost", e.rollout.selected or "no skill") for e in step.groups[other]]
    assert [label for label, _ in explorer.rollout.options] == [" ".join(map(str, words)) for words in told]
    explorer.step.value = 1
    first = trajectories.load_step(path, 1).groups[other][2].rollout
    assert [t.text for t in opened(explorer).rollout.turns] == [t.text for t in first.turns]
    explorer.run.value = contrasting
    assert explorer.step.options == (1, 2) and opened(explorer).rollout.instruction == "mug"
    explorer.run.value = path
    assert explorer.step.value == STEPS and explorer.count.value.endswith(f"{len(step.episodes)} episodes match")
    plain = explorer.view.value
    explorer.prompts.value = True
    shown_prompts = Parsed(explorer.view.value).texts("prompt")
    assert len(shown_prompts) > 2 and all(text.endswith("<write>") for text in shown_prompts)
    explorer.prompts.value = False
    assert explorer.view.value == plain


@pytest.mark.parametrize(
    ("control", "value", "passes"),
    [
        ("outcome", "won", lambda r: r.outcome == 1.0),
        ("outcome", "lost", lambda r: r.outcome == 0.0),
        ("skill", "with skill", lambda r: r.selected is not None),
        ("skill", "without", lambda r: r.selected is None),
        ("actions", "some ill-formed", lambda r: r.invalid_actions > 0),
        ("actions", "some inadmissible", lambda r: r.inadmissible_actions > 0),
    ],
)
def test_filters_narrow_games_and_rollouts(path: Path, step: Step, control: str, value: str, passes) -> None:
    explorer = viewer.Explorer(path)
    explorer.filters[control].value = value
    left = [e.rollout for e in step.episodes if passes(e.rollout)]
    assert [e.rollout.index for e in explorer.matching()] == [r.index for r in left]
    assert explorer.count.value == f"{len(left)} of the step's {len(step.episodes)} episodes match"
    assert choices(explorer.game) == list(dict.fromkeys(r.group for r in left))
    assert choices(explorer.rollout) == [r.index for r in left if r.group == explorer.game.value]
    if left:
        assert passes(opened(explorer).rollout)
    else:
        assert "No episode of this step passes" in explorer.view.value
    explorer.filters[control].value = "all"
    assert opened(explorer) and len(explorer.matching()) == len(step.episodes)


def test_the_category_filter(path: Path, step: Step) -> None:
    explorer = viewer.Explorer(path)
    categories = {e.rollout.task.category for e in step.episodes}
    assert set(explorer.category.options) == {("all", "all"), *((c, c) for c in categories)}
    for category in categories:
        explorer.category.value = category
        assert {e.rollout.task.category for e in explorer.matching()} == {category}
        assert opened(explorer).rollout.task.category == category


def test_a_step_that_vanishes_is_said_not_hidden(path: Path, tmp_path: Path) -> None:
    copy = write(tmp_path / "run", [made(0.0), made(1.0, index=1)], [made(0.0), made(1.0, index=1)])
    explorer = viewer.Explorer(copy)
    (copy / "rollouts" / "step_000001.parquet").unlink()
    explorer.step.value = 1
    assert "has no rollouts of step 1" in explorer.view.value


# -- wrong input ------------------------------------------------------------------------------------------------------


def test_wrong_input_is_refused_by_name(path: Path, step: Step, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run at .*nun \(runs in .*: run\)"):
        viewer.export(path.parent / "nun", tmp_path)
    with pytest.raises(RunError, match=rf"no rollouts of step 9 \(it has steps 1\.\.{STEPS}\)"):
        viewer.Explorer(path, 9)
    known = step.episodes[0].rollout.task.game
    with pytest.raises(ConfigError, match=re.escape(f"did you mean {known!r}")):
        viewer.export(path, tmp_path / "x.html", game=known[:-1])
    assert step.group_of(known) == 0
    assert not (tmp_path / "x.html").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        viewer.export(path, tmp_path / "file" / "x.html")
    empty = RunDirectory.create(tmp_path / "empty", load_config("nano"), "hash")
    with pytest.raises(RunError, match="has no rollouts yet"):
        viewer.Explorer(empty.path)
    assert trajectories.find_runs(path.parent) == [path]


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [made(1.0, lesson=("a", "b")), made(0.0, index=1)])
    other = [made(1.0, lesson=("a", "c")), made(0.0, index=1)]
    RunDirectory.open(run).write_rollouts(1, other)
    with pytest.raises(RunError, match="not of this step's rollouts"):
        trajectories.load_step(run)
    RunDirectory.open(run).write_rollouts(2, other)
    with pytest.raises(RunError, match="no event of step 2"):
        trajectories.load_step(run, 2)
    (run / "library" / "journal.jsonl").unlink()
    with pytest.raises(LibraryError, match="does not exist"):
        trajectories.load_step(run)


def test_a_tokenizer_that_is_gone_is_named(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [made(1.0), made(0.0, index=1)], policy__model=str(tmp_path / "gone"))
    with pytest.raises(RunError, match="no tokenizer at .*gone"):
        viewer.export(run, run, prompts=True)


# -- the notebook -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_notebook_runs_strictly(path: Path, tmp_path: Path) -> None:
    parameters = {"run": str(path), "step": STEPS, "out": str(tmp_path / "page.html"), "cases": 2}
    executed = run_notebook(NOTEBOOKS / "07_trajectories.ipynb", tmp_path / "07_trajectories.ipynb", parameters)
    text = shown(executed)
    explorer = viewer.Explorer(path, STEPS)
    assert explorer.view.value in text  # without widgets too
    assert viewer.won_note(trajectories.load_step(path)) in text
    again = viewer.export(path, tmp_path / "again.html", cases=2)
    assert again.read_bytes() == (tmp_path / "page.html").read_bytes()  # another process, the same bytes
