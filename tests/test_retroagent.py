"""RetroAgent's equations against hand-computed numbers and laws, and what the library and the prompts make of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hand_made import advantages, rollout, rows_of, turn
from hypothesis import given
from hypothesis import strategies as st

from skill1.config import Config, LibraryConfig, load_config, override
from skill1.credit import rollout_metrics, selection_metrics
from skill1.envs.base import Observation
from skill1.library import FrozenLibrary, SkillLibrary
from skill1.methods.references import ReferenceTrajectories
from skill1.methods.retroagent.equations import (
    Potentials,
    Reflection,
    Retrospect,
    intrinsic,
    intrinsic_of,
    judged_right,
    memory_arm,
    potential,
    reflection_rewards,
    return_advantages,
    step_returns,
)
from skill1.methods.retroagent.method import RetroAgent
from skill1.records import Candidate, Lesson, Rollout, Row, Skill
from skill1.rollout import Episode
from skill1.store.rollout_log import read_rollouts, write_rollouts

FREE = {"credit.invalid_penalty": 0.0}
IN_CONTEXT = load_config("paper", "retroagent_in_context", FREE)
RL = load_config("paper", "retroagent_rl", FREE)
TEXT = "put a mug on the desk"  # of rollouts made by hand


def played(
    index: int = 0,
    outcome: float = 0.0,
    completed: int = 0,
    *,
    judged: bool | None = None,
    steps: int = 2,
    group: int = 0,
    baseline: float = 0.0,
    **changed: object,
) -> Rollout:
    """An episode that was reflected on, judged right unless said otherwise; four subtasks."""
    reflection = Reflection(bool(outcome) if judged is None else judged, completed, 4)
    found = rollout(group, index, outcome, acts=[turn("act")] * steps, selection=False)
    return replace(found, **({"extra": Retrospect(True, reflection, baseline)} | changed))


def rows(rollouts: Sequence[Rollout], config: Config, **changes: object) -> list[Row]:
    """Rows of a configuration with changes of the method's options."""
    return RetroAgent.rows(rollouts, override(config, {f"method.{name}": value for name, value in changes.items()}))


# --- phi, Phi, R_int ---------------------------------------------------------------------------------------------


def test_potential_and_intrinsic_reward_by_hand() -> None:
    lost = [potential(Reflection(False, done, 4), won=False) for done in (0, 2, 3)]
    assert (*lost, potential(Reflection(False, 1, 4), won=True)) == (0.0, 0.5, 0.75, 1.0)
    assert [intrinsic(phi, 0.25) for phi in (*lost, 1.0)] == [0.0, 0.25, 0.5, 0.75]


def test_a_reflection_without_judgement_or_subtasks_is_worth_nothing() -> None:
    assert potential(None, won=True) == potential(Reflection(None, 0, 0), won=True) == 0.0
    assert potential(Reflection(False, 0, 0), won=False) == 0.0


@given(st.integers(0, 6), st.integers(0, 6), st.booleans(), st.floats(0, 1))
def test_the_intrinsic_reward_is_in_the_unit_interval(done: int, more: int, won: bool, baseline: float) -> None:
    reward = intrinsic(potential(Reflection(won, done, done + more), won), baseline)
    assert 0.0 <= reward <= 1.0 - baseline + 1e-12
    assert reward == 0.0 or potential(Reflection(won, done, done + more), won) > baseline


def group_of(wins: int, size: int = 8, group: int = 0) -> list[Rollout]:
    return [played(i, float(i < wins), group=group) for i in range(size)]


def ended(instruction: str, game: str, won: bool) -> Episode:
    """An episode of a task at its end, when it is reflected on."""
    start = Observation("", (), instruction)
    task = replace(rollout().task, game=game)
    return Episode(task, 0, 0, (0,), start, start, won=won)


def phi(potentials: Potentials, instruction: str, game: str = "") -> float:
    return potentials.of(ended(instruction, game, True))


def test_phi_is_the_best_share_of_a_group_that_won() -> None:
    potentials = Potentials("text")
    assert phi(potentials, TEXT) == 0.0
    potentials.learn(group_of(4))
    assert phi(potentials, TEXT) == 0.5
    potentials.learn(group_of(2))
    assert phi(potentials, TEXT) == 0.5
    potentials.learn(group_of(5))
    assert phi(potentials, TEXT) == 0.625 and phi(potentials, "another", "train/0") == 0.0


def test_games_of_one_sentence_share_phi_by_text_alone() -> None:
    both = [*group_of(1, group=0), *group_of(6, group=1)]
    by_text, by_game = Potentials("text"), Potentials("game")
    by_text.learn(both)
    by_game.learn(both)
    assert phi(by_text, TEXT) == phi(by_game, TEXT, "train/1") == 0.75
    assert phi(by_game, TEXT, "train/0") == 0.125 and phi(by_game, TEXT) == 0.0


@given(st.lists(st.integers(0, 8), min_size=1, max_size=5), st.randoms())
def test_the_order_of_groups_does_not_matter_to_phi(wins: list[int], random) -> None:
    shuffled = list(wins)
    random.shuffle(shuffled)
    found = []
    for order in (wins, shuffled):
        potentials = Potentials("text")
        potentials.learn([r for g, w in enumerate(order) for r in group_of(w, group=g)])
        found.append(phi(potentials, TEXT))
    assert found == [max(wins) / 8] * 2


def test_phi_and_references_survive_their_files(tmp_path) -> None:
    for same_task in ("text", "game"):
        potentials, references = Potentials(same_task), ReferenceTrajectories(same_task)
        potentials.learn(group_of(3))
        references.learn(group_of(3))
        for state in (potentials, references):
            state.save(tmp_path)
        again, shown = Potentials(same_task), ReferenceTrajectories(same_task)
        for state in (again, shown):
            state.load(tmp_path)
        of_text, of_game = ended(TEXT, "train/9", True), ended("another", "train/0", True)
        asked, other = (of_text, of_game) if same_task == "text" else (of_game, of_text)
        assert (again.of(asked), again.of(other)) == (0.375, 0.0)
        assert shown.opposite(asked) == references.opposite(asked) == [("", "")] * 2
        assert shown.opposite(other) is None


# --- returns to go -----------------------------------------------------------------------------------------------


def test_returns_to_go_by_hand() -> None:
    three = np.zeros(3, dtype=bool)
    # the paper's units: a win is 10, R_int = .5
    np.testing.assert_allclose(10 * step_returns(1.0 + 0.1 * 0.5, three, 0.01, 0.95), [9.47625, 9.975, 10.5])
    charged = step_returns(1.0, np.array([True, False, True]), 0.1, 0.95)
    np.testing.assert_allclose(charged, [0.9025 - 0.1, 0.95, 1.0 - 0.1])
    capped = step_returns(1.0, np.array([True, False, False]), 0.1, 0.95)
    np.testing.assert_allclose(capped, [0.9025 - 0.1, 0.95, 1.0])


def test_only_the_invalid_action_pays_and_no_more_than_the_cap() -> None:
    acts = [turn("act", well_formed=False), turn("act"), turn("act", well_formed=False)]
    group = [played(0, 1.0, 4), played(1, 1.0, 4)]
    group[0] = replace(group[0], turns=(*acts, turn("distill")), steps=3)
    values = np.array([0.9025 - 0.1, 0.95, 1.0, 0.95, 1.0])  # three actions, and two of the other
    for cap, last in ((None, 0.9), (1, 1.0)):
        values[2] = last
        config = override(
            load_config("paper", "retroagent_in_context_released"),
            {"credit.invalid_penalty": 0.1, "credit.max_penalised": cap, "credit.scale_by_std": False},
        )
        assert advantages(rows(group, config), "act") == pytest.approx((values - values.mean()).tolist())


def test_advantages_over_rows_and_over_episodes_by_hand() -> None:
    returns, groups, steps = np.array([0.0, 2.0, 4.0]), np.zeros(3, dtype=int), np.array([2, 1])
    np.testing.assert_allclose(return_advantages(returns, groups, steps, "row", True), [-1, 0, 1])
    # over the episodes' first actions, 0 and 4: mean 2, unbiased deviation 2 sqrt(2)
    root = math.sqrt(0.5)
    np.testing.assert_allclose(return_advantages(returns, groups, steps, "episode", True), [-root, 0, root])
    np.testing.assert_allclose(return_advantages(np.array([1.0, 2.0, 4.0]), groups, steps, "episode", False),
                               [-1.5, -0.5, 1.5])  # fmt: skip


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.integers(0, 4)), min_size=2, max_size=6))
def test_act_rows_are_compared_within_their_group(drawn: list[tuple[int, bool, int]]) -> None:
    group = [played(i, float(won), done, steps=steps) for i, (steps, won, done) in enumerate(drawn)]
    other = [played(i, float(i == 0), group=1) for i in range(len(drawn))]
    alone, beside = (rows(r, IN_CONTEXT) for r in (group, [*group, *other]))
    own = advantages(alone, "act")
    assert sum(own) == pytest.approx(0.0, abs=1e-9)
    assert own == pytest.approx([r.advantage for r in beside if r.stage == "act" and r.group == 0])


def test_progress_decides_where_nobody_won() -> None:
    unequal = [played(i, 0.0, done, steps=1) for i, done in enumerate((0, 2, 3, 3))]
    found = advantages(rows(unequal, IN_CONTEXT), "act")
    rewards = np.array([0.0, 0.05, 0.075, 0.075])
    assert found == pytest.approx(list((rewards - rewards.mean()) / rewards.std(ddof=1)))
    equal = [played(i, 0.0, 2, steps=1) for i in range(4)]
    assert not any(row.advantage for row in rows(equal, IN_CONTEXT))
    assert not any(row.advantage for row in rows(unequal, load_config("paper", "retroagent_in_context_released")))


def test_early_and_late_actions_differ_where_all_won() -> None:
    won = [played(i, 1.0, 4, steps=3, baseline=0.5) for i in range(2)]
    first, second, third = advantages(rows(won, IN_CONTEXT), "act")[:3]
    assert first < second < third


def test_statistics_over_episodes_reach_the_rows() -> None:
    group = [played(0, 1.0, 4, steps=2), played(1, 0.0, 0, steps=1)]
    # over the first actions, .95 * 1.1 and 0: mean .5225
    changes = {"statistics": "episode", "gamma": 0.95}
    config = override(IN_CONTEXT, {"credit.scale_by_std": False})
    assert advantages(rows(group, config, **changes), "act") == pytest.approx([0.5225, 1.1 - 0.5225, -0.5225])


def test_metrics_by_hand() -> None:
    group = [
        played(0, 1.0, 2, baseline=0.25), played(1, 0.0, 3, judged=True, baseline=0.25),
        played(2, 1.0, extra=Retrospect(True, Reflection(None, 0, 0))), played(3, 1.0, extra=Retrospect(memory=False)),
    ]  # fmt: skip
    returns = np.array([1 + 0.1 * 0.75, 0.1 * 0.5, 1.0, 1.0])
    assert [intrinsic_of(r) for r in group] == [0.75, 0.5, 0.0, 0.0]
    common = rollout_metrics(group, returns) | selection_metrics(group)
    metrics = RetroAgent.metrics(group, IN_CONTEXT)
    assert metrics["return"] == pytest.approx(returns.mean())
    assert metrics == pytest.approx(common | {
        "memory/success": 2 / 3,
        "memory/control": 1.0,
        "reflection/potential": (1 + 0.75 + 0 + 0) / 4,
        "reflection/intrinsic": (0.75 + 0.5 + 0 + 0) / 4,
        "reflection/right": 1 / 4,
    }, nan_ok=True)  # fmt: skip
    assert math.isnan(RetroAgent.metrics(group[:2], IN_CONTEXT)["memory/control"])


# --- reflections -------------------------------------------------------------------------------------------------


def test_rewards_of_reflections_by_hand() -> None:
    outcomes, right = np.array([1.0, 1.0, 0.0, 0.0]), np.array([True, False, True, False])
    intrinsics = np.array([0.5, 0.0, 0.25, 0.0])
    assert reflection_rewards(outcomes, right, intrinsics, "judged").tolist() == [1, 0, 1, 0]
    assert reflection_rewards(outcomes, right, intrinsics, "judged_won").tolist() == [1, 0, 0, 0]
    assert reflection_rewards(outcomes, right, intrinsics, "intrinsic").tolist() == [0.5, 0, 0.25, 0]


def test_reflect_rows_are_compared_over_the_batch() -> None:
    unread = Retrospect(True, Reflection(None, 0, 0))
    batch = [
        played(0, 1.0, 4, baseline=0.5), played(1, 1.0, 0, judged=False, baseline=0.5),
        played(0, 0.0, 3, group=1), played(1, 0.0, group=1, extra=unread),
    ]  # fmt: skip
    assert [judged_right(r) for r in batch] == [True, False, True, False]

    def found(**changed: object) -> list[float]:
        return advantages(rows(batch, RL, **changed), "distill")

    assert found() == pytest.approx([0.5 / math.sqrt(1 / 3), -0.5 / math.sqrt(1 / 3)] * 2)
    assert found(reflect_baseline="none") == [1, 0, 1, 0]
    assert found(reflect_baseline="group") == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)] * 2)
    assert found(reflect_reward="intrinsic", reflect_baseline="none") == [0.5, 0.5, 0.75, 0.0]
    assert found(reflect_reward="judged_won", reflect_baseline="none") == [1, 0, 0, 0]
    assert not rows_of(rows(batch, IN_CONTEXT), "distill")


def test_a_reflection_row_weighs_as_its_stage_says() -> None:
    batch = [played(i, float(i), 4 * i) for i in range(2)]
    found = rows(batch, RL)
    assert {row.weight for row in rows_of(found, "distill")} == {len(found) / 2}
    assert {row.weight for row in rows_of(rows(batch, RL, lambda_reflect=0.5), "distill")} == {len(found) / 4}
    assert [row.weight for row in rows_of(found, "act")] == [len(found) / 2 / 2] * 4  # two trajectories of two actions


def test_every_rollout_has_one_reflection_and_no_query() -> None:
    batch = [played(0, 1.0), played(1, 0.0)]
    for turns, message in (
        ((turn("act"),), "rollout 1 of group 0 .* has 0 distill turns, expected 1"),
        ((turn("act"), turn("distill"), turn("distill")), "has 2 distill turns, expected 1"),
        ((turn("query"), turn("act"), turn("distill")), "has 1 query turns, expected 0"),
    ):
        with pytest.raises(ValueError, match=message):
            rows([batch[0], replace(batch[1], turns=turns)], IN_CONTEXT)


def test_stages_in_the_order_of_an_episode() -> None:
    assert list(RetroAgent.trained_stages(IN_CONTEXT).items()) == [("act", 2048), ("distill", 2048)]
    assert RetroAgent.skills_shown(IN_CONTEXT) == (1, 0.5)
    shown = override(IN_CONTEXT, {"library.top_k": 3, "method.memory_share": 0.25})
    assert RetroAgent.skills_shown(shown) == (3, 0.25)


# --- memory ------------------------------------------------------------------------------------------------------


def test_the_last_half_of_a_group_remembers() -> None:
    assert memory_arm(8, 0.5) == [False] * 4 + [True] * 4
    assert memory_arm(3, 0.5) == [False, True, True]  # floor(G / 2) control
    assert memory_arm(4, 1.0) == [True] * 4 and memory_arm(10, 0.7).count(True) == 7


class Angles:
    """An encoder whose texts are cosines with "query"."""

    dimension = 2

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        cosines = np.array([1.0 if text == "query" else float(text) for text in texts])
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32).reshape(-1, 2)


def memory(**fields: object) -> SkillLibrary:
    return SkillLibrary(replace(IN_CONTEXT.library, **fields), Angles())


def seen(candidates: Sequence[str] = (), outcome: float = 0.0, lesson: Lesson | None = None, judged: bool = True):
    """A rollout as the library sees it; judged right or not."""
    given = tuple(Candidate(c, 0.5, 0.9, 0.9) for c in candidates)
    said = Retrospect(True, Reflection(bool(outcome) == judged, 1, 4))
    return played(outcome=outcome, candidates=given, lesson=lesson, extra=said)


def test_similarity_and_utility_by_hand() -> None:
    """Cosines .8 and .9, utilities .5 and .9, counts 1 and 8, N = 10 with a third that is below the floor."""
    held = {"near": ("0.8", 0.5, 1), "proven": ("0.9", 0.9, 8), "far": ("0.3", 1.0, 1)}
    skills = {
        name: Skill(name, cosine, "", TEXT, utility, count, 1, 1, "success")
        for name, (cosine, utility, count) in held.items()
    }
    embeddings = Angles().encode([skill.desc for skill in skills.values()])
    found = FrozenLibrary(replace(IN_CONTEXT.library, top_k=3), Angles(), skills, embeddings)
    ucb, greedy = ([(c.skill, c.score) for c in found.retrieve(["query"], mode)[0]] for mode in ("ucb", "greedy"))
    assert ucb == [("near", pytest.approx(1.1652, abs=1e-4)), ("proven", pytest.approx(1.0610, abs=1e-4))]
    assert greedy == [("proven", pytest.approx(0.90)), ("near", pytest.approx(0.71))]


def test_training_shows_one_lesson_and_evaluation_three() -> None:
    found = memory()
    found.learn([seen(outcome=1.0, lesson=Lesson(f"0.{i}", f"lesson {i}")) for i in range(3, 9)], 1)
    assert [len(found.retrieve(["query"], mode)[0]) for mode in ("ucb", "greedy")] == [1, 3]
    assert [len(found.frozen().retrieve(["query"], mode)[0]) for mode in ("ucb", "greedy")] == [1, 3]


def test_utility_follows_outcomes() -> None:
    found = memory()
    found.learn([seen(outcome=1.0, lesson=Lesson("0.8", "a lesson"))], 1)
    skill = next(iter(found)).id
    assert found[skill].utility == 0.5
    found.learn([seen([skill], 1.0)], 2)
    assert found[skill].utility == pytest.approx(0.525)
    found.learn([seen([skill], 0.0)], 3)
    assert found[skill].utility == pytest.approx(0.49875) and found[skill].count == 3
    found.learn([seen([], 1.0)], 4)  # of the control half: nothing was retrieved
    assert found[skill].utility == pytest.approx(0.49875) and found[skill].count == 3


def test_what_was_judged_right_is_kept_of_either_outcome() -> None:
    found = memory()
    taught = [
        seen(outcome=0.0, lesson=Lesson("0.5", "a failure seen"), judged=True),
        seen(outcome=0.0, lesson=Lesson("0.5", "a failure missed"), judged=False),
        seen(outcome=1.0, lesson=Lesson("0.5", "a success seen"), judged=True),
        seen(outcome=1.0, lesson=Lesson("0.5", "a success missed"), judged=False),
        seen(outcome=1.0, judged=True),  # had nothing to say
    ]
    event = found.learn(taught, 1, RetroAgent.admits)
    assert [(s.strategy, s.outcome) for s in found] == [("a failure seen", "failure"), ("a success seen", "success")]
    again = memory()
    again.apply(event)
    assert again.state_hash() == found.state_hash()
    paper = SkillLibrary(LibraryConfig(), Angles())
    paper.learn(taught, 1)
    assert [s.strategy for s in paper] == ["a success seen", "a success missed"]


def test_an_equal_lesson_of_a_like_task_merges() -> None:
    found = memory()

    def learn(desc: str, outcome: float, step: int):
        return found.learn([seen(outcome=outcome, lesson=Lesson(desc, "a lesson"))], step, RetroAgent.admits)

    learn("0.8", 1.0, 1)
    assert len(learn("0.81", 0.0, 2).merged) == 1 and len(found) == 1
    assert len(learn("0.1", 0.0, 3).admitted) == 1 and len(found) == 2


# --- logs --------------------------------------------------------------------------------------------------------


def test_reflections_are_logged_in_columns_of_their_own(tmp_path) -> None:
    logged = [
        played(0, 1.0, 4, extra=Retrospect(False, Reflection(True, 4, 4), 0.5)),
        played(1, extra=Retrospect(True, Reflection(None, 0, 0))),
        played(2, extra=Retrospect()),
    ]
    write_rollouts(tmp_path / "rollouts.parquet", logged, RetroAgent.Extra)
    found = read_rollouts(tmp_path / "rollouts.parquet", RetroAgent.Extra)
    assert [r.extra for r in found] == [r.extra for r in logged]
    assert all(type(r.extra) is Retrospect for r in found) and type(found[0].extra.reflection) is Reflection
    column = pq.read_table(tmp_path / "rollouts.parquet", columns=["extra"])["extra"].to_pylist()
    assert [(row["memory"], row["baseline"]) for row in column] == [(False, 0.5), (True, 0.0), (True, 0.0)]
    assert [row["reflection"] and row["reflection"]["completed"] for row in column] == [4, 0, None]
