"""What each credit switch does to one real batch of rollouts: to its rows and to the policy gradient (method section 3).

Every arm credits the same rollouts anew. The reference is the paper's credit; one arm turns each switch by which the
released scripts differ, one all of them, one GiGPO's estimator, and one each ablation. The gradient is the trainer's own
(`trainer.RowTrainer`: one update on all rows, ratio 1, no KL, no clipping), so lambda, weights and token means are in it.

Differs from a run of an ablation in: its rollouts would be others. Here the calls of a stage that an ablation lacks are
left out of the same rollouts, whose act prompts still show the selected skill. So no_distillation is lambda2 = 0 here.
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

from skill1.analysis.figures.style import themed
from skill1.analysis.scores import played_note
from skill1.config import Config, diff, load_config, method_of, override
from skill1.envs.alfworld.generate import generate as generate_games
from skill1.envs.make import make_environment
from skill1.envs.webshop.generate import generate as generate_shop
from skill1.envs.webshop.spec import WEBSHOP
from skill1.methods.base import Method
from skill1.play import load_policy
from skill1.policy import load_model
from skill1.presets import preset_of, presets
from skill1.presets import variants as known_variants
from skill1.records import STAGES, Rollout, Row, Stage
from skill1.registry import find
from skill1.rollout import RolloutLoop
from skill1.store.run_directory import RunDirectory, RunError
from skill1.train import step_tasks
from skill1.trainer import build_trainer

REFERENCE = "paper"
_CREDIT = frozenset(  # fields that change how given rollouts are credited
    f"{section}.{leaf}"
    for section, leaves in {
        "credit": ("invalid_penalty", "max_penalised", "penalise_inadmissible", "scale_by_std", "token_mean"),
        "method": ("lambda_rerank", "lambda_distill", "rerank_credit", "rerank_baseline", "u_hat", "unparsed_distill"),
    }.items()
    for leaf in leaves
)
_STAGE_COLOURS = dict(zip(STAGES, sns.color_palette("flare", len(STAGES)), strict=True))  # no variant's colours
_WORLD = dict(valid_seen=1, valid_unseen=1, homes=2, unseen_homes=1, receptacles=12, objects=10)
_NO_STEP = 1e-30  # learning rate: too small to move a float32 weight


@dataclass(frozen=True, eq=False)
class Batch:
    """Rollouts of one step of a run of variant `full`, and the policy that played them."""

    rollouts: tuple[Rollout, ...]
    config: Config
    policy: str  # folder or hub id
    origin: str  # where they come from, for the reader
    ceiling: str = ""  # how many of its goals can be met at all, for the reader; "" in ALFWorld, where all can

    @property
    def environment(self) -> str:
        return self.config.environment.name


@dataclass(frozen=True)
class Arm:
    """One way to credit the batch."""

    name: str
    kind: str  # "paper", "switch", "released", "gigpo" or "ablation"
    config: Config  # whose method credits
    without: frozenset[Stage] = frozenset()  # stages whose calls are left out


# -- the batch --------------------------------------------------------------------------------------------------------


def stored_batch(path: Path, step: int = 0, groups: int = 0) -> Batch:
    """A stored step of a run, with the policy that played it.

    Args:
        step: training step (from 1); 0 = the last one whose policy is stored.
        groups: only the first that many groups; 0 = all.

    Raises:
        RunError: no run there, no rollouts or no policy of that step, or a run without all four stages.
    """
    run = RunDirectory.open(path)
    config = run.config
    if set(method_of(config).trained_stages(config)) != set(STAGES):
        raise RunError(f"{path} is a run of {config.variant}: the study needs all four stages, a run of variant 'full'")
    if config.policy.lora_rank:
        raise RunError(
            f"{path} trains adapters (policy.lora_rank={config.policy.lora_rank}): the study needs full weights"
        )
    stored = set(run.rollout_steps())
    played = [0, *(c.step for c in run.checkpoints())]  # steps after which the policy is stored
    usable = [after + 1 for after in played if after + 1 in stored]
    if not usable:
        raise RunError(f"{path} has no step with both rollouts and the policy that played them")
    step = step or usable[-1]
    rollouts = run.read_rollouts(step)
    if step not in usable:
        known = ", ".join(map(str, usable))
        raise RunError(f"{path} does not store the policy that played step {step}; steps with theirs: {known}")
    policy = config.policy.model if step == 1 else str(run.checkpoint(step - 1).path)
    chosen = _first(rollouts, groups)
    return Batch(chosen, config, policy, f"Step {step} of {run.name}", _ceiling(config, chosen))


def fresh_batch(
    seed: int = 0, groups: int = 4, overrides: Mapping[str, Any] | None = None, environment: str = "alfworld"
) -> Batch:
    """Play a generated world with its nano preset's starting policy: three steps, of which the last is the batch.

    The weights stay as they are, the library learns: the last step meets tasks that were played before, with skills at
    hand. The similarity floor is off, so that there is something to rank.

    Args:
        groups: tasks per step.
        overrides: configuration fields over the nano preset's.
        environment: "alfworld", or "webshop" for the preset nano-webshop.

    Raises:
        ConfigError: another environment, an override is wrong, or there is no starting policy.
    """
    given = {
        "library.similarity_floor": None,
        "rollout.tasks_per_step": groups,
        "train.seed": seed,
    }
    config = load_config(preset_of("nano", environment), overrides=given | dict(overrides or {}))
    method, policy = method_of(config)(config), load_policy(config)
    groups, size = config.rollout.tasks_per_step, config.rollout.group_size
    named = [(group, index) for group in range(groups) for index in range(size)]
    rollouts: list[Rollout] = []
    with TemporaryDirectory() as folder:
        if environment == "webshop":
            generate_shop(Path(folder), seed=seed, **find("nano worlds", WEBSHOP.nano).sizes)
        else:
            generate_games(Path(folder), seed=seed, train=2 * groups, **_WORLD)
        played = override(config, {"environment.data": folder})
        tasks_there = make_environment(played.environment)
        loop = RolloutLoop(policy, tasks_there, method, config, config.rollout.temperature)
        for step in range(3):
            if rollouts:
                method.learn(rollouts, step, "train")
            tasks = step_tasks(tasks_there.tasks("train")[: 2 * groups], step, groups, seed)
            rollouts = loop.run(
                [tasks[g] for g, _ in named], [g for g, _ in named], [i for _, i in named], (seed, step)
            )
        ceiling = _ceiling(played, rollouts)
    origin = f"Third step of the starting policy in a generated {'shop' if environment == 'webshop' else 'world'}"
    return Batch(tuple(rollouts), config, config.policy.model, origin, ceiling)


def _ceiling(config: Config, rollouts: Sequence[Rollout]) -> str:
    return played_note(config.environment, (r.task.game for r in rollouts))


def _first(rollouts: Sequence[Rollout], groups: int) -> tuple[Rollout, ...]:
    kept = sorted({r.group for r in rollouts})[: groups or None]
    return tuple(r for r in rollouts if r.group in kept)


# -- the arms ---------------------------------------------------------------------------------------------------------


def switches() -> pd.DataFrame:
    """Every field in which the released scripts differ from the paper, and whether it changes the credit of a batch.

    Returns:
        Columns field, paper, released, acts_on ("credit": an arm of this study; "rollouts": the batch itself).
    """
    found = diff(load_config(REFERENCE), load_config("released"))
    return pd.DataFrame(
        {"field": name, "paper": str(a), "released": str(b), "acts_on": "credit" if name in _CREDIT else "rollouts"}
        for name, (a, b) in found.items()
    )


def arms(environment: str = "alfworld") -> list[Arm]:
    """The reference first, then one arm per credit switch of the released scripts, all of them, the ablations and GiGPO.

    Each credit once. The penalty of an invalid action is the environment's in all of them: here the two agree.
    """
    paper = _paper(environment)
    switched = diff(load_config(REFERENCE), load_config("released"))
    changed = {name: b for name, (_, b) in switched.items() if name in _CREDIT}
    found = [Arm(REFERENCE, "paper", paper)]
    found += [
        Arm(f"{name.partition('.')[2]} = {value}", "switch", override(paper, {name: value}))
        for name, value in changed.items()
    ]
    found.append(Arm("released, all of these", "released", override(paper, changed)))
    for variant in known_variants():
        config = _paper(environment, variant)
        if method_of(config).Extra is None:  # else it is credited by what other rollouts do not hold
            found.append(Arm(variant, "ablation", config, _absent(config)))
    distinct: dict[Any, Arm] = {}
    for arm in found:  # full is the reference, lambda2_0 a switch of the released scripts, grpo is no_library
        distinct.setdefault((_credits(arm.config), arm.without), arm)
    return list(distinct.values())


def baselines(environment: str = "alfworld") -> list[Arm]:
    """GRPO first, then GiGPO with either statistics: the baselines among themselves, on act rows alone."""
    grpo, gigpo = (_paper(environment, variant) for variant in ("grpo", "gigpo"))
    by_rows = override(gigpo, {"method.statistics": "row"})
    return [
        Arm("grpo", "baseline", grpo, _absent(grpo)),
        Arm("gigpo", "gigpo", gigpo, _absent(gigpo)),
        Arm("gigpo, by rows", "gigpo", by_rows, _absent(gigpo)),
    ]


def _credits(config: Config) -> Any:
    """What tells one credit from another: the method's equations, and the options that they read."""
    rows = method_of(config).rows.__func__
    return rows, config.credit, None if rows is Method.rows.__func__ else config.method


def _paper(environment: str, variant: str = "full") -> Config:
    """The paper's configuration in an environment, with its own preset if it has one."""
    own = f"{REFERENCE}-{environment}"
    return load_config(own if own in presets() else REFERENCE, variant, {"environment.name": environment})


def _absent(config: Config) -> frozenset[Stage]:
    """The stages that a configuration's rollouts do not have."""
    return frozenset(STAGES) - set(method_of(config).trained_stages(config))


def arm_rows(batch: Batch, arm: Arm) -> list[Row]:
    """The batch's rows as the arm credits them."""
    rollouts = [replace(r, turns=tuple(t for t in r.turns if t.stage not in arm.without)) for r in batch.rollouts]
    return method_of(arm.config).rows(rollouts, arm.config)


# -- what is measured -------------------------------------------------------------------------------------------------


def row_statistics(batch: Batch, chosen: Sequence[Arm]) -> pd.DataFrame:
    """What each arm does to the rows.

    Returns:
        One row per arm and stage: arm, kind, stage, rows, mean_advantage (mean |a|), zero (share of rows with advantage
        0), credit (this stage's share of the arm's sum of |a| * weight); nan for a stage without rows.
    """
    lines = []
    for arm in chosen:
        rows = arm_rows(batch, arm)
        total = sum(abs(row.advantage) * row.weight for row in rows)
        for stage in STAGES:
            sizes = np.array([abs(row.advantage) for row in rows if row.stage == stage])
            mass = sum(abs(row.advantage) * row.weight for row in rows if row.stage == stage)
            lines.append(
                {
                    "arm": arm.name,
                    "kind": arm.kind,
                    "stage": stage,
                    "rows": len(sizes),
                    "mean_advantage": sizes.mean() if len(sizes) else math.nan,
                    "zero": (sizes == 0).mean() if len(sizes) else math.nan,
                    "credit": mass / total if len(sizes) and total else math.nan,
                }
            )
    return pd.DataFrame(lines)


class _Comparison(TrainerCallback):
    """Norm of every step's gradient and its dot product with the first step's."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []  # (norm, dot with the first)
        self._first: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        own = {name: p.grad.detach().double() for name, p in model.named_parameters() if p.grad is not None}
        if not self.found:
            self._first = {name: gradient.clone() for name, gradient in own.items()}
        squares = sum(float((g * g).sum()) for g in own.values())
        dot = sum(float((g * self._first[name]).sum()) for name, g in own.items() if name in self._first)
        self.found.append((math.sqrt(squares), dot))


def gradients(batch: Batch, chosen: Sequence[Arm]) -> pd.DataFrame:
    """Each arm's policy gradient against the first arm's, by the trainer's loss on all rows in one update.

    Returns:
        One row per arm: arm, kind, norm, cosine (nan for a gradient of 0), ratio (of norms).

    Raises:
        ValueError: the first arm has no gradient: no group of this batch has a spread of outcomes.
    """
    config = replace(
        batch.config,
        train=replace(
            batch.config.train, steps=len(chosen), learning_rate=_NO_STEP, warmup_steps=0, weight_decay=0.0, kl=0.0,
            max_grad_norm=1e30, rows_per_update=None, save_every=len(chosen) + 1, report_to="none",
        ),
    )  # fmt: skip
    model, tokenizer = load_model(config.policy, batch.policy)
    comparison = _Comparison()

    def collect(step: int, _: Any) -> tuple[list[Row], dict[str, float]]:
        # stored arrays are read-only, which torch warns of
        return [
            replace(row, prompt_ids=row.prompt_ids.copy(), completion_ids=row.completion_ids.copy())
            for row in arm_rows(batch, chosen[step])
        ], {}

    with TemporaryDirectory() as folder:
        build_trainer(config, model, tokenizer, Path(folder), collect, callbacks=[comparison]).train()
    reference, _ = comparison.found[0]
    if not reference:
        raise ValueError(
            f"no gradient to compare with: nothing in {batch.origin} has a credit other than 0; take another"
        )
    return pd.DataFrame(
        {
            "arm": arm.name,
            "kind": arm.kind,
            "norm": norm,
            "cosine": dot / (norm * reference) if norm else math.nan,
            "ratio": norm / reference,
        }
        for arm, (norm, dot) in zip(chosen, comparison.found, strict=True)
    )


# -- what is shown ----------------------------------------------------------------------------------------------------


def row_table(statistics: pd.DataFrame) -> pd.DataFrame:
    """The row statistics for the eye: arms down, (quantity, stage) across."""
    wide = statistics.pivot(index="arm", columns="stage", values=["rows", "mean_advantage", "zero"])
    order = [(name, stage) for name in ("rows", "mean_advantage", "zero") for stage in STAGES]
    return wide.loc[statistics["arm"].unique(), order].astype({("rows", stage): int for stage in STAGES}).round(3)


@themed
def draw(statistics: pd.DataFrame, compared: pd.DataFrame) -> Figure:
    """Per arm: direction and size of its gradient against the paper's, and which stages its credit goes to."""
    names = list(compared["arm"])
    places = range(len(names))
    figure = Figure(figsize=(9.6, 1.1 + 0.27 * len(names)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1, 1.3))
    for axes, column, title in (
        (left, "cosine", "cosine with the paper's gradient"),
        (middle, "ratio", "norm / paper's"),
    ):
        axes.axvline(1.0, color="0.8", linewidth=0.8, zorder=0)
        axes.scatter(compared[column], places, color="0.25", s=24, clip_on=False, zorder=3)
        axes.set(xlabel=title)
    left.set(xlim=(min(0.0, compared["cosine"].min() * 1.1), 1.03))
    middle.set(xlim=(0, compared["ratio"].max() * 1.08))
    start = np.zeros(len(names))
    for stage in STAGES:
        own = statistics[statistics["stage"] == stage].set_index("arm").loc[names, "credit"].fillna(0.0).to_numpy()
        right.barh(places, own, left=start, color=_STAGE_COLOURS[stage], label=stage, height=0.7)
        start += own
    right.set(xlabel=r"share of $\sum|A|\,w$", xlim=(0, 1))
    right.spines["left"].set_visible(False)
    rows = statistics.groupby("arm", sort=False)["rows"].sum()
    left.set_yticks(places, [f"{name} (n = {rows[name]})" for name in names])
    left.set(ylim=(len(names) - 0.5, -0.5), ylabel="credit (n = rows)")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=len(STAGES))
    return figure


def reading(batch: Batch, statistics: pd.DataFrame, compared: pd.DataFrame, gigpo: pd.DataFrame) -> str:
    """What the numbers say, as Markdown, made from them alone.

    Args:
        statistics, compared: of `arms`.
        gigpo: `gradients` of `baselines`.
    """
    table = compared.set_index("arm")
    cells = statistics.set_index(["arm", "stage"])
    won = sum(r.outcome for r in batch.rollouts)
    limit = f" {batch.ceiling}" if batch.ceiling else ""

    def angle(frame: pd.DataFrame, name: str) -> str:
        cosine, ratio = frame.loc[name, ["cosine", "ratio"]]
        return f"{name}: no gradient" if math.isnan(cosine) else f"{name}: cosine {cosine:.2f}, norm x {ratio:.2f}"

    def share(arm: str, stage: Stage) -> str:
        rows, part = cells.loc[(arm, stage), ["rows", "credit"]]
        return f"{int(rows)} {stage} rows with {100 * part:.0f} % of the credit" if rows else f"no {stage} rows"

    def idle(arm: str) -> str:
        return f"{100 * cells.loc[(arm, 'act'), 'zero']:.0f} %"

    [released] = table.index[table["kind"] == "released"]
    single = table[table["kind"] == "switch"].sort_values("cosine").index
    ablations = table[table["kind"] == "ablation"].sort_values("cosine").index
    among = gigpo.set_index("arm")
    lines = [
        f"{batch.origin}: {len(batch.rollouts)} rollouts in {len({r.group for r in batch.rollouts})} groups, {won:.0f} "
        f"won.{limit} Of the act rows, {idle(REFERENCE)} get nothing by the paper's credit, {idle(released)} by the "
        f"released scripts' and {idle('estimator = gigpo')} by GiGPO's estimator.",
        f"The paper's credit has {share(REFERENCE, 'rerank')} and {share(REFERENCE, 'distill')}; the released scripts' "
        f"has {share(released, 'rerank')} and {share(released, 'distill')}.",
        f"Against the paper's gradient, {angle(table, released)}. Its switches one by one, the one that turns the "
        f"gradient most first: {'; '.join(angle(table, name) for name in single)}.",
        f"Ablations: {'; '.join(angle(table, name) for name in ablations)}.",
        f"Against GRPO's gradient on act rows alone, {'; '.join(angle(among, name) for name in among.index[1:])}.",
        "One batch and one policy: this is what a switch changes in one update, not what it does to a run.",
    ]
    return "\n".join(f"* {line}" for line in lines)
