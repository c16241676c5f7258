"""Run directories: `results/<name>/`.

    config.json                    the whole typed configuration
    manifest.json                  hashes of data and weights; per session: start, commit, versions, platform, devices
    metrics.jsonl                  one line per training step
    rollouts/step_000001.parquet   every episode of the step (skill1.store.rollout_log)
    evaluations/*.parquet          one row per game and pass
    checkpoint-N/                  holds the marker file COMPLETE once everything in it is on disk
    library/                       the skill library's journal
    *.ipynb                        executed notebooks

Nothing here is ever silently overwritten: an existing run is an error unless it is resumed, a resumed run must have
the same data, starting weights and configuration (but for fields declared `free` and the places of files, whose changes
a session records), and whatever was written after the last complete checkpoint is removed, so that a half-written step
is redone and never mixed. One process writes a run (rank 0); any number may read it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pandas as pd

from skill1.config import Config, ConfigError, diff, flatten, method_of, override, read_config, save_config
from skill1.errors import RunError
from skill1.records import Rollout
from skill1.store.atomic import PARTIAL, replace_file, replacing
from skill1.store.checkpoints import complete_checkpoints, remove_checkpoint
from skill1.store.json_file import read_json, to_json, write_json
from skill1.store.origin import check_origin, weights_hash
from skill1.store.outcomes import read_outcomes, write_outcomes
from skill1.store.places import absolute_places, free_names, place_names
from skill1.store.rollout_log import read_rollouts, write_rollouts
from skill1.store.session import describe_session


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint: the state after training step `step`."""

    step: int
    path: Path


@dataclass(eq=False)
class RunDirectory:
    """One run on disk. Build it with `create` or `resume` (the writer) or `open` (readers)."""

    path: Path
    config: Config
    _metrics: IO[str] | None = field(default=None, repr=False)
    _lock: IO[str] | None = field(default=None, repr=False)
    _last_step: int = field(default=0, repr=False)

    # ---------------------------------------------------------------- opening

    @classmethod
    def create(cls, path: Path, config: Config, data_hash: str, model_hash: str | None = None) -> RunDirectory:
        """Start a new run. The directory may exist if it is empty or holds only notebooks.

        Args:
            data_hash: hash of the games or assets the run reads; a resume must present the same.
            model_hash: hash of the weights it starts from, None for a hub id; likewise.

        Raises:
            RunError: something else is already there, or the directory cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            found = sorted(p.name for p in path.iterdir() if p.suffix != ".ipynb" and not p.name.startswith("."))
            if found:
                kind = "already holds a run" if "config.json" in found else "exists and is not empty"
                raise RunError(
                    f"{path} {kind} ({', '.join(found[:4])}): continue with --resume, "
                    "choose another name, or remove the directory"
                )
            run = cls(path, absolute_places(config))
            run._lock = lock_folder(path)
            for folder in (run.rollouts_dir, run.evaluations_dir, run.library_dir):
                folder.mkdir()
            run._begin(0, {"data_hash": data_hash, "model_hash": model_hash}, changed={})
        except OSError as error:
            raise RunError(f"cannot write the run directory {path}: {error.strerror}") from error
        return run

    @classmethod
    def resume(cls, path: Path, config: Config, data_hash: str, model_hash: str | None = None) -> RunDirectory:
        """Continue a run from its last complete checkpoint (step 0 without one); see `latest_checkpoint`.

        Metrics, rollouts, evaluations and half-written checkpoints beyond that checkpoint are removed; what `config`
        changes of free fields or of places is the run's configuration from now on.

        Raises:
            RunError: no run there, another configuration, data or weights, another process is writing, a corrupt file.
        """
        run, config = cls.open(path), absolute_places(config)
        run.check_resumable(config)
        changed = {name: list(values) for name, values in diff(run.config, config).items()}
        run.check_data(data_hash)
        check_origin(run.manifest().get("model_hash"), model_hash, path, config.policy.model)
        try:
            run._lock = lock_folder(path)
            step = latest.step if (latest := run.latest_checkpoint()) else 0
            run._truncate(step)
            run.config = config
            run._begin(step, {"data_hash": data_hash, "model_hash": model_hash}, changed=changed)
        except OSError as error:
            raise RunError(f"cannot write the run directory {path}: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open a run for reading. Raises RunError when there is none, or it is damaged or of another version."""
        if not (path / "config.json").is_file():
            known = sorted(p.parent.name for p in path.parent.glob("*/config.json"))
            raise RunError(f"there is no run at {path} (runs in {path.parent}: {', '.join(known) or 'none'})")
        try:
            return cls(path, read_config(path / "config.json"))
        except ConfigError as error:
            raise RunError(
                f"{path} was made by another version of skill1, or is damaged ({error}): "
                f"use {_version(path)}, or another results folder"
            ) from None

    def check_config(self, config: Config) -> None:
        """Raise RunError, with the differences, if the run was made with another configuration.

        Files may be in other places than they were: what counts is what they hold.
        """
        self._refuse(self._differences(config))

    def check_resumable(self, config: Config) -> None:
        """Check as `check_config` does, but for the fields that a resumed run may change (`places.free_names`).

        Raises:
            RunError: another field differs, or train.steps is less than the last checkpoint's step.
        """
        changed = self._differences(config)
        self._refuse({name: values for name, values in changed.items() if name not in free_names(config)})
        if (latest := self.latest_checkpoint()) and latest.step > config.train.steps:
            raise RunError(
                f"{self.path} has done {latest.step} steps, more than train.steps={config.train.steps}: ask for more"
            )

    def check_data(self, data_hash: str) -> None:
        """Raise RunError if that is not the hash of the data that the run was started on."""
        recorded = self.manifest()["data_hash"]
        if recorded != data_hash:
            raise RunError(
                f"{self.path} was started on other data (hash {recorded}, now {data_hash}): restore the data"
            )

    def close(self) -> None:
        """Give the run back to other writers."""
        for handle in (self._metrics, self._lock):
            if handle is not None:
                handle.close()
        self._metrics = self._lock = None

    # ---------------------------------------------------------------- places

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def rollouts_dir(self) -> Path:
        return self.path / "rollouts"

    @property
    def evaluations_dir(self) -> Path:
        return self.path / "evaluations"

    @property
    def library_dir(self) -> Path:
        return self.path / "library"

    def rollouts_file(self, step: int) -> Path:
        return self.rollouts_dir / f"step_{step:06d}.parquet"

    def manifest(self) -> dict[str, Any]:
        """Read `variant`, `preset`, `seed`, `data_hash`, `model_hash` and `sessions`, one per create or resume.

        A session's `changed` holds the fields that it changed, as name -> [before, after].
        """
        try:
            return read_json(self.path / "manifest.json")
        except FileNotFoundError:
            raise RunError(
                f"{self.path} has no manifest.json, which says what it was started from: restore it"
            ) from None

    # ---------------------------------------------------------------- metrics

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one step's metrics. Log a step before its checkpoint is complete.

        Raises:
            RunError: the step was logged already.
        """
        if step <= self._last_step:
            raise RunError(f"{self.metrics_file}: step {step} logged after step {self._last_step}")
        assert self._metrics is not None, "opened for reading"
        self._metrics.write(f"{to_json({'step': step, **metrics})}\n")
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        self._last_step = step

    def metrics(self) -> pd.DataFrame:
        """Read all metrics, one row per step, NaN where a step did not report one.

        Raises:
            RunError: a line is torn (a run killed while writing: resume it).
        """
        records, torn = _read_lines(self.metrics_file)
        if torn:
            raise RunError(f"{self.metrics_file}: the last line is torn, an interrupted run: continue with --resume")
        numbers = [{name: math.nan if value is None else value for name, value in record.items()} for record in records]
        return pd.DataFrame.from_records(numbers, columns=None if records else ["step"])

    # ---------------------------------------------------------------- rollouts and evaluations

    def write_rollouts(self, step: int, rollouts: Sequence[Rollout]) -> Path:
        """Store one training step's episodes (atomically, replacing a redone step's)."""
        path = self.rollouts_file(step)
        write_rollouts(path, rollouts, method_of(self.config).Extra)
        return path

    def read_rollouts(self, step: int) -> list[Rollout]:
        """Read one step's episodes. Raises RunError when the step has no rollouts."""
        path = self.rollouts_file(step)
        if not path.is_file():
            raise RunError(f"{self.path} has no rollouts of step {step} (it has {_ranges(self.rollout_steps())})")
        return read_rollouts(path, method_of(self.config).Extra)

    def rollout_steps(self) -> list[int]:
        """List the steps whose rollouts are stored, ascending."""
        return sorted(int(p.stem.removeprefix("step_")) for p in self.rollouts_dir.glob("step_*.parquet"))

    def write_evaluation(self, kind: str, frame: pd.DataFrame, data_hash: str = "") -> Path:
        """Store outcomes of one split at one step: see `outcomes.write_outcomes`."""
        return write_outcomes(self.evaluations_dir, kind, frame, data_hash)

    def evaluations(self, kind: str, data_hash: str | None = None) -> pd.DataFrame:
        """Read all outcomes of a kind: see `outcomes.read_outcomes`."""
        return read_outcomes(self.evaluations_dir, kind, data_hash)

    # ---------------------------------------------------------------- checkpoints

    def checkpoint_dir(self, step: int) -> Path:
        return self.path / f"checkpoint-{step}"

    def checkpoints(self) -> list[Checkpoint]:
        """List the complete checkpoints, ascending."""
        return [Checkpoint(int(folder.name.partition("-")[2]), folder) for folder in complete_checkpoints(self.path)]

    def latest_checkpoint(self) -> Checkpoint | None:
        return found[-1] if (found := self.checkpoints()) else None

    def checkpoint(self, step: int) -> Checkpoint:
        """Find the complete checkpoint of a step. Raises RunError naming those there are."""
        found = {c.step: c for c in self.checkpoints()}
        if step not in found:
            there = ", ".join(map(str, found)) or "none"
            raise RunError(f"{self.path} has no complete checkpoint-{step} (it has {there})")
        return found[step]

    def placed(self, overrides: Mapping[str, Any]) -> Config:
        """Return the run's configuration with files and folders where they are now, by dotted names.

        Raises:
            ConfigError: another field, or a value that does not fit.
        """
        places = place_names(self.config)
        if foreign := sorted(name for name in overrides if name not in places):
            raise ConfigError(
                f"{foreign[0]} is the run's own: only where its files and folders are can be set ({', '.join(sorted(places))}); "
                "for other conditions `skill1 export` it, and evaluate that with --model"
            )
        return override(self.config, overrides)

    def weights(self, config: Config, step: int) -> Path | None:
        """Find the checkpoint with the policy after `step`; None for step 0, the policy before training.

        Args:
            config: as the run's, but for places.

        Raises:
            RunError: no such checkpoint, or what it lies on (a LoRA run's base, the policy before training) was changed.
        """
        found, policy = self.checkpoint(step).path if step else None, config.policy
        if found is None or policy.lora_rank:
            try:
                now = weights_hash(policy.model, policy.adapter, policy.revision)
            except ConfigError as error:
                raise RunError(
                    f"{self.path} was trained from weights that are not there: restore them, or say where they are with "
                    f"--set policy.model=DIR ({error})"
                ) from None
            check_origin(self.manifest().get("model_hash"), now, self.path, policy.model)
        return found

    # ---------------------------------------------------------------- internals

    def _differences(self, config: Config) -> dict[str, tuple[Any, Any]]:
        """Fields with other values than the run's, without those that name a file or folder in another place."""
        config = absolute_places(config)
        moved = {"environment.data"} | {
            name
            for name in place_names(self.config)
            if all(os.path.isabs(flatten(c).get(name) or "") for c in (self.config, config))
        }
        return {name: values for name, values in diff(self.config, config).items() if name not in moved}

    def _refuse(self, changed: Mapping[str, tuple[Any, Any]]) -> None:
        if changed:
            listing = "; ".join(f"{name}: the run has {old!r}, now {new!r}" for name, (old, new) in changed.items())
            raise RunError(
                f"{self.path} was started with another configuration ({listing}): use the same or another name"
            )

    def _begin(self, from_step: int, hashes: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
        """Begin a session: note what it depends on, and be ready to log the step after `from_step`."""
        file = self.path / "manifest.json"
        sessions = self.manifest()["sessions"] if file.exists() else []
        manifest = {
            "preset": self.config.preset,
            "variant": self.config.variant,
            "seed": self.config.train.seed,
            **hashes,
            "sessions": [*sessions, {"from_step": from_step, "changed": changed, **describe_session()}],
        }
        if (leak := method_of(self.config).leak(self.config)) is not None:
            manifest["leak"] = leak
        write_json(file, manifest)
        with replacing(self.path / "config.json") as partial:  # last: a directory with a config is a whole run
            save_config(self.config, partial)
        self._metrics = self.metrics_file.open("a")
        self._last_step = from_step

    def _truncate(self, step: int) -> None:
        """Remove everything written after `step`, and torn or partial files."""
        if self.metrics_file.exists():
            records, _ = _read_lines(self.metrics_file)
            kept = "".join(f"{to_json(r)}\n" for r in records if r["step"] <= step)
            replace_file(self.metrics_file, kept.encode())
        for folder in (self.rollouts_dir, self.evaluations_dir):
            for file in folder.glob(f"*{PARTIAL}"):
                file.unlink()
            for file in folder.glob("*step_*.parquet"):
                if int(file.stem.rpartition("step_")[2]) > step:
                    file.unlink()
        complete = {checkpoint.path for checkpoint in self.checkpoints()}
        for folder in set(self.path.glob("checkpoint-*")) - complete:
            remove_checkpoint(folder)


def lock_folder(folder: Path) -> IO[str]:
    """Become the only writer of `folder` until the returned file is closed or this process ends.

    Raises:
        RunError: another process is.
    """
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RunError(f"another process is writing {folder}: wait for it or stop it") from None
    return lock


def _read_lines(file: Path) -> tuple[list[dict[str, Any]], bool]:
    """Read all whole records of a JSON-lines file, and whether its last line is torn.

    Raises:
        RunError: a line before the last is not JSON, which no interruption can cause.
    """
    if not file.exists():
        return [], False
    *lines, tail = file.read_text().split("\n")  # a whole file ends with a newline: the tail is empty
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise RunError(f"{file}, line {number} of {len(lines)} is corrupt ({error}): restore the file") from error
    return records, tail != ""


def _version(path: Path) -> str:
    """Name the version of skill1 that a run needs, as far as its manifest says."""
    try:
        git = read_json(path / "manifest.json")["sessions"][-1]["git"]
    except (OSError, ValueError, LookupError, TypeError):
        git = None
    return f"the version of git commit {git['commit']}" if git else "the version that made it"


def _ranges(steps: Sequence[int]) -> str:
    return f"steps {steps[0]}..{steps[-1]}" if steps else "none"
