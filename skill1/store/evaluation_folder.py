"""Evaluations of a model that need no run: `results/<name>/` as `skill1 evaluate --model` writes it.

    evaluation.json          model and its weights' hash, endpoint, library, training; data hash per split; versions
    config.json              how it was evaluated
    evaluations/*.parquet    one row per game and pass, as in a run (skill1.store.run_directory)
    rollouts/*.parquet       on demand: the episodes, a file per split and pass (skill1.store.rollout_log)
    summary.json             per split: success with intervals, and what went wrong with the answers

The same evaluation can be continued: after an interruption, with more passes or with another split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from skill1.config import Config, diff, read_config, save_config
from skill1.errors import RunError
from skill1.records import Rollout
from skill1.store.json_file import read_json, write_json
from skill1.store.outcomes import read_outcomes, write_outcomes
from skill1.store.places import free_names, place_names
from skill1.store.rollout_log import write_rollouts
from skill1.store.session import describe_session
from skill1.store.writable import check_writable

# fields that may differ where an evaluation is continued, besides the free ones and places of files, which have hashes
_MAY_DIFFER = frozenset({"evaluation.passes", "evaluation.splits"})
_WHAT = ("model", "endpoint", "library", "training")
_ABOUT, _CONFIG, _SUMMARY = "evaluation.json", "config.json", "summary.json"


@dataclass(eq=False)
class EvaluationFolder:
    """One evaluation on disk. Build it with `begin` (the writer) or `open` (readers)."""

    path: Path
    config: Config
    about: Mapping[str, Any]  # what is evaluated: `_WHAT`, "model_hash"
    _data: dict[str, str] = field(default_factory=dict)  # split -> hash of its data
    _sessions: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def begin(cls, path: Path, config: Config, about: Mapping[str, Any]) -> EvaluationFolder:
        """Begin a new evaluation, or continue the one at `path`; nothing is written yet.

        Raises:
            RunError: another evaluation or something else is there, or it cannot be written.
        """
        check_writable(path)
        session = describe_session()
        if not (path / _ABOUT).is_file():
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise RunError(f"{path} exists and holds no evaluation of a model: choose another folder, or remove it")
            return cls(path, config, about, {}, [session])
        there = cls.open(path)
        changed = {name: (there.about[name], about[name]) for name in about if there.about[name] != about[name]}
        if there.about["model_hash"] is None:  # an older version's: its model is known by name alone
            changed.pop("model_hash", None)
        elif "model_hash" not in changed:  # the same model, wherever it is
            changed.pop("model", None)
        free = _MAY_DIFFER | free_names(config) | place_names(config)
        changed |= {name: both for name, both in diff(there.config, config).items() if name not in free}
        if changed:
            listing = "; ".join(f"{name}: it has {old!r}, now {new!r}" for name, (old, new) in changed.items())
            raise RunError(f"{path} holds another evaluation ({listing}): choose another folder")
        return cls(path, config, about, there._data, [*there._sessions, session])

    @classmethod
    def open(cls, path: Path) -> EvaluationFolder:
        """Open an evaluation for reading. Raises RunError when there is none."""
        try:
            record = read_json(path / _ABOUT)
            about = {name: record[name] for name in _WHAT} | {"model_hash": record.get("model_hash")}
            return cls(path, read_config(path / _CONFIG), about, record["data"], record["sessions"])
        except FileNotFoundError:
            raise RunError(f"{path} holds no evaluation of a model ({_ABOUT} is missing)") from None
        except (ValueError, LookupError) as error:
            raise RunError(f"{path / _ABOUT} is damaged ({error}): restore it, or choose another folder") from None

    @property
    def library(self) -> str:
        """The outcomes' label of the skills at hand."""
        return "none" if self.about["library"] is None else "given"

    def check_data(self, split: str, data_hash: str) -> None:
        """Raise RunError if outcomes of `split` were stored on other data."""
        if self._data.setdefault(split, data_hash) != data_hash:
            raise RunError(
                f"{self.path} has outcomes of {split} on other data: restore the data, or choose another folder"
            )

    def outcomes(self) -> pd.DataFrame:
        """Read all stored outcomes (columns of EVALUATION_SCHEMA); the seed is missing for a model not of ours."""
        return read_outcomes(self.path / "evaluations", f"evaluation_{self.library}")

    def rollouts_file(self, split: str, number: int) -> Path:
        """Name the file of the episodes of a pass."""
        return self.path / "rollouts" / f"{split}_pass{number}.parquet"

    def write_rollouts(self, split: str, number: int, rollouts: Sequence[Rollout], extra: type | None) -> None:
        """Store the episodes of a pass; `extra`: see `rollout_log.write_rollouts`."""
        file = self.rollouts_file(split, number)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_rollouts(file, rollouts, extra)

    def write(self, frame: pd.DataFrame, session: Mapping[str, Any]) -> None:
        """Store the outcomes of one split, in place of those there, and what is to be said of this session."""
        self._sessions[-1] |= session
        record = {**self.about, "data": self._data, "sessions": self._sessions}
        try:
            (self.path / "evaluations").mkdir(parents=True, exist_ok=True)
            save_config(self.config, self.path / _CONFIG)
            write_json(self.path / _ABOUT, record)
        finally:  # these first: if there is no room left, outcomes are kept elsewhere
            write_outcomes(self.path / "evaluations", f"evaluation_{self.library}", frame)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Store the summaries of splits."""
        file = self.path / _SUMMARY
        known = read_json(file) if file.exists() else {}
        write_json(file, known | dict(summary))


def is_evaluation(path: Path) -> bool:
    """Return whether `path` is the folder of a model's evaluation."""
    return (path / _ABOUT).is_file()
