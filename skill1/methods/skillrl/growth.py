"""The bank of a training run on all its ranks: what it starts from, who asks the teacher, and what is left behind.

    library/journal.jsonl        one line per teacher call
    library/initial_bank.json    the bank before the first step
    library/replies/             an endpoint's answers
    checkpoint-N/library/        the bank and what it is about to learn from (`live`)

Rank 0 alone asks, but for a teacher that is the policy: its weights may be spread over the ranks, so all of them write
and rank 0's answer counts. Rank 0 learns, the others apply its event.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm

from skill1.config import Config, ConfigError
from skill1.encoder import Encoder
from skill1.methods.skillrl.bank import BankError, SkillBank, load_bank
from skill1.methods.skillrl.categories import known_categories
from skill1.methods.skillrl.events import BankEvent, BankJournal, Source
from skill1.methods.skillrl.live import LiveBank, Question, ask
from skill1.methods.skillrl.model_teachers import check_teacher, make_teacher
from skill1.methods.skillrl.retrieval import FrozenBank
from skill1.policy import Policy
from skill1.records import Rollout, Skill
from skill1.store.journal import replace_file
from skill1.store.run_directory import RunDirectory

INITIAL_BANK = "initial_bank.json"
JOURNAL = "journal.jsonl"


def check_bank(config: Config) -> None:
    """Raise ConfigError, EndpointError (no key) or BankError if the bank of this configuration cannot work."""
    if config.library.enabled:
        raise ConfigError("bank.enabled and library.enabled exclude each other: turn one of them off")
    if config.bank.evolve_from == "validation" and not config.train.validate_every:
        raise ConfigError("bank.evolve_from = 'validation' needs validations: set train.validate_every")
    check_teacher(config.bank)
    initial_bank(config)


def initial_bank(config: Config) -> SkillBank:
    """The bank that the configuration starts with. Raises BankError for a malformed file."""
    if config.bank.file is None:
        return SkillBank()
    return load_bank(Path(config.bank.file).expanduser(), known_categories(config.environment.name))


def stored_bank(run: RunDirectory, encoder: Encoder, step: int) -> FrozenBank:
    """The bank of a run after training step `step`, frozen; 0 = the one it started with. Raises BankError."""
    config = run.config
    if step:
        return LiveBank.load(
            run.checkpoint(step).path / "library", config.bank, config.environment.name, encoder
        ).frozen()
    bank = load_bank(run.library_dir / INITIAL_BANK, known_categories(config.environment.name))
    return FrozenBank(config.bank, config.environment.name, encoder, bank)


class BankGrowth:
    """What training does with its bank. Built on every rank; `run` is None on all but rank 0."""

    def __init__(self, config: Config, encoder: Encoder, run: RunDirectory | None) -> None:
        """Raises what `check_bank` and `initial_bank` raise."""
        check_bank(config)
        self._config = config
        self._encoder = encoder
        self._run = run
        self._state = PartialState()
        self._journal = BankJournal(run.library_dir / JOURNAL) if run else None
        self._live = LiveBank(
            config.bank, config.environment.name, encoder, initial_bank(config), seed=config.train.seed
        )

    def frozen(self) -> FrozenBank:
        """See `LiveBank.frozen`."""
        return self._live.frozen()

    def start(self) -> None:
        """Begin at the first step: keep the initial bank, forget what a run that died before has journaled.

        Raises:
            BankError: the run started before with another bank file.
        """
        if self._run is None:
            return
        if self._journal.sequence or self._journal.torn:
            self._journal.truncate(0)
        kept, text = self._run.library_dir / INITIAL_BANK, self._live.bank.to_text()
        if kept.exists() and kept.read_text(encoding="utf-8") != text:
            raise BankError(f"{self._config.bank.file} was changed since this run started with it ({kept}): restore it")
        replace_file(kept, text.encode())

    def learn(self, rollouts: Sequence[Rollout], step: int, source: Source, policy: Policy) -> dict[str, float]:
        """Look at episodes, the same on every rank, and let the bank grow if it is time; the step's metrics.

        Args:
            step: training step, from 1.
        """
        question = self._live.observe(rollouts, step, source)
        event = self._answered(question, policy) if question is not None else None
        bank = self._live.bank
        return {
            "bank/size": float(len(bank)),
            "bank/general": float(len(bank.general)),
            "bank/specific": float(len(bank.specific)),
            "bank/evolved": float(sum(entry.evolved for entry in bank.principles)),
            "bank/added": float(len(event.added)) if event else 0.0,
            "bank/refused": float(len(event.refused)) if event else 0.0,
            "bank/calls": float(self._live.sequence),
            "bank/failed_calls": float(self._live.failed),
        }

    def _answered(self, question: Question, policy: Policy) -> BankEvent:
        config, main = self._config.bank, self._state.is_main_process
        event = None
        if main or config.teacher == "policy":
            replies = (self._run.library_dir if self._run else Path()) / "replies"
            seed = (self._config.train.seed, question.step)
            answer = ask(make_teacher(config, self._live.bank, policy, seed, replies), question)
            event = self._live.learn(question, answer) if main else None
        if self._state.num_processes > 1:
            box = [event]
            broadcast_object_list(box)
            [event] = box
            if not main:
                self._live.apply(event)
        if self._journal is not None:
            self._journal.append(event)
        return event

    def close(self) -> None:
        """Say, at the end of a run, how often the teacher failed."""
        if self._live.failed and self._state.is_main_process:
            last = next(event for event in reversed(self._journal.events()) if event.error is not None)
            tqdm.write(
                f"{self._live.failed} of {self._live.sequence} calls of the teacher ({self._config.bank.teacher}) had no "
                f"usable answer, and the bank was left as it was; the last at step {last.step}: {last.error}",
                file=sys.stderr,
            )

    def save(self, folder: Path) -> None:
        """Into checkpoint-N."""
        self._live.save(folder / "library")

    def load(self, folder: Path) -> None:
        """From checkpoint-N."""
        config = self._config
        self._live = LiveBank.load(
            folder / "library", config.bank, config.environment.name, self._encoder, seed=config.train.seed
        )
        if self._journal is not None and (self._live.sequence or self._journal.sequence or self._journal.torn):
            self._journal.truncate(self._live.sequence)


def records_before(run: RunDirectory, step: int) -> dict[str, Skill]:
    """The entries as the rollouts of `step` were shown them, by id, in the form of a library's records.

    A bank has neither utilities nor counts: both are 0.
    """
    bank = load_bank(run.library_dir / INITIAL_BANK, known_categories(run.config.environment.name))
    journal = run.library_dir / JOURNAL
    for event in BankJournal(journal).events() if journal.exists() else ():
        if event.step < step:
            bank = bank.add(event.added)
    texts = {entry.id: (entry.title, entry.principle) for entry in bank.principles}
    texts |= {mistake.id: (mistake.description, mistake.avoid) for mistake in bank.mistakes}
    return {
        identity: Skill(identity, desc, strategy, "", utility=0.0, count=0, admitted=0, last_used=0, outcome="success")
        for identity, (desc, strategy) in texts.items()
    }
