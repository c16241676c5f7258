"""What a teacher call did to the bank: one line of the run's journal each, enough to do it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from skill1.methods.base import Source
from skill1.methods.skillrl.bank import Principle
from skill1.store.journal import EventJournal


@dataclass(frozen=True, slots=True)
class BankEvent:
    """One call of the teacher about failures, answered or not."""

    sequence: int  # 1 for the first call, then without gaps
    step: int
    source: Source  # the episodes that the failures are of
    success: Mapping[str, tuple[int, int]]  # category -> (won, played) of the weak ones, weakest first
    shown: tuple[str, ...]  # sentences of the lost episodes shown
    error: str | None  # why there was no answer; the bank is then unchanged
    added: tuple[Principle, ...]
    refused: tuple[str, ...]  # why each of the other entries was not added


class BankJournal(EventJournal[BankEvent]):
    """The append-only file of a run's bank events; see `EventJournal`."""

    FORMAT = "skill1-bank-journal"
    EVENT = BankEvent
