"""The training run (Skill1 Algorithm 1): every step collects rollouts, credits them, lets the method learn, updates.

Order inside a step: what the method does first, play, what it does last; credit from what was known when retrieved; the
method learns; policy update. Everything a step draws comes from (seed, step), so the
environment's cursor is the step number and a resumed run continues the same sequence of tasks on any number of
processes. Rank 0 is the only author of what is learnt: the others apply its events.

With `train.overlap` the rollouts of step k + 1 are played in a thread while step k's update runs: with what the method has
learnt from step k, by the policy before that update. They are one update behind, and count by the ratio to the log-probs
that they were sampled with. The first step, and the first after a resume, are not behind. What needs the server with other
weights, validation too, waits until they are played on all ranks.
"""

from __future__ import annotations

import errno
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from skill1.checks import check_run, count_tasks
from skill1.config import Config, method_of
from skill1.distributed import join_processes, leave_processes, on_sigterm
from skill1.envs.base import VectorEnvironment
from skill1.envs.make import make_environment
from skill1.errors import RunError, one_line
from skill1.methods.base import Method, Source
from skill1.play import check_policy, jobs, make_policy, outcomes, play_together
from skill1.policy import Policy, load_model
from skill1.records import Rollout, Row, Task
from skill1.rollout import Ask, RolloutLoop
from skill1.store.origin import weights_hash
from skill1.store.run_directory import RunDirectory
from skill1.trainer import RowTrainer, build_trainer
from skill1.updates.divergence import Diverged


def step_tasks(tasks: Sequence[Task], step: int, count: int, seed: int) -> list[Task]:
    """Draw the tasks of a step: consecutive pieces of an endless stream of permutations of `tasks`, one per epoch.

    `Task.seed` is the epoch: a task that ends one epoch and begins the next within a step is not sampled twice alike.
    """
    chosen = []
    for position in range(step * count, (step + 1) * count):
        epoch, offset = divmod(position, len(tasks))
        task = tasks[np.random.default_rng((seed, epoch)).permutation(len(tasks))[offset]]
        chosen.append(replace(task, seed=epoch))
    return chosen


# rollouts, seconds by stage, seconds in all
_Played = tuple[list[Rollout], Mapping[str, float], float]


class Experience:
    """Collects one step's rows: the `collect` of the trainer, and the method's state in its checkpoints."""

    def __init__(
        self,
        config: Config,
        environment: VectorEnvironment,
        tokenizer: PreTrainedTokenizerBase,
        run: RunDirectory | None,
    ) -> None:
        """`run` is None on every rank but 0."""
        self.config = config
        self._tokenizer = tokenizer
        self._run = run
        self._state = PartialState()
        self.environment = environment
        self._tasks = self.environment.tasks(config.environment.train_split)
        self.method: Method = method_of(config)(config, run.library_dir if run else None)
        self._ahead: Future[_Played] | None = None  # of the next step (train.overlap)

    def collect(self, step: int, model: PreTrainedModel) -> tuple[list[Row], dict[str, float]]:
        """Collect step `step` (from 0) on all ranks -> its rows, the same on every rank, and the step's metrics."""
        started, behind = time.perf_counter(), self._ahead is not None
        played = self._wait_for_ahead()
        policy = make_policy(self.config, model, self._tokenizer)
        local, seconds, took = played or self._rollouts(step, policy)
        ready = time.perf_counter()
        rollouts = sorted(gather_object(local), key=lambda r: (r.group, r.index))
        rows, metrics = self.method.credit(rollouts, step + 1), self.method.metrics(rollouts, self.config)
        metrics |= self._learn(rollouts, step + 1, "train", policy)
        if self.config.train.overlap:
            self._ahead = self._play_ahead(step + 1, policy) if step + 1 < self.config.train.steps else None
            metrics |= {"rollouts/updates_behind": float(behind), "time/waited": ready - started}
        if self._run is not None:
            self._run.write_rollouts(step + 1, rollouts)
        metrics |= {f"time/{stage}": spent for stage, spent in seconds.items()}
        metrics["time/rollout"] = took
        turns = [turn for rollout in rollouts for turn in rollout.turns]
        metrics["tokens/prompt"] = float(sum(len(turn.prompt_ids) for turn in turns))
        metrics["tokens/generated"] = float(sum(len(turn.completion_ids) for turn in turns))
        metrics["time/generated_tokens_per_second"] = metrics["tokens/generated"] / metrics["time/rollout"]
        metrics["time/credit_and_learn"] = time.perf_counter() - ready
        return rows, metrics

    def _play_ahead(self, step: int, policy: Policy) -> Future[_Played]:
        """Play a step's rollouts in a thread. It ends with the process, also in the middle of them."""
        ahead: Future[_Played] = Future()

        def play() -> None:
            try:
                ahead.set_result(self._rollouts(step, policy))
            except BaseException as error:  # for the thread that waits
                ahead.set_exception(error)

        threading.Thread(target=play, name=f"rollouts of step {step + 1}", daemon=True).start()
        return ahead

    def _wait_for_ahead(self) -> _Played | None:
        """Wait until all ranks have played the next step's rollouts: until then the server keeps its weights."""
        if self._ahead is None:
            return None
        played = self._ahead.result()
        self._state.wait_for_everyone()
        return played

    def _rollouts(self, step: int, policy: Policy) -> _Played:
        """Play this rank's groups."""
        config, started = self.config, time.perf_counter()
        size = config.rollout.group_size
        drawn = step_tasks(self._tasks, step, config.rollout.tasks_per_step, config.train.seed)
        mine = [g for g in range(len(drawn)) if g % self._state.num_processes == self._state.process_index]
        loop = RolloutLoop(Ask(policy, config.rollout.temperature), self.environment, self.method, config)
        with policy:
            rollouts = loop.run(
                [drawn[g] for g in mine for _ in range(size)],
                groups=[g for g in mine for _ in range(size)],
                indices=[i for _ in mine for i in range(size)],
                seed=(config.train.seed, step),
            )
        return rollouts, loop.seconds, time.perf_counter() - started

    def _learn(self, rollouts: Sequence[Rollout], step: int, source: Source, policy: Policy) -> dict[str, float]:
        """Let the method learn: rank 0 authors the event, the others apply it."""
        method = self.method
        method.observe(rollouts, step, source, policy)
        event = method.learn(rollouts, step, source) if self._state.is_main_process else None
        if self._state.num_processes > 1:
            box = [event]
            broadcast_object_list(box)
            [event] = box
            if event is not None and not self._state.is_main_process:
                method.apply(event)
        return method.state(event) if source == "train" else {}

    def validate(self, step: int, model: PreTrainedModel) -> None:
        """Play the validation split with the method as it is, frozen; outcomes go to the run's evaluations.

        Args:
            model: the policy as `RowTrainer.generating` gives it.
        """
        config = self.config
        self._wait_for_ahead()
        tasks = self.environment.tasks(config.environment.validation_split)
        if len(tasks) > config.train.validation_tasks:
            chosen = np.random.default_rng(config.evaluation.seed).permutation(len(tasks))
            tasks = tuple(tasks[i] for i in sorted(chosen[: config.train.validation_tasks]))
        todo, policy = jobs(tasks, passes=1), make_policy(config, model, self._tokenizer)
        with policy:
            rollouts = play_together(todo, policy, self.environment, self.method.frozen(), config)
        if step:
            self._learn(rollouts, step, "validation", policy)
        if self._run is not None:
            label = f"step{step}" if self.method.keeps_skills else "none"
            self._run.write_evaluation("validation", outcomes(todo, rollouts, config, step, label))


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
    check_run(config, state.num_processes)
    environment = make_environment(config.environment)
    count_tasks(config, environment)
    model, tokenizer = load_model(config.policy)
    check_policy(config, model, tokenizer)
    with ExitStack() as ending:  # after an error too: a notebook can continue the same run
        run = None
        if state.is_main_process:
            policy, opening = config.policy, RunDirectory.resume if resume else RunDirectory.create
            data_hash = environment.data_hash(config.environment.train_split)
            run = opening(directory, config, data_hash, weights_hash(policy.model, policy.adapter, policy.revision))
            ending.callback(run.close)
        experience = Experience(config, environment, tokenizer, run)
        ending.callback(experience.method.close)
        trainer = build_trainer(config, model, tokenizer, directory, experience.collect, stateful=[experience.method])
        callback = _RunCallback(experience, run, trainer)
        ending.callback(callback.close)
        trainer.add_callback(callback)
        state.wait_for_everyone()
        latest = RunDirectory.open(directory).latest_checkpoint() if resume else None
        if latest is None:
            experience.method.start()
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
        except Exception as error:
            tracker = config.train.report_to
            if type(error).__module__.partition(".")[0] != tracker:
                raise
            raise RunError(
                f"train.report_to={tracker} fails ({one_line(error)}): mend it, or leave it out: --resume --set "
                "train.report_to=none"
            ) from error
        done = trainer.state.global_step
    if run is not None and done < config.train.steps:
        ended = f"{directory} ends after SIGTERM: step {done} of {config.train.steps} is saved"
        tqdm.write(f"{ended}; continue with --resume", file=sys.stderr)
    leave_processes()
    return done == config.train.steps
