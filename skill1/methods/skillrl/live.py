"""The live bank of a run: the episodes since the last evolution, the questions they raise, and what answers change.

`observe` is pure bookkeeping and the same on every rank. Rank 0 alone `learn`s from a teacher's answer; the other ranks
and the journal's replay `apply` the event. A checkpoint holds the bank in its public shape and, beside it, the counters
and the episodes that the next evolution will look at, so that a resumed run asks the same question.

Differs from the paper in: training and evaluation read one bank, frozen where it is evaluated; in the released code
validation keeps the first one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from skill1.config import Config
from skill1.encoder import Encoder
from skill1.methods.base import Source
from skill1.methods.skillrl.asking import Inputs
from skill1.methods.skillrl.bank import BankError, SkillBank, load_bank
from skill1.methods.skillrl.categories import known_categories
from skill1.methods.skillrl.events import BankEvent
from skill1.methods.skillrl.evolution import (
    Episode,
    Tally,
    accept,
    episode_of,
    pick_failures,
    section_for,
    tallies,
    weak_categories,
)
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.methods.skillrl.retrieval import FrozenBank
from skill1.methods.skillrl.teacher import Teacher, TeacherError
from skill1.records import Rollout
from skill1.store.atomic import replace_file
from skill1.store.json_file import read_json, write_json

BANK_FILE, STATE_FILE = "bank.json", "state.json"
_HEAD = {"format": "skill1-bank", "version": 1}
_WINDOW = TypeAdapter(list[Episode])
_SOURCES: dict[Source, int] = {"train": 1, "validation": 2}  # names of their random streams


@dataclass(frozen=True, slots=True)
class Question:
    """What a teacher is to be asked."""

    step: int
    source: Source
    success: dict[str, Tally]  # of the weak categories, weakest first
    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking: entries, or the reason why there are none."""

    entries: tuple[Any, ...] = ()
    error: str | None = None


def ask_teacher(teacher: Teacher, question: Question) -> Answer:
    """Ask a teacher; a call that fails is an answer with an error."""
    try:
        return Answer(tuple(teacher.write("evolve", question.inputs)))
    except TeacherError as error:
        return Answer(error=str(error).encode(errors="replace").decode())  # storable, whatever a server said


class LiveBank:
    """The bank of a training run, and what it is about to learn from."""

    def __init__(self, config: Config, encoder: Encoder, bank: SkillBank) -> None:
        """`bank`: the one to start with."""
        self.sequence = 0  # events applied
        self.failed = 0  # of these: calls without an answer
        self._config = SkillRLConfig.of(config)
        self._environment = config.environment.name
        self._seed = config.train.seed
        self._encoder = encoder
        self._window: list[Episode] = []
        self._hold(bank)

    def __len__(self) -> int:
        return len(self.bank)

    @property
    def bank(self) -> SkillBank:
        return self._frozen.bank

    def frozen(self) -> FrozenBank:
        """View the bank as it is now. Later steps make new views and leave this one alone."""
        return self._frozen

    def observe(self, rollouts: Sequence[Rollout], step: int, source: Source) -> Question | None:
        """Take a training step's episodes, or those of a validation, into account.

        Args:
            step: training step, from 1.

        Returns:
            What to ask, if this is the time for it, a category is weak, and the bank has room; else None.
        """
        if self._config.evolve_from != source or self._config.teacher == "file":
            return None
        self._window += [episode_of(r, self._environment, self._config.evolve_steps) for r in rollouts]
        if source == "train" and step % self._config.evolve_every:
            return None
        episodes, self._window = self._window, []
        found = tallies(episodes)
        weak = weak_categories(found, self._config)
        if not weak or len(self.bank) >= self._config.limit:
            return None
        rng = np.random.default_rng((self._seed, step, _SOURCES[source]))
        failures = pick_failures(episodes, weak, self._config.evolve_failures, rng)
        inputs = Inputs(
            self._environment,
            failures=failures,
            category=section_for(failures, self._config),
            titles=self.bank.titles,
            counted=tuple(episode for episode in episodes if episode.category in weak),
        )
        return Question(step, source, {name: found[name] for name in weak}, inputs)

    def learn(self, question: Question, answer: Answer) -> BankEvent:
        """Take in what is new in the answer. Without one the bank stays as it is, and the call counts as failed."""
        added, refused = accept(answer.entries, self.bank, question.inputs.category, self._config, self._encoder)
        event = BankEvent(
            sequence=self.sequence + 1,
            step=question.step,
            source=question.source,
            success=question.success,
            shown=tuple(episode.task for episode in question.inputs.failures),
            error=answer.error,
            added=added,
            refused=refused,
        )
        self.apply(event)
        return event

    def apply(self, event: BankEvent) -> None:
        """Repeat what `learn` did elsewhere. Raises BankError if the event is not the next one of this bank."""
        if event.sequence != self.sequence + 1:
            raise BankError(f"event {event.sequence} cannot follow event {self.sequence}: events must be in order")
        self._hold(self.bank.add(event.added))
        self.sequence += 1
        self.failed += event.error is not None

    def save(self, folder: Path) -> None:
        """Write the bank, in its public shape, and the state beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        text = self.bank.to_text().encode()
        state = _HEAD | {
            "bank_sha256": hashlib.sha256(text).hexdigest(),
            "sequence": self.sequence,
            "failed": self.failed,
            "window": [asdict(episode) for episode in self._window],
        }
        replace_file(folder / BANK_FILE, text)
        write_json(folder / STATE_FILE, state, indent=None)

    @classmethod
    def load(cls, folder: Path, config: Config, encoder: Encoder) -> LiveBank:
        """Read what `save` wrote. Raises BankError: a file is missing, altered, or of another version."""
        path = folder / STATE_FILE
        bank = load_bank(folder / BANK_FILE, known_categories(config.environment.name))
        try:
            state = read_json(path)
            window = _WINDOW.validate_python(state["window"])
            head = {name: state[name] for name in _HEAD}
            checksum, sequence, failed = state["bank_sha256"], state["sequence"], state["failed"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BankError(f"{path} does not read ({error}): resume from another checkpoint") from None
        if head != _HEAD:
            raise BankError(f"{path} is {head}, this code reads {_HEAD}: use the code version that wrote it")
        if hashlib.sha256((folder / BANK_FILE).read_bytes()).hexdigest() != checksum:
            raise BankError(f"{folder / BANK_FILE} was changed since it was saved: resume from another checkpoint")
        live = cls(config, encoder, bank)
        live.sequence, live.failed, live._window = sequence, failed, window
        return live

    def state_hash(self) -> str:
        """Take the SHA-256 of all that a checkpoint holds: equal on all ranks and after a resume."""
        state = (self.sequence, self.failed, self.bank.to_json(), [asdict(e) for e in self._window])
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    def _hold(self, bank: SkillBank) -> None:
        self._frozen = FrozenBank(self._config, self._environment, self._encoder, bank)
