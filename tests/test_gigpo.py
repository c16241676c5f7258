"""GiGPO's advantages against hand-computed numbers and laws, and that they reach the rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hand_made import bare, turn
from hypothesis import given, settings
from hypothesis import strategies as st

from skill1.config import Config, CreditConfig, load_config, override
from skill1.credit import group_advantages, invalid_actions, returns_of
from skill1.methods.gigpo import GiGPO, discounted_returns, episode_advantages, step_advantages, step_rewards
from skill1.methods.grpo import GRPO
from skill1.records import Rollout

GIGPO = load_config("paper", "gigpo", {"credit.invalid_penalty": 0.0})
ROOT_HALF = math.sqrt(0.5)
FLAGS = st.lists(st.booleans(), min_size=1, max_size=9).map(np.array)


# --- Eq. 5: rewards and returns of steps -------------------------------------------------------------------------


def test_step_rewards_by_hand() -> None:
    invalid = np.array([True, False, True, True])
    np.testing.assert_allclose(step_rewards(1.0, invalid, 0.1), [-0.1, 0.0, -0.1, 0.9])
    np.testing.assert_allclose(step_rewards(1.0, np.array([True, False]), 0.1), [-0.1, 1.0])
    np.testing.assert_allclose(step_rewards(0.0, np.zeros(4, bool), 0.1), [0.0, 0.0, 0.0, 0.0])


def test_discounted_returns_by_hand() -> None:
    np.testing.assert_allclose(discounted_returns(np.array([0.0, 0.0, 1.0]), 0.95), [0.9025, 0.95, 1.0])
    np.testing.assert_allclose(discounted_returns(np.array([-0.1, 0.0, 0.9]), 0.5), [0.125, 0.45, 0.9])
    np.testing.assert_allclose(discounted_returns(np.array([2.0, 3.0]), 0.0), [2.0, 3.0])
    np.testing.assert_allclose(discounted_returns(np.array([1.0]), 0.95), [1.0])


def test_discounting_leaves_the_rewards_alone() -> None:
    rewards = np.array([1.0, 1.0])
    discounted_returns(rewards, 0.9)
    np.testing.assert_array_equal(rewards, [1.0, 1.0])


@given(FLAGS, st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.01, 0.1]), st.none() | st.integers(0, 4))
def test_steps_add_up_to_the_episode(ill: np.ndarray, outcome: float, penalty: float, cap: int | None) -> None:
    config = CreditConfig(invalid_penalty=penalty, max_penalised=cap)
    played = bare(outcome=outcome, acts=[turn("act", well_formed=not bad) for bad in ill])
    rewards = step_rewards(outcome, invalid_actions(played, config), penalty)
    [whole] = returns_of([played], config)
    assert rewards.sum() == pytest.approx(whole)
    assert discounted_returns(rewards, 1.0)[0] == pytest.approx(whole)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9), st.floats(0, 1))
def test_discounted_returns_obey_their_recursion(rewards: list[float], gamma: float) -> None:
    found = discounted_returns(np.array(rewards), gamma)
    np.testing.assert_allclose(found, np.array(rewards) + gamma * np.append(found[1:], 0.0), atol=1e-12)


# --- Eq. 3: episodes ---------------------------------------------------------------------------------------------


def test_episode_statistics_by_hand() -> None:
    outcomes, groups, steps = np.array([1.0, 0.0, 0.0, 5.0, 1.0]), np.array([7, 7, 7, 2, 2]), np.array([1, 4, 3, 2, 2])
    by_episode = episode_advantages(outcomes, groups, steps, "episode", True)
    # Group 7: mean 1/3, squared deviations 4/9 + 1/9 + 1/9 = 2/3, unbiased variance 1/3.
    np.testing.assert_allclose(by_episode[:3], np.array([2 / 3, -1 / 3, -1 / 3]) / math.sqrt(1 / 3))
    by_row = episode_advantages(outcomes, groups, steps, "row", True)
    # Rows of group 7: one 1 and seven 0: mean 1/8, squares (7/8)^2 + 7 (1/8)^2 = 7/8, unbiased variance 1/8.
    np.testing.assert_allclose(by_row[:3], np.array([7 / 8, -1 / 8, -1 / 8]) / math.sqrt(1 / 8))
    # Group 2: two 5s and two 1s: mean 3, squares 4 * 4 = 16, variance 16/3; by episode +-sqrt(1/2).
    np.testing.assert_allclose(by_row[3:], np.array([2, -2]) / math.sqrt(16 / 3))
    np.testing.assert_allclose(by_episode[3:], [ROOT_HALF, -ROOT_HALF])
    np.testing.assert_allclose(
        episode_advantages(outcomes, groups, steps, "row", False), [0.875, -0.125, -0.125, 2, -2]
    )


@given(st.data())
def test_row_statistics_of_equal_lengths_only_rescale(data: st.DataObject) -> None:
    size, length = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 5))
    outcomes = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=size, max_size=size)))
    steps, groups = np.full(size, length), np.zeros(size, int)
    by_episode = episode_advantages(outcomes, groups, steps, "episode", True)
    np.testing.assert_allclose(
        episode_advantages(outcomes, groups, steps, "row", True),
        by_episode * math.sqrt((size * length - 1) / (length * (size - 1))),
        atol=1e-9,
    )
    centred = [episode_advantages(outcomes, groups, steps, how, False) for how in ("episode", "row")]
    np.testing.assert_allclose(*centred, atol=1e-12)


# --- Eq. 6-7: steps ----------------------------------------------------------------------------------------------


def test_step_advantages_by_hand() -> None:
    # Group 0: "a" three times, "b" once; group 1: "a" twice, never compared with group 0's.
    groups = np.array([0, 0, 1, 0, 0, 1])
    anchors = ["a", "b", "a", "a", "a", "a"]
    values = np.array([1.0, 9.0, 4.0, 0.0, 0.5, 2.0])
    # Group 0, "a": 1, 0, .5: mean .5, squared deviations .5, unbiased std .5. Group 1, "a": 4, 2.
    np.testing.assert_allclose(
        step_advantages(values, groups, anchors, True), [1.0, 0.0, ROOT_HALF, -1.0, 0.0, -ROOT_HALF]
    )
    np.testing.assert_allclose(step_advantages(values, groups, anchors, False), [0.5, 0.0, 1.0, -0.5, 0.0, -1.0])


def test_steps_without_company_or_spread_get_nothing() -> None:
    assert (step_advantages(np.array([3.0, 1.0]), np.array([0, 0]), ["a", "b"], True) == 0).all()
    assert (step_advantages(np.array([3.0, 1.0]), np.array([0, 1]), ["a", "a"], True) == 0).all()
    assert (step_advantages(np.array([0.1 + 0.2, 0.3]), np.array([0, 0]), ["a", "a"], True) == 0).all()


def test_anchors_are_one_per_row() -> None:
    with pytest.raises(ValueError, match="shorter"):
        step_advantages(np.zeros(2), np.zeros(2, int), ["a"], True)


@st.composite
def steps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[str]]:
    size = draw(st.integers(1, 12))
    values = draw(st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0]), min_size=size, max_size=size))
    groups = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    return np.array(values), np.array(groups), draw(st.lists(st.sampled_from("abc"), min_size=size, max_size=size))


@settings(deadline=None)
@given(steps(), st.booleans(), st.randoms())
def test_step_advantages_laws(case: tuple[np.ndarray, np.ndarray, list[str]], scale: bool, random) -> None:
    values, groups, anchors = case
    found = step_advantages(values, groups, anchors, scale)
    for pair in set(zip(groups.tolist(), anchors, strict=True)):
        own = np.array([(g, a) == pair for g, a in zip(groups.tolist(), anchors, strict=True)])
        assert found[own].sum() == pytest.approx(0, abs=1e-9)
        if own.sum() == 1:
            assert found[own] == 0
        else:
            alone = group_advantages(values[own], np.zeros(own.sum(), int), scale)
            np.testing.assert_allclose(found[own], alone, atol=1e-9)
    order = list(range(len(values)))
    random.shuffle(order)
    moved = step_advantages(values[order], groups[order], [anchors[i] for i in order], scale)
    np.testing.assert_allclose(moved, found[order], atol=1e-9)
    renamed = step_advantages(values, groups, [f"the {a}" for a in anchors], scale)
    np.testing.assert_array_equal(renamed, found)


# --- In the rows -------------------------------------------------------------------------------------------------


def episode(index: int, outcome: float, seen: list[str], group: int = 0, bad: tuple[int, ...] = ()) -> Rollout:
    acts = [replace(turn("act", well_formed=t not in bad), observation=text) for t, text in enumerate(seen)]
    return bare(group, index, outcome, acts)


def found(rollouts: list[Rollout], config: Config = GIGPO, **changes: object) -> list[float]:
    """Advantages of a configuration with changes; `a__b` stands for `a.b`."""
    changed = override(config, {name.replace("__", "."): value for name, value in changes.items()})
    return [row.advantage for row in GiGPO.rows(rollouts, changed)]


TWO_GROUPS = [
    episode(0, 1.0, ["room", "shelf"]),
    episode(1, 0.0, ["room", "desk", "shelf"]),
    episode(0, 1.0, ["room"], group=1),
    episode(1, 1.0, ["room", "bed"], group=1),
]


def test_two_groups_by_hand() -> None:
    # Group 0: A_E = +-sqrt(1/2). "room": R_0 = .95 and 0; "shelf": 1 and 0; "desk" alone: A_S = +-sqrt(1/2), 0.
    # Group 1: both won, A_E = 0. "room": R_0 = 1 and .95, so the shorter way is the better: +-sqrt(1/2); "bed" alone.
    h = ROOT_HALF
    assert found(TWO_GROUPS) == pytest.approx([2 * h, 2 * h, -2 * h, -h, -2 * h, h, -h, 0])
    assert found(TWO_GROUPS, method__omega=0.5) == pytest.approx(
        [1.5 * h, 1.5 * h, -1.5 * h, -h, -1.5 * h, 0.5 * h, -0.5 * h, 0]
    )
    # F = 1: "room" .475, "shelf" .5 and A_E .5 in group 0; .025 in group 1.
    assert found(TWO_GROUPS, credit__scale_by_std=False) == pytest.approx(
        [0.975, 1.0, -0.975, -0.5, -1.0, 0.025, -0.025, 0]
    )
    # By rows: two 1s and three 0s: mean .4, squares 2 * .36 + 3 * .16 = 1.2, variance .3.
    by_row = {"method__statistics": "row", "method__omega": 0.0}
    centred = found(TWO_GROUPS, credit__scale_by_std=False, **by_row)
    assert centred == pytest.approx([0.6, 0.6, -0.4, -0.4, -0.4, 0, 0, 0])
    assert found(TWO_GROUPS, **by_row) == pytest.approx([a / math.sqrt(0.3) for a in centred])


def test_penalties_are_paid_where_they_happen() -> None:
    rollouts = [episode(0, 1.0, ["room", "shelf"], bad=(1,)), episode(1, 1.0, ["room", "shelf"])]
    changes = {"credit__invalid_penalty": 0.1, "credit__scale_by_std": False, "method__gamma": 0.5}
    # R = .9 and 1: A_E = -+.05. "room": .45 and .5: -+.025. "shelf": .9 and 1: -+.05.
    assert found(rollouts, **changes) == pytest.approx([-0.075, -0.1, 0.075, 0.1])
    assert found(rollouts, credit__max_penalised=0, **changes) == [0.0] * 4


def test_without_step_weight_it_is_grpo() -> None:
    grpo = GRPO.rows(TWO_GROUPS, load_config("paper", "grpo", {"credit.invalid_penalty": 0.0}))
    assert found(TWO_GROUPS, method__omega=0.0) == [row.advantage for row in grpo]
    gigpo = GiGPO.rows(TWO_GROUPS, GIGPO)
    assert [(r.weight, r.rollout, r.turn) for r in gigpo] == [(r.weight, r.rollout, r.turn) for r in grpo]


def test_rollouts_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="groups must have one common size >= 2"):
        GiGPO.rows(TWO_GROUPS[:3], GIGPO)
