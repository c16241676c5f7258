"""The credit study: which arms there are, rows by hand, gradients against plain autograd, and its notebook."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from distributed_train import run as train_easily
from nano_runs import configure, load_policy
from nano_runs import settings as overrides
from shop_runs import settings_of_shop as shop_settings
from test_credit import rollout

from skill1.analysis import credit_study
from skill1.analysis.credit_study import Arm, Batch
from skill1.analysis.figures import style as plots
from skill1.config import ConfigError, diff, load_config, override
from skill1.errors import RunError
from skill1.records import STAGES, Row
from skill1.running.batch import run_notebook
from skill1.store.run_directory import RunDirectory

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "08_credit.ipynb"
ROOT_HALF = math.sqrt(0.5)


# --- Arms --------------------------------------------------------------------------------------------------------


def test_every_switch_and_ablation_has_an_arm() -> None:
    arms = {arm.name: arm for arm in credit_study.arms()}
    assert list(arms)[:2] == list(credit_study.REFERENCES) == ["paper", "grpo"]
    paper = arms["paper"].config
    assert paper == load_config("paper") and arms["paper"].stages == set(STAGES)
    switched = {name: b for name, (_, b) in diff(paper, load_config("released")).items()}
    credited = {
        "method.lambda_rerank": 0.03, "method.lambda_distill": 0.0, "method.rerank_credit": "return",
        "credit.token_mean": "batch",
    }  # fmt: skip
    assert credited.items() <= switched.items() and switched["method.distill_reference"]  # which acts on the prompts
    for name, value in credited.items():
        assert arms[f"{name.partition('.')[2]} = {value}"].config == override(paper, {name: value})
    assert arms["released, all of these"].config == override(paper, credited)
    for variant, stages in {
        "grpo": {"act"}, "gigpo": {"act"}, "no_selection": {"act", "distill"}, "lambda1_0": set(STAGES),
        "lambdas_0": set(STAGES),
    }.items():  # fmt: skip
        assert arms[variant].config == load_config("paper", variant) and arms[variant].stages == stages
    assert arms["gigpo, by rows"].config.method.statistics == "row" != arms["gigpo"].config.method.statistics
    assert len(arms) == 5 + len(credited) + 3


def test_arms_of_a_shop_charge_for_invalid_actions_as_its_preset_does() -> None:
    homes, shop = credit_study.arms(), credit_study.arms("webshop")
    assert [(arm.name, arm.stages) for arm in homes] == [(arm.name, arm.stages) for arm in shop]
    assert {arm.config.credit.invalid_penalty for arm in shop} == {0.05}
    assert {arm.config.credit.invalid_penalty for arm in homes} == {0.01}


def test_the_table_of_switches_says_what_they_act_on() -> None:
    table = credit_study.switches()
    assert len(table) == len(diff(load_config("paper"), load_config("released")))
    assert table.loc["method.lambda_distill"].tolist() == [0.3, 0.0, "credit"]
    assert table.loc["library.top_k"].tolist() == [5, 3, "rollouts"]
    assert (
        table.loc[["method.distill_reference", "method.same_task", "rollout.group_size"], "acts_on"] == "rollouts"
    ).all()
    assert table.index[table["acts_on"] == "update"].tolist() == ["train.dual_clip", "train.entropy"]


# --- Rows --------------------------------------------------------------------------------------------------------


def by_hand() -> Batch:
    """One won and one lost rollout, with U_hat .9 and .5 and NDCG .9701 and 1, as in the tests of `credit`."""
    rollouts = (
        rollout(index=0, outcome=1.0, utilities=(0.2, 0.9, 0.5), ranking=(1, 0, 2)),
        rollout(index=1, outcome=0.0, utilities=(0.5, 0.4), ranking=(0, 1)),
    )
    return Batch(rollouts, load_config("paper"), "", "By hand")


def test_row_statistics_by_hand() -> None:
    table = credit_study.row_statistics(by_hand(), credit_study.arms()).set_index(["arm", "stage"])
    assert table.loc["paper", "rows"].to_dict() == {"query": 2, "rerank": 2, "act": 4, "distill": 2}
    means = table.loc["paper", "mean_advantage"].to_dict()
    assert means == pytest.approx(
        {"query": ROOT_HALF, "rerank": 0.98507, "act": ROOT_HALF, "distill": ROOT_HALF}, abs=1e-5
    )
    # Weights of 10 rows: query 5 * 3/9 twice; rerank 1.5 twice; act 5 * 6/9 twice; distill 1.5 twice.
    mass = {"query": 10 / 3 * ROOT_HALF, "rerank": 1.5 * 1.970141, "act": 20 / 3 * ROOT_HALF, "distill": 3 * ROOT_HALF}
    share = {stage: value / sum(mass.values()) for stage, value in mass.items()}
    assert table.loc["paper", "credit"].to_dict() == pytest.approx(share, abs=1e-6)
    assert (table.loc["paper", "zero"] == 0).all()
    assert table.loc["grpo", "rows"].to_dict() == {"query": 0, "rerank": 0, "act": 4, "distill": 0}
    assert math.isnan(table.loc[("grpo", "query"), "zero"])
    shown = credit_study.row_table(table.reset_index())
    assert shown.loc["paper", ("rows", "act")] == 4 and shown.index[0] == "paper"


def test_rows_without_credit_are_counted() -> None:
    batch = replace(by_hand(), rollouts=tuple(rollout(index=i, utilities=(0.9,)) for i in range(2)))
    table = credit_study.row_statistics(batch, credit_study.arms()[:1]).set_index("stage")
    assert table["zero"].dropna().to_dict() == {"query": 1.0, "act": 1.0, "distill": 1.0}
    assert table["rows"]["rerank"] == 0 and table["credit"].isna().all()


# --- A real batch ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(world: Path, warm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of training; both steps' rollouts and policies are stored."""
    path = tmp_path_factory.mktemp("credit") / "run"
    config = configure(
        world, warm, train__steps=2, train__save_every=1, train__validate_every=0, environment__max_steps=5,
        rollout__group_size=6, method__max_distill_tokens=16,
    )  # fmt: skip
    assert train_easily(config, path) == 0
    return path


@pytest.fixture(scope="module")
def batch(trained: Path) -> Batch:
    return credit_study.stored_batch(trained)


def test_a_stored_batch_is_the_steps_own(trained: Path, batch: Batch, warm: Path) -> None:
    assert (batch.origin, batch.policy) == ("Step 2 of run", trained / "checkpoint-1")
    assert len(batch.rollouts) == 12 and {t.stage for r in batch.rollouts for t in r.turns} == set(STAGES)
    first = credit_study.stored_batch(trained, step=1, groups=1)
    assert first.policy is None and {r.group for r in first.rollouts} == {0} and len(first.rollouts) == 6


def test_unusable_runs_are_refused(trained: Path, world: Path, warm: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run at"):
        credit_study.stored_batch(tmp_path / "none")
    with pytest.raises(RunError, match="no rollouts of step 7"):
        credit_study.stored_batch(trained, step=7)
    RunDirectory.create(tmp_path / "bare", configure(world, warm, "no_selection"), "hash").close()
    with pytest.raises(RunError, match="a run of no_selection: the study needs all four stages"):
        credit_study.stored_batch(tmp_path / "bare")
    RunDirectory.create(tmp_path / "lora", configure(world, warm, policy__lora_rank=2), "hash").close()
    with pytest.raises(RunError, match="trains adapters"):
        credit_study.stored_batch(tmp_path / "lora")
    run = RunDirectory.create(tmp_path / "short", configure(world, warm), "hash")
    with pytest.raises(RunError, match="no step with both rollouts and the policy"):
        credit_study.stored_batch(tmp_path / "short")
    for step in (1, 2):
        run.write_rollouts(step, RunDirectory.open(trained).read_rollouts(step))
    run.close()
    with pytest.raises(RunError, match="does not store the policy that played step 2; steps with theirs: 1"):
        credit_study.stored_batch(tmp_path / "short", step=2)


def by_autograd(batch: Batch, rows: list[Row]) -> torch.Tensor:
    """(parameters,) the gradient of -mean over rows of advantage * weight * mean log-prob, one row at a time."""
    model = load_policy(replace(batch.config, policy=replace(batch.config.policy, model=str(batch.policy)))).model
    for row in rows:
        ids = torch.as_tensor(np.concatenate([row.prompt_ids, row.completion_ids]), dtype=torch.long)[None]
        logits = model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1]
        logp = torch.log_softmax(logits, -1).gather(1, ids[0, len(row.prompt_ids) :, None])
        (-row.advantage * row.weight / len(rows) * logp.mean()).backward()
    return torch.cat([p.grad.flatten().double() for p in model.parameters()])


@pytest.mark.slow
def test_gradients_are_those_of_equation_11(batch: Batch) -> None:
    arms = {arm.name: arm for arm in credit_study.arms()}
    chosen = [arms[name] for name in ("paper", "grpo", "rerank_credit = return", "gigpo", "no_selection")]
    found = credit_study.gradients(batch, chosen).set_index("arm")
    expected = {arm.name: by_autograd(batch, credit_study.arm_rows(batch, arm)) for arm in chosen}
    paper, grpo = expected["paper"], expected["grpo"]
    for name, gradient in expected.items():
        norm = float(gradient.norm())
        assert found.loc[name, "norm"] == pytest.approx(norm, rel=1e-3)
        assert found.loc[name, "ratio"] == pytest.approx(norm / float(paper.norm()), rel=1e-3)
        cosine = float(gradient @ paper) / norm / float(paper.norm())
        assert found.loc[name, "cosine_paper"] == pytest.approx(cosine, abs=1e-3)
        if name != "paper":  # it stands before GRPO
            cosine = float(gradient @ grpo) / norm / float(grpo.norm())
            assert found.loc[name, "cosine_grpo"] == pytest.approx(cosine, abs=1e-3)
    assert found.loc["paper", "cosine_paper"] == pytest.approx(1.0) and found.loc["gigpo", "cosine_grpo"] < 0.99


def test_a_credit_without_gradient(batch: Batch) -> None:
    paper = credit_study.arms()[0]
    lost = replace(batch, rollouts=tuple(replace(r, outcome=0.0) for r in batch.rollouts))
    nothing = {"credit.invalid_penalty": 0.0, "method.lambda_rerank": 0.0, "method.lambda_distill": 0.0}
    silent = Arm("silent", override(paper.config, nothing))
    found = credit_study.gradients(lost, [paper, silent, replace(paper, name="again")]).set_index("arm")
    assert found.loc["silent", ["norm", "ratio"]].tolist() == [0.0, 0.0]
    assert math.isnan(found.loc["silent", "cosine_paper"])
    assert found.loc[["paper", "again"], "ratio"].tolist() == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match="nothing in Step 2 of run has a credit other than 0"):
        credit_study.gradients(lost, [silent])


@pytest.mark.slow
def test_the_study_of_a_run(trained: Path, tmp_path: Path, batch: Batch) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    given = {"run": str(trained), "groups": 0, "runs": 1, "out": str(tmp_path / "out")}
    done = nbformat.read(run_notebook(NOTEBOOK, tmp_path / "08_credit.ipynb", given), as_version=4)
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
    drawn = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    assert drawn == ["credit.pdf", "credit.png"]

    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "\n".join(str(output.get("data", {}).get("text/html")) for output in outputs)
    compared = credit_study.gradients(batch, credit_study.arms())
    assert compared.round(3).to_html(notebook=True).partition("<tbody>")[2].partition("</tbody>")[0] in text
    marked = [output["data"]["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    won = sum(r.outcome for r in batch.rollouts)
    assert f"Step 2 of run: 12 rollouts in 2 groups, {won:.0f} won." in marked


@pytest.mark.slow
def test_the_same_batch_gives_the_same_bytes(batch: Batch, tmp_path: Path) -> None:
    arms = credit_study.arms()[:4]
    for name in ("first", "second"):
        figure = credit_study.draw(credit_study.row_statistics(batch, arms), credit_study.gradients(batch, arms))
        plots.save(figure, tmp_path / name, "credit")
    for kind in ("png", "pdf"):
        first, second = ((tmp_path / name / f"credit.{kind}").read_bytes() for name in ("first", "second"))
        assert first == second


def test_the_figure_shows_the_table(batch: Batch) -> None:
    arms = credit_study.arms()[:3]
    statistics = credit_study.row_statistics(batch, arms)
    compared = pd.DataFrame(
        {"arm": [a.name for a in arms], "cosine_paper": [1.0, -0.5, math.nan], "ratio": [1.0, 2.0, 0.0]}
    )
    left, middle, right = credit_study.draw(statistics, compared).axes
    np.testing.assert_array_equal(left.collections[0].get_offsets()[:2, 0], [1.0, -0.5])
    np.testing.assert_array_equal(middle.collections[0].get_offsets()[:, 0], [1.0, 2.0, 0.0])
    assert left.get_xlim()[0] < -0.5
    widths = np.array([bar.get_width() for bar in right.patches]).reshape(len(STAGES), 3)
    wide = statistics.pivot(index="stage", columns="arm", values="credit").fillna(0.0)
    np.testing.assert_allclose(widths, wide.loc[list(STAGES), [a.name for a in arms]])
    np.testing.assert_allclose(widths.sum(axis=0), 1.0)


@pytest.mark.slow
def test_a_fresh_batch_is_the_seeds_own(warm: Path) -> None:
    given = overrides(Path("unused"), warm) | {"rollout.group_size": 2, "environment.max_steps": 3}
    del given["environment.data"], given["rollout.tasks_per_step"]

    def texts(seed: int) -> list[list[str]]:
        made = credit_study.fresh_batch(seed, groups=1, overrides=given)
        assert len(made.rollouts) == 2 and all(r.steps <= 3 for r in made.rollouts)
        assert credit_study.row_statistics(made, credit_study.arms())["rows"].sum()
        return [[turn.text for turn in r.turns] for r in made.rollouts]

    assert texts(4) == texts(4) != texts(5)


def test_a_fresh_batch_of_a_shop_plays_what_it_played_before(tmp_path: Path) -> None:
    given = shop_settings(tmp_path / "unused", load_config("nano-webshop").policy.model) | {
        "rollout.group_size": 2, "method.max_query_tokens": 16, "environment.max_steps": 6,
    }  # fmt: skip
    del given["environment.data"], given["rollout.tasks_per_step"]
    made = credit_study.fresh_batch(0, groups=2, overrides=given, environment="webshop")
    assert (made.config.environment.name, made.config.preset, len(made.rollouts)) == ("webshop", "nano-webshop", 4)
    assert all(r.task.game.startswith("synthetic/") and r.task.seed == 1 for r in made.rollouts)  # the second epoch
    statistics = credit_study.row_statistics(made, credit_study.arms("webshop")[:1])
    assert statistics.set_index("stage").loc[["query", "act", "distill"], "rows"].gt(0).all()
    with pytest.raises(ConfigError, match="did you mean 'nano-webshop'"):
        credit_study.fresh_batch(environment="webshp")
