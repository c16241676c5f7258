"""The training run (Algorithm 1): every step collects rollouts, credits them, teaches the library, updates the policy.

Order inside a step: reset, query, retrieve, rerank, play, distill; credit from the utilities as they were when
retrieved; utility update, admission, retirement; policy update. Everything a step draws comes from (seed, step), so the
environment's cursor is the step number and a resumed run continues the same sequence of tasks on any number of
processes. Rank 0 is the library's only author: the others apply its events.
"""

from __future__ import annotations

import errno
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from skill1.config import Config, ConfigError
from skill1.credit import credit, credit_metrics
from skill1.divergence import Diverged
from skill1.encoder import load_encoder
from skill1.envs.make import make_environment
from skill1.evaluate import jobs, outcomes, play_together
from skill1.library import SkillLibrary
from skill1.methods.references import ReferenceTrajectories
from skill1.methods.retroagent import Potentials, memory_arm
from skill1.methods.skillrl.growth import BankGrowth, check_bank
from skill1.policy import Policy, load_model
from skill1.processes import join_processes, leave_processes
from skill1.prompts import make_prompts
from skill1.records import Rollout, Row, Task
from skill1.rollout import SkillLoop
from skill1.sharding import check_sharding
from skill1.store.journal import Journal
from skill1.store.run_directory import RunDirectory, RunError
from skill1.termination import on_sigterm
from skill1.trainer import RowTrainer, build_trainer


def step_tasks(tasks: Sequence[Task], step: int, count: int, seed: int) -> list[Task]:
    """The tasks of a step: consecutive pieces of an endless stream of permutations of `tasks`, one per epoch.

    `Task.seed` is the epoch: a task that ends one epoch and begins the next within a step is not sampled twice alike.
    """
    chosen = []
    for position in range(step * count, (step + 1) * count):
        epoch, offset = divmod(position, len(tasks))
        task = tasks[np.random.default_rng((seed, epoch)).permutation(len(tasks))[offset]]
        chosen.append(replace(task, seed=epoch))
    return chosen


class Experience:
    """Collects one step's rows: the `collect` of the trainer, and the state that a checkpoint must hold beside it."""

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerBase, run: RunDirectory | None) -> None:
        """`run` is None on every rank but 0."""
        self.config = config
        self._tokenizer = tokenizer
        self._run = run
        self._state = PartialState()
        self.environment = make_environment(config.environment)
        self._tasks = self.environment.tasks(config.environment.train_split)
        self._encoder = load_encoder(config.library.encoder) if config.skilled else None
        self._bank = BankGrowth(config, self._encoder, run) if config.bank.enabled else None
        self.library = SkillLibrary(config.library, self._encoder) if config.library.enabled else None
        self._journal = Journal(run.library_dir / "journal.jsonl") if run and self.library is not None else None
        rollout = config.rollout
        self._references = ReferenceTrajectories(rollout.same_task) if rollout.distill_reference else None
        self._potentials = Potentials(rollout.same_task) if rollout.reflection != "none" else None

    def start(self) -> None:
        """Forget what a run that died before its first checkpoint left in the journal."""
        if self._journal is not None and (self._journal.sequence or self._journal.torn):
            self._journal.truncate(0)
        if self._bank is not None:
            self._bank.start()

    def close(self) -> None:
        """Say what went wrong on the way without ending the run."""
        if self._bank is not None:
            self._bank.close()

    def policy(self, model: PreTrainedModel) -> Policy:
        return Policy(
            model,
            self._tokenizer,
            make_prompts(self.config.policy.prompts, self.config.environment.name),
            self.config.policy,
            self.config.rollout.max_prompt_tokens,
        )

    # -- one step -------------------------------------------------------------------------------------------------

    def collect(self, step: int, model: PreTrainedModel) -> tuple[list[Row], dict[str, float]]:
        """Rollouts of step `step` (from 0) on all ranks -> their rows, the same on every rank, and the step's metrics."""
        config, started = self.config, time.perf_counter()
        policy = self.policy(model)
        with policy:
            local, seconds = self._rollouts(step, policy)
        played = time.perf_counter()
        rollouts = sorted(gather_object(local), key=lambda r: (r.group, r.index))
        skilled = config.library.enabled
        rows = credit(
            rollouts,
            config.credit,
            selection=skilled and config.rollout.selection,
            distillation=skilled and config.rollout.distillation,
        )
        metrics = credit_metrics(rollouts, config.credit) | self._learn(rollouts, step)
        if self._bank is not None:
            metrics |= self._bank.learn(rollouts, step + 1, "train", policy)
        if self._run is not None:
            self._run.write_rollouts(step + 1, rollouts)
        metrics |= {f"time/{stage}": spent for stage, spent in seconds.items()}
        metrics["time/rollout"] = played - started
        turns = [turn for rollout in rollouts for turn in rollout.turns]
        metrics["tokens/prompt"] = float(sum(len(turn.prompt_ids) for turn in turns))
        metrics["tokens/generated"] = float(sum(len(turn.completion_ids) for turn in turns))
        metrics["time/generated_tokens_per_second"] = metrics["tokens/generated"] / metrics["time/rollout"]
        metrics["time/credit_and_learn"] = time.perf_counter() - played
        return rows, metrics

    def _rollouts(self, step: int, policy: Policy) -> tuple[list[Rollout], Mapping[str, float]]:
        """This rank's groups, and the seconds that each stage took."""
        config = self.config
        size = config.rollout.group_size
        drawn = step_tasks(self._tasks, step, config.rollout.tasks_per_step, config.train.seed)
        mine = [g for g in range(len(drawn)) if g % self._state.num_processes == self._state.process_index]
        loop = SkillLoop(
            policy,
            self.environment,
            self.library if self._bank is None else self._bank.frozen(),
            config,
            temperature=config.rollout.temperature,
            retrieval="ucb",
            distill=True,
            references=self._references,
            potentials=self._potentials,
        )
        rollouts = loop.run(
            [drawn[g] for g in mine for _ in range(size)],
            groups=[g for g in mine for _ in range(size)],
            indices=[i for _ in mine for i in range(size)],
            seed=(config.train.seed, step),
            memory=memory_arm(size, config.rollout.memory_share) * len(mine),
        )
        return rollouts, loop.seconds

    def _learn(self, rollouts: Sequence[Rollout], step: int) -> dict[str, float]:
        """Teach the library, references and potentials this step's rollouts; the same event on every rank."""
        for state in self._states():
            state.learn(rollouts)
        if self.library is None:
            return {}
        if self._state.is_main_process:
            learnt = self.library.learn(rollouts, step + 1)
            self._journal.append(learnt.event)
        else:
            learnt = None
        if self._state.num_processes > 1:
            report = [learnt]
            broadcast_object_list(report)
            learnt = report[0]
            if not self._state.is_main_process:
                self.library.apply(learnt.event)
        return {
            "library/size": float(learnt.size),
            "library/admitted": float(learnt.admitted),
            "library/merged": float(learnt.merged),
            "library/retired": float(learnt.retired),
            "library/mean_utility": float(np.mean([s.utility for s in self.library])) if learnt.size else float("nan"),
        }

    def validate(self, step: int, model: PreTrainedModel) -> None:
        """Greedy-retrieval validation on the live library, frozen; outcomes go to the run's evaluations.

        Args:
            model: the policy as `RowTrainer.generating` gives it.
        """
        config = self.config
        tasks = self.environment.tasks(config.environment.validation_split)
        if len(tasks) > config.train.validation_tasks:
            chosen = np.random.default_rng(config.evaluation.seed).permutation(len(tasks))
            tasks = [tasks[i] for i in sorted(chosen[: config.train.validation_tasks])]
        todo = jobs(tasks, passes=1)
        skills, policy = self.library if self._bank is None else self._bank, self.policy(model)
        frozen = skills.frozen() if skills is not None else None
        with policy:
            rollouts = play_together(todo, policy, self.environment, frozen, config)
        if self._bank is not None and step:
            self._bank.learn(rollouts, step, "validation", policy)
        if self._run is not None:
            label = "none" if frozen is None else f"step{step}"
            frame = outcomes(todo, rollouts, config, step, label)
            self._run.write_evaluation("validation", frame)

    # -- checkpoint state -----------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        if self.library is not None:
            (folder / "library").mkdir(exist_ok=True)
            self.library.save(folder / "library")
        if self._bank is not None:
            self._bank.save(folder)
        for state in self._states():
            state.save(folder)

    def load(self, folder: Path) -> None:
        if self.library is not None:
            self.library = SkillLibrary.load(folder / "library", self.config.library, self._encoder)
            if self._journal is not None:
                self._journal.truncate(self.library.sequence)
        if self._bank is not None:
            self._bank.load(folder)
        for state in self._states():
            state.load(folder)

    def _states(self) -> list[ReferenceTrajectories | Potentials]:
        """What is kept per task, if anything is."""
        return [state for state in (self._references, self._potentials) if state is not None]


class _RunCallback(TrainerCallback):
    """Writes each step's metrics to the run directory, validates on schedule, shows progress, ends after SIGTERM."""

    def __init__(self, experience: Experience, run: RunDirectory | None, trainer: RowTrainer) -> None:
        self._experience = experience
        self._run = run
        self._trainer = trainer
        self._bar: tqdm | None = None
        self._asked = False

    def end(self) -> None:
        """End the run, on all ranks, with the checkpoint of the step that runs."""
        self._asked = True

    def on_train_begin(self, args, state, control, **kwargs):
        state.save_steps = args.save_steps  # transformers goes by the checkpoint's, but a resumed run may change it
        if self._run is not None:
            self._bar = tqdm(total=args.max_steps, initial=state.global_step, unit="step", desc=self._run.name)
        if state.global_step == 0:
            self._validate(0)

    def on_step_end(self, args, state, control, **kwargs):
        every = self._experience.config.train.validate_every
        if every and state.global_step % every == 0:
            self._validate(state.global_step)
        if any(gather_object([self._asked])):
            control.should_save = control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self._run is None or "loss" not in logs:
            return
        self._run.log(state.global_step, {name: value for name, value in logs.items() if name != "epoch"})
        skills = logs.get("library/size", logs.get("bank/size", 0))
        self._bar.set_postfix(reward=f"{logs['reward']:.2f}", skills=int(skills), refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        """End the progress bar's line, also when training ends with an error."""
        if self._bar is not None:
            self._bar.close()

    def _validate(self, step: int) -> None:
        if self._experience.config.train.validate_every:
            with self._trainer.generating() as model:
                self._experience.validate(step, model)


def train(config: Config, directory: Path, resume: bool = False) -> bool:
    """Run training into `directory`, alone or under torchrun; `resume` continues from the last complete checkpoint.

    Returns:
        Whether all steps are done: False if SIGTERM asked for an end, which came after a step with its checkpoint.

    Raises:
        ConfigError, DataError, RunError, LibraryError, CheckpointError, Diverged: see the messages; nothing is
            overwritten.
    """
    state = join_processes(config.train.timeout)
    if config.rollout.tasks_per_step < state.num_processes:
        raise ConfigError(
            f"rollout.tasks_per_step={config.rollout.tasks_per_step} is less than the {state.num_processes} processes: "
            "every process plays whole groups"
        )
    check_sharding(config, state.num_processes)
    if config.bank.enabled:
        check_bank(config)
    model, tokenizer = load_model(config.policy)
    with ExitStack() as ending:  # after an error too: a notebook can go on with the same run
        run = None
        if state.is_main_process:
            environment = make_environment(config.environment)
            opening = RunDirectory.resume if resume else RunDirectory.create
            run = opening(directory, config, environment.data_hash(config.environment.train_split))
            ending.callback(run.close)
        experience = Experience(config, tokenizer, run)
        ending.callback(experience.close)
        trainer = build_trainer(config, model, tokenizer, directory, experience.collect, stateful=[experience])
        callback = _RunCallback(experience, run, trainer)
        ending.callback(callback.close)
        trainer.add_callback(callback)
        state.wait_for_everyone()
        latest = RunDirectory.open(directory).latest_checkpoint() if resume else None
        if latest is None:
            experience.start()
        ending.enter_context(on_sigterm(callback.end))
        try:
            trainer.train(resume_from_checkpoint=latest.path if latest else None)
        except Diverged as error:
            if run is not None:  # a resumed run does the step again, and removes these
                shutil.copy(run.rollouts_file(error.step), error.folder / "rollouts.parquet")
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            free = shutil.disk_usage(directory).free
            raise RunError(
                f"no space left for {directory} ({free:,} bytes are free): make room and continue with --resume"
            ) from error
        done = trainer.state.global_step
    if run is not None and done < config.train.steps:
        ended = f"{directory} ends after SIGTERM: step {done} of {config.train.steps} is saved"
        tqdm.write(f"{ended}; continue with --resume", file=sys.stderr)
    leave_processes()
    return done == config.train.steps
