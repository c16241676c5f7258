"""Tables of a study against numbers worked out by hand: which outcomes count, effects, limits, signals, categories."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_study
from scipy.stats import ttest_ind, ttest_rel

from skill1.analysis import ablations, arms, dynamics, per_category
from skill1.analysis.study import Study, load
from skill1.errors import RunError
from skill1.stats import bootstrap_mean, difference_over_seeds, paired_difference, seed_difference, wilson

SEEN = ("valid_seen",)
THREE = [0, 1, 2]


@pytest.fixture(scope="module")
def study() -> Study:
    """Four variants; no_selection lacks seed 1 of three; a game of each category in unseen homes, two in seen ones."""
    runs = {"no_selection": [0, 2], "full": THREE, "grpo": [1], "no_library": THREE}
    return synthetic_study.make(runs, missing={"no_selection": [1]}, sizes={"valid_seen": 12, "valid_unseen": 6})


def by_hand(won: dict[tuple[str, int, int, str], str], category: str = "Pick") -> Study:
    """(variant, seed, step, library) -> one letter per game, "1" = won; one pass on valid_seen."""
    rows = [
        {
            "variant": variant, "seed": seed, "step": step, "split": "valid_seen", "game": f"g{i}",
            "category": category, "pass": 0, "won": letter == "1", "score": 0.0, "steps": 4 + i,
            "invalid_actions": i % 2, "library": library,
        }
        for (variant, seed, step, library), letters in won.items()
        for i, letter in enumerate(letters)
    ]  # fmt: skip
    keys = dict.fromkeys((variant, seed) for variant, seed, _, _ in won)
    base = synthetic_study.make({"full": [0]}, splits=SEEN)
    runs = [{"variant": v, "seed": s, "steps": 9, "seconds": {}} for v, s in keys]
    return replace(base, evaluations=pd.DataFrame(rows), manifest={**base.manifest, "runs": runs, "passes": 1})


FULL, PLAIN = ("full", 0, 9, "step9"), ("no_library", 0, 9, "none")


# --- Which outcomes count --------------------------------------------------------------------------------------------


def test_a_variants_own_result_is_with_its_library() -> None:
    made = by_hand(
        {
            ("full", 0, 0, "step0"): "000000", FULL: "111110", ("full", 0, 9, "none"): "100000",
            ("full", 0, 9, "step4"): "000000", ("no_library", 0, 0, "none"): "000000", PLAIN: "110000",
        }
    )  # fmt: skip
    own = arms.own(made)
    assert own.groupby("variant")["won"].sum().to_dict() == {"full": 5, "no_library": 2}
    assert set(own["library"]) == {"step9", "none"} and len(own) == 12
    withheld = arms.withheld(made)
    assert set(withheld["variant"]) == {"full"} and withheld["won"].sum() == 1
    assert arms.untrained(made)["won"].sum() == 0 and set(arms.untrained(made)["variant"]) == {"untrained"}
    share = ablations.library_share(made)
    assert share["variant"].tolist() == ["full"] and share["points"].tolist() == pytest.approx([400 / 6])


@pytest.mark.parametrize(
    ("won", "message"),
    [
        ({FULL: "10", ("no_library", 0, 0, "none"): "00"}, "no_library seed 0 has no evaluation after training"),
        ({FULL: "10", ("full", 1, 9, "none"): "10"}, "full seed 1 has no evaluation after .* its own library"),
        ({FULL: "10", PLAIN: "100"}, "no_library seed 0 played other .* full seed 0 .3 and 2 episodes"),
        ({FULL: "10", ("no_library", 0, 5, "none"): "10"}, "no_library seed 0 .* step 5, full seed 0 after step 9"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(won: dict, message: str) -> None:
    with pytest.raises(RunError, match=message):
        arms.own(by_hand(won))


def test_an_evaluation_that_was_not_made_is_named() -> None:
    made = by_hand({FULL: "10", PLAIN: "00"})
    with pytest.raises(RunError, match="full seed 0 has no evaluation before training .*baseline = true"):
        arms.untrained(made)
    with pytest.raises(RunError, match="no evaluation with the library withheld"):
        ablations.library_share(made)


def test_rates_by_hand() -> None:
    made = by_hand({("full", 0, 9, "step9"): "1100", ("full", 1, 9, "step9"): "1110", ("full", 2, 9, "step9"): "1000"})
    overall, pick = (row for _, row in arms.rates(made, arms.own(made)).iterrows())
    assert overall["category"] == "Overall" and overall["value"] == pytest.approx(50.0)  # (2 + 3 + 1) / 12
    assert overall["seed_std"] == pytest.approx(25.0)  # 50, 75, 25
    assert (overall["games"], overall["passes"], overall["seeds"]) == (4, 1, 3)
    games = pd.DataFrame([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]])
    expected = bootstrap_mean(games.stack(), np.tile(range(4), 3), np.repeat(range(3), 4))
    assert (overall["low"], overall["high"]) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert pick["value"] == overall["value"]
    equal = by_hand({FULL: "1111"})
    one = arms.rates(equal, arms.own(equal)).iloc[0]  # resampling equal games would say [100, 100]
    assert one["low"] == pytest.approx(100 * wilson(4, 4).low) and math.isnan(one["seed_std"])


def test_the_untrained_policy_is_one_policy(study: Study) -> None:
    """Nine runs evaluated it with the same seeds: they are repeats, no training seeds."""
    many = arms.rates(study, arms.untrained(study)).drop(columns="variant")
    first = study.evaluations.query("step == 0 and variant == 'full' and seed == 0")
    one = arms.rates(study, first).drop(columns="variant")
    pd.testing.assert_frame_equal(many.drop(columns="seeds"), one.drop(columns="seeds"))
    assert set(many["seeds"]) == {0} and set(one["seeds"]) == {1}


# --- Effects ---------------------------------------------------------------------------------------------------------


def test_compare_by_hand() -> None:
    made = by_hand(
        {
            ("full", 0, 9, "step9"): "1110", ("full", 1, 9, "step9"): "1100",
            ("no_library", 0, 9, "none"): "1000", ("no_library", 1, 9, "none"): "1000",
            ("no_library", 2, 9, "none"): "0000",
        }
    )  # fmt: skip
    parts = dict(tuple(arms.own(made).groupby("variant")))
    found = ablations.compare(parts["no_library"], parts["full"])
    assert found["points"] == pytest.approx(100 * (1 / 6 - 5 / 8))
    assert (found["games"], found["seeds"], found["reference_seeds"]) == (4, 3, 2)
    expected = ttest_ind([0.25, 0.25, 0.0], [0.75, 0.5], equal_var=False)
    assert found["seeds_p"] == pytest.approx(expected.pvalue)
    assert found["seeds_low"] == pytest.approx(100 * expected.confidence_interval().low)
    # per game -1/3, -1, -1/2, 0: of 8 sign changes 2 are as extreme
    assert found["games_p"] == pytest.approx(0.25)
    assert found["games_low"] >= -100 and found["games_high"] <= 0


def test_seeds_with_worlds_of_their_own_are_paired(tmp_path: Path) -> None:
    runs = dict.fromkeys(("full", "no_library", "lambda1_0"), (0, 1, 2, 3))
    study = synthetic_study.in_own_worlds(synthetic_study.make(runs, sizes={"valid_seen": 12}, splits=SEEN))
    table = ablations.effects(study).set_index("variant")
    rates = study.evaluations.query("library != 'none' or variant == 'no_library'").query("step > 0")
    rates = rates.groupby(["variant", "seed"])["won"].mean().unstack()
    for variant in ("no_library", "lambda1_0"):
        expected = ttest_rel(rates.loc[variant], rates.loc["full"])
        low, high = expected.confidence_interval()
        row = table.loc[variant]
        assert (row.games, row.seeds) == (48, 4)
        assert row.points == pytest.approx(100 * (rates.loc[variant] - rates.loc["full"]).mean())
        assert (row.seeds_low, row.seeds_high) == pytest.approx((100 * low, 100 * high))
        assert row.seeds_p == pytest.approx(expected.pvalue)
        assert row.both_low < row.points < row.both_high
    assert "new runs (paired t)" in ablations.effect_table(study).columns
    assert per_category.gains(study)["games"].max() == 48 and len(arms.by_seed(arms.untrained(study))) == 4
    assert "paired t" not in str(
        ablations.points_table(study, ablations.library_share(study), ["split", "variant"]).columns
    )
    # names of games that another world has too are told apart when a study is read
    plain = replace(study, evaluations=synthetic_study.make(runs, sizes={"valid_seen": 12}, splits=SEEN).evaluations)
    loaded = load(synthetic_study.write(plain, tmp_path / "own"))
    assert loaded.evaluations["game"].nunique() == 48 and loaded.own_worlds
    # a run that is not there yet leaves its world out of the comparison
    frame, runs = study.evaluations, study.manifest["runs"]
    less = replace(
        study,
        evaluations=frame[(frame["variant"] != "lambda1_0") | (frame["seed"] != 3)],
        manifest={**study.manifest, "runs": [r for r in runs if (r["variant"], r["seed"]) != ("lambda1_0", 3)]},
    )
    part = ablations.effects(less).set_index("variant")
    assert part["games"].to_dict() == {"lambda1_0": 36, "no_library": 48}
    assert part.loc["lambda1_0", "points"] == pytest.approx(
        100 * (rates.loc["lambda1_0"] - rates.loc["full"])[[0, 1, 2]].mean()
    )
    other = study.evaluations.assign(game=study.evaluations["game"].where(study.evaluations["variant"] != "full", "x"))
    with pytest.raises(RunError, match="no_library seed 0 played other games or passes than full seed 0"):
        arms.own(replace(study, evaluations=other))


def test_one_variant_plays_the_untrained_policy_for_all() -> None:
    study = synthetic_study.make({"full": (0, 1), "no_library": (0, 1)}, splits=SEEN)
    frame = study.evaluations
    one = replace(study, evaluations=frame[(frame["step"] > 0) | (frame["variant"] == "full")])
    pd.testing.assert_frame_equal(
        arms.results(one, before=True).drop(columns="passes"), arms.results(study, before=True).drop(columns="passes")
    )
    lost = one.evaluations
    lost = replace(one, evaluations=lost[(lost["step"] > 0) | (lost["seed"] == 0)])
    with pytest.raises(RunError, match="full seed 1 has no evaluation before training"):
        arms.untrained(lost)


def test_where_resampling_is_blind_there_is_no_interval() -> None:
    made = by_hand({FULL: "1111", PLAIN: "0000"})
    found = ablations.effects(made).iloc[0]
    assert found["points"] == -100 and found[["games_low", "both_high", "seeds_p"]].isna().all()
    assert found["games_p"] == pytest.approx(0.125)
    single = ablations.effects(by_hand({FULL: "1", PLAIN: "0"})).iloc[0]
    assert single["points"] == -100 and single[["games_low", "games_p", "both_low"]].isna().all()
    assert ablations.effect_table(made).iloc[0]["these runs, new games"] == ""
    assert "0 of 1 variant differ significantly from it over new runs." in ablations.summary(made)


@pytest.mark.slow
def test_effects_are_paired_adjusted_and_beside_the_published(study: Study) -> None:
    table = ablations.effects(study)
    seen = table[table["split"] == "valid_seen"].set_index("variant")
    assert seen.index.tolist() == ["no_library", "no_selection", "grpo"]
    assert seen["kind"].tolist() == ["ablation", "ablation", "baseline"]
    assert seen["published"].tolist() == [-16.6, -5.7, -19.9]  # of Table 1: grpo, which is not no_library here
    own = arms.own(study).query("split == 'valid_seen'").assign(won=lambda f: f["won"].astype(float))
    one, full = (own[own["variant"] == name].set_index("game")["won"] for name in ("no_selection", "full"))
    expected = paired_difference(one, full)
    assert seen.loc["no_selection", "points"] == pytest.approx(100 * expected.value)
    assert seen.loc["no_selection", "games_low"] == pytest.approx(100 * expected.low)
    first, second = sorted(seen.loc[["no_library", "no_selection"], "games_p"])
    assert sorted(seen["games_holm"][:2]) == pytest.approx(sorted([min(1, 2 * first), min(1, max(2 * first, second))]))
    assert seen.loc["grpo", "games_holm"] == seen.loc["grpo", "games_p"]  # a family of its own
    assert math.isnan(seen.loc["grpo", "seeds_holm"])  # one seed
    text = ablations.effect_table(study)
    assert text.loc[("valid_seen", "GRPO"), "seeds"] == "1 against 3"
    assert text.loc[("valid_seen", "no library (GRPO)"), "published, points"] == "-16.6"


@pytest.mark.slow
def test_the_summary_names_what_differs_significantly(study: Study) -> None:
    sure = by_hand(
        {("full", s, 9, "step9"): "1" * 10 + "10"[s % 2] + "0" for s in THREE}
        | {("no_library", s, 9, "none"): "10"[s % 2] + "0" * 11 for s in THREE}
        | {("gigpo", s, 9, "none"): "1" * 10 + "01"[s % 2] + "0" for s in THREE}
    )
    [line] = ablations.summary(sure).splitlines()
    row = ablations.effects(sure).set_index("variant").loc["no_library"]
    interval = f"[{row['both_low']:+.1f}, {row['both_high']:+.1f}]"
    assert "Skill1 wins 88.9 [" in line and "(n = 12 games, 1 pass, 3 seeds); 1 of 2 variants differ" in line
    assert f"no library (GRPO) -83.3 {interval} points, Holm p < .001, 3 against 3 seeds" in line
    assert f"below {ablations.resolution(sure)['if_runs'].iloc[0]:.1f} points" in line
    assert len(ablations.summary(study).splitlines()) == 2  # a sentence a split


def test_nothing_to_compare_with_is_an_error(study: Study) -> None:
    without = synthetic_study.make({"no_library": [0], "grpo": [0]}, splits=SEEN)
    for table in (ablations.effects, ablations.resolution):
        with pytest.raises(RunError, match=r"no finished run of full .* \(it has no_library, grpo\): add it"):
            table(without)
    with pytest.raises(RunError, match="has full alone: add variants"):
        ablations.effects(synthetic_study.make({"full": [0]}, splits=SEEN))
    assert per_category.headline(without) == ["no_library"]  # categories need no full
    assert per_category.headline(synthetic_study.make({"gigpo": [0]}, splits=SEEN)) == ["gigpo"]


@pytest.mark.slow
def test_methods_are_compared_with_plain_grpo_too() -> None:
    seeds = [0, 1]
    study = synthetic_study.make(dict.fromkeys(("full", "no_library", "no_selection", "gigpo", "retroagent_rl"), seeds))
    table = ablations.effects(study, "no_library")
    assert set(table["variant"]) == {"full", "gigpo", "retroagent_rl"} and set(table["kind"]) == {ablations.BASELINE}
    mirrored = ablations.effects(study).set_index(["split", "variant"]).loc[("valid_seen", "no_library")]
    row = table.set_index(["split", "variant"]).loc[("valid_seen", "full")]
    assert row["points"] == pytest.approx(-mirrored["points"]) and row["seeds_p"] == pytest.approx(mirrored["seeds_p"])
    shown = ablations.grpo_table(study)
    assert list(shown.loc["valid_seen"].index) == ["Skill1", "GiGPO", "RetroAgent (RL-trained)"]
    assert (
        ablations.grpo_table(synthetic_study.make(dict.fromkeys(("full", "no_library", "no_selection"), seeds))) is None
    )


def test_resolution_by_hand(study: Study) -> None:
    table = ablations.resolution(study)
    assert table[["games", "passes", "seeds"]].to_numpy().tolist() == [[12, 2, 3], [6, 2, 3]]
    tidy = arms.results(study).query("category == 'Overall' and split == 'valid_seen'").set_index("variant")
    stds = tidy["seed_std"]  # 3, 3 and 2 seeds; grpo has one
    pooled = math.sqrt((2 * stds["full"] ** 2 + 2 * stds["no_library"] ** 2 + stds["no_selection"] ** 2) / 5)
    assert table["seed_std"].iloc[0] == pytest.approx(pooled)
    assert table["if_runs"].iloc[0] == pytest.approx(3.0709 * pooled, rel=1e-4)  # d of a t test of 3 against 3
    assert table["if_episodes"].iloc[0] < table["if_games"].iloc[0]
    few = ablations.resolution(by_hand({FULL: "00", PLAIN: "00"})).iloc[0]  # nothing won: no drop is possible
    assert few[["seed_std", "if_episodes", "if_games", "if_runs"]].isna().all()


def test_limits_by_hand() -> None:
    """From a rate of 1/2 a drop of Cohen's h is sin(h) / 2; h = (1.9600 + 0.8416) / sqrt(n) for n pairs correlated by 1/2."""
    made = by_hand({("full", s, 9, "step9"): "10" * 12 for s in (0, 1)} | {PLAIN: "10" * 12})
    twice = pd.concat([made.evaluations, made.evaluations.assign(**{"pass": 1})])
    row = ablations.resolution(replace(made, evaluations=twice)).loc["valid_seen"]
    assert (row["games"], row["passes"], row["seeds"], row["success of full"]) == (24, 2, 2, 50)
    assert row["if_episodes"] == pytest.approx(14.10, abs=0.01)  # 96 episodes: sin(0.28594) / 2
    assert row["if_games"] == pytest.approx(27.06, abs=0.01)  # 24 games: sin(0.57187) / 2


# --- Differences over seeds ------------------------------------------------------------------------------------------


def table_of(*rows: list[float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[f"g{i}" for i in range(len(rows[0]))])


def test_single_seeds_give_the_paired_interval_over_games() -> None:
    a, b = table_of([1, 0, 1, 1, 0, 1]), table_of([0, 0, 1, 0, 0, 1])
    both, paired = difference_over_seeds(a, b[b.columns[::-1]]), paired_difference(a.loc[0], b.loc[0])
    assert both.value == pytest.approx(paired.value) == pytest.approx(1 / 3)
    assert (both.low, both.high) == pytest.approx((paired.low, paired.high), abs=0.17)  # steps of 1/6


def test_variance_over_seeds_is_the_sum_of_both_sides() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 1)), rng.normal(size=(5, 1))
    games = rng.normal(size=(1, 40))  # shared by both sides: it cancels
    one, two = pd.DataFrame(a + games), pd.DataFrame(b + games)
    found = difference_over_seeds(one, two)
    spread = math.sqrt(a.var() / 7 + b.var() / 5)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * spread, rel=0.05)
    assert found.value == pytest.approx(a.mean() - b.mean()) and found.n == 40


def test_unpaired_seeds_are_compared_by_scipys_welch() -> None:
    found = seed_difference(pd.Series([0.975, 0.969, 0.981]), pd.Series([0.949, 0.940, 0.958]), paired=False)
    expected = ttest_ind([0.975, 0.969, 0.981], [0.949, 0.940, 0.958], equal_var=False)
    assert (found.p_value, found.high) == pytest.approx((expected.pvalue, expected.confidence_interval().high))
    assert found.n == 6 and found.p_value == pytest.approx(0.019, abs=0.001)  # the published means and deviations


@pytest.mark.filterwarnings("error")
def test_welch_with_one_side_without_spread_is_the_one_sample_test() -> None:
    # variance 0 on one side: s^2 / n = .02 / 2, one degree of freedom, t = .2 / .1; P(|T_1| > 2) = .2952
    estimate = seed_difference(pd.Series([0.4, 0.4, 0.4]), pd.Series([0.1, 0.3]), paired=False)
    assert estimate.value == pytest.approx(0.2) and estimate.p_value == pytest.approx(0.2952, abs=1e-4)


def test_tables_that_cannot_be_subtracted_are_refused() -> None:
    good = table_of([1, 0, 1])
    with pytest.raises(ValueError, match="not over the same games"):
        difference_over_seeds(good, good.rename(columns={"g0": "g9"}))
    with pytest.raises(ValueError, match="seed 0 has no value for game 'g1'"):
        difference_over_seeds(good, table_of([1, math.nan, 1]))


# --- Training signals ------------------------------------------------------------------------------------------------


def test_checkpoints_are_means_over_the_last_tenth_of_each_third(study: Study) -> None:
    assert dynamics.checkpoints(study) == [10, 20, 30] and dynamics.window(study) == 3
    table = dynamics.at_checkpoints(study, "u_hat", ["full"]).set_index(["seed", "step"])["value"]
    own = study.metrics.query("variant == 'full' and seed == 2").set_index("step")["u_hat"]
    assert table[2, 20] == pytest.approx((own[18] + own[19] + own[20]) / 3)
    short = replace(study, metrics=study.metrics[study.metrics["step"] <= 2])
    assert dynamics.checkpoints(short) == [1, 2] and dynamics.window(short) == 1
    assert dynamics.at_checkpoints(short, "skill_similarity", ["full"])["value"].isna().all()  # nothing retrieved yet


def test_every_point_of_a_mean_curve_has_all_seeds() -> None:
    table = pd.DataFrame({0: [1.0, math.nan], 1: [3.0, 5.0]})
    assert dynamics.mean_over_seeds(table).tolist()[0] == 2.0 and math.isnan(dynamics.mean_over_seeds(table)[1])


def test_published_signals_are_those_of_the_text(study: Study) -> None:
    assert dynamics.published_values(study, "u_hat") == {"step 85": 0.91}
    assert dynamics.published_values(study, "selection/utility_selected") == {"step 20": 0.95}
    assert dynamics.published_values(study, "skill_similarity") == {"first checkpoint": 0.51, "last checkpoint": 0.60}


def test_signal_table(study: Study) -> None:
    table = dynamics.signal_table(study)
    names = table.index.get_level_values("variant")
    assert set(names) == {"Skill1", "no selection"}  # U_hat of grpo and no_library is 0 throughout
    cell = table.loc[(dynamics.SIGNALS["u_hat"], "Skill1")]
    values = dynamics.at_checkpoints(study, "u_hat", ["full"]).query("step == 30")["value"]
    assert cell["step 30"] == f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"
    assert cell["seeds"] == 3 and cell["published"] == "0.91 at step 85"
    similarity = table.loc[(dynamics.SIGNALS["skill_similarity"], "Skill1")]
    assert similarity["published"] == "0.51 at first checkpoint, 0.60 at last checkpoint"
    empty = replace(study, metrics=study.metrics.assign(u_hat=np.nan))
    assert dynamics.signal_table(empty).loc[(dynamics.SIGNALS["u_hat"], "Skill1"), "step 30"] == "none"


def test_signals_that_are_not_there_are_named(study: Study) -> None:
    old = replace(study, metrics=study.metrics.drop(columns="u_hat"))
    with pytest.raises(RunError, match="metrics.parquet has no u_hat, which training with a library logs"):
        dynamics.signals(old)
    plain = synthetic_study.make({"no_library": [0], "gigpo": [0]}, splits=SEEN)
    with pytest.raises(RunError, match="none of full, lambda1_0, lambdas_0, .* .it has no_library, gigpo"):
        dynamics.signals(plain)


# --- Categories ------------------------------------------------------------------------------------------------------


def test_gains_are_paired_with_the_untrained_policy(study: Study) -> None:
    table = per_category.gains(study).set_index(["split", "variant", "category"])
    assert set(table.index.get_level_values("variant")) == {"full", "no_library"}  # grpo is no_library again
    after = arms.own(study).query("split == 'valid_seen' and variant == 'full' and category == 'Look'")
    before = study.evaluations.query("step == 0 and split == 'valid_seen' and category == 'Look' and variant == 'full'")
    found = table.loc[("valid_seen", "full", "Look")]
    assert found["points"] == pytest.approx(100 * (after["won"].mean() - before["won"].mean()))
    assert found["games"] == 2 and found["seeds"] == 3
    p = table.loc[("valid_seen", "full"), ["games_p", "games_holm"]]
    assert math.isnan(p.loc["Overall", "games_holm"])
    tested = p.drop(index="Overall")
    assert tested["games_holm"].min() == pytest.approx(min(1, 6 * tested["games_p"].min()))
    shown = per_category.gain_table(study).loc[("valid_seen", "Skill1")]
    points = shown["points"].astype(float)
    assert shown.index[0] == "Overall" and points[1:].is_monotonic_decreasing and len(shown) == 7


def test_behaviour_by_hand() -> None:
    made = by_hand({("full", 0, 0, "step0"): "0000", FULL: "1100"})
    row = per_category.behaviour(made).set_index(["variant", "category"]).loc[("full", "Overall")]
    assert row["steps"] == 5.5 and row["steps_won"] == 4.5  # 4, 5, 6, 7 steps; the first two won
    assert row["invalid"] == 0.5 and row["invalid_share"] == pytest.approx(100 * 2 / 22)
    assert row["steps_low"] < 5.5 < row["steps_high"]
    shown = per_category.behaviour_table(made)
    assert shown.loc[("valid_seen", "untrained", "Pick"), "steps when won"] == ""
    assert shown.loc[("valid_seen", "Skill1", "Overall"), "invalid, % of actions"] == "9.1"
    [line] = per_category.summary(made).splitlines()
    assert "Skill1 gained +50.0 [" in line and "(n = 4 games, 1 pass, 1 seed)" in line and "no category" in line


def test_overview_lists_what_is_there_and_what_is_not(study: Study) -> None:
    missing = {"no_selection": [1], "gigpo": [0, 1]}
    table = arms.overview(replace(study, manifest={**study.manifest, "missing": missing}))
    assert table.index.tolist() == ["full", "no_library", "no_selection", "grpo", "gigpo"]
    assert table.loc["no_selection", ["seeds", "missing seeds"]].tolist() == ["0, 2", "1"]
    assert table.loc["gigpo", ["seeds", "missing seeds", "steps"]].tolist() == ["none", "0, 1", ""]
    assert table.loc["full", "minutes a run"] == pytest.approx(6.0, abs=0.1)
    assert "preset nano (train.steps = 30)" in arms.setting(study)


def test_a_study_is_read_once_and_handed_out_whole(study: Study, tmp_path: Path) -> None:
    first = arms.results(study)
    first["value"] = 0.0  # a caller's own copy
    assert arms.results(study)["value"].gt(0).any()
