"""Credit assignment: the equations and what all methods share, against hand-computed numbers and laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hand_made import bare, rollout, turn
from hypothesis import given, settings
from hypothesis import strategies as st

from skill1.config import CreditConfig
from skill1.credit import (
    check_rollouts,
    check_stages,
    distill_rewards,
    group_advantages,
    invalid_actions,
    ndcg,
    ndcgs_of,
    rerank_advantages,
    returns_of,
    rollout_metrics,
    selection_metrics,
    u_hat,
    u_hats_of,
)
from skill1.records import Candidate, Rollout, Stage, Task
from skill1.rows import calls_of, make_rows, row_weights

ROOT_HALF = math.sqrt(0.5)


# --- Eq. 6 and 9: NDCG -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "expected"), [((2, 3, 1), 1.0), ((2, 1, 3), 0.9701), ((1, 2, 3), 0.7737), ((1, 3, 2), 0.7339)]
)
def test_ndcg_hand_check(order: tuple[int, ...], expected: float) -> None:
    assert ndcg([k - 1 for k in order], [0.2, 0.9, 0.5]) == pytest.approx(expected, abs=5e-5)


def test_ndcg_written_out() -> None:
    dcg = 0.9 / math.log2(2) + 0.2 / math.log2(3) + 0.5 / math.log2(4)
    ideal = 0.9 / math.log2(2) + 0.5 / math.log2(3) + 0.2 / math.log2(4)
    assert ndcg((1, 0, 2), (0.2, 0.9, 0.5)) == pytest.approx(dcg / ideal, rel=1e-12)


def test_ndcg_without_utility_is_zero_and_ties_are_perfect() -> None:
    assert ndcg((0, 1), (0.0, 0.0)) == 0.0
    assert ndcg((0, 1), (1e-9, 0.0)) == 0.0
    assert ndcg((1, 0), (0.5, 0.5)) == 1.0


@pytest.mark.parametrize("ranking", [(0,), (0, 0), (1, 2), (0, 1, 2)])
def test_ndcg_rejects_what_is_no_permutation(ranking: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not a permutation of the 2"):
        ndcg(ranking, (0.1, 0.2))


@pytest.mark.parametrize("bad", [math.nan, -0.1, math.inf])
def test_ndcg_rejects_bad_utilities(bad: float) -> None:
    with pytest.raises(ValueError, match="finite and >= 0"):
        ndcg((0, 1), (0.1, bad))


@settings(deadline=None)
@given(st.data())
def test_ndcg_laws(data: st.DataObject) -> None:
    utilities = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    ranking = data.draw(st.permutations(range(len(utilities))))
    value = ndcg(ranking, utilities)
    assert 0 <= value <= 1 + 1e-12
    best = sorted(range(len(utilities)), key=lambda k: -utilities[k])
    if max(utilities) > 1e-6:
        assert ndcg(best, utilities) == 1.0
    assert value <= ndcg(best, utilities) + 1e-12
    worst = best[::-1]
    assert value >= ndcg(worst, utilities) - 1e-12


def test_rerank_baseline() -> None:
    values = np.array([1.0, math.nan, 0.5])
    np.testing.assert_array_equal(rerank_advantages(values, "none"), values)
    np.testing.assert_allclose(rerank_advantages(values, "batch_mean"), [0.25, math.nan, -0.25])
    assert np.isnan(rerank_advantages(np.array([math.nan, math.nan]), "batch_mean")).all()


# --- Eq. 4, 7, 10, 12 --------------------------------------------------------------------------------------------


def test_u_hat() -> None:
    assert u_hat([], "max") == u_hat([], "mean") == 0.0
    assert u_hat([0.2, 0.9, 0.4], "max") == 0.9
    assert u_hat([0.2, 0.9, 0.4], "mean") == pytest.approx(0.5)


def test_returns_and_their_cap() -> None:
    def ill(count: int, outcome: float) -> Rollout:
        return bare(outcome=outcome, acts=[turn("act", well_formed=t >= count) for t in range(9)])

    both, config = [ill(3, 1.0), ill(9, 0.0)], CreditConfig(invalid_penalty=0.1)
    np.testing.assert_allclose(returns_of(both, config), [0.7, -0.9])
    np.testing.assert_allclose(returns_of(both, replace(config, max_penalised=5)), [0.7, -0.5])
    np.testing.assert_allclose(returns_of(both, replace(config, max_penalised=0)), [1.0, 0.0])


def test_invalid_actions_count_once_in_their_order_and_inadmissible_ones_when_asked() -> None:
    acts = [turn("act", well_formed=False, admissible=False), turn("act", admissible=False), turn("act")]
    acts.append(turn("act", well_formed=False))

    def found(**changes: object) -> list[bool]:
        return invalid_actions(bare(acts=acts), CreditConfig(**changes)).tolist()

    assert found() == [True, False, False, True]
    assert found(penalise_inadmissible=True) == [True, True, False, True]
    assert found(penalise_inadmissible=True, max_penalised=2) == [True, True, False, False]
    assert found(max_penalised=0) == [False] * 4


def test_group_advantages_by_hand() -> None:
    rewards = np.array([1.0, 5.0, 0.0, 5.0, 0.0, 0.0, 5.0, 5.0])
    groups = np.array([7, 2, 7, 2, 7, 7, 2, 2])
    # Group 7: mean 1/4, squared deviations 9/16 + 3/16 = 3/4, unbiased variance 1/4, std 1/2. Group 2: no spread.
    np.testing.assert_allclose(group_advantages(rewards, groups, True), [1.5, 0, -0.5, 0, -0.5, -0.5, 0, 0])
    np.testing.assert_allclose(group_advantages(rewards, groups, False), [0.75, 0, -0.25, 0, -0.25, -0.25, 0, 0])


@pytest.mark.parametrize("scale", [True, False])
def test_rounding_noise_is_no_spread(scale: bool) -> None:
    noisy = np.array([0.1 + 0.2, 0.3, 0.3])
    assert noisy[0] != noisy[1]
    assert (group_advantages(noisy, np.zeros(3, int), scale) == 0).all()


def test_a_group_of_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="group 4 has one rollout"):
        group_advantages(np.array([1.0]), np.array([4]), True)


def test_distill_rewards() -> None:
    outcomes, u_hats, parsed = np.array([1.0, 0.0, 1.0, 0.0]), np.full(4, 0.4), np.array([True, True, False, False])
    np.testing.assert_allclose(distill_rewards(outcomes, u_hats, parsed, "zero"), [0.6, -0.4, 0.0, 0.0])
    np.testing.assert_allclose(distill_rewards(outcomes, u_hats, parsed, "lost"), [0.6, -0.4, -0.4, -0.4])


@st.composite
def grouped(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    sizes = draw(st.lists(st.integers(2, 6), min_size=1, max_size=4))
    values = st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0])
    rewards = draw(st.lists(values, min_size=sum(sizes), max_size=sum(sizes)))
    return np.array(rewards), np.repeat(np.arange(len(sizes)), sizes)


@settings(deadline=None)
@given(grouped(), st.booleans())
def test_group_advantages_sum_to_zero(case: tuple[np.ndarray, np.ndarray], scale: bool) -> None:
    rewards, groups = case
    advantages = group_advantages(rewards, groups, scale)
    for group in np.unique(groups):
        assert advantages[groups == group].sum() == pytest.approx(0, abs=1e-9)
        if scale and np.ptp(rewards[groups == group]) > 0:
            assert advantages[groups == group].std(ddof=1) == pytest.approx(1)


@settings(deadline=None)
@given(grouped(), st.floats(0.1, 100), st.floats(-10, 10))
def test_scaled_advantages_ignore_scale_and_shift(
    case: tuple[np.ndarray, np.ndarray], scale: float, shift: float
) -> None:
    rewards, groups = case
    moved = group_advantages(scale * rewards + shift, groups, True)
    np.testing.assert_allclose(moved, group_advantages(rewards, groups, True), atol=1e-8)
    centred = group_advantages(scale * rewards + shift, groups, False)
    np.testing.assert_allclose(centred, scale * group_advantages(rewards, groups, False), atol=1e-8)


# --- Rollouts to rows --------------------------------------------------------------------------------------------


def test_expectations_and_rankings_of_rollouts() -> None:
    rollouts = [
        rollout(utilities=(0.2, 0.9, 0.5), ranking=(1, 0, 2)),
        rollout(utilities=(0.9, 0.1), ranking_parsed=False),
        rollout(utilities=(0.5,)),
        rollout(),
    ]
    np.testing.assert_allclose(ndcgs_of(rollouts), [0.970141, 0.0, math.nan, math.nan], atol=1e-6)
    np.testing.assert_allclose(u_hats_of(rollouts, "max"), [0.9, 0.9, 0.5, 0.0])
    np.testing.assert_allclose(u_hats_of(rollouts, "mean"), [1.6 / 3, 0.5, 0.5, 0.0])


def test_row_weights_by_hand() -> None:
    stages: list[Stage] = ["query", "rerank", "act", "distill", "act"]
    trajectories, lengths = np.array([0, 0, 0, 0, 1]), np.array([2, 9, 8, 5, 30])
    paper = row_weights(stages, trajectories, lengths, "trajectory", {"rerank": 0.3, "distill": 0.4})
    np.testing.assert_allclose(paper, [2.5 * 0.2, 5 * 0.3, 2.5 * 0.8, 5 * 0.4, 2.5])
    batch = row_weights(stages, trajectories, lengths, "batch", {"rerank": 0.3, "distill": 0.4})
    np.testing.assert_allclose(batch, [5 * 2 / 40, 1.5, 5 * 8 / 40, 2.0, 5 * 30 / 40])
    # a ranking that is no term of its own is one more row of its trajectory
    joined = row_weights(stages, trajectories, lengths, "trajectory", {"distill": 0.4})
    np.testing.assert_allclose(joined, [2.5 * 2 / 19, 2.5 * 9 / 19, 2.5 * 8 / 19, 2.0, 2.5])


def test_rows_are_their_calls() -> None:
    rollouts = [rollout(group=3, index=i, utilities=(0.5, 0.4)) for i in range(2)]
    calls = calls_of(rollouts, without=["rerank"])
    assert [(c.rollout, c.position, c.turn.stage) for c in calls] == [
        (i, t, stage) for i in (0, 1) for t, stage in ((0, "query"), (2, "act"), (3, "act"), (4, "distill"))
    ]
    assert [c.turn.stage for c in calls_of(rollouts)] == ["query", "rerank", "act", "act", "distill"] * 2
    rows = make_rows(rollouts, calls, [float(n) for n in range(8)], "trajectory", {"distill": 0.5})
    assert [row.advantage for row in rows] == list(range(8)) and {row.group for row in rows} == {3}
    # 8 rows; |tau| = 3 + 2 + 4 tokens of 2 trajectories; 2 distill rows
    assert [row.weight for row in rows[:4]] == pytest.approx([4 * 3 / 9, 4 * 2 / 9, 4 * 4 / 9, 0.5 * 4])
    for row, call in zip(rows, calls, strict=True):
        source = rollouts[row.rollout].turns[row.turn]
        assert source is call.turn and row.stage == source.stage
        assert row.prompt_ids is source.prompt_ids
        assert row.completion_ids is source.completion_ids
        assert row.logprobs is source.logprobs
    with pytest.raises(ValueError, match="shorter"):
        make_rows(rollouts, calls, [0.0], "trajectory")


# --- Malformed input ---------------------------------------------------------------------------------------------


def pair(**changes: object) -> list[Rollout]:
    """A sound group of two whose second rollout is changed."""
    return [rollout(index=0, utilities=(0.5, 0.4)), replace(rollout(index=1, utilities=(0.5, 0.4)), **changes)]


@pytest.mark.parametrize(
    ("rollouts", "message"),
    [
        ([], "no rollouts"),
        ([rollout()], "one common size >= 2"),
        ([rollout(index=0), rollout(index=1), rollout(group=1, index=0)], r"\{0: 2, 1: 1\}"),
        (pair(index=0), r"holds an index twice: \[0, 0\]"),
        (pair(task=Task("alfworld", "train", "train/other", "Pick")), "mixes tasks"),
        (pair(outcome=math.nan), "rollout 1 of group 0 .* has outcome nan"),
        (pair(turns=()), "no act turns"),
        (pair(selected="elsewhere"), "'elsewhere', which is not among its candidates"),
        (pair(candidates=(Candidate("s0", math.nan, 0, 0), Candidate("s1", 0.1, 0, 0))), "utility .* expected finite"),
        (pair(turns=(turn("query"), turn("rerank"), turn("act", 0), turn("distill"))), "empty act completion"),
        (
            pair(turns=(turn("query"), turn("rerank"), replace(turn("act"), logprobs=np.zeros(1)), turn("distill"))),
            "act turn of 2 tokens without 2 finite",
        ),
        (
            pair(turns=(turn("query"), replace(turn("act"), logprobs=np.array([-1, math.nan])), turn("distill"))),
            "act turn of 2 tokens without 2 finite",
        ),
    ],
)
def test_malformed_rollouts(rollouts: list[Rollout], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_rollouts(rollouts)


def test_sound_rollouts_pass() -> None:
    check_rollouts(pair())
    check_stages(pair(), {"query": [True, True], "rerank": [True, True], "reflect": [False, False]})


def test_a_stage_must_be_there_once_where_it_is_expected() -> None:
    with pytest.raises(ValueError, match="rollout 1 of group 0 .train/0. has 1 rerank turns, expected 0"):
        check_stages(pair(), {"rerank": [True, False]})
    with pytest.raises(ValueError, match="rollout 0 of group 0 .train/0. has 0 reflect turns, expected 1"):
        check_stages(pair(), {"reflect": [True, False]})
    with pytest.raises(ValueError, match="rollout 0 of group 0 .train/0. has 2 act turns, expected 1"):
        check_stages(pair(), {"act": [True, True]})
    with pytest.raises(ValueError, match="shorter"):
        check_stages(pair(), {"query": [True]})


# --- Metrics -----------------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    rollouts = [
        rollout(0, 0, 1.0, (0.2, 0.9, 0.5), (1, 2, 0)),
        rollout(0, 1, 0.0, (0.6, 0.4), ranking_parsed=False, distilled=False),
        rollout(1, 0, 1.0, (0.3,), acts=[turn("act", 6, well_formed=False, admissible=False)], category="Look"),
        rollout(1, 1, 1.0, acts=[turn("act", 1, admissible=False), turn("act", 1)], category="Look"),
    ]
    assert rollout_metrics(rollouts, returns_of(rollouts, CreditConfig(invalid_penalty=0.1))) == pytest.approx({
        "reward": 0.75,
        "reward_std": ROOT_HALF / 2,
        "frac_reward_zero_std": 0.5,
        "return": (1 + 0 + 0.9 + 1) / 4,
        "frac_return_zero_std": 0.0,
        "query/parse_failures": 0.0,
        "rerank/parse_failures": 0.5,
        "distill/parse_failures": 0.25,
        "actions/ill_formed": 1 / 7,
        "actions/inadmissible": 2 / 7,
        "steps": 7 / 4,
        "query/tokens": 3.0,
        "rerank/tokens": 5.0,
        "act/tokens": (2 + 4 + 2 + 4 + 6 + 1 + 1) / 7,
        "distill/tokens": 7.0,
        "cost/calls": 4 + 2 + 7 + 4.0,  # by stage: query, rerank, act, distill
        "cost/tokens": 4 * 3 + 2 * 5 + 20 + 4 * 7.0,
        "success/Look": 1.0,
        "success/Pick": 0.5,
    })  # fmt: skip
    assert selection_metrics(rollouts) == pytest.approx({
        "selection/utility_retrieved": (0.2 + 0.9 + 0.5 + 0.6 + 0.4 + 0.3) / 6,
        "selection/utility_selected": (0.9 + 0.6 + 0.3) / 3,
        "selection/selected_share": 0.75,
        "selection/retrieved_count": 1.5,
        "selection/zero_retrieved": 0.25,
        "skill_similarity": (0.25 + 0.5 + 0.25) / 3,
    })  # fmt: skip


def test_metrics_are_nan_where_undefined() -> None:
    one = [bare()]
    metrics = rollout_metrics(one, returns_of(one, CreditConfig())) | selection_metrics(one)
    assert {name for name, value in metrics.items() if math.isnan(value)} == {
        "reward_std",
        "frac_reward_zero_std",
        "frac_return_zero_std",
        "selection/utility_retrieved",
        "selection/utility_selected",
        "skill_similarity",
    }
    assert not [name for name in metrics if name.startswith(("query/", "rerank/", "distill/"))]  # never asked
