"""Skill1's credit: what its equations make of rollouts, against hand-computed numbers and brute force."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hand_made import advantages, bare, rollout, rows_of, turn
from hypothesis import given, settings
from hypothesis import strategies as st

from skill1.config import Config, ConfigError, load_config, method_of, override
from skill1.credit import ndcg, returns_of, rollout_metrics, selection_metrics
from skill1.methods.skill1 import Skill1
from skill1.records import Lesson, Rollout, Row, Stage

PAPER = load_config("paper", overrides={"credit.invalid_penalty": 0.0})
ROOT_HALF = math.sqrt(0.5)  # advantage of a win in a group of one win and one loss: 0.5 / sqrt(0.5)


def run(rollouts: Sequence[Rollout], config: Config = PAPER, **changes: object) -> list[Row]:
    """Rows of a configuration with changes; `a__b` stands for `a.b`."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return Skill1.rows(rollouts, override(config, named))


# --- Eq. 4 to 12 -------------------------------------------------------------------------------------------------


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
    assert advantages(rows, "rerank") == pytest.approx([0.970141, 1.0], abs=1e-6)
    # r - U_hat = 0.1 and -0.5: two values always normalise to +-sqrt(1/2).
    assert advantages(rows, "distill") == pytest.approx([ROOT_HALF, -ROOT_HALF])
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
    assert advantages(rows, "distill") == pytest.approx(expected.tolist())
    assert advantages(rows, "query") == pytest.approx([0.5, 0.5, -1.5, 0.5])
    lost = run(rollouts, method__unparsed_distill="lost", credit__scale_by_std=False)
    assert advantages(lost, "distill") == pytest.approx((np.array([0.6, -0.4, -0.4, 1.0]) - 0.2).tolist())


def test_u_hat_switch() -> None:
    def found(how: str) -> list[float]:
        rollouts = [rollout(index=0, utilities=(0.8, 0.2)), rollout(index=1, outcome=0.0, utilities=(0.6, 0.6))]
        return advantages(run(rollouts, method__u_hat=how, credit__scale_by_std=False), "distill")

    assert found("max") == pytest.approx([0.4, -0.4])  # 0.2 and -0.6
    assert found("mean") == pytest.approx([0.55, -0.55])  # 0.5 and -0.6


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
    assert advantages(run(rollouts), "rerank") == [0.0, 1.0]
    assert advantages(run(rollouts, method__rerank_baseline="batch_mean"), "rerank") == [-0.5, 0.5]


def test_invalid_actions_count_once_and_only_when_asked() -> None:
    acts = [turn("act", well_formed=False, admissible=False), turn("act", admissible=False), turn("act")]
    rollouts = [rollout(index=0, acts=acts), rollout(index=1)]

    def gap(**changes: object) -> float:
        rows = run(rollouts, credit__invalid_penalty=0.01, credit__scale_by_std=False, **changes)
        first, second = advantages(rows, "query")
        return second - first

    assert gap() == pytest.approx(0.01)
    assert gap(credit__penalise_inadmissible=True) == pytest.approx(0.02)
    assert gap(credit__penalise_inadmissible=True, credit__max_penalised=1) == pytest.approx(0.01)
    assert gap(credit__max_penalised=0) == 0


def test_the_price_of_invalid_actions_beside_the_scaled_advantage() -> None:
    acts = [turn("act", well_formed=False), turn("act", well_formed=False), turn("act")]
    won = [rollout(index=0, outcome=1.0, acts=acts), rollout(index=1, outcome=0.0)]
    alike = [rollout(index=i, outcome=0.0, acts=acts if i else None) for i in range(2)]
    half = math.sqrt(0.5)  # z-score of one win among two
    apart = {"credit__invalid_penalty": 0.1, "credit__penalise": "advantage"}
    assert advantages(run(won, **apart), "query") == pytest.approx([half - 0.1, -half + 0.1])
    assert advantages(run(alike, **apart), "query") == pytest.approx([0.1, -0.1])
    assert advantages(run(alike, credit__invalid_penalty=0.1), "query") == pytest.approx([half, -half])  # as a win
    for method in ("gigpo", "retroagent"):
        with pytest.raises(ConfigError, match=f"credit.penalise=advantage has no meaning for {method}"):
            load_config("paper", overrides={"method.name": method, "credit.penalise": "advantage"})


def test_lambda_weighs_a_row_or_each_of_its_tokens() -> None:
    rollouts = [rollout(index=i, outcome=float(i), utilities=(0.9, 0.1)) for i in range(2)]
    by_row, by_token = (run(rollouts, method__lambda_per=per) for per in ("row", "token"))
    for stage in ("rerank", "distill"):
        for row, other in zip(rows_of(by_row, stage), rows_of(by_token, stage), strict=True):
            assert row.weight == pytest.approx(0.3 * len(by_row) / 2)
            assert other.weight == pytest.approx(row.weight * len(row.completion_ids)) != row.weight
    assert [r.weight for r in by_row if r.stage == "act"] == [r.weight for r in by_token if r.stage == "act"]


def test_released_preset() -> None:
    config = load_config("released")
    method = config.method
    assert (method.rerank_credit, method.lambda_distill, config.credit.token_mean) == ("return", 0.0, "batch")
    assert (config.library.injected("ucb"), config.library.injected("greedy")) == ("top1", "all")
    rollouts = [
        rollout(index=0, outcome=1.0, utilities=(0.2, 0.9, 0.5), ranking=(1, 0, 2)),
        rollout(index=1, outcome=1.0, utilities=(0.9, 0.1)),
        rollout(index=2, outcome=0.0, acts=[turn("act", 6, well_formed=False)]),
    ]
    rows = run(rollouts, config)
    assert not rows_of(rows, "distill")
    total = np.array([1 + 0.03 * ndcg((1, 0, 2), (0.2, 0.9, 0.5)), 1.03, -0.01])  # of the calls up to the ranking
    rest = np.array([1, 1, -0.01])  # actions come after it
    expected = {first: (of - of.mean()) / of.std(ddof=1) for first, of in ((True, total), (False, rest))}
    assert [r.advantage for r in rows] == pytest.approx([expected[r.stage != "act"][r.rollout] for r in rows])
    assert {r.stage for r in rows} == {"query", "rerank", "act"}
    # One pool: every row's weight is its share of all tokens, times the number of rows.
    lengths = np.array([len(r.completion_ids) for r in rows])
    assert [r.weight for r in rows] == pytest.approx((len(rows) * lengths / lengths.sum()).tolist())
    assert Skill1.metrics(rollouts, config)["return"] == pytest.approx(total.mean())


def test_a_ranking_in_the_return_counts_beside_the_penalties() -> None:
    config = override(PAPER, {"method.rerank_credit": "return", "method.lambda_rerank": 0.4})
    config = override(config, {"credit.invalid_penalty": 0.1})
    ill = [turn("act", well_formed=t >= 3) for t in range(4)]
    ranked = rollout(utilities=(1.0, 0.0, 0.0), ranking=(1, 2, 0), acts=ill)  # NDCG 1 / log2(4)
    assert Skill1.metrics([ranked], config)["return"] == pytest.approx(0.7 + 0.4 * 0.5)
    assert Skill1.metrics([rollout(outcome=0.0, acts=ill)], config)["return"] == pytest.approx(-0.3)
    assert Skill1.metrics([ranked], PAPER)["return"] == 1.0


@pytest.mark.parametrize(
    ("variant", "stages"),
    [
        ("full", {"query", "rerank", "act", "distill"}),
        ("no_library", {"act"}),
        ("no_selection", {"act", "distill"}),
        ("no_distillation", {"query", "rerank", "act"}),
        ("lambda1_0", {"query", "act", "distill"}),
        ("lambda2_0", {"query", "rerank", "act"}),
        ("lambdas_0", {"query", "act"}),
    ],
)
def test_ablations(variant: str, stages: set[str]) -> None:
    config = load_config("paper", variant)
    method = method_of(config)
    asked = set(method.trained_stages(config))  # a stage without a loss is generated all the same
    utilities = (0.9, 0.1) if config.library else ()
    rollouts = [
        rollout(
            index=i, outcome=float(i), utilities=utilities, selection="query" in asked,
            distilled=True if "distill" in asked else None,
        )
        for i in range(2)
    ]  # fmt: skip
    rows = method.rows(rollouts, config)
    assert {r.stage for r in rows} == stages <= asked
    assert sum(r.weight for r in rows if r.stage in ("query", "act")) == pytest.approx(len(rows))
    for row in rows_of(rows, "act"):
        assert row.advantage == pytest.approx((-ROOT_HALF, ROOT_HALF)[row.rollout])


def test_stages_in_the_order_of_an_episode() -> None:
    options = {"method.max_query_tokens": 1, "method.max_rerank_tokens": 2, "rollout.max_act_tokens": 3}
    options["method.max_distill_tokens"] = 4

    def stages(**switches: bool) -> list[tuple[Stage, int]]:
        named = {f"method.{name}": on for name, on in switches.items()}
        return list(Skill1.trained_stages(load_config("paper", overrides=options | named)).items())

    assert stages() == [("query", 1), ("rerank", 2), ("act", 3), ("distill", 4)]
    assert stages(selection=False) == [("act", 3), ("distill", 4)]
    assert stages(distillation=False) == [("query", 1), ("rerank", 2), ("act", 3)]
    assert Skill1.skills_shown(PAPER) == (1, 1.0)
    everything = load_config("released", overrides={"library.inject": "all"})
    assert Skill1.skills_shown(everything) == (3, 1.0)  # all that are retrieved


# --- Eq. 11 and 13: the weights ----------------------------------------------------------------------------------


def direct(rows: Sequence[Row], losses: Sequence[np.ndarray], config: Config) -> float:
    """Eq. 11 written as three sums, from per-token losses without weights."""
    method = config.method
    joined = ("query", "act", "rerank") if method.rerank_credit == "return" else ("query", "act")
    own = {i: [x for r, x in zip(rows, losses, strict=True) if r.rollout == i and r.stage in joined] for i in range(6)}
    taus = [np.concatenate(parts) for parts in own.values()]
    if config.credit.token_mean == "trajectory":
        total = float(np.mean([sum(tau) / len(tau) for tau in taus]))
    else:
        total = float(np.concatenate(taus).mean())
    for stage, factor in (("rerank", method.lambda_rerank), ("distill", method.lambda_distill)):
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
    config = load_config("paper", overrides={
        "method.lambda_rerank": lambdas[0], "method.lambda_distill": lambdas[1], "credit.token_mean": token_mean,
        "method.rerank_credit": rerank_credit,
    })  # fmt: skip
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
    config = load_config(preset)

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
        (pair(outcome=math.nan), "rollout 1 of group 0 .* has outcome nan"),
        (pair(**without("query")), "rollout 1 of group 0 .* has 0 query turns, expected 1"),
        (pair(**without("rerank")), "rollout 1 of group 0 .* has 0 rerank turns, expected 1"),
        (pair(**without("distill")), "rollout 1 of group 0 .* has 0 distill turns, expected 1"),
        (pair(candidates=(), selected=None), "1 rerank turns, expected 0"),
        (pair(ranking=(0, 0)), "not a permutation"),
    ],
)
def test_malformed_rollouts(rollouts: list[Rollout], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(rollouts)


def test_turns_of_a_stage_that_is_off() -> None:
    with pytest.raises(ValueError, match="1 distill turns, expected 0"):
        run(pair(), method__distillation=False)
    with pytest.raises(ValueError, match="1 query turns, expected 0"):
        run(pair(), method__selection=False)
    with pytest.raises(ValueError, match="1 rerank turns, expected 0"):
        run([replace(r, **without("query")) for r in pair()], method__selection=False)


# --- Metrics -----------------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    rollouts = [
        rollout(0, 0, 1.0, (0.2, 0.9, 0.5), (1, 2, 0)),
        rollout(0, 1, 0.0, (0.6, 0.4), ranking_parsed=False, distilled=False),
        rollout(1, 0, 1.0, (0.3,), acts=[turn("act", 6, well_formed=False, admissible=False)]),
        rollout(1, 1, 1.0),
    ]
    config = override(PAPER, {"credit.invalid_penalty": 0.1})
    common = rollout_metrics(rollouts, returns_of(rollouts, config.credit)) | selection_metrics(rollouts)
    assert Skill1.metrics(rollouts, config) == pytest.approx(common | {
        "u_hat": (0.9 + 0.6 + 0.3 + 0) / 4,
        "distill_positive_rate": 0.75,
        "ndcg/mean": 0.5,
        "ndcg/std": ROOT_HALF,
    })  # fmt: skip


def test_metrics_are_nan_where_undefined() -> None:
    metrics = Skill1.metrics([bare()], PAPER)
    own = {"u_hat", "distill_positive_rate", "ndcg/mean", "ndcg/std"}
    assert {name for name in own if math.isnan(metrics[name])} == own - {"u_hat"}


def test_texts_are_never_read() -> None:
    def scribbled(r: Rollout) -> Rollout:
        turns = tuple(replace(t, text="<rank>9</rank>", value="junk", observation="won") for t in r.turns)
        return replace(r, turns=turns, instruction="x", query="y", skill="z", lesson=r.lesson and Lesson("", ""))

    rollouts = [rollout(index=i, outcome=float(i), utilities=(0.9, 0.1), distilled=i > 0) for i in range(2)]
    plain, changed = run(rollouts), run([scribbled(r) for r in rollouts])
    assert [(r.advantage, r.weight) for r in plain] == [(r.advantage, r.weight) for r in changed]
    assert Skill1.metrics(rollouts, PAPER) == Skill1.metrics([scribbled(r) for r in rollouts], PAPER)
