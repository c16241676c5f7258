"""What each way to credit does to one real batch of rollouts: to its rows and to the policy gradient.

Every arm credits the same rollouts: the paper; each credit switch by which the released scripts differ, and all of
them; ablations; GRPO and GiGPO. The gradient is the trainer's own (one update on all rows, ratio 1, no KL, no
clipping), so lambdas, weights and token means are in it.

Differs from a run of an ablation in: its rollouts would be others. Here the calls of a stage that an arm lacks are left
out of the same rollouts, whose act prompts still show the selected skill. So no_library is grpo here, and
no_distillation is lambda_distill = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from transformers import TrainerCallback

from skill1.analysis.figures import style
from skill1.config import Config, diff, load_config, method_of, override
from skill1.envs.make import environment_spec, make_environment
from skill1.errors import RunError
from skill1.play import load_policy
from skill1.policy import load_model
from skill1.presets import preset_of, presets
from skill1.records import STAGES, Rollout, Row, Stage
from skill1.registry import ConfigError, find
from skill1.rollout import Ask, RolloutLoop
from skill1.store.run_directory import RunDirectory
from skill1.train import step_tasks
from skill1.trainer import build_trainer

REFERENCES = ("paper", "grpo")  # arms whose gradients all others are compared with
_ABLATIONS = ("no_selection", "lambda1_0", "lambdas_0")  # the others are grpo, and a switch of the released scripts
_STAGE_COLOURS = dict(zip(STAGES, sns.color_palette("flare", len(STAGES)), strict=True))  # no variant's colours
_NO_STEP = 1e-30  # learning rate: too small to move a float32 weight


@dataclass(frozen=True, eq=False)
class Batch:
    """Rollouts of one step of a run of variant `full`, and the policy that played them."""

    rollouts: tuple[Rollout, ...]
    config: Config
    policy: Path | None  # the folder of its checkpoint; None: `policy.model`
    origin: str  # where they come from, for the reader


@dataclass(frozen=True)
class Arm:
    """One way to credit the batch."""

    name: str
    config: Config  # whose method credits

    @property
    def stages(self) -> frozenset[Stage]:
        """Those it has; calls of the others are left out of the rollouts."""
        return frozenset(method_of(self.config).trained_stages(self.config))


# -- the batch --------------------------------------------------------------------------------------------------------


def stored_batch(path: Path, step: int = 0, groups: int = 0) -> Batch:
    """Read a stored step of a run, with the policy that played it.

    Args:
        step: training step (from 1); 0 = the last one whose policy is stored.
        groups: only the first that many groups; 0 = all.

    Raises:
        RunError: no run there, no rollouts or no policy of that step, or a run without all four stages.
    """
    run = RunDirectory.open(path)
    config = run.config
    if Arm("", config).stages != set(STAGES):
        raise RunError(f"{path} is a run of {config.variant}: the study needs all four stages, a run of variant 'full'")
    if rank := config.policy.lora_rank:
        raise RunError(f"{path} trains adapters (policy.lora_rank={rank}): the study needs full weights")
    stored = set(run.rollout_steps())
    usable = [after + 1 for after in (0, *(c.step for c in run.checkpoints())) if after + 1 in stored]
    if not usable:
        raise RunError(f"{path} has no step with both rollouts and the policy that played them")
    step = step or usable[-1]
    rollouts = run.read_rollouts(step)
    if step not in usable:
        known = ", ".join(map(str, usable))
        raise RunError(f"{path} does not store the policy that played step {step}; steps with theirs: {known}")
    policy = run.weights(config, step - 1)
    kept = sorted({r.group for r in rollouts})[: groups or None]
    return Batch(tuple(r for r in rollouts if r.group in kept), config, policy, f"Step {step} of {run.name}")


def fresh_batch(
    seed: int = 0, groups: int = 4, overrides: Mapping[str, Any] | None = None, environment: str = "alfworld"
) -> Batch:
    """Play a generated world with its nano preset's starting policy: three steps, of which the last is the batch.

    The weights stay as they are, the library learns: the last step meets tasks that were played before, with skills at
    hand. The similarity floor is off, so that there is something to rank.

    Args:
        groups: tasks per step.
        overrides: configuration fields over the nano preset's.

    Raises:
        ConfigError: an environment without a nano world, an override is wrong, or there is no starting policy.
    """
    given = {"library.similarity_floor": None, "rollout.tasks_per_step": groups, "train.seed": seed}
    config = load_config(preset_of("nano", environment), overrides=given | dict(overrides or {}))
    spec, method, policy = environment_spec(environment), method_of(config)(config), load_policy(config)
    if spec.nano is None:
        raise ConfigError(f"the environment {spec.name} has no nano world to play in: give a run")
    world = find("nano worlds", spec.nano)
    named = [(group, index) for group in range(groups) for index in range(config.rollout.group_size)]
    rollouts: list[Rollout] = []
    with TemporaryDirectory() as folder:
        world.generate(Path(folder), seed=seed, **world.sizes)
        vector = make_environment(override(config, {"environment.data": folder}).environment)
        loop = RolloutLoop(Ask(policy, config.rollout.temperature), vector, method, config)
        for step in range(3):
            if rollouts:
                method.learn(rollouts, step, "train")
            tasks = step_tasks(vector.tasks("train")[: 2 * groups], step, groups, seed)
            rollouts = loop.run(
                [tasks[g] for g, _ in named], [g for g, _ in named], [i for _, i in named], (seed, step)
            )
    return Batch(tuple(rollouts), config, None, "Third step of the starting policy in generated tasks")


# -- the arms ---------------------------------------------------------------------------------------------------------


def switches() -> pd.DataFrame:
    """List every field in which the released scripts differ from the paper, and whether it changes a batch's credit.

    Returns:
        By field: paper, released, acts_on ("credit": an arm of this study; "rollouts": the batch itself; "update": what
        comes after the credit).
    """
    found = diff(load_config("paper"), load_config("released"))
    table = pd.DataFrame.from_dict(found, orient="index", columns=["paper", "released"]).rename_axis("field")
    sections = table.index.str.partition(".").get_level_values(0)
    acts_on = pd.Series(sections, table.index).map({"credit": "credit", "method": "credit", "train": "update"})
    acts_on[["method.distill_reference", "method.same_task"]] = "rollouts"  # they change a prompt
    return table.assign(acts_on=acts_on.fillna("rollouts"))


def arms(environment: str = "alfworld") -> list[Arm]:
    """List the ways to credit: the paper, GRPO, GiGPO, ablations, each switch of the released scripts, all of these."""

    own = f"paper-{environment}"  # an environment may have a preset of its own

    def arm(name: str, variant: str = "full", overrides: Mapping[str, Any] | None = None) -> Arm:
        changes = {"environment.name": environment} | dict(overrides or {})
        return Arm(name, load_config(own if own in presets() else "paper", variant, changes))

    table = switches()
    released = table.loc[table["acts_on"] == "credit", "released"].to_dict()
    return [
        arm("paper"),
        arm("grpo", "grpo"),
        arm("gigpo", "gigpo"),
        arm("gigpo, by rows", "gigpo", {"method.statistics": "row"}),
        *(arm(variant, variant) for variant in _ABLATIONS),
        *(arm(f"{name.partition('.')[2]} = {value}", overrides={name: value}) for name, value in released.items()),
        arm("released, all of these", overrides=released),
    ]


def arm_rows(batch: Batch, arm: Arm) -> list[Row]:
    """Credit the batch's rollouts as the arm does."""
    rollouts = [replace(r, turns=tuple(t for t in r.turns if t.stage in arm.stages)) for r in batch.rollouts]
    return method_of(arm.config).rows(rollouts, arm.config)


# -- what is measured -------------------------------------------------------------------------------------------------


def row_statistics(batch: Batch, chosen: Sequence[Arm]) -> pd.DataFrame:
    """Measure what each arm does to the rows.

    Returns:
        One row per arm and stage: arm, stage, rows, mean_advantage (mean |A|), zero (share of rows with advantage 0),
        credit (this stage's share of the arm's sum of |A| w); nan for a stage without rows.
    """
    rows = [(arm.name, row.stage, abs(row.advantage), row.weight) for arm in chosen for row in arm_rows(batch, arm)]
    frame = pd.DataFrame(rows, columns=["arm", "stage", "size", "weight"])
    frame = frame.assign(zero=frame["size"] == 0, mass=frame["size"] * frame["weight"])
    groups = frame.groupby(["arm", "stage"])
    found = groups.agg(rows=("size", "size"), mean_advantage=("size", "mean"), zero=("zero", "mean"))
    found["credit"] = groups["mass"].sum() / frame.groupby("arm")["mass"].sum().replace(0, math.nan)
    order = pd.MultiIndex.from_product([[arm.name for arm in chosen], STAGES], names=["arm", "stage"])
    return found.reindex(order).fillna({"rows": 0}).astype({"rows": int}).reset_index()


class _Comparison(TrainerCallback):
    """Norm of every step's gradient and its dot product with the gradients kept so far."""

    def __init__(self, names: Sequence[str]) -> None:
        self.found: list[dict[str, float]] = []
        self._names = names
        self._kept: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        own = torch.cat([gradient.double().flatten() for gradient in gradients])
        if (name := self._names[len(self.found)]) in REFERENCES:
            self._kept[name] = own
        self.found.append({"norm": float(own.norm())} | {k: float(own @ v) for k, v in self._kept.items()})


def gradients(batch: Batch, chosen: Sequence[Arm]) -> pd.DataFrame:
    """Compare each arm's policy gradient with the `REFERENCES`', by the trainer's loss on all rows in one update.

    Args:
        chosen: the paper first; what stands before a reference is not compared with it.

    Returns:
        One row per arm: arm, norm, ratio (of norms, to the first arm's), and per reference cosine_<reference> (nan for
        a gradient of 0).

    Raises:
        ValueError: the first arm has no gradient: no group of this batch has a spread of outcomes.
    """
    train = replace(
        batch.config.train, steps=len(chosen), learning_rate=_NO_STEP, warmup_steps=0, weight_decay=0.0, kl=0.0,
        max_grad_norm=1e30, rows_per_update=None, save_every=len(chosen) + 1, report_to="none",
    )  # fmt: skip
    model, tokenizer = load_model(batch.config.policy, batch.policy)
    names = [arm.name for arm in chosen]
    comparison = _Comparison(names)

    def collect(step: int, _: Any) -> tuple[list[Row], dict[str, float]]:
        # stored arrays are read-only, which torch warns of
        return [
            replace(row, prompt_ids=row.prompt_ids.copy(), completion_ids=row.completion_ids.copy())
            for row in arm_rows(batch, chosen[step])
        ], {}

    with TemporaryDirectory() as folder:
        config = replace(batch.config, train=train)
        build_trainer(config, model, tokenizer, Path(folder), collect, callbacks=[comparison]).train()
    table = pd.DataFrame(comparison.found, index=pd.Index(names, name="arm"))
    if not table["norm"].iloc[0]:
        raise ValueError(
            f"no gradient to compare with: nothing in {batch.origin} has a credit other than 0; take another"
        )
    scaled = table["norm"].where(table["norm"] > 0)
    cosines = {f"cosine_{name}": table[name] / scaled / scaled[name] for name in REFERENCES if name in table}
    return pd.DataFrame(
        {"norm": table["norm"], "ratio": table["norm"] / table["norm"].iloc[0], **cosines}
    ).reset_index()


# -- what is shown ----------------------------------------------------------------------------------------------------


def row_table(statistics: pd.DataFrame) -> pd.DataFrame:
    """Format the row statistics for display: arms down, (quantity, stage) across."""
    wide = statistics.pivot(index="arm", columns="stage", values=["rows", "mean_advantage", "zero"])
    order = [(name, stage) for name in ("rows", "mean_advantage", "zero") for stage in STAGES]
    return wide.loc[statistics["arm"].unique(), order].astype({("rows", stage): int for stage in STAGES}).round(3)


@style.themed
def draw(statistics: pd.DataFrame, compared: pd.DataFrame) -> Figure:
    """Draw direction and size of each arm's gradient against the paper's, and which stages its credit goes to.

    Args:
        statistics, compared: of `row_statistics` and `gradients`.
    """
    names = list(compared["arm"])
    places = range(len(names))
    figure = Figure(figsize=(style.PAGE, 1.0 + 0.2 * len(names)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1, 1.3))
    for axes, column in ((left, "cosine_paper"), (middle, "ratio")):
        axes.axvline(1.0, color="0.8", linewidth=0.8, zorder=0)
        axes.scatter(compared[column], places, color="0.25", s=14, clip_on=False, zorder=3)
    left.set(xlabel="cosine with the paper's gradient")
    middle.set(xlabel="norm / paper's")
    left.margins(x=0.08)
    middle.set(xlim=(0, compared["ratio"].max() * 1.08))
    shares = statistics.pivot(index="arm", columns="stage", values="credit").fillna(0.0).loc[names, list(STAGES)]
    start = np.zeros(len(names))
    for stage in STAGES:
        right.barh(places, shares[stage], left=start, color=_STAGE_COLOURS[stage], label=stage, height=0.7)
        start += shares[stage].to_numpy()
    right.set(xlabel=r"share of $\sum|A|\,w$", xlim=(0, 1))
    right.spines["left"].set_visible(False)
    counts = statistics.groupby("arm", sort=False)["rows"].sum()
    style.rows(left, [f"{name} (n = {counts[name]})" for name in names], width=40)
    left.set(ylabel="credit (n = rows)")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=len(STAGES))
    return figure
