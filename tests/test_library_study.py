"""The library study on hand-made runs with a real library and journal: tables, paired effects, conflicts, replays."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from distributed_train import run as train_easily
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library_runs import WITH, WITHOUT, config, play_run, rollout, write_run
from nano_runs import configure
from statsmodels.stats.contingency_tables import StratifiedTable
from test_bank_study import SHOWN
from test_bank_study import make as make_bank_run

from skill1.analysis.library import map as library_map
from skill1.analysis.library import payoff as library_payoff
from skill1.analysis.library import replay as library_replay
from skill1.analysis.library import select_study
from skill1.analysis.library import study as library_study
from skill1.analysis.library.select_study import arms_of, play_arms
from skill1.analysis.library.study import LibraryRun, read
from skill1.config import LibraryConfig
from skill1.encoder import HashEncoder
from skill1.errors import RunError
from skill1.library import SkillLibrary
from skill1.records import Candidate, Rollout
from skill1.running.batch import run_notebook
from skill1.store.journal import Journal, LibraryError, LibraryEvent
from skill1.store.run_directory import RunDirectory

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "05_library.ipynb"


def by_hand() -> list[list[Rollout]]:
    """Three steps: four skills with two keys; the mug has two places, one of which is right."""
    learn = [
        rollout(outcome=1.0, index=0, lesson=("mug home1", "mug in shelf")),  # s000001
        rollout(outcome=1.0, index=1, lesson=("mug home1", "mug in drawer")),  # s000002
        rollout(outcome=1.0, index=2, lesson=("egg home2", "egg in sink")),  # s000003
        rollout(outcome=1.0, index=3, lesson=("mug home1", "mug in shelf")),  # merges into s000001
    ]
    mugs = ["s000001", "s000002"]
    use = [
        rollout(mugs, 1.0, group=0, index=0, ranking=(0, 1)),
        rollout(mugs, 1.0, group=0, index=1, ranking=(0, 1)),
        rollout(mugs, 0.0, group=0, index=2, ranking=(1, 0)),
        rollout(mugs, 0.0, group=0, index=3, ranking=(1, 0), lesson=("lost", "a lost episode admits nothing")),
        rollout(["s000003"], 1.0, group=1, index=0),
        rollout((), 0.0, group=1, index=1),
        rollout((), 0.0, group=1, index=2),
        rollout((), 1.0, group=1, index=3, lesson=("Mug  HOME1", "mug in fridge")),  # s000004
    ]
    high, low = Candidate("s000001", 0.6, 0.9, 0.9), Candidate("s000002", 0.4, 0.9, 0.9)
    again = [
        rollout([high, low], 1.0, group=0, index=0, ranking=(0, 1)),
        rollout([high, low], 0.0, group=0, index=1, ranking=(1, 0)),
        rollout([low, high], 1.0, group=0, index=2, ranking=(1, 0)),
        rollout([low, high], 1.0, group=0, index=3, ranking=(0, 1)),
    ]
    return [learn, use, again]


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> LibraryRun:
    run = write_run(tmp_path_factory.mktemp("hand") / "run", by_hand(), config())
    return read(run.path)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> LibraryRun:
    """12 steps of 64 episodes; half of the lessons are wrong."""
    return read(play_run(tmp_path_factory.mktemp("played") / "run", config(), steps=14, homes=2, right=0.4).path)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> LibraryRun:
    """A run whose library of 12 is full from an early step on."""
    return read(play_run(tmp_path_factory.mktemp("full") / "run", config(library__capacity=12), steps=8).path)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_tables_hold_what_was_stored(hand: LibraryRun) -> None:
    assert hand.label == "Skill1, seed 0" and hand.steps == 3
    assert hand.episodes.groupby("step").size().tolist() == [4, 8, 4]
    assert hand.episodes["place"].nunique() == 4  # groups of different steps are different groups
    assert hand.episodes["group"].max() == 1 and hand.episodes["game"].unique().tolist() == ["game"]
    assert hand.episodes["candidates"].tolist() == [0] * 4 + [2] * 4 + [1, 0, 0, 0] + [2] * 4
    assert len(hand.retrievals) == 8 + 1 + 8
    rollouts = [r for step in by_hand() for r in step]
    for row in hand.retrievals.itertuples():
        stored = rollouts[row.episode]
        candidate = stored.candidates[stored.ranking[row.rank]]
        assert (candidate.skill, candidate.utility) == (row.skill, row.utility)
        assert row.shown == (stored.selected == row.skill)
    skills = hand.skills
    assert skills["merged"].tolist() == [1, 0, 0, 0]
    assert skills["retrieved"].tolist() == [8, 8, 1, 0] and skills["shown"].tolist() == [4, 4, 1, 0]
    assert skills["admitted"].tolist() == [1, 1, 1, 2] and skills["retired"].isna().all()
    assert skills["first_retrieved"].tolist()[:3] == [2, 2, 2] and math.isnan(skills["first_retrieved"].iloc[3])


def test_utility_and_count_are_the_librarys(hand: LibraryRun) -> None:
    # s000003: U 0.5, one win; s000001: merged (0.5 stays), then 1 1 0 0, then 1 0 1 1
    assert hand.skills.loc["s000003", ["utility", "count"]].tolist() == pytest.approx([0.95 * 0.5 + 0.05, 2])
    utility = 0.5
    for outcome in (1, 1, 0, 0, 1, 0, 1, 1):
        utility = 0.95 * utility + 0.05 * outcome
    assert hand.skills.loc["s000001", ["utility", "count"]].tolist() == pytest.approx([utility, 10])
    history = hand.history.set_index(["step", "skill"])
    assert history.groupby("step").size().tolist() == [3, 4, 4]
    assert history.loc[(1, "s000001"), ["utility", "count", "age", "retrieved"]].tolist() == [0.5, 2, 0, False]
    assert history.loc[(3, "s000004"), "age"] == 1 and not history.loc[(3, "s000004"), "retrieved"]
    assert history.loc[(2, "s000003"), "retrieved"]


def test_history_is_the_stored_library(full: LibraryRun) -> None:
    library = SkillLibrary.load(full.run.latest_checkpoint().path / "library", full.config, HashEncoder())
    end = full.history[full.history["step"] == full.steps].set_index("skill")
    assert list(end.index) == list(full.alive.index) == [skill.id for skill in library]
    assert end["utility"].tolist() == full.alive["utility"].tolist() == [skill.utility for skill in library]
    assert end["count"].tolist() == [skill.count for skill in library]


def test_a_skill_in_every_prompt_is_shown_whatever_its_rank(tmp_path: Path) -> None:
    study = read(write_run(tmp_path / "run", by_hand(), config(library__inject="all")).path)
    assert study.retrievals["shown"].all() and study.skills["shown"].tolist() == [8, 8, 1, 0]


def test_skills_that_a_run_starts_with_are_part_of_its_life(tmp_path: Path) -> None:
    texts = [{"desc": word, "strategy": f"{word} in sink"} for word in ("mug", "egg", "soap")]
    (tmp_path / "skills.jsonl").write_text("\n".join(map(json.dumps, texts)))
    made = config(library__start=str(tmp_path / "skills.jsonl"), library__capacity=2)
    steps = [[rollout(["s000001"], 1.0), rollout(["s000002"], 1.0, index=1)], [rollout(["s000001"], 0.0)]]
    study = read(write_run(tmp_path / "run", steps, made).path)
    assert study.skills["admitted"].tolist() == [0, 0, 0] and study.skills["retrieved"].tolist() == [2, 1, 0]
    assert study.skills["retired"].dropna().to_dict() == {
        "s000003": 1
    }  # beyond the capacity once the first step learnt
    assert study.history.groupby("step").size().to_dict() == {0: 3, 1: 2, 2: 2}
    table = library_study.concentration(study)
    assert table["step"].tolist() == [1, 2] and table["never_retrieved"].tolist() == [0, 0]
    assert library_study.counterfactual(study, [1])["retired"].tolist() == [2]


def test_a_run_that_cannot_be_studied_says_why(hand: LibraryRun, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(hand.run.path, tmp_path / name))

    with pytest.raises(RunError, match="there is no run"):
        read(tmp_path / "none")
    RunDirectory.create(tmp_path / "plain", config("no_library"), "hash").close()
    with pytest.raises(ValueError, match="no_library.*has no library"):
        read(tmp_path / "plain")
    with pytest.raises(ValueError, match="skillrl.*has no library to study.*parameter bank of 05_library"):
        read(make_bank_run(tmp_path / "skillrl", SHOWN).path)
    RunDirectory.create(tmp_path / "new", config(), "hash").close()
    with pytest.raises(LibraryError, match="does not exist"):
        read(tmp_path / "new")
    path = damaged("torn")
    with (path / "library" / "journal.jsonl").open("ab") as file:
        file.write(b'{"sha256": "12')
    with pytest.raises(RunError, match="torn line.*--resume"):
        read(path)
    path = damaged("corrupt")
    journal = path / "library" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b"mug in drawer", b"mug in Drawer", 1))
    with pytest.raises(LibraryError, match="corrupt in line 2"):
        read(path)
    path = damaged("without")
    for file in (path / "rollouts").iterdir():
        file.unlink()
    with pytest.raises(RunError, match="rollouts of 0 steps.*events of 3"):
        read(path)
    path = damaged("behind")
    (path / "rollouts" / "step_000003.parquet").unlink()
    with pytest.raises(RunError, match="rollouts of 2 steps.*events of 3"):
        read(path)
    path = damaged("cut")
    file = path / "rollouts" / "step_000002.parquet"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(RunError, match="step_000002.parquet is corrupt"):
        read(path)
    path = damaged("mixed")
    shutil.copy(path / "rollouts" / "step_000002.parquet", path / "rollouts" / "step_000003.parquet")
    with pytest.raises(RunError, match="17 uses, the rollouts 18"):
        read(path)
    write_run(tmp_path / "empty", [[rollout(outcome=0.0)]], config())
    with pytest.raises(RunError, match="admitted no skill"):
        read(tmp_path / "empty")


def test_a_journal_of_another_capacity_is_refused(full: LibraryRun) -> None:
    other = replace(full.config, capacity=14)
    with pytest.raises(LibraryError, match="not this configuration's"):
        list(library_replay.moments(full.events, other))


# -- growth, concentration, duplicates --------------------------------------------------------------------------------


def test_retirement_tells_who_leaves(full: LibraryRun, hand: LibraryRun) -> None:
    table = library_study.retirement(full)
    gone = full.skills.dropna(subset="retired")
    assert table["skills"].tolist() == [len(gone), 12] and len(gone) > 12
    assert table.loc["retired", "age"] == (gone["retired"] - gone["admitted"]).median()
    assert table.loc["retired", "never_retrieved"] == (gone["retrieved"] == 0).mean() > 0
    recorded = [(skill, event.step) for event in full.events for skill in event.retired]
    assert sorted(recorded) == sorted(zip(gone.index, gone["retired"].astype(int), strict=True))
    none = library_study.retirement(hand)
    assert none["skills"].tolist() == [0, 4] and math.isnan(none.loc["retired", "age"])
    assert none.loc["kept", "never_shown"] == 0.25


def test_concentration_by_hand(hand: LibraryRun) -> None:
    table = library_study.concentration(hand).set_index("step")
    assert table["shown_skills"].tolist() == [0, 3, 2] and table["retrieved_skills"].tolist() == [0, 3, 2]
    assert math.isnan(table.loc[1, "shown_effective"])
    # step 2 shows s1, s1, s2, s2, s3; retrieves 4, 4 and 1 times
    assert table.loc[2, "shown_effective"] == pytest.approx(math.exp(-(0.8 * math.log(0.4) + 0.2 * math.log(0.2))))
    assert table.loc[2, "retrieved_effective"] == pytest.approx(
        math.exp(-(8 / 9 * math.log(4 / 9) + 1 / 9 * math.log(1 / 9)))
    )
    assert table.loc[3, "shown_effective"] == pytest.approx(2.0) == table.loc[3, "effective_strategies"]
    assert table["never_retrieved"].tolist() == pytest.approx([1.0, 0.25, 0.25])


def test_equal_strategies_count_once(tmp_path: Path) -> None:
    lessons = [rollout(outcome=1.0, lesson=(desc, "look in the sink")) for desc in ("mug", "egg")]  # far keys: no merge
    shown = [rollout([skill], index=i) for i, skill in enumerate(("s000001", "s000002"))]
    study = read(write_run(tmp_path / "run", [lessons, shown], config()).path)
    table = library_study.concentration(study).set_index("step")
    assert table.loc[2, ["shown_effective", "effective_strategies"]].tolist() == pytest.approx([2.0, 1.0])
    copies = library_study.duplicates(study).iloc[0]
    assert copies[["skills", "strategies", "descriptions", "distinct"]].tolist() == [2, 1, 2, 2]
    assert copies[["near", "near_equal", "nearest"]].tolist() == [0, 0, 0]  # words of their own: cosine 0
    assert library_study.duplicates(study, near=-0.1).iloc[0]["near_equal"] == 1


def test_duplicates_by_hand(hand: LibraryRun) -> None:
    found = library_study.duplicates(hand).iloc[0]
    # "Mug  HOME1" and "mug home1" have equal words, "egg home2" has none of theirs
    assert found[["skills", "strategies", "descriptions", "distinct"]].tolist() == [4, 4, 3, 4]
    assert found[["near", "near_equal", "near_different"]].tolist() == [0.75, 0, 0.75]
    assert found["nearest"] == pytest.approx(1.0)


def test_equal_strategies_are_never_nearer_than_they_merge(played: LibraryRun) -> None:
    merge = played.config.merge_similarity
    assert library_study.duplicates(played, merge)["near_equal"].item() == 0
    assert library_study.duplicates(played, merge)["near_different"].item() > 0.5


def test_embeddings_come_from_checkpoints_and_else_from_the_encoder(played: LibraryRun, tmp_path: Path) -> None:
    texts = [*played.alive["desc"].unique(), "a text no skill has"]
    assert np.allclose(played.embed(texts), HashEncoder().encode(texts), atol=1e-6)
    bare = Path(shutil.copytree(played.run.path, tmp_path / "bare"))
    shutil.rmtree(bare / f"checkpoint-{played.steps}")
    again = read(bare).embed(texts)
    assert np.allclose(again, HashEncoder().encode(texts), atol=1e-6)


def test_keys(hand: LibraryRun) -> None:
    assert library_study.keys(hand).tolist() == ["mug home1", "mug home1", "egg home2", "mug home1"]
    assert library_study.keys(hand, 0.99).tolist() == ["mug home1", "mug home1", "egg home2", "mug home1"]
    with pytest.raises(ValueError, match="same_key = 1.5"):
        library_study.keys(hand, 1.5)


def test_near_descriptions_become_one_key(tmp_path: Path) -> None:
    lessons = [rollout(outcome=1.0, lesson=(f"{word} in the big old house", word)) for word in ("mug", "egg")]
    study = read(write_run(tmp_path / "run", [lessons], config()).path)
    assert library_study.keys(study, 0.8).nunique() == 1  # cosine 5/6
    assert library_study.keys(study, 0.9).nunique() == library_study.keys(study).nunique() == 2


# -- which skills pay -------------------------------------------------------------------------------------------------


def test_payoff_by_hand(hand: LibraryRun) -> None:
    table = library_payoff.payoff(hand)
    assert table["shown"].to_dict() == {"s000001": 4, "s000002": 4, "s000003": 1}
    assert table.loc["s000001", "success"] == 1.0 and table.loc["s000002", "success"] == 0.25
    # s000001, step 2: 2 of 4 shown, 2 of 4 won, all with it: excess 2 - 1. Step 3: 2 of 4 shown, 3 won: excess 2 - 1.5.
    # Each group has weight 2 * 2 / 4 = 1, so the difference is (1 + 0.5) / 2.
    assert table.loc["s000001", "difference"] == pytest.approx(0.75)
    assert table.loc["s000002", "difference"] == pytest.approx(-0.75)
    # Hypergeometric variances: 2*2*2*2 / (16 * 3) = 1/3 and 2*2*3*1 / (16 * 3) = 1/4.
    reach = 1.959964 * math.sqrt(1 / 3 + 1 / 4) / 2
    assert table.loc["s000001", ["low", "high"]].tolist() == pytest.approx([0.75 - reach, 1.0], abs=1e-6)  # cut at 1
    # s000003: shown in 1 of 4, won; 2 of 4 won: excess 0.5, weight 0.75
    assert table.loc["s000003", "difference"] == pytest.approx(2 / 3)
    assert table["informative"].tolist() == [2, 2, 1]
    by_strategy = library_payoff.payoff(hand, by="strategy")
    assert by_strategy.loc["mug in shelf", "difference"] == pytest.approx(0.75)


def test_p_is_that_of_cochran_mantel_haenszel(played: LibraryRun) -> None:
    table = library_payoff.payoff(played)
    skill = table["informative"].idxmax()
    shown = played.episodes.index.isin(
        played.retrievals.loc[(played.retrievals["skill"] == skill) & played.retrievals["shown"], "episode"]
    )
    tables = []
    for _, part in played.episodes.assign(shown=shown).groupby("place"):
        cell = [[((part["shown"] == s) & (part["outcome"] == o)).sum() for o in (1, 0)] for s in (True, False)]
        if part["shown"].nunique() == 2:
            tables.append(cell)
    assert table.loc[skill, "groups"] == len(tables) >= table.loc[skill, "informative"] > 5
    reference = StratifiedTable(np.array(tables, dtype=float).transpose(1, 2, 0))
    assert table.loc[skill, "p"] == pytest.approx(reference.test_null_odds(correction=False).pvalue, rel=1e-9)


def test_the_difference_is_that_of_regression_with_a_term_per_group(played: LibraryRun) -> None:
    treated = pd.Series(played.episodes.index % 3 == 0, index=played.episodes.index)  # any split will do
    found = library_payoff.paired_effect(treated, played.episodes)
    frame = pd.DataFrame({"t": treated.astype(float), "y": played.episodes["outcome"], "g": played.episodes["place"]})
    within = frame[["t", "y"]] - frame.groupby("g")[["t", "y"]].transform("mean")
    assert found["difference"] == pytest.approx((within["t"] * within["y"]).sum() / (within["t"] ** 2).sum())


def test_the_task_s_difficulty_cancels() -> None:
    """A skill shown mostly in easy groups, where all win anyway, gains nothing from that."""
    episodes = pd.DataFrame({"place": [0] * 4 + [1] * 4 + [2] * 4, "outcome": [1.0] * 4 + [0.0] * 4 + [1.0, 0, 1, 0]})
    treated = pd.Series([True] * 3 + [False] + [True] + [False] * 3 + [True, True, False, False])
    assert episodes.loc[treated, "outcome"].mean() > episodes.loc[~treated, "outcome"].mean()
    assert library_payoff.paired_effect(treated, episodes)["difference"] == 0
    for nothing in (treated.head(8), treated & False):  # no group with both outcomes, nobody treated
        assert math.isnan(library_payoff.paired_effect(nothing, episodes)["difference"])


def test_skills_that_name_the_right_place_pay(played: LibraryRun) -> None:
    """The hidden truth is found: the player wins .8 with the right place and .2 with a wrong one."""
    table = library_payoff.payoff(played).join(played.skills[["desc", "strategy"]])
    best = table[table["informative"] >= 5].sort_values("difference").groupby("desc").tail(1)
    assert len(best) > 6
    chosen = library_payoff.extremes(played, library_payoff.payoff(played), top=3)
    assert chosen["end"].tolist() == ["help"] * 3 + ["harm"] * 3 and chosen["difference"].is_monotonic_decreasing
    assert not chosen.index.has_duplicates
    assert (chosen["success"] > (WITH + WITHOUT) / 2).tolist() == [True] * 3 + [False] * 3
    judged = library_payoff.judged(library_payoff.payoff(played))
    assert ((judged["p_holm"] < 0.05) & (judged["difference"] > 0)).sum() >= 3


def test_intervals_cover_when_skills_do_nothing(hand: LibraryRun) -> None:
    """300 skills, each shown at random in 25 groups of its own, of every difficulty."""
    rng = np.random.default_rng(0)
    skills, group = 300, np.repeat(np.arange(300 * 25), 8)
    won = rng.random(len(group)) < rng.beta(1, 1, 300 * 25)[group]
    shown = rng.random(len(group)) < rng.beta(2, 2, 300 * 25)[group]
    episodes = pd.DataFrame({"place": group, "outcome": won.astype(float)})
    uses = pd.DataFrame({"episode": np.flatnonzero(shown), "skill": group[shown] // 25, "shown": True})
    table = library_payoff.payoff(replace(hand, episodes=episodes, retrievals=uses))
    assert len(table) == skills
    assert 0.92 <= ((table["low"] <= 0) & (table["high"] >= 0)).mean() <= 0.98
    assert 0.02 <= (table["p"] < 0.05).mean() <= 0.08


# -- conflicts --------------------------------------------------------------------------------------------------------


def test_conflicts_by_hand(hand: LibraryRun) -> None:
    found = library_payoff.conflicts(hand, library_study.keys(hand))
    assert len(found) == 16
    chosen = found[found["rank"] == 0].set_index("episode")["lead"]
    assert chosen.to_dict() == pytest.approx({4: 0, 5: 0, 6: 0, 7: 0, 12: 0.2, 13: -0.2, 14: 0.2, 15: -0.2})
    selections = library_payoff.selections(found)
    assert selections.index.tolist() == [12, 13, 14, 15] and selections["step"].tolist() == [3] * 4
    assert selections["leads"].tolist() == [True, False] * 2 and selections["chance"].tolist() == [0.5] * 4
    # step 3: both that lead won, one of two that trail: excess 2 - 1.5, weight 1
    table = library_payoff.effects(hand, found)
    assert table.iloc[1][["points", "groups"]].tolist() == pytest.approx([50, 1])
    # any skill, in step 2's second group: 1 of 4, won; 2 of 4 won: excess 0.5, weight 0.75
    assert table.iloc[0][["points", "groups"]].tolist() == pytest.approx([200 / 3, 1])
    table = library_payoff.contested(hand, found)
    assert table["strategy"].tolist() == ["mug in drawer", "mug in shelf"]  # equally often selected: as grouped
    assert table["episodes"].tolist() == [8, 8] and table["selected"].tolist() == [4, 4]
    assert table["success"].tolist() == [0.25, 1.0]
    assert table["utility"].tolist() == pytest.approx([(4 * 0.5 + 4 * 0.4) / 8, (4 * 0.5 + 4 * 0.6) / 8])


def test_equal_strategies_and_other_keys_do_not_conflict(hand: LibraryRun) -> None:
    one_each = library_study.keys(hand) + hand.skills["strategy"]
    found = library_payoff.conflicts(hand, one_each)
    assert found.empty and library_payoff.contested(hand, found).empty and library_payoff.selections(found).empty
    none = library_payoff.effects(hand, found).iloc[1]
    assert math.isnan(none["points"]) and none["groups"] == 0


def test_three_rivals_lead_or_trail(hand: LibraryRun) -> None:
    """Two of one strategy are no rivals; the best of the others is what counts."""
    retrievals = pd.DataFrame(
        {
            "episode": 0, "step": 1, "skill": ["a", "b", "c", "d"], "utility": [0.7, 0.6, 0.5, 0.5],
            "rank": [2, 0, 1, 3], "place": range(4),
        }
    )  # fmt: skip
    skills = pd.DataFrame({"strategy": ["x", "x", "y", "z"]}, index=list("abcd"))
    episodes = pd.DataFrame({"place": [0], "outcome": [1.0], "candidates": [4]})
    study = replace(hand, retrievals=retrievals, skills=skills, episodes=episodes)
    found = library_payoff.conflicts(study, pd.Series("key", index=list("abcd")))
    assert found.set_index("skill")["lead"].to_dict() == pytest.approx({"a": 0.2, "b": 0.1, "c": -0.2, "d": -0.2})
    assert library_payoff.selections(found)[["leads", "chance"]].to_numpy().tolist() == [[True, 0.5]]


# -- replays ----------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=6),
    min_size=1, max_size=6,
)  # fmt: skip


def learnt(steps: Sequence[Sequence[tuple[bool, int, int]]], capacity: int) -> tuple[list[LibraryEvent], LibraryConfig]:
    """Events of a real library: each episode retrieves with its word, wins or not, and teaches word and place."""
    made = LibraryConfig(capacity=capacity, top_k=3, encoder="hash")
    library = SkillLibrary(made, HashEncoder(16))
    events = []
    for step, episodes in enumerate(steps, start=1):
        rollouts = [
            rollout(library.retrieve([f"word{word}"], "ucb")[0], float(won), lesson=(f"word{word}", f"place{place}"))
            for won, word, place in episodes
        ]
        events.append(library.learn(rollouts, step))
    return events, made


@given(STEPS, st.integers(1, 12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_replay_at_the_recorded_capacity_is_the_recorded_life(steps: list, capacity: int) -> None:
    events, made = learnt(steps, capacity)
    replayed = list(library_replay.moments(events, made))
    assert [moment.retired for moment in replayed] == [event.retired for event in events]
    assert [moment.lost_merges for moment in replayed] == [0] * len(events)


@given(STEPS, st.integers(1, 12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_smaller_capacity_keeps_a_part_of_what_a_larger_one_keeps(steps: list, capacity: int) -> None:
    events, made = learnt(steps, capacity)
    lives = []
    for kept in range(1, capacity + 1):
        moments = list(library_replay.moments(events, made, kept))
        lives.append([{s.id for s in m.skills} - set(m.retired) for m in moments])
        assert all(len(there) <= kept for there in lives[-1])
    for smaller, larger in itertools.pairwise(lives):
        assert all(a <= b for a, b in zip(smaller, larger, strict=True))


def test_counterfactual_by_hand(hand: LibraryRun) -> None:
    """With room for two, step 1 ends without s000002 or s000003: equal U log(n + 1), so the lower id goes."""
    table = library_study.counterfactual(hand, [4, 2]).set_index("capacity")
    assert table.loc[4].tolist() == [0, 0, 0, 0, 0, 0, 0]
    row = table.loc[2]
    # s000001 (n = 2) and s000003 stay. Then s000004 comes, fresh: it goes at once.
    assert row["retired"] == 2 and row["used_later"] == 1
    assert row["retrievals"] == pytest.approx(8 / 17)  # s000002's
    assert row["shown"] == pytest.approx(4 / 9) and row["won"] == pytest.approx(1 / 6)
    assert row["emptied"] == 0 and row["merges"] == 0
    one = library_study.counterfactual(hand, [1]).iloc[0]
    assert one["emptied"] == pytest.approx(1 / 9)  # the episode with s000003 alone
    with pytest.raises(ValueError, match="capacity 0"):
        list(library_replay.moments(hand.events, hand.config, 0))
    with pytest.raises(ValueError, match="capacity 5001"):
        list(library_replay.moments(hand.events, hand.config, 5001))


def test_merges_into_lost_skills_are_counted(tmp_path: Path) -> None:
    first = [rollout(outcome=1.0, lesson=(word, f"{word} in sink")) for word in ("mug", "egg")]
    again = [rollout(outcome=1.0, lesson=(word, f"{word} in sink")) for word in ("mug", "egg")]
    study = read(write_run(tmp_path / "run", [first, again], config()).path)
    [row] = library_study.counterfactual(study, [1]).itertuples()
    assert row.retired == 1 and row.merges == 1 and math.isnan(row.retrievals)  # nothing was ever retrieved


# -- several capacities, map ------------------------------------------------------------------------------------------


def test_saturation_over_capacities(full: LibraryRun, tmp_path: Path) -> None:
    larger = play_run(tmp_path / "larger", config(library__capacity=5000), steps=8)
    curves = library_study.saturation([larger, full.run])
    assert len(curves) == 16
    table = library_study.saturation_table(curves, share=0.25)
    assert table["capacity"].tolist() == [12, 5000] and table["steps"].tolist() == [2, 2]
    metrics = full.run.metrics()
    assert table["reward"].iloc[0] == pytest.approx(metrics["reward"].tail(2).mean())
    assert (
        table["retired"].iloc[0] == pytest.approx(metrics["library/retired"].tail(2).mean())
        and table["retired"].iloc[1] == 0
    )
    assert table["full_from"].iloc[0] == full.skills["retired"].min() and math.isnan(table["full_from"].iloc[1])
    other = write_run(tmp_path / "other", by_hand(), config(library__top_k=3))
    with pytest.raises(ValueError, match="more than its capacity: library.top_k"):
        library_study.saturation([larger, other])


def test_the_map_places_descriptions_once_for_all_runs(played: LibraryRun, full: LibraryRun) -> None:
    studies = {"played": played, "full": full}
    spots = library_map.places(studies)
    pd.testing.assert_frame_equal(spots, library_map.places(studies))
    assert (spots.groupby("desc")[["x", "y"]].nunique() == 1).all().all()
    for label, study in studies.items():
        part = spots[spots["label"] == label]
        assert part["skills"].sum() == len(study.alive) and part["used"].sum() == math.ceil(len(study.alive) / 10)
    most = library_map.most_used(played)
    assert most["count"].min() >= played.alive.drop(most.index)["count"].max()


def test_coverage_by_hand(hand: LibraryRun) -> None:
    table = library_map.coverage({"hand": hand}).set_index("part")
    assert table["skills"].tolist() == [4, 1] and table["descriptions"].tolist() == [3, 1]
    # three skills have one direction, the fourth is orthogonal: 3 of 6 pairs at distance 1
    assert table.loc["all", "spread"] == pytest.approx(0.5) and math.isnan(table.loc["most used", "spread"])
    assert table.loc["most used", "uses"] == pytest.approx(10 / (10 + 9 + 2 + 1))


def test_runs_that_make_no_map(hand: LibraryRun) -> None:
    with pytest.raises(ValueError, match="4 different descriptions, there are 3"):
        library_map.places({"hand": hand})


# -- notebook -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_notebook_runs_on_trained_runs(
    world: Path, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real runs of two capacities, of an untrained policy in games that are easy to win; raw trajectories as skills."""
    for name, capacity in (("run", 5000), ("small", 6)):
        made = configure(
            world, nano, "no_distillation", environment__max_steps=5, library__capacity=capacity,
            train__validate_every=0, train__steps=3, train__save_every=3, rollout__tasks_per_step=4,
        )  # fmt: skip
        assert train_easily(made, tmp_path / name) == 0
    run, small, out = tmp_path / "run", tmp_path / "small", tmp_path / "out"
    arms = arms_of(configure(world, nano, "no_distillation"), ["policy", "count", "none"], ["query"])
    played = play_arms(run, arms, passes=1, batch=16)
    assert len(played) == len(arms) * played["game"].nunique() == 3 * played["game"].nunique()
    assert played["offered"].sum() == 0 < (played["order"] == "count").sum()  # raw trajectories name no place
    monkeypatch.setattr(select_study, "load_policy", None)  # what is stored is not played again
    assert play_arms(run, arms, passes=1).equals(played)
    given = {
        "run": str(run),
        "against": str(small),
        "capacities": [str(small)],
        "replayed": [4],
        "min_groups": 1,
        "out": str(out),
        "bank": str(make_bank_run(tmp_path / "skillrl", SHOWN).path),
    }
    output = run_notebook(NOTEBOOK, tmp_path / "05_library.ipynb", given)
    drawn = {file.stem for file in out.iterdir()}
    names = ("growth", "lives", "use", "pays", "conflicts", "smaller", "saturation", "map", "selection")
    assert drawn == {f"library_{name}" for name in names} | {"bank_growth"}
    shown = [o for c in nbformat.read(output, as_version=4).cells if c.cell_type == "code" for o in c.outputs]
    texts = "\n".join(str(o.get("data", {}).get("text/plain")) for o in shown)
    assert "gen_001" in texts and "no JSON" in texts  # entries and calls of the bank
    events = Journal(run / "library" / "journal.jsonl").events()
    marked = "\n".join(o["data"]["text/markdown"] for o in shown if "text/markdown" in o.get("data", {}))
    assert f"{sum(len(e.admitted) for e in events)} skills were admitted in {len(events)} steps" in marked
    assert not [o for o in shown if o.output_type == "stream"]  # no warnings
