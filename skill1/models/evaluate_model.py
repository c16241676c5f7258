"""Evaluation of any causal LM or endpoint by the code and protocol that evaluates a run.

A model that `skill1 export` wrote brings its configuration and its skills, and gives exactly the outcomes of its run's
own evaluation. Any other is asked with the `full` prompts of a preset: without a library this is acting zero-shot,
thought and action (ReAct); with one it also queries and reranks. Nothing is distilled.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from skill1.config import Config, ConfigError, PolicyConfig, load_config, method_of, override
from skill1.distributed import join_processes
from skill1.envs.make import make_environment
from skill1.errors import RunError
from skill1.evaluate import Evaluation
from skill1.generation.endpoint import CONCURRENT, ChatClient, EndpointPolicy
from skill1.models.export import LIBRARY, Training, read_training
from skill1.play import Job, jobs, load_policy, missing, outcomes, play_together
from skill1.policy import Policy
from skill1.prompts import make_prompts
from skill1.records import Stage
from skill1.rollout import Stages
from skill1.stats import summarise
from skill1.store.evaluation_folder import EvaluationFolder
from skill1.store.model_folder import adapter_base, is_adapter
from skill1.store.origin import check_origin, weights_hash
from skill1.store.rollout_log import read_rollouts


@dataclass(frozen=True, slots=True)
class ModelEvaluation:
    """What came out, and how many replies of an endpoint could not be used (they count as empty answers)."""

    evaluations: list[Evaluation]
    replies: int = 0
    unusable: int = 0


def model_config(
    model: str, preset: str | None = None, overrides: Mapping[str, Any] | None = None, *, endpoint: bool = False
) -> Config:
    """Say how to evaluate `model`: by `preset`, else by the configuration exported with it, else by preset "paper".

    Raises:
        ConfigError: see `load_config`; or `overrides` name another model.
    """
    training = None if endpoint else read_training(Path(model))
    given = {"policy.model": model} | dict(overrides or {})
    if given["policy.model"] != model:
        raise ConfigError(f"policy.model={given['policy.model']} contradicts --model {model}: leave one of them out")
    if endpoint:
        given = {"policy.generate_batch": CONCURRENT} | given  # episodes, so requests, at a time
    if preset is None and training is not None:
        whole = replace(training.config, policy=replace(training.config.policy, adapter=None))  # it was folded in
        return override(whole, given)
    return load_config(preset or "paper", "full", given)


def evaluate_model(
    config: Config,
    out: Path,
    *,
    library: str | None = None,
    endpoint: str | None = None,
    key_variable: str | None = None,
    keep_rollouts: bool = False,
    progress: bool = True,
) -> ModelEvaluation:
    """Evaluate the model `config.policy.model` and store the outcomes in `out`; outcomes already there are kept.

    Args:
        library: folder of a library or bank as checkpoints hold it, a file or folder of skills that somebody wrote,
            "none", or None = the one exported with the model, if there is one.
        endpoint: base address of an OpenAI-compatible server to ask instead of loading the model.
        key_variable: environment variable with the server's key, None = no key.
        keep_rollouts: store the episodes too, with every answer as it was written.

    Raises:
        RunError: the rollouts of outcomes that are there were not kept.
        ConfigError, DataError, LibraryError, BankError, RunError: what was asked for does not exist or fit.
        EndpointError: see `ChatClient`; the passes that were finished are stored.
    """
    state = join_processes()
    model = config.policy.model
    training = None if endpoint else read_training(Path(model))
    environment = make_environment(config.environment)
    todo = {split: jobs(environment.tasks(split), config.evaluation.passes) for split in config.evaluation.splits}
    source = _library_folder(config, library, training)
    method = None if source is None else method_of(config)(config)
    if method is not None:
        method.load_skills(source)
    about = {
        "model": model,
        "model_hash": None if endpoint else _hash(config.policy, training),
        "endpoint": endpoint,
        "library": None if method is None else {"skills": len(method.skills), "sha256": method.skills.state_hash()},
        "training": None
        if training is None
        else {"variant": training.config.variant, "seed": training.config.train.seed, "step": training.step},
    }
    folder = EvaluationFolder.begin(out, config, about)
    for split in todo:
        folder.check_data(split, environment.data_hash(split))
        if keep_rollouts:
            _check_kept(folder, split)
    policy = _policy(config, training, endpoint, key_variable)
    stages = Stages() if method is None else method.frozen()
    extra = None if method is None else method.Extra
    evaluations = []
    with policy if isinstance(policy, Policy) else nullcontext():  # an endpoint holds nothing between calls
        for split, wanted in todo.items():
            stored = folder.outcomes()
            frame = stored[stored["split"] == split]
            for batch in _by_pass(wanted, frame):
                rollouts = play_together(batch, policy, environment, stages, config, progress=progress)
                fresh = outcomes(batch, rollouts, config, training.step if training else 0, folder.library)
                if training is None:
                    fresh = fresh.assign(variant=model, seed=pd.NA)
                frame = pd.concat([part.astype({"seed": "Int64"}) for part in (frame, fresh)], ignore_index=True)
                if state.is_main_process:
                    if keep_rollouts:
                        folder.write_rollouts(split, batch[0].number, rollouts, extra)
                    folder.write(frame, _replies(policy))
            asked = frame[frame["pass"] < config.evaluation.passes].sort_values(["pass", "game"], ignore_index=True)
            step = int(asked["step"].iloc[0])
            summary = summarise(asked)
            if keep_rollouts:
                state.wait_for_everyone()  # the first process has written them
                summary["ill_formed_by_stage"] = _ill_formed(folder, asked, split, extra)
            evaluations.append(Evaluation(split, step, folder.library, asked, summary))
            if state.is_main_process:
                folder.write_summary({split: evaluations[-1].summary})
    return ModelEvaluation(evaluations, **_replies(policy))


def _hash(policy: PolicyConfig, training: Training | None) -> str | None:
    """Hash the weights of what is evaluated. Raises RunError if an exported adapter's base was changed."""
    if training is not None and is_adapter(Path(policy.model)):
        base = adapter_base(Path(policy.model))
        check_origin(training.model_hash, weights_hash(base), Path(policy.model), base)
    return weights_hash(policy.model, policy.adapter, policy.revision)


def _library_folder(config: Config, wanted: str | None, training: Training | None) -> Path | None:
    if wanted == "none":
        return None
    if wanted is not None:
        if not method_of(config).keeps_skills:
            raise ConfigError(
                f"the method {config.method.name} keeps no skills, but a library is given ({wanted}): leave it out"
            )
        return Path(wanted)
    own = Path(config.policy.model) / LIBRARY
    return own if training is not None and method_of(config).keeps_skills and own.is_dir() else None


def _policy(
    config: Config, training: Training | None, endpoint: str | None, key_variable: str | None
) -> Policy | EndpointPolicy:
    if endpoint is None:
        policy = load_policy(config)
        if training is None:  # ours keep the precision they were trained and evaluated in
            policy.model.to(getattr(torch, config.policy.dtype))
        return policy
    prompts = make_prompts(config.policy.prompts, config.environment.name, config.rollout.context)
    prompts.messages((), "")  # that they are for such a model
    client = ChatClient(endpoint, config.policy.model, key_variable, concurrent=config.policy.generate_batch)
    return EndpointPolicy(client, prompts)


def _by_pass(todo: list[Job], frame: pd.DataFrame) -> list[list[Job]]:
    """The jobs without an outcome, pass by pass."""
    lacking = missing(todo, frame)
    return [[job for job in lacking if job.number == number] for number in sorted({job.number for job in lacking})]


def _check_kept(folder: EvaluationFolder, split: str) -> None:
    stored = folder.outcomes()
    for number in sorted(stored.loc[stored["split"] == split, "pass"].unique()):
        if not folder.rollouts_file(split, number).exists():
            raise RunError(
                f"{folder.path} has outcomes of {split}, pass {number}, whose rollouts were not kept: choose another folder"
            )


def _ill_formed(folder: EvaluationFolder, frame: pd.DataFrame, split: str, extra: type | None) -> dict[Stage, float]:
    """The share of ill-formed answers of each stage."""
    files = [folder.rollouts_file(split, number) for number in sorted(frame["pass"].unique())]
    turns = [turn for file in files for rollout in read_rollouts(file, extra) for turn in rollout.turns]
    return {
        stage: float(np.mean([not turn.well_formed for turn in turns if turn.stage == stage]))
        for stage in dict.fromkeys(turn.stage for turn in turns)
    }


def _replies(policy: Policy | EndpointPolicy) -> dict[str, int]:
    if isinstance(policy, EndpointPolicy):
        return {"replies": policy.client.replies, "unusable": policy.client.unusable}
    return {}
