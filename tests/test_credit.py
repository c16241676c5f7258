"""Credit assignment against hand-computed numbers, brute force, and laws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skill1.config import CreditConfig, load_config
from skill1.credit import (
    METRICS,
    credit,
    credit_metrics,
    distill_rewards,
    group_advantages,
    ndcg,
    rerank_advantages,
    returns,
    row_weights,
    u_hat,
)
from skill1.records import Candidate, Lesson, Reflection, Rollout, Row, Stage, Task, Turn

PAPER = CreditConfig(invalid_penalty=0.0)
NAN = math.nan
ROOT_HALF = math.sqrt(0.5)  # advantage of a win in a group of one win and one loss: 0.5 / sqrt(0.5)


def turn(stage: Stage, tokens: int = 2, well_formed: bool = True, admissible: bool = True) -> Turn:
    return Turn(
        stage=stage,
        prompt_ids=np.arange(3, dtype=np.int32),
        completion_ids=np.arange(tokens, dtype=np.int32),
        logprobs=np.full(tokens, -0.5, dtype=np.float32),
        text="",
        value="",
        well_formed=well_formed,
        admissible=admissible,
    )


def rollout(
    group: int = 0,
    index: int = 0,
    outcome: float = 1.0,
    utilities: Sequence[float] = (),
    ranking: Sequence[int] | None = None,
    acts: Sequence[Turn] | None = None,
    selection: bool = True,
    distilled: bool | None = True,  # None: no distill turn
    ranking_parsed: bool = True,
    tokens: dict[str, int] | None = None,
    category: str = "Pick",
) -> Rollout:
    tokens = tokens or {}
    ranking = tuple(range(len(utilities))) if ranking is None else tuple(ranking)
    acts = [turn("act"), turn("act", 4)] if acts is None else acts
    turns = [turn("query", tokens.get("query", 3))] if selection else []
    if selection and len(utilities) >= 2:
        turns.append(turn("rerank", tokens.get("rerank", 5), ranking_parsed))
    turns += acts
    if distilled is not None:
        turns.append(turn("distill", tokens.get("distill", 7), distilled))
    candidates = tuple(Candidate(f"s{k}", u, 0.5, 0.5) for k, u in enumerate(utilities))
    return Rollout(
        task=Task("alfworld", "train", f"train/{group}", category),
        instruction="put a mug on the desk",
        group=group,
        index=index,
        query="",
        turns=tuple(turns),
        candidates=candidates,
        ranking=ranking,
        ranking_parsed=ranking_parsed,
        selected=candidates[ranking[0]].skill if candidates else None,
        skill="",
        skill_similarity=0.25 * (index + 1) if candidates else NAN,
        outcome=outcome,
        score=outcome,
        steps=len(acts),
        lesson=Lesson("when", "how") if distilled else None,
    )


def rows_of(rows: Sequence[Row], stage: Stage) -> list[Row]:
    return [row for row in rows if row.stage == stage]


def run(rollouts: Sequence[Rollout], config: CreditConfig = PAPER) -> list[Row]:
    return credit(rollouts, config, selection=True, distillation=True)


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


@pytest.mark.parametrize("bad", [NAN, -0.1, math.inf])
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
    values = np.array([1.0, NAN, 0.5])
    np.testing.assert_array_equal(rerank_advantages(values, "none"), values)
    np.testing.assert_allclose(rerank_advantages(values, "batch_mean"), [0.25, NAN, -0.25])
    assert np.isnan(rerank_advantages(np.array([NAN, NAN]), "batch_mean")).all()


# --- Eq. 4, 7, 10, 12 --------------------------------------------------------------------------------------------


def test_u_hat() -> None:
    assert u_hat([], "max") == u_hat([], "mean") == 0.0
    assert u_hat([0.2, 0.9, 0.4], "max") == 0.9
    assert u_hat([0.2, 0.9, 0.4], "mean") == pytest.approx(0.5)


def test_returns_and_their_cap() -> None:
    outcomes, invalid, ndcgs = np.array([1.0, 0.0]), np.array([3, 9]), np.array([0.5, NAN])
    config = CreditConfig(invalid_penalty=0.1)
    np.testing.assert_allclose(returns(outcomes, invalid, ndcgs, config), [0.7, -0.9])
    capped = replace(config, max_penalised=5)
    np.testing.assert_allclose(returns(outcomes, invalid, ndcgs, capped), [0.7, -0.5])
    np.testing.assert_allclose(returns(outcomes, invalid, ndcgs, replace(config, max_penalised=0)), [1.0, 0.0])
    released = replace(config, rerank_credit="return", lambda1=0.4)
    np.testing.assert_allclose(returns(outcomes, invalid, ndcgs, released), [0.9, -0.9])


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


def test_paper_by_hand() -> None:
    rollouts = [
        rollout(index=0, outcome=1.0, utilities=(0.2, 0.9, 0.5), ranking=(1, 0, 2)),
        rollout(index=1, outcome=0.0, utilities=(0.5, 0.4), ranking=(0, 1)),
    ]
    rows = run(rollouts)
    assert [(r.rollout, r.turn, r.stage) for r in rows] == [
        (i, t, stage) for i in (0, 1) for t, stage in enumerate(["query", "rerank", "act", "act", "distill"])
    ]
    for row in rows_of(rows, "query") + rows_of(rows, "act"):
        assert row.advantage == pytest.approx(ROOT_HALF if row.rollout == 0 else -ROOT_HALF)
    assert [r.advantage for r in rows_of(rows, "rerank")] == pytest.approx([0.970141, 1.0], abs=1e-6)
    # r - U_hat = 0.1 and -0.5: two values always normalise to +-sqrt(1/2).
    assert [r.advantage for r in rows_of(rows, "distill")] == pytest.approx([ROOT_HALF, -ROOT_HALF])
    # 10 rows; |tau| = 3 + 2 + 4 tokens; 2 trajectories, 2 rerank rows, 2 distill rows.
    assert [r.weight for r in rows[:5]] == pytest.approx([5 * 3 / 9, 0.3 * 5, 5 * 2 / 9, 5 * 4 / 9, 0.3 * 5])
    for row in rows:
        source = rollouts[row.rollout].turns[row.turn]
        assert row.prompt_ids is source.prompt_ids
        assert row.completion_ids is source.completion_ids
        assert row.logprobs is source.logprobs


def test_distill_credit_is_normalised_separately_with_failures_as_zero() -> None:
    rollouts = [
        rollout(index=0, outcome=1.0, utilities=(0.4,)),  # 0.6
        rollout(index=1, outcome=1.0, utilities=(0.4,), distilled=False),  # unparsed: 0
        rollout(index=2, outcome=0.0, utilities=(0.4,)),  # -0.4: a failed episode's lesson is trained down
        rollout(index=3, outcome=1.0),  # nothing retrieved: 1 - 0
    ]
    rows = run(rollouts)
    rewards = np.array([0.6, 0.0, -0.4, 1.0])  # mean 0.3, squared deviations .09 + .09 + .49 + .49
    expected = (rewards - 0.3) / math.sqrt(1.16 / 3)
    assert [r.advantage for r in rows_of(rows, "distill")] == pytest.approx(expected.tolist())
    assert [r.advantage for r in rows_of(rows, "query")] == pytest.approx([0.5, 0.5, -1.5, 0.5])


def test_u_hat_switch() -> None:
    def advantages(how: str) -> list[float]:
        config = replace(PAPER, u_hat=how, scale_by_std=False)
        rollouts = [rollout(index=0, utilities=(0.8, 0.2)), rollout(index=1, outcome=0.0, utilities=(0.6, 0.6))]
        return [r.advantage for r in rows_of(run(rollouts, config), "distill")]

    assert advantages("max") == pytest.approx([0.4, -0.4])  # 0.2 and -0.6
    assert advantages("mean") == pytest.approx([0.55, -0.55])  # 0.5 and -0.6


def test_zero_variance_group_keeps_its_rows() -> None:
    rows = run([rollout(index=i, utilities=(0.3, 0.1)) for i in range(3)])
    assert len(rows) == 15
    assert all(r.advantage == 0 for r in rows if r.stage != "rerank")
    assert all(r.advantage == 1 for r in rows_of(rows, "rerank"))
    assert all(r.weight > 0 for r in rows)


def test_fewer_than_two_candidates_give_no_rerank_row() -> None:
    rows = run([rollout(index=0, utilities=(0.5,)), rollout(index=1, outcome=0.0)])
    assert not rows_of(rows, "rerank")
    assert [r.weight for r in rows_of(rows, "distill")] == pytest.approx([0.3 * 8 / 2] * 2)


def test_unparsed_ranking_has_credit_zero_and_keeps_its_row() -> None:
    rollouts = [rollout(index=0, utilities=(0.9, 0.1), ranking_parsed=False), rollout(index=1, utilities=(0.9, 0.1))]
    assert [r.advantage for r in rows_of(run(rollouts), "rerank")] == [0.0, 1.0]
    config = replace(PAPER, rerank_baseline="batch_mean")
    assert [r.advantage for r in rows_of(run(rollouts, config), "rerank")] == [-0.5, 0.5]


def test_invalid_actions_count_once_and_only_when_asked() -> None:
    acts = [turn("act", well_formed=False, admissible=False), turn("act", admissible=False), turn("act")]
    rollouts = [rollout(index=0, acts=acts), rollout(index=1)]

    def gap(**changes: object) -> float:
        rows = run(rollouts, CreditConfig(invalid_penalty=0.01, scale_by_std=False, **changes))
        first, second = rows_of(rows, "query")
        return second.advantage - first.advantage

    assert gap() == pytest.approx(0.01)
    assert gap(penalise_inadmissible=True) == pytest.approx(0.02)
    assert gap(penalise_inadmissible=True, max_penalised=1) == pytest.approx(0.01)
    assert gap(max_penalised=0) == 0


def test_released_preset() -> None:
    config = load_config("released").credit
    assert (config.rerank_credit, config.lambda2, config.token_mean) == ("return", 0.0, "batch")
    rollouts = [
        rollout(index=0, outcome=1.0, utilities=(0.2, 0.9, 0.5), ranking=(1, 0, 2)),
        rollout(index=1, outcome=1.0, utilities=(0.9, 0.1)),
        rollout(index=2, outcome=0.0, acts=[turn("act", 6, well_formed=False)]),
    ]
    rows = run(rollouts, config)
    assert not rows_of(rows, "distill")
    total = np.array([1 + 0.3 * ndcg((1, 0, 2), (0.2, 0.9, 0.5)), 1.3, -0.01])
    expected = (total - total.mean()) / total.std(ddof=1)
    assert [r.advantage for r in rows] == pytest.approx([expected[r.rollout] for r in rows])
    # One pool: every row's weight is its share of all tokens, times the number of rows.
    lengths = np.array([len(r.completion_ids) for r in rows])
    assert [r.weight for r in rows] == pytest.approx((len(rows) * lengths / lengths.sum()).tolist())


@pytest.mark.parametrize(
    ("variant", "selection", "distillation", "stages"),
    [
        ("full", True, True, {"query", "rerank", "act", "distill"}),
        ("no_library", False, False, {"act"}),
        ("no_selection", False, True, {"act", "distill"}),
        ("no_distillation", True, False, {"query", "rerank", "act"}),
        ("lambda1_0", True, True, {"query", "act", "distill"}),
        ("lambda2_0", True, True, {"query", "rerank", "act"}),
        ("lambdas_0", True, True, {"query", "act"}),
    ],
)
def test_ablations(variant: str, selection: bool, distillation: bool, stages: set[str]) -> None:
    config = load_config("paper", variant)
    utilities = (0.9, 0.1) if config.library.enabled else ()
    distilled = True if distillation else None
    rollouts = [
        rollout(index=i, outcome=float(i), utilities=utilities, selection=selection, distilled=distilled)
        for i in range(2)
    ]
    rows = credit(rollouts, config.credit, selection=selection, distillation=distillation)
    assert {r.stage for r in rows} == stages
    assert sum(r.weight for r in rows if r.stage in ("query", "act")) == pytest.approx(len(rows))
    for row in rows_of(rows, "act"):
        assert row.advantage == pytest.approx((-ROOT_HALF, ROOT_HALF)[row.rollout])


# --- Eq. 11 and 13: the weights ----------------------------------------------------------------------------------


def direct(rows: Sequence[Row], losses: Sequence[np.ndarray], config: CreditConfig) -> float:
    """Eq. 11 written as three sums, from per-token losses without weights."""
    joined = ("query", "act", "rerank") if config.rerank_credit == "return" else ("query", "act")
    own = {i: [x for r, x in zip(rows, losses, strict=True) if r.rollout == i and r.stage in joined] for i in range(6)}
    taus = [np.concatenate(parts) for parts in own.values()]
    if config.token_mean == "trajectory":
        total = float(np.mean([sum(tau) / len(tau) for tau in taus]))
    else:
        total = float(np.concatenate(taus).mean())
    for stage, factor in (("rerank", config.lambda1), ("distill", config.lambda2)):
        means = [x.mean() for r, x in zip(rows, losses, strict=True) if r.stage == stage and stage not in joined]
        if means and factor:
            total += factor * float(np.mean(means))
    return total


@pytest.mark.parametrize("token_mean", ["trajectory", "batch"])
@pytest.mark.parametrize("rerank_credit", ["loss", "return"])
@pytest.mark.parametrize("lambdas", [(0.3, 0.3), (1.0, 0.0), (0.0, 0.7)])
def test_mean_over_weighted_rows_is_equation_11(
    token_mean: str, rerank_credit: str, lambdas: tuple[float, float]
) -> None:
    config = CreditConfig(lambda1=lambdas[0], lambda2=lambdas[1], token_mean=token_mean, rerank_credit=rerank_credit)
    draw = np.random.default_rng(0)
    rollouts = [
        rollout(
            group=i // 3,
            index=i % 3,
            outcome=float(draw.integers(2)),
            utilities=tuple(draw.random(draw.integers(0, 4))),
            acts=[turn("act", int(n)) for n in draw.integers(1, 30, size=draw.integers(1, 9))],
            tokens={stage: int(draw.integers(1, 20)) for stage in ("query", "rerank", "distill")},
        )
        for i in range(6)
    ]
    rows = run(rollouts, config)
    losses = [draw.normal(size=len(r.completion_ids)) * r.advantage for r in rows]  # the surrogate, linear in A
    trained = np.mean([r.weight * x.mean() for r, x in zip(rows, losses, strict=True)])
    assert trained == pytest.approx(direct(rows, losses, config), rel=1e-10)


def test_row_weights_by_hand() -> None:
    stages: list[Stage] = ["query", "rerank", "act", "distill", "act"]
    trajectories, lengths = np.array([0, 0, 0, 0, 1]), np.array([2, 9, 8, 5, 30])
    paper = row_weights(stages, trajectories, lengths, CreditConfig(lambda1=0.3, lambda2=0.4))
    np.testing.assert_allclose(paper, [2.5 * 0.2, 5 * 0.3, 2.5 * 0.8, 5 * 0.4, 2.5])
    batch = row_weights(stages, trajectories, lengths, CreditConfig(lambda2=0.4, token_mean="batch"))
    np.testing.assert_allclose(batch, [5 * 2 / 40, 1.5, 5 * 8 / 40, 2.0, 5 * 30 / 40])


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(8)), st.sampled_from(["paper", "released", "nano"]))
def test_order_of_rollouts_does_not_matter(order: list[int], preset: str) -> None:
    draw = np.random.default_rng(1)
    rollouts = [
        rollout(
            group=10 * (i // 4),
            index=i % 4,
            outcome=float(i % 3 == 0),
            utilities=tuple(draw.random(i % 4)),
            acts=[turn("act", 1 + i, well_formed=i % 5 > 0)],
            distilled=i % 4 > 0,
        )
        for i in range(8)
    ]
    config = load_config(preset).credit

    def keyed(these: list[Rollout]) -> dict[tuple[int, int, int], tuple[float, float]]:
        return {(r.group, these[r.rollout].index, r.turn): (r.advantage, r.weight) for r in run(these, config)}

    base, moved = keyed(rollouts), keyed([rollouts[i] for i in order])
    assert base.keys() == moved.keys()
    for key, values in base.items():
        assert moved[key] == pytest.approx(values, abs=1e-9)


# --- Malformed input ---------------------------------------------------------------------------------------------


def pair(**changes: object) -> list[Rollout]:
    """A sound group of two whose second rollout is changed."""
    return [rollout(index=0, utilities=(0.5, 0.4)), replace(rollout(index=1, utilities=(0.5, 0.4)), **changes)]


def without(stage: Stage) -> dict[str, object]:
    turns = rollout(utilities=(0.5, 0.4)).turns
    return {"turns": tuple(t for t in turns if t.stage != stage)}


@pytest.mark.parametrize(
    ("rollouts", "message"),
    [
        ([], "no rollouts"),
        ([rollout()], "one common size >= 2"),
        ([rollout(index=0), rollout(index=1), rollout(group=1, index=0)], r"\{0: 2, 1: 1\}"),
        (pair(index=0), r"holds an index twice: \[0, 0\]"),
        (pair(task=Task("alfworld", "train", "train/other", "Pick")), "mixes tasks"),
        (pair(outcome=NAN), "rollout 1 of group 0 .* has outcome nan"),
        (pair(turns=()), "no act turns"),
        (pair(selected="elsewhere"), "'elsewhere', which is not among its candidates"),
        (pair(**without("query")), "0 query turns, expected 1"),
        (pair(**without("rerank")), "0 rerank turns, expected 1 .* 2 candidates"),
        (pair(**without("distill")), "0 distill turns, expected 1"),
        (pair(candidates=(), selected=None), "1 rerank turns, expected 0"),
        (pair(ranking=(0, 0)), "not a permutation"),
        (pair(candidates=(Candidate("s0", NAN, 0, 0), Candidate("s1", 0.1, 0, 0))), "utility .* expected finite"),
        (pair(turns=(turn("query"), turn("rerank"), turn("act", 0), turn("distill"))), "empty act completion"),
        (
            pair(turns=(turn("query"), turn("rerank"), replace(turn("act"), logprobs=np.zeros(1)), turn("distill"))),
            "act turn of 2 tokens without 2 finite",
        ),
        (
            pair(turns=(turn("query"), turn("rerank"), replace(turn("act"), logprobs=[-1, NAN]), turn("distill"))),
            "act turn of 2 tokens without 2 finite",
        ),
    ],
)
def test_malformed_rollouts(rollouts: list[Rollout], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(rollouts)


def test_turns_of_a_stage_that_is_off() -> None:
    with pytest.raises(ValueError, match="1 distill turns, expected 0 with selection=True, distillation=False"):
        credit(pair(), PAPER, selection=True, distillation=False)
    with pytest.raises(ValueError, match="1 query turns, expected 0"):
        credit(pair(), PAPER, selection=False, distillation=True)


def test_a_baseline_without_effect_is_an_error() -> None:
    with pytest.raises(ValueError, match="rerank_baseline has no effect"):
        run(pair(), CreditConfig(rerank_credit="return", rerank_baseline="batch_mean"))


# --- Metrics -----------------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    rollouts = [
        rollout(0, 0, 1.0, (0.2, 0.9, 0.5), (1, 2, 0)),
        rollout(0, 1, 0.0, (0.6, 0.4), ranking_parsed=False, distilled=False),
        rollout(1, 0, 1.0, (0.3,), acts=[turn("act", 6, well_formed=False, admissible=False)], category="Look"),
        rollout(1, 1, 1.0, acts=[turn("act", 1, admissible=False), turn("act", 1)], category="Look"),
    ]
    rollouts[0] = replace(rollouts[0], reflection=Reflection(True, 2, 4), baseline=0.25)
    rollouts[1] = replace(rollouts[1], reflection=Reflection(True, 3, 4), baseline=0.25)
    rollouts[2] = replace(rollouts[2], reflection=Reflection(None, 0, 0))
    rollouts[3] = replace(rollouts[3], memory=False)
    metrics = credit_metrics(rollouts, CreditConfig(invalid_penalty=0.1))
    expected = {
        "reward": 0.75,
        "reward_std": ROOT_HALF / 2,
        "frac_reward_zero_std": 0.5,
        "return": (1 + 0 + 0.9 + 1) / 4,
        "frac_return_zero_std": 0.0,
        "u_hat": (0.9 + 0.6 + 0.3 + 0) / 4,
        "distill_positive_rate": 0.75,
        "ndcg/mean": 0.5,
        "ndcg/std": ROOT_HALF,
        "selection/utility_retrieved": (0.2 + 0.9 + 0.5 + 0.6 + 0.4 + 0.3) / 6,
        "selection/utility_selected": (0.9 + 0.6 + 0.3) / 3,
        "selection/selected_share": 0.75,
        "selection/retrieved_count": 1.5,
        "selection/zero_retrieved": 0.25,
        "query/parse_failures": 0.0,
        "rerank/parse_failures": 0.5,
        "distill/parse_failures": 0.25,
        "actions/ill_formed": 1 / 7,
        "actions/inadmissible": 2 / 7,
        "skill_similarity": (0.25 + 0.5 + 0.25) / 3,
        "steps": 7 / 4,
        "query/tokens": 3.0,
        "rerank/tokens": 5.0,
        "act/tokens": (2 + 4 + 2 + 4 + 6 + 1 + 1) / 7,
        "distill/tokens": 7.0,
        "cost/calls": 4 + 2 + 7 + 4.0,  # by stage: query, rerank, act, distill
        "cost/tokens": 4 * 3 + 2 * 5 + 20 + 4 * 7.0,
        "memory/success": 2 / 3,
        "memory/control": 1.0,
        "reflection/potential": (1 + 0.75 + 0) / 3,
        "reflection/intrinsic": (0.75 + 0.5 + 0) / 3,
        "reflection/right": 1 / 3,
        "success/Look": 1.0,
        "success/Pick": 0.5,
    }
    assert metrics == pytest.approx(expected)
    assert set(expected) == set(METRICS) | {"success/Look", "success/Pick"}


def test_metrics_are_nan_where_undefined() -> None:
    metrics = credit_metrics([rollout(selection=False, distilled=None)], PAPER)
    undefined = {name for name, value in metrics.items() if math.isnan(value)}
    assert undefined == {
        "reward_std",
        "frac_reward_zero_std",
        "frac_return_zero_std",
        "distill_positive_rate",
        "ndcg/mean",
        "ndcg/std",
        "selection/utility_retrieved",
        "selection/utility_selected",
        "query/parse_failures",
        "rerank/parse_failures",
        "distill/parse_failures",
        "skill_similarity",
        "query/tokens",
        "rerank/tokens",
        "distill/tokens",
        "memory/control",
        "reflection/potential",
        "reflection/intrinsic",
        "reflection/right",
    }
    with pytest.raises(ValueError, match="no rollouts"):
        credit_metrics([], PAPER)


def test_texts_are_never_read() -> None:
    def scribbled(r: Rollout) -> Rollout:
        turns = tuple(replace(t, text="<rank>9</rank>", value="junk", observation="won") for t in r.turns)
        return replace(r, turns=turns, instruction="x", query="y", skill="z", lesson=r.lesson and Lesson("", ""))

    rollouts = [rollout(index=i, outcome=float(i), utilities=(0.9, 0.1), distilled=i > 0) for i in range(2)]
    plain, changed = run(rollouts), run([scribbled(r) for r in rollouts])
    assert [(r.advantage, r.weight) for r in plain] == [(r.advantage, r.weight) for r in changed]
    assert credit_metrics(rollouts, PAPER) == credit_metrics([scribbled(r) for r in rollouts], PAPER)
