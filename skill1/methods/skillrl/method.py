"""SkillRL as a method: GRPO with the block of a skill bank in every act prompt, and a teacher that lets the bank grow.

    library/journal.jsonl        one line per teacher call
    library/initial_bank.json    the bank before the first step
    library/replies/             an endpoint's answers
    checkpoint-N/library/        the bank and what it is about to learn from (`live`)

Rank 0 alone asks, but for a teacher that is the policy: its weights may be spread over the ranks, so all of them write
and rank 0's answer counts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tqdm.auto import tqdm

from skill1.config import Config, MethodConfig
from skill1.encoder import load_encoder
from skill1.methods.base import Method, Source
from skill1.methods.skillrl.bank import BankError, SkillBank, load_bank
from skill1.methods.skillrl.categories import known_categories
from skill1.methods.skillrl.events import BankEvent, BankJournal
from skill1.methods.skillrl.live import Answer, LiveBank, Question, ask_teacher
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.methods.skillrl.prompts import BankPrompts
from skill1.methods.skillrl.retrieval import FrozenBank
from skill1.methods.skillrl.teacher import check_teacher, make_teacher
from skill1.prompts import method_prompts
from skill1.records import Rollout, Skill
from skill1.registry import ConfigError
from skill1.rollout import Ask, Episode, Stages
from skill1.store.atomic import replace_file

if TYPE_CHECKING:  # what only reads rollouts need not load torch
    from skill1.policy import Policy

INITIAL_BANK = "initial_bank.json"
JOURNAL = "journal.jsonl"


def initial_bank(config: Config) -> SkillBank:
    """Read the bank that the configuration starts with. Raises BankError for a malformed file."""
    file = SkillRLConfig.of(config).bank
    return SkillBank() if file is None else load_bank(Path(file).expanduser(), _categories(config))


def _categories(config: Config) -> tuple[str, ...]:
    return known_categories(config.environment.name)


class ShownBank(Stages):
    """Acting with what a bank, as it is now, has for each task: no call of the policy."""

    def __init__(self, config: Config, bank: FrozenBank) -> None:
        self._skill_from = 0 if SkillRLConfig.of(config).first_step else 1
        self._bank = bank
        self._prompts: BankPrompts = method_prompts(config)

    def begin(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """Show each episode what the bank has for the task's sentence."""
        with ask.timed("retrieve"):
            found = self._bank.retrieve([e.start.instruction for e in episodes])
            for e, shown in zip(episodes, found, strict=True):
                e.candidates, e.ranking = shown.candidates, tuple(range(len(shown.candidates)))
                e.skill = self._prompts.bank_block(shown.general, shown.specific, shown.mistakes)
                e.skill_from = self._skill_from


class SkillRL(Method):
    """Plain GRPO beside a bank that a teacher writes."""

    Options: ClassVar[type[MethodConfig]] = SkillRLConfig
    keeps_skills: ClassVar[bool] = True

    def __init__(self, config: Config, folder: Path | None = None) -> None:
        super().__init__(config, folder)
        self._options = SkillRLConfig.of(config)
        self._encoder = load_encoder(self._options.encoder)
        self._journal = None if folder is None else BankJournal(folder / JOURNAL)
        self.skills: LiveBank = LiveBank(config, self._encoder, SkillBank())
        self._question: Question | None = None  # of this step, and its answer where every rank had to ask
        self._answer: Answer | None = None
        self._policy: Policy | None = None

    @classmethod
    def check(cls, config: Config) -> None:
        """See `Method.check`."""
        if SkillRLConfig.of(config).evolve_from == "validation" and not config.train.validate_every:
            raise ConfigError("method.evolve_from = 'validation' needs validations: set train.validate_every")

    @classmethod
    def check_start(cls, config: Config) -> None:
        """See `Method.check_start`.

        Raises:
            ConfigError: the prompt set has no words for a bank.
            EndpointError: no key.
            BankError: a malformed file.
        """
        method_prompts(config)
        check_teacher(SkillRLConfig.of(config))
        initial_bank(config)

    @classmethod
    def skills_shown(cls, config: Config) -> tuple[int, float]:
        """See `Method.skills_shown`.

        Evolved principles have a budget of their own where the configuration gives them one. Of "template" retrieval,
        which shows all principles of a category, it is assumed that they are `specific_top_k`.
        """
        options = SkillRLConfig.of(config)
        budgets = 2 if options.general_budget == "own" and options.evolve_from != "never" else 1
        return min(options.limit, budgets * options.top_k + options.specific_top_k + options.mistakes), 1.0

    @classmethod
    def starts_with_skills(cls, config: Config) -> bool:
        """See `Method.starts_with_skills`."""
        return SkillRLConfig.of(config).bank is not None

    @classmethod
    def leak(cls, config: Config) -> str | None:
        """See `Method.leak`."""
        if SkillRLConfig.of(config).evolve_from != "validation":
            return None
        return "method.evolve_from = validation: the bank learns from episodes of the validation split"

    def begin(self, episodes: Sequence[Episode], ask: Ask) -> None:
        """See `ShownBank`."""
        self.frozen().begin(episodes, ask)

    def frozen(self) -> Stages:
        """See `Method.frozen`."""
        return ShownBank(self.config, self.skills.frozen())

    # -- learning -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """See `Method.start`; the initial bank is kept beside the journal.

        Raises:
            BankError: a malformed bank file, or the run started before with another one.
        """
        self.skills = LiveBank(self.config, self._encoder, initial_bank(self.config))
        if self.folder is None or self._journal is None:
            return
        if self._journal.sequence or self._journal.torn:
            self._journal.truncate(0)
        kept, text = self.folder / INITIAL_BANK, self.skills.bank.to_text()
        if kept.exists() and kept.read_text(encoding="utf-8") != text:
            raise BankError(f"{self._options.bank} was changed since this run started with it ({kept}): restore it")
        replace_file(kept, text.encode())

    def observe(self, rollouts: Sequence[Rollout], step: int, source: Source, policy: Policy) -> None:
        """Look at episodes; if it is time to ask and the policy is the teacher, ask it, on every rank."""
        self._question, self._answer = self.skills.observe(rollouts, step, source), None
        self._policy = policy
        if self._question is not None and self._options.teacher == "policy":
            self._answer = self._ask(self._question)

    def learn(self, rollouts: Sequence[Rollout], step: int, source: Source) -> BankEvent | None:
        """Let the bank grow by what the teacher answers about the failures observed, if it is time."""
        if self._question is None:
            return None
        event = self.skills.learn(self._question, self._answer or self._ask(self._question))
        if self._journal is not None:
            self._journal.append(event)
        return event

    def apply(self, event: BankEvent) -> None:
        """See `Method.apply`."""
        self.skills.apply(event)

    def state(self, event: BankEvent | None) -> dict[str, float]:
        """Report the size of the bank, and the calls of its teacher."""
        bank = self.skills.bank
        return {
            "bank/size": float(len(bank)),
            "bank/general": float(len(bank.general)),
            "bank/specific": float(len(bank.specific)),
            "bank/evolved": float(sum(entry.evolved for entry in bank.principles)),
            "bank/added": float(len(event.added)) if event else 0.0,
            "bank/refused": float(len(event.refused)) if event else 0.0,
            "bank/calls": float(self.skills.sequence),
            "bank/failed_calls": float(self.skills.failed),
        }

    def _ask(self, question: Question) -> Answer:
        replies = (self.folder or Path()) / "replies"
        seed = (self.config.train.seed, question.step)
        assert self._policy is not None, "observe comes before learn"
        return ask_teacher(make_teacher(self._options, self._policy, seed, replies), question)

    def close(self) -> None:
        """Say, at the end of a run, how often the teacher failed."""
        if self.skills.failed and self._journal is not None:
            last = next(event for event in reversed(self._journal.events()) if event.error is not None)
            tqdm.write(
                f"{self.skills.failed} of {self.skills.sequence} calls of the teacher ({self._options.teacher}) had "
                f"no usable answer, and the bank was left as it was; the last at step {last.step}: {last.error}",
                file=sys.stderr,
            )

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        self.skills.save(folder / "library")

    def load(self, folder: Path) -> None:
        """See `Method.load`."""
        self.load_skills(folder / "library")
        if self._journal is not None and (self.skills.sequence or self._journal.sequence or self._journal.torn):
            self._journal.truncate(self.skills.sequence)

    def load_skills(self, folder: Path) -> None:
        """See `Method.load_skills`."""
        self.skills = LiveBank.load(folder, self.config, self._encoder)

    def load_initial(self, folder: Path) -> None:
        """See `Method.load_initial`."""
        bank = load_bank(folder / INITIAL_BANK, _categories(self.config))
        self.skills = LiveBank(self.config, self._encoder, bank)

    def skill_table(self) -> list[dict[str, Any]]:
        """See `Method.skill_table`: section by section."""
        columns = ("id", "section", "title", "principle, or how to avoid it", "when it helps, or why it happens")
        bank = self.skills.bank
        entries = [(e.id, e.category or "general", e.title, e.principle, e.when) for e in bank.principles]
        mistakes = [(e.id, "mistake", e.description, e.avoid, e.why) for e in bank.mistakes]
        return [dict(zip(columns, entry, strict=True)) for entry in entries + mistakes]

    @classmethod
    def skills_before(cls, config: Config, folder: Path, step: int) -> Mapping[str, Skill]:
        """See `Method.skills_before`. A bank has neither utilities nor counts: both are 0."""
        bank = load_bank(folder / INITIAL_BANK, _categories(config))
        journal = folder / JOURNAL
        for event in BankJournal(journal).events() if journal.exists() else ():
            if event.step < step:
                bank = bank.add(event.added)
        texts = {entry.id: (entry.title, entry.principle) for entry in bank.principles}
        texts |= {mistake.id: (mistake.description, mistake.avoid) for mistake in bank.mistakes}
        return {
            identity: Skill(
                identity, desc, strategy, "", utility=0.0, count=0, admitted=0, last_used=0, outcome="success"
            )
            for identity, (desc, strategy) in texts.items()
        }
